"""Cal-QL (Nakamoto et al., NeurIPS 2023), and with one switch off CQL, with w = 0 SAC: losses and one update.

E critics Q_i, targets Q-bar_i, policy pi, replay sample (s, a, r, s', d, R) with d = 1 only where the episode really
terminated, and R the Monte-Carlo return-to-go. Shapes: B batch, n sampled actions, A action dimensions.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agent.calql.adam import Adam
from agent.calql.gradient_clipping import clip
from agent.calql.losses import conservative_difference, lagrange_loss, multiplier, td_loss, td_target
from agent.config import CalQLConfig, NetworkConfig
from agent.critics import Critics
from agent.data.replay_buffer import Batch
from agent.networks import TanhNormal
from agent.policy import Policy
from agent.spec import Spec, UserError


@dataclass(frozen=True)
class Weights:
    """What differs between the stages of a run. conservative: whether there is a conservative term at all."""

    cql: float | Tensor
    bc: float | Tensor
    conservative: bool = None  # type: ignore[assignment] # whether cql is not 0

    def __post_init__(self) -> None:
        if self.conservative is None:
            object.__setattr__(self, "conservative", bool(self.cql != 0))


Noise = dict[str, Tensor]
Losses = tuple[dict[str, Tensor], dict[str, Tensor]]  # losses by the parameters that they train, and metrics


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
        self.critics = Critics(self.policy.encoder.dim, self.action_dim, network).to(device)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.tensor(math.log(config.initial_temperature), device=device))
        self.log_multiplier = nn.Parameter(torch.tensor(1.0, device=device))  # lambda
        self.target_entropy = config.target_entropy * self.action_dim
        self.generator = torch.Generator(device).manual_seed(seed)
        encoder = [p for p in self.policy.encoder.parameters() if p.requires_grad]
        self.parameters: dict[str, list[nn.Parameter]] = {
            "critic": [*self.critics.parameters(), *encoder],
            "actor": list(self.policy.actor.parameters()),
            "temperature": [self.log_alpha],
            "lagrange": [self.log_multiplier],
        }
        rates = {name: getattr(config, f"{name}_lr") for name in self.parameters}
        graphs = device.type == "cuda"
        self.optimizers = {n: Adam(p, rates[n], fused=True, capturable=graphs) for n, p in self.parameters.items()}
        self._weights = Weights(torch.zeros((), device=device), torch.zeros((), device=device), True)
        self.losses = self._losses  # agent.calql.acceleration may put a compiled one here
        self.bf16 = "off"  # and this on: "encoder" or "all"
        # agent.run.distributed sets both: mean over the processes, and (rank, ranks) of those that share each batch
        self.reduce: Callable[[list[Tensor]], None] = lambda gradients: None
        self.shard = (0, 1)

    def start_critics_at(self, value: float) -> None:
        """Set the last bias of critics and targets: Q begins where the data's returns are, not at 0 far above them."""
        for critics in (self.critics, self.targets):
            with torch.no_grad():
                critics.biases[-1].fill_(value)

    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """Set what states are centred on and divided by, each (sum of state lengths,)."""
        for policy in (self.policy, self.average):
            policy.encoder.standardise(mean.to(self.device), std.to(self.device))

    def learn(self, batch: Batch, weights: Weights, update_actor: bool = True) -> dict[str, Tensor]:
        """`update` on randomly shifted images."""
        return self.update(batch.augmented(self.config.augment_pad, self.generator, self.shard), weights, update_actor)

    def update(self, batch: Batch, weights: Weights, update_actor: bool = True) -> dict[str, Tensor]:
        """One step of every loss, all from the same parameters; targets move last. Metrics stay on the device."""
        self.set_weights(weights)
        metrics = self.step(batch, weights.conservative, update_actor)
        self.average_policy()
        return metrics

    def set_weights(self, weights: Weights) -> None:
        self._weights.cql.fill_(weights.cql)  # type: ignore[union-attr]
        self._weights.bc.fill_(weights.bc)  # type: ignore[union-attr]

    def step(self, batch: Batch, conservative: bool, update_actor: bool) -> dict[str, Tensor]:
        """All of `update` but the mean, weights set before: the same kernels always, no word to or from the host."""
        self.policy.train()
        weights = Weights(self._weights.cql, self._weights.bc, conservative)
        noise = self.draw(len(batch.actions), conservative, update_actor)
        losses, metrics = self.losses(batch, noise, weights, update_actor)
        # Each loss reaches its own parameters only, so one backward pass gives every gradient.
        trained = [parameter for name in losses for parameter in self.parameters[name]]
        found = torch.autograd.grad(sum(losses.values()), trained)  # type: ignore[arg-type]
        gradients = [_laid_out_as(parameter, gradient) for parameter, gradient in zip(trained, found, strict=True)]
        self.reduce(gradients)
        metrics |= self.clip(gradients, losses)
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad = gradient
        for name in losses:
            self.optimizers[name].step()
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.targets.parameters()), list(self.critics.parameters()), self.config.target_rate
            )
        return _detached(metrics)

    def clip(self, gradients: list[Tensor], names: Iterable[str]) -> dict[str, Tensor]:
        """Critics' and the actor's, each by themselves; how long they were. names: groups, in the gradients' order."""
        metrics = {}
        for name in names:
            own, gradients = gradients[: len(self.parameters[name])], gradients[len(self.parameters[name]) :]
            if name in ("critic", "actor"):
                metrics[f"{name}_gradient"] = clip(own, self.optimizers[name], self.config.gradient_clip)
        return metrics

    def average_policy(self) -> None:
        """Count an update, and take its policy into the mean, with a weight that changes from update to update."""
        self.updates += 1
        rate = max(1 - self.config.policy_average, 1 / self.updates)  # a plain mean at first: it forgets its beginning
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.policy.parameters()), rate)

    def check_alive(self) -> None:
        """Raise UserError when learning has diverged: nothing that comes after would be worth keeping."""
        groups = [torch.stack([p.isfinite().all() for p in group]).all() for group in self.parameters.values()]
        for name, alive in zip(self.parameters, torch.stack(groups).tolist(), strict=True):  # one wait for the device
            if not alive:
                raise UserError(f"learning has diverged: the {name}'s parameters are not finite (learning rates?)")

    def draw(self, batch: int, conservative: bool, update_actor: bool) -> Noise:
        """Every random number of one update: standard normals for policy samples, uniform actions, target members."""
        rank, ranks = self.shard
        n = self.config.cql_actions
        options: Any = {"generator": self.generator, "device": self.device}

        def mine(draw: Callable[..., Tensor], samples: int) -> Tensor:  # all processes draw alike, and take their part
            return draw((batch * ranks, samples, self.action_dim), **options)[rank::ranks]

        noise = {"target": mine(torch.randn, n if self.config.max_target_backup else 1)}
        members = len(self.targets.weights[0])
        if 0 < self.config.target_subset < members:
            noise["members"] = torch.rand(members, **options).argsort()[: self.config.target_subset]
        if conservative:
            noise |= {"current": mine(torch.randn, n), "next": mine(torch.randn, n)}
            noise["uniform"] = mine(torch.rand, n) * 2 - 1
        if update_actor:
            noise["actor"] = mine(torch.randn, 1)
        return noise

    def _losses(self, batch: Batch, noise: Noise, weights: Weights, update_actor: bool) -> Losses:
        with self._autocast(self.bf16 != "off"):
            full = self.log_alpha.dtype  # of the parameters, whatever autocast computes in
            features = self.policy.encoder(batch.observations).to(full)  # (B, F), with gradient for the critics
            with torch.no_grad():
                next_features = self.policy.encoder(batch.next_observations).to(full)
        with self._autocast(self.bf16 == "all"):
            losses, metrics = self.critic_loss(features, next_features, batch, weights, noise)
            if update_actor:
                actor_losses, actor_metrics = self.actor_loss(features.detach(), batch, weights, noise)
                losses, metrics = losses | actor_losses, metrics | actor_metrics
        return losses, metrics

    def _autocast(self, on: bool) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=on)

    def critic_loss(
        self, features: Tensor, next_features: Tensor, batch: Batch, weights: Weights, noise: Noise
    ) -> Losses:
        config, n = self.config, self.config.cql_actions
        with torch.no_grad():
            next_policy = self.policy.actor(next_features)
            target = self.target(next_features, next_policy, batch, noise)
        metrics: dict[str, Tensor] = {"q_target": target.mean(), "return_to_go": batch.returns.mean()}
        if not weights.conservative:
            q_data = self.critics(features, batch.actions[:, None]).squeeze(-1)  # (E, B)
            loss = td_loss(q_data, target).sum()
            return {"critic": loss}, metrics | {"q_data": q_data.mean(), "td_loss": loss / len(q_data)}

        with torch.no_grad():
            current, log_current = self.policy.actor(features.detach()).sample(noise["current"])
            following, log_next = next_policy.sample(noise["next"])
        actions = torch.cat([batch.actions[:, None], noise["uniform"], current, following], 1)  # (B, 1 + 3n, A)
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
        return losses, metrics

    def target(self, next_features: Tensor, next_policy: TanhNormal, batch: Batch, noise: Noise) -> Tensor:
        """The TD target (B,); call without gradient."""
        actions, log_prob = next_policy.sample(noise["target"])
        q_next = self.targets(next_features, actions, noise.get("members"))  # (members, B, n)
        if self.config.entropy_backup:
            q_next = q_next - self.log_alpha.exp() * log_prob
        return td_target(q_next, batch.rewards, batch.terminated, self.config.gamma)

    def actor_loss(self, features: Tensor, batch: Batch, weights: Weights, noise: Noise) -> Losses:
        """mean(alpha log pi(a|s) - Q(s, a)) + b |mode - a_data|^2, and the temperature's loss; detached features."""
        policy = self.policy.actor(features)
        actions, log_prob = policy.sample(noise["actor"])  # (B, 1, A), (B, 1)
        q = self.critics(features, actions, frozen=True)  # (E, B, 1)
        q = q.amin(0) if self.config.actor_q == "min" else q.mean(0)
        alpha = self.log_alpha.exp()
        loss = (alpha.detach() * log_prob - q).mean()
        cloned = batch.succeeded if self.config.bc_filter == "success" else 1.0
        cloning = ((policy.mode - batch.actions).square().sum(-1) * cloned).mean()
        losses = {
            "actor": loss + weights.bc * cloning,
            "temperature": -self.log_alpha * (log_prob.detach().mean() + self.target_entropy),
        }
        return losses, {"actor_loss": loss, "bc_loss": cloning, "entropy": -log_prob.mean(), "alpha": alpha}

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
            saved = state["optimizers"][name]
            of_saved, own = saved["param_groups"][0]["params"], optimizer.param_groups[0]
            # Rates, and what the device asks for, are this run's, not the checkpoint's.
            optimizer.load_state_dict({**saved, "param_groups": [{**own, "params": of_saved}]})
        if state["generator"].shape == self.generator.get_state().shape:  # else it was saved on another device
            self.generator.set_state(state["generator"].cpu())


def _laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in its parameter's memory layout: fused optimisers take it for granted, and autograd may differ."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _detached(metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in metrics.items()}
