"""Cal-QL (Nakamoto et al., NeurIPS 2023), and with one switch off CQL, with w = 0 SAC: losses and one update.

E critics Q_i, targets Q-bar_i, policy pi, replay sample (s, a, r, s', d, R) with d = 1 only where the episode really
terminated, and R the Monte-Carlo return-to-go. Shapes: B batch, n sampled actions, A action dimensions.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agent.config import CalQLConfig, NetworkConfig
from agent.networks import Critics
from agent.policy import Policy
from agent.replay import Batch
from agent.spec import Spec


def td_target(q_next: Tensor, rewards: Tensor, terminated: Tensor, gamma: float) -> Tensor:
    """y = r + gamma (1 - d) max_j min_i Q-bar_i(s', a'_j); q_next (members, B, n) -> (B,)."""
    return rewards + gamma * (1 - terminated) * q_next.amin(0).amax(-1)


def td_loss(q_data: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each critic, without 1/2; (E, B), (B,) -> (E,)."""
    return (q_data - target).square().mean(-1)


def calibrated(q: Tensor, returns: Tensor) -> Tensor:
    """max(Q_i, R): a policy sample is not pushed below what the data achieved. (E, B, n), (B,) -> (E, B, n)."""
    return torch.maximum(q, returns[:, None])


def conservative_difference(
    q_uniform: Tensor,  # (E, B, n)
    q_current: Tensor,  # (E, B, n), a ~ pi(.|s)
    q_next: Tensor,  # (E, B, n), a ~ pi(.|s'), valued at s
    q_data: Tensor,  # (E, B)
    log_current: Tensor,  # (B, n)
    log_next: Tensor,  # (B, n)
    returns: Tensor,  # (B,)
    action_dim: int,
    config: CalQLConfig,
) -> Tensor:
    """Delta_i = mean of clip(LSE_i - Q_i(s, a_data)) over the batch, for each critic by itself -> (E,)."""
    if config.calibrate:  # this is Cal-QL; without it the rest is CQL
        q_current, q_next = calibrated(q_current, returns), calibrated(q_next, returns)
    if config.importance_sampling:
        terms = [q_uniform + action_dim * math.log(2), q_next - log_next, q_current - log_current]
    else:
        terms = [q_uniform, q_next, q_current, q_data[..., None]]
    lse = torch.cat(terms, -1).logsumexp(-1)  # (E, B)
    return (lse - q_data).clamp(config.cql_clip_low, config.cql_clip_high).mean(-1)


def lagrange_loss(log_multiplier: Tensor, difference: Tensor, weight: float, threshold: float) -> Tensor:
    """-1/2 sum_i alpha' w (Delta_i - tau): alpha' = exp(lambda) rises while the mean Delta exceeds tau."""
    return -0.5 * (multiplier(log_multiplier) * weight * (difference.detach() - threshold)).sum()


def multiplier(log_multiplier: Tensor) -> Tensor:
    return log_multiplier.exp().clamp(0, 1e6)


@dataclass(frozen=True)
class Weights:
    """What differs between the stages of a run."""

    cql: float
    bc: float


class CalQL:
    """Policy, critics, targets, temperature, lambda and their optimisers; `update` is one gradient step of each.

    average: running mean of the policy's weights (Polyak and Juditsky 1992), what robots and evaluations get; learning
    itself never looks at it.
    """

    def __init__(
        self, spec: Spec, network: NetworkConfig, config: CalQLConfig, device: torch.device, seed: int
    ) -> None:
        torch.manual_seed(seed)  # initial parameters
        self.config, self.device = config, device
        self.action_dim = spec.action_dim
        self.policy = Policy(spec, network).to(device)
        self.average = copy.deepcopy(self.policy).requires_grad_(False)  # what acts
        self.updates = 0
        self.critics = Critics(self.policy.encoder.dim, spec.action_dim, network).to(device)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.tensor(math.log(config.initial_temperature), device=device))
        self.log_multiplier = nn.Parameter(torch.tensor(1.0, device=device))  # lambda
        self.target_entropy = config.target_entropy * spec.action_dim
        self.generator = torch.Generator(device).manual_seed(seed)
        encoder = [p for p in self.policy.encoder.parameters() if p.requires_grad]
        self.parameters: dict[str, list[nn.Parameter]] = {
            "critic": [*self.critics.parameters(), *encoder],
            "actor": list(self.policy.actor.parameters()),
            "temperature": [self.log_alpha],
            "lagrange": [self.log_multiplier],
        }
        rates = {name: getattr(config, f"{name}_lr") for name in self.parameters}
        self.optimizers = {n: torch.optim.Adam(p, rates[n], fused=True) for n, p in self.parameters.items()}

    def start_critics_at(self, value: float) -> None:
        """Set the last bias of critics and targets: Q begins where the data's returns are, not at 0 far above them."""
        for critics in (self.critics, self.targets):
            with torch.no_grad():
                critics.biases[-1].fill_(value)

    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """Set what states are centred on and divided by, each (sum of state lengths,)."""
        for policy in (self.policy, self.average):
            policy.encoder.standardise(mean.to(self.device), std.to(self.device))

    def update(self, batch: Batch, weights: Weights, update_actor: bool = True) -> dict[str, Tensor]:
        """One step of every loss, all from the same parameters; targets move last. Metrics stay on the device."""
        self.policy.train()
        features = self.policy.encoder(batch.observations)  # (B, F), with gradient for the critics
        with torch.no_grad():
            next_features = self.policy.encoder(batch.next_observations)
        losses, metrics = self.critic_loss(features, next_features, batch, weights)
        if update_actor:
            actor_losses, actor_metrics = self.actor_loss(features.detach(), batch, weights)
            losses, metrics = losses | actor_losses, metrics | actor_metrics
        for name, loss in losses.items():
            gradients = torch.autograd.grad(loss, self.parameters[name])  # each reaches its own parameters only
            for parameter, gradient in zip(self.parameters[name], gradients, strict=True):
                parameter.grad = gradient
        for name in losses:
            self.optimizers[name].step()
        with torch.no_grad():
            for target, online in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                target.lerp_(online, self.config.target_rate)
            self.updates += 1  # a plain mean at first, so that what the networks began with is forgotten
            rate = max(1 - self.config.policy_average, 1 / self.updates)
            for mean, newest in zip(self.average.parameters(), self.policy.parameters(), strict=True):
                mean.lerp_(newest, rate)
        return metrics

    def critic_loss(
        self, features: Tensor, next_features: Tensor, batch: Batch, weights: Weights
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        config, n = self.config, self.config.cql_actions
        with torch.no_grad():
            next_policy = self.policy.actor(next_features)
            target = self.target(next_features, next_policy, batch)
        metrics: dict[str, Tensor] = {"q_target": target.mean(), "return_to_go": batch.returns.mean()}
        if weights.cql == 0:
            q_data = self.critics(features, batch.actions[:, None]).squeeze(-1)  # (E, B)
            loss = td_loss(q_data, target).sum()
            metrics |= {"q_data": q_data.mean(), "td_loss": loss / len(q_data)}
            return {"critic": loss}, _detached(metrics)

        with torch.no_grad():
            current, log_current = self.policy.actor(features.detach()).sample(n, self.generator)
            following, log_next = next_policy.sample(n, self.generator)
            uniform = torch.rand(current.shape, generator=self.generator, device=self.device) * 2 - 1
        actions = torch.cat([batch.actions[:, None], uniform, current, following], 1)  # (B, 1 + 3n, A)
        q = self.critics(features, actions)  # (E, B, 1 + 3n)
        q_data, (q_uniform, q_current, q_next) = q[..., 0], q[..., 1:].split(n, -1)
        td = td_loss(q_data, target)  # (E,)
        difference = conservative_difference(
            q_uniform, q_current, q_next, q_data, log_current, log_next, batch.returns, self.action_dim, config
        )  # (E,)
        losses = {}
        if config.lagrange_threshold is None:
            loss = (td + weights.cql * difference).sum()
        else:
            alpha_prime, threshold = multiplier(self.log_multiplier).detach(), config.lagrange_threshold
            loss = (td + alpha_prime * weights.cql * (difference - threshold)).sum()
            losses["lagrange"] = lagrange_loss(self.log_multiplier, difference, weights.cql, threshold)
            metrics["alpha_prime"] = alpha_prime
        losses["critic"] = loss
        bound = batch.returns[:, None]
        metrics |= {
            "td_loss": td.mean(),
            "cql_difference": difference.mean(),
            "q_data": q_data.mean(),
            "q_policy": q_current.mean(),
            "q_uniform": q_uniform.mean(),
            "bound_rate_current": (q_current < bound).float().mean((1, 2)),  # (E,), per critic
            "bound_rate_next": (q_next < bound).float().mean((1, 2)),
        }
        return losses, _detached(metrics)

    def target(self, next_features: Tensor, next_policy: Any, batch: Batch) -> Tensor:
        """The TD target (B,); call without gradient."""
        config = self.config
        count = config.cql_actions if config.max_target_backup else 1
        actions, log_prob = next_policy.sample(count, self.generator)
        members = None
        if 0 < config.target_subset < len(self.targets.weights[0]):
            order = torch.rand(len(self.targets.weights[0]), generator=self.generator, device=self.device).argsort()
            members = order[: config.target_subset]
        q_next = self.targets(next_features, actions, members)  # (members, B, n)
        if config.entropy_backup:
            q_next = q_next - self.log_alpha.exp() * log_prob
        return td_target(q_next, batch.rewards, batch.terminated, config.gamma)

    def actor_loss(
        self, features: Tensor, batch: Batch, weights: Weights
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """mean(alpha log pi(a|s) - Q(s, a)) + b |mode - a_data|^2, and the temperature's loss; detached features."""
        policy = self.policy.actor(features)
        actions, log_prob = policy.sample(1, self.generator)  # (B, 1, A), (B, 1)
        q = self.critics(features, actions)  # (E, B, 1)
        q = q.amin(0) if self.config.actor_q == "min" else q.mean(0)
        alpha = self.log_alpha.exp()
        loss = (alpha.detach() * log_prob - q).mean()
        cloning = (policy.mode - batch.actions).square().sum(-1)  # (B,)
        if self.config.bc_filter == "success":
            cloning = cloning * batch.succeeded
        losses = {
            "actor": loss + weights.bc * cloning.mean(),
            "temperature": -self.log_alpha * (log_prob.detach().mean() + self.target_entropy),
        }
        metrics = {"actor_loss": loss, "bc_loss": cloning.mean(), "entropy": -log_prob.mean(), "alpha": alpha}
        return losses, _detached(metrics)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on, the random state included."""
        return {
            "policy": self.policy.state_dict(),
            "average": self.average.state_dict(),
            "updates": self.updates,
            "critics": self.critics.state_dict(),
            "targets": self.targets.state_dict(),
            "log_alpha": self.log_alpha.detach(),
            "log_multiplier": self.log_multiplier.detach(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.average.load_state_dict(state["average"])
        self.updates = state["updates"]
        self.critics.load_state_dict(state["critics"])
        self.targets.load_state_dict(state["targets"])
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])
            self.log_multiplier.copy_(state["log_multiplier"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
            optimizer.param_groups[0]["lr"] = getattr(self.config, f"{name}_lr")  # this run's, not the checkpoint's
        if state["generator"].shape == self.generator.get_state().shape:  # else it was saved on another device
            self.generator.set_state(state["generator"].cpu())


def _detached(metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in metrics.items()}
