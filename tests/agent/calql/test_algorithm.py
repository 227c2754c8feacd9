"""Cal-QL's losses and its update, against numpy, torch.distributions and plain autograd written for these tests.

test_pNN: property NN of the algorithm's reference that ships with the project's notes.
"""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from agent.calql.algorithm import CalQL, Weights
from agent.calql.losses import (
    calibrated,
    conservative_difference,
    lagrange_loss,
    multiplier,
    td_loss,
    td_target,
)
from agent.config import CalQLConfig, NetworkConfig, RewardConfig
from agent.critics import Critics
from agent.data.replay_buffer import Batch, Replay
from agent.networks import TanhNormal
from agent.spec import Spec, UserError

E, B, N, A = 3, 4, 5, 2
PLAIN = CalQLConfig(calibrate=True, importance_sampling=True)


def flat_state(state, prefix=""):
    """name -> tensor for every tensor and number in a nested state."""
    if isinstance(state, dict):
        return {k: v for name, part in state.items() for k, v in flat_state(part, f"{prefix}/{name}").items()}
    if isinstance(state, (list, tuple)):
        return {k: v for i, part in enumerate(state) for k, v in flat_state(part, f"{prefix}/{i}").items()}
    return {prefix: torch.as_tensor(state)} if isinstance(state, (torch.Tensor, int, float)) else {}


def assert_same(one, two):
    """Bit for bit."""
    one, two = flat_state(one), flat_state(two)
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


def random_values(seed=0, grad=True):
    """q_uniform, q_current, q_next, q_data, log_current, log_next, returns of random numbers."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(E, B, N)] * 3 + [(E, B)] + [(B, N)] * 2 + [(B,)]
    values = [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]
    for value in values[:4]:
        value.requires_grad_(grad)
    return values


def numpy_difference(q_uniform, q_current, q_next, q_data, log_current, log_next, returns, config):
    """Step by step, one number at a time."""
    q_uniform, q_current, q_next, q_data, log_current, log_next, returns = (
        np.asarray(v.detach(), np.float64)
        for v in (q_uniform, q_current, q_next, q_data, log_current, log_next, returns)
    )
    members, batch, count = q_uniform.shape
    deltas = []
    for i in range(members):
        total = 0.0
        for b in range(batch):
            terms = []
            for j in range(count):
                of_policy = []
                for q, log in ((q_current[i, b, j], log_current[b, j]), (q_next[i, b, j], log_next[b, j])):
                    q = max(q, returns[b]) if config.calibrate else q
                    of_policy.append(q - log if config.importance_sampling else q)
                uniform = q_uniform[i, b, j]
                terms += [uniform - math.log(0.5**A) if config.importance_sampling else uniform, *of_policy]
            if not config.importance_sampling:
                terms.append(q_data[i, b])
            difference = math.log(sum(math.exp(term) for term in terms)) - q_data[i, b]
            total += min(max(difference, config.cql_clip_low), config.cql_clip_high)
        deltas.append(total / batch)
    return np.array(deltas)


# ---- the pure functions ----


@pytest.mark.parametrize("calibrate", [True, False])
@pytest.mark.parametrize("sampling", [True, False])
@pytest.mark.parametrize("clip", [(-math.inf, math.inf), (2.5, 4.0)])
def test_conservative_difference_equals_numpy(calibrate, sampling, clip):
    config = CalQLConfig(calibrate=calibrate, importance_sampling=sampling, cql_clip_low=clip[0], cql_clip_high=clip[1])
    values = random_values()
    expected = numpy_difference(*values, config)
    assert conservative_difference(*values, A, config).detach().numpy() == pytest.approx(expected)


def test_td_loss_and_target_by_hand():
    q_next = torch.tensor([[[1.0, 5.0], [2.0, 3.0]], [[4.0, 2.0], [0.0, 9.0]]])  # (2 members, B = 2, n = 2)
    rewards, terminated = torch.tensor([10.0, 20.0]), torch.tensor([0.0, 1.0])
    target = td_target(q_next, rewards, terminated, 0.5)
    assert target.tolist() == [10 + 0.5 * 2, 20]  # min over members: (1, 2); max over actions: 2
    assert td_target(q_next, rewards, 0 * terminated, 0.5).tolist() == [11.0, 20 + 0.5 * 3]
    q_data = torch.tensor([[11.0, 17.0], [13.0, 20.0]])
    assert td_loss(q_data, target).tolist() == [(0 + 9) / 2, (4 + 0) / 2]  # a mean, and no half


def test_p01_minus_infinity_is_cql_in_the_pure_function():
    values = random_values()
    values[-1] = torch.full((B,), -math.inf, dtype=torch.float64)
    losses, gradients = [], []
    for calibrate in (True, False):
        loss = conservative_difference(*values, A, CalQLConfig(calibrate=calibrate))
        losses.append(loss)
        gradients.append(torch.autograd.grad(loss.sum(), values[:4]))
    assert torch.equal(*losses)
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))


def test_p03_a_clamped_sample_has_no_gradient_but_keeps_its_share():
    values = random_values()
    q_uniform, q_current, q_next, _, log_current, log_next, returns = values
    loss = conservative_difference(*values, A, PLAIN).sum()
    grads = [g.numpy() for g in torch.autograd.grad(loss, values[:4])]
    bound = returns[:, None]
    below = (q_current < bound).numpy(), (q_next < bound).numpy()
    assert 0 < below[0].mean() < 1 and 0 < below[1].mean() < 1  # the case is there
    assert (grads[1][below[0]] == 0).all() and (grads[2][below[1]] == 0).all()
    terms = np.concatenate(  # what every sample weighs in the softmax, clamped ones at R
        [
            q_uniform.detach().numpy() + A * np.log(2),
            np.maximum(q_current.detach().numpy(), bound.numpy()) - log_current.numpy(),
            np.maximum(q_next.detach().numpy(), bound.numpy()) - log_next.numpy(),
        ],
        -1,
    )
    share = np.exp(terms) / np.exp(terms).sum(-1, keepdims=True) / B
    assert grads[0] == pytest.approx(share[..., :N])
    assert grads[1] == pytest.approx(np.where(below[0], 0, share[..., N : 2 * N]))
    assert grads[2] == pytest.approx(np.where(below[1], 0, share[..., 2 * N :]))
    assert grads[3] == pytest.approx(np.full((E, B), -1 / B))


def test_p04_a_large_return_silences_policy_samples_only():
    values = random_values()
    values[-1] = torch.full((B,), 6.0, dtype=torch.float64)  # above every Q, so that uniform shares do not underflow
    uniform, current, following, data = torch.autograd.grad(
        conservative_difference(*values, A, PLAIN).sum(), values[:4]
    )
    assert (current == 0).all() and (following == 0).all()
    assert (uniform > 0).all() and (data == -1 / B).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), rise=st.floats(0, 20), sampling=st.booleans())
def test_p05_raising_the_return_never_lowers_the_lse(seed, rise, sampling):
    values = random_values(seed, grad=False)
    config = CalQLConfig(importance_sampling=sampling)
    before = conservative_difference(*values, A, config)
    values[-1] = values[-1] + rise
    assert (conservative_difference(*values, A, config) >= before - 1e-12).all()


@pytest.mark.parametrize("level", [-20.0, 0.0, 3.5])
def test_p06_constant_values_have_a_closed_form(level):
    q = torch.full((E, B, N), level, dtype=torch.float64)
    log = torch.full((B, N), -A * math.log(2), dtype=torch.float64)
    low = torch.full((B,), -1e9, dtype=torch.float64)
    lse = conservative_difference(q, q, q, torch.zeros(E, B), log, log, low, A, PLAIN)
    assert lse.tolist() == pytest.approx([level + A * math.log(2) + math.log(3 * N)] * E)


def test_p07_each_critic_is_calibrated_by_itself():
    values = random_values(grad=False)
    swapped = [v[[1, 0, 2]] if v.dim() == 3 or v.shape == (E, B) else v for v in values]
    one, other = conservative_difference(*values, A, PLAIN), conservative_difference(*swapped, A, PLAIN)
    assert torch.equal(one[[1, 0, 2]], other)
    # critic 0 far above the return, critic 1 far below: only critic 1 is clamped
    for index, move in ((0, 50.0), (1, -50.0)):
        for q in values[1:3]:
            q[index] += move
    with_bound = conservative_difference(*values, A, PLAIN)
    without = conservative_difference(*values, A, CalQLConfig(calibrate=False))
    assert with_bound[0] == without[0] and with_bound[1] > without[1] + 1e-3
    assert (calibrated(values[1], values[-1])[1] == values[-1][:, None]).all()


@pytest.mark.parametrize("threshold", [0.5, 2.0])
def test_p08_the_multiplier_follows_the_difference(threshold):
    log_multiplier = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    difference = torch.tensor([1.0, 2.5, -0.5], dtype=torch.float64, requires_grad=True)
    loss = lagrange_loss(log_multiplier, difference, 5.0, threshold)
    expected = -0.5 * math.exp(0.7) * 5.0 * (3.0 - 3 * threshold)
    assert loss.item() == pytest.approx(expected)
    slope = torch.autograd.grad(loss, log_multiplier)[0].item()
    assert slope == pytest.approx(expected)  # d/d lambda of exp(lambda) is itself
    assert (slope < 0) == (difference.mean().item() > threshold)  # descent raises alpha' exactly then
    assert not lagrange_loss(torch.tensor(1.0), difference, 5.0, 1.0).requires_grad  # and the critics get nothing
    assert multiplier(torch.tensor(100.0)).item() == 1e6


@pytest.mark.parametrize("low, high", [(1000.0, 2000.0), (-2000.0, -1000.0)])
@pytest.mark.parametrize("sampling", [True, False])
def test_p09_outside_the_clip_bounds_nothing_moves(low, high, sampling):
    values = random_values()
    config = CalQLConfig(cql_clip_low=low, cql_clip_high=high, importance_sampling=sampling)
    difference = conservative_difference(*values, A, config)
    assert difference.tolist() == [low if low > 0 else high] * E
    assert all((g == 0).all() for g in torch.autograd.grad(difference.sum(), values[:4]))


# ---- through the real update ----


VARIANTS = [
    {},
    {"max_target_backup": True, "importance_sampling": False},
    {"max_target_backup": True, "lagrange_threshold": 0.8, "cql_weight": 5.0},
    {"max_target_backup": False, "entropy_backup": True, "actor_q": "min", "target_subset": 0},
    {"cql_clip_low": 0.0, "cql_clip_high": 3.0, "bc_filter": "all"},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_p01_minus_infinity_is_cql_bit_for_bit_through_the_update(make_agent, make_batch, options):
    agents = [make_agent(calibrate=calibrate, **options) for calibrate in (True, False)]
    metrics = []
    for agent in agents:
        metrics.append([])
        for step in range(3):
            batch = make_batch(seed=step, returns=-math.inf).augmented(2, agent.generator)
            metrics[-1].append(agent.update(batch, Weights(2.0, 0.5)))
    assert_same(agents[0].state_dict(), agents[1].state_dict())
    assert_same(metrics[0], metrics[1])
    named = [p for group in agents[0].parameters.values() for p in group]
    other = [p for group in agents[1].parameters.values() for p in group]
    assert all(
        (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad) for a, b in zip(named, other, strict=True)
    )


def test_calibration_matters_through_the_update(make_agent, make_batch):
    """The counterpart of property 1: with finite returns the two differ."""
    agents = [make_agent(calibrate=calibrate) for calibrate in (True, False)]
    for agent in agents:
        agent.update(make_batch(returns=2.0), Weights(2.0, 0.0))
    assert not torch.equal(agents[0].critics.weights[0], agents[1].critics.weights[0])


class Reference:
    """SAC, plainly: separate losses, backward(), torch.distributions. Starts as a copy of `agent`."""

    def __init__(self, agent: CalQL):
        self.policy, self.critics, self.targets = map(copy.deepcopy, (agent.policy, agent.critics, agent.targets))
        self.log_alpha = agent.log_alpha.detach().clone().requires_grad_()
        self.generator = torch.Generator()
        self.generator.set_state(agent.generator.get_state())
        self.config, self.target_entropy = agent.config, agent.target_entropy
        encoder = list(self.policy.encoder.parameters())
        self.critic_step = torch.optim.Adam([*self.critics.parameters(), *encoder], agent.config.critic_lr)
        self.actor_step = torch.optim.Adam(self.policy.actor.parameters(), agent.config.actor_lr)
        self.alpha_step = torch.optim.Adam([self.log_alpha], agent.config.temperature_lr)

    def act(self, features, count):
        out = self.policy.actor(features)
        before = Independent(Normal(out.mean[:, None], out.log_std[:, None].exp()), 1)
        noise = torch.randn((len(features), count, A), generator=self.generator)
        distribution = TransformedDistribution(before, [TanhTransform(cache_size=1)])
        actions = distribution.transforms[0](out.mean[:, None] + out.log_std[:, None].exp() * noise)
        return actions, distribution.log_prob(actions)

    def update(self, batch):
        config, alpha = self.config, self.log_alpha.exp().detach()
        features = self.policy.encoder(batch.observations)
        with torch.no_grad():
            next_features = self.policy.encoder(batch.next_observations)
            actions, log_prob = self.act(next_features, config.cql_actions if config.max_target_backup else 1)
            value = self.targets(next_features, actions).min(0).values - config.entropy_backup * alpha * log_prob
            target = batch.rewards + config.gamma * (1 - batch.terminated) * value.max(1).values
        error = self.critics(features, batch.actions[:, None])[..., 0] - target
        actions, log_prob = self.act(features.detach(), 1)
        q = self.critics(features.detach(), actions)
        q = q.min(0).values if config.actor_q == "min" else q.mean(0)
        actor_loss = (alpha * log_prob - q).mean()
        alpha_loss = -(self.log_alpha * (log_prob.detach() + self.target_entropy)).mean()
        critic_grads = torch.autograd.grad((error**2).mean(1).sum(), self.critic_step.param_groups[0]["params"])
        actor_grads = torch.autograd.grad(actor_loss, self.actor_step.param_groups[0]["params"])
        alpha_grads = torch.autograd.grad(alpha_loss, [self.log_alpha])
        steps = ((self.critic_step, critic_grads), (self.actor_step, actor_grads), (self.alpha_step, alpha_grads))
        for optimizer, grads in steps:
            for parameter, grad in zip(optimizer.param_groups[0]["params"], grads, strict=True):
                parameter.grad = grad
        for optimizer, _ in steps:
            optimizer.step()
        with torch.no_grad():
            for target, parameter in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                target.copy_(config.target_rate * parameter + (1 - config.target_rate) * target)


@pytest.mark.parametrize(
    "options",
    [
        {"max_target_backup": True, "entropy_backup": False, "actor_q": "mean"},
        {"max_target_backup": False, "entropy_backup": True, "actor_q": "min"},
        {"max_target_backup": False, "entropy_backup": False, "actor_q": "min", "target_entropy": -5.0},
    ],
    ids=["max backup", "entropy backup", "plain backup"],
)
def test_p02_without_the_conservative_term_it_is_sac(make_agent, make_batch, options):
    agent = make_agent(target_subset=0, **options)
    agent.policy.train()
    reference = Reference(agent)
    for step in range(4):
        batch = make_batch(seed=step)
        agent.update(batch, Weights(cql=0.0, bc=0.0))
        reference.update(batch)
    pairs = {"policy": reference.policy, "critics": reference.critics, "targets": reference.targets}
    for name, module in pairs.items():
        for (key, mine), theirs in zip(getattr(agent, name).named_parameters(), module.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5, msg=f"{name}.{key}")
            if name != "targets":
                torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5, msg=f"{name}.{key} gradient")
    assert agent.log_alpha.item() == pytest.approx(reference.log_alpha.item(), abs=1e-6)
    assert agent.log_alpha.item() != pytest.approx(math.log(agent.config.initial_temperature), abs=1e-5)


def entropy_after(updates, **options):
    """Entropy and alpha of an agent of two action dimensions whose critics learn -|a|^2; mean of the last quarter."""
    network = NetworkConfig(actor_hidden=[16], critic_hidden=[16], critics=1, state_features=0)
    config = CalQLConfig(target_subset=0, cql_weight=0.0, **options)
    agent = CalQL(Spec({}, {"pos": 3}, 2), network, config, torch.device("cpu"), 0)
    random, entropies = torch.Generator().manual_seed(0), []
    for k in range(updates):
        states = {"pos": torch.randn(16, 3, generator=random)}
        actions = torch.rand(16, 2, generator=random) * 2 - 1
        rewards, ones = -actions.square().sum(-1), torch.ones(16)
        batch = Batch(states, states, actions, rewards, ones, rewards, 0 * ones)
        metrics = agent.update(batch, Weights(cql=0.0, bc=0.0))
        entropies += [metrics["entropy"].item()] if k >= 0.75 * updates else []
    return sum(entropies) / len(entropies), metrics["alpha"].item()


def test_entropy_comes_to_its_target_at_the_rate_that_the_warnings_advise():
    entropy, _ = entropy_after(800, temperature_lr=1e-2, target_entropy=-2.0)
    assert entropy == pytest.approx(-4.0, abs=0.4)


def test_at_the_default_rate_alpha_is_in_effect_a_setting():
    low, high = (entropy_after(200, target_entropy=target) for target in (-5.0, 1.0))
    assert low[1] == pytest.approx(0.1, rel=0.025) and high[1] == pytest.approx(0.1, rel=0.025)
    assert low[0] == pytest.approx(high[0], abs=0.1)
    assert entropy_after(4, temperature_lr=0.0)[1] == pytest.approx(0.1)


def test_what_acts_is_a_running_mean_of_the_policy(make_agent, make_batch):
    """A plain mean until there is enough to forget, then an exponential one; learning is the same without it."""
    averaged, newest = make_agent(policy_average=0.75), make_agent(policy_average=0.0)
    for agent in (averaged, newest):
        agent.standardise(torch.ones(3), torch.full((3,), 2.0))
    seen = []
    for step in range(6):
        for agent in (averaged, newest):
            agent.update(make_batch(seed=step), Weights(cql=1.0, bc=1.0))
        seen.append([p.detach().clone() for p in averaged.policy.parameters()])
    assert_same(averaged.policy.state_dict(), newest.policy.state_dict())
    assert_same(newest.average.state_dict(), newest.policy.state_dict())
    shares = (0.25 * 0.75**2, 0.25 * 0.75**2, 0.25 * 0.75**2, 0.25 * 0.75**2, 0.25 * 0.75, 0.25)
    assert sum(shares) == pytest.approx(1)
    for k, mean in enumerate(averaged.average.parameters()):
        expected = sum(share * parameters[k] for share, parameters in zip(shares, seen, strict=True))
        torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-6)
    assert not any(p.requires_grad for p in averaged.average.parameters())


def test_learning_sees_shifted_images_the_same_shift_for_both(make_agent, make_batch, monkeypatch):
    agent, batch = make_agent(augment_pad=2), make_batch()
    batch.next_observations["cam"] = batch.observations["cam"].clone()
    seen = []
    update = agent.update
    monkeypatch.setattr(agent, "update", lambda given, *rest: (seen.append(given), update(given, *rest))[1])
    for pad in (2, 0):
        agent.config = dataclasses.replace(agent.config, augment_pad=pad)
        agent.learn(batch, Weights(1.0, 0.5))
    shifted, plain = (given.observations["cam"] for given in seen)
    assert torch.equal(plain, batch.observations["cam"])
    assert sum(not torch.equal(a, b) for a, b in zip(shifted, plain, strict=True)) >= 3  # of 6; 1 of 25 stays
    assert torch.equal(shifted, seen[0].next_observations["cam"])


@pytest.mark.parametrize("name", ["critic", "actor", "temperature"])
def test_learning_that_has_diverged_is_named(make_agent, name, monkeypatch):
    agent, reads, tolist = make_agent(), [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: (reads.append(tensor.shape), tolist(tensor))[1])
    monkeypatch.setattr(torch.Tensor, "__bool__", None, raising=False)  # it would wait for the device group by group
    agent.check_alive()
    assert reads == [(4,)]
    with torch.no_grad():
        agent.parameters[name][-1].fill_(math.nan)
    with pytest.raises(UserError, match=f"diverged: the {name}'s parameters"):
        agent.check_alive()


class Spy:
    """Records every sample drawn from the policy and every call of a critic ensemble while it is on."""

    def __init__(self, monkeypatch):
        self.samples, self.calls = [], []
        sample, forward = TanhNormal.sample, Critics.forward

        def spied_sample(policy, *args, **kwargs):
            actions, log_prob = sample(policy, *args, **kwargs)
            self.samples.append((policy.mean.detach(), actions.detach(), log_prob.detach()))
            return actions, log_prob

        def spied_forward(critics, features, actions, members=None, **rest):
            q = forward(critics, features, actions, members, **rest)
            self.calls.append((critics, features, actions.detach(), members, q))
            return q

        monkeypatch.setattr(TanhNormal, "sample", spied_sample)
        monkeypatch.setattr(Critics, "forward", spied_forward)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_critic_loss_equals_numpy_with_the_right_actions_in_the_right_places(
    make_agent, make_batch, monkeypatch, options
):
    agent, batch = make_agent(**options), make_batch(returns=np.linspace(-2, 2, 6))
    config, n = agent.config, agent.config.cql_actions
    features, next_features = agent.policy.encoder(batch.observations), agent.policy.encoder(batch.next_observations)
    here, there = agent.policy.actor(features).mean, agent.policy.actor(next_features).mean
    spy = Spy(monkeypatch)
    noise = agent.draw(6, True, False)
    losses, metrics = agent.critic_loss(features, next_features.detach(), batch, Weights(3.0, 0.0), noise)

    target_call = next(call for call in spy.calls if call[0] is agent.targets)
    data_calls = [call for call in spy.calls if call[0] is agent.critics]
    at_next = [(a, log) for mean, a, log in spy.samples if torch.equal(mean, there)]
    at_current = [(a, log) for mean, a, log in spy.samples if torch.equal(mean, here)]
    assert len(data_calls) == 1 and len(at_next) == 2 and len(at_current) == 1

    # the target: from s', its own actions, its own members
    _, seen_features, actions, _, q_next = target_call
    assert torch.equal(seen_features, next_features)
    backup = [log for a, log in at_next if a.shape == actions.shape and torch.equal(a, actions)]
    assert len(backup) == 1 and actions.shape[1] == (n if config.max_target_backup else 1)
    assert q_next.shape[0] == (config.target_subset or 3)
    value = q_next.detach().numpy() - config.entropy_backup * agent.log_alpha.exp().item() * backup[0].numpy()
    y = batch.rewards.numpy() + config.gamma * (1 - batch.terminated.numpy()) * value.min(0).max(1)

    # the conservative term: at s, the data action and three sets of n
    _, seen_features, actions, _, q = data_calls[0]
    assert torch.equal(seen_features, features) and actions.shape[1] == 1 + 3 * n
    places = {"data": batch.actions[:, None], "current": at_current[0][0]}
    following, log_next = next((a, log) for a, log in at_next if not torch.equal(a, target_call[2]))
    places["next"] = following
    slots = {}
    for name, wanted in places.items():
        width = wanted.shape[1]
        slots[name] = next(
            range(k, k + width) for k in range(1 + 3 * n) if torch.equal(actions[:, k : k + width], wanted)
        )
    slots["uniform"] = [k for k in range(1 + 3 * n) if not any(k in slots[name] for name in slots)]
    uniform = actions[:, slots["uniform"]]
    assert len(slots["uniform"]) == n and uniform.min() < -0.5 and uniform.max() > 0.5 and uniform.abs().max() <= 1
    part = {name: q[:, :, list(where)] for name, where in slots.items()}
    delta = numpy_difference(
        part["uniform"], part["current"], part["next"], part["data"][..., 0], at_current[0][1], log_next,
        batch.returns, config,
    )  # fmt: skip
    td = ((part["data"][..., 0].detach().numpy() - y) ** 2).mean(1)
    if config.lagrange_threshold is None:
        expected = (td + 3.0 * delta).sum()
    else:
        expected = (td + math.e * 3.0 * (delta - config.lagrange_threshold)).sum()  # alpha' = exp(1) at first
        assert losses["lagrange"].item() == pytest.approx(
            -0.5 * math.e * 3.0 * (delta - config.lagrange_threshold).sum(), rel=1e-4
        )
    assert losses["critic"].item() == pytest.approx(expected, rel=1e-4)
    for name in ("current", "next"):
        rate = (part[name] < batch.returns[:, None]).float().mean((1, 2))
        assert metrics[f"bound_rate_{name}"].tolist() == pytest.approx(rate.tolist())
    assert metrics["q_data"].item() == pytest.approx(part["data"].mean().item(), rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"actor_q": "min", "bc_filter": "all"}], ids=str)
def test_actor_and_temperature_loss_equal_numpy(make_agent, make_batch, monkeypatch, options):
    agent, batch = make_agent(**options), make_batch()
    features = agent.policy.encoder(batch.observations).detach()
    spy = Spy(monkeypatch)
    losses, _ = agent.actor_loss(features, batch, Weights(3.0, 0.7), agent.draw(6, False, True))
    (mean, _, log_prob), q = spy.samples[0], spy.calls[0][-1].detach().numpy()
    assert len(spy.samples) == 1
    q = q.min(0) if options.get("actor_q") == "min" else q.mean(0)
    alpha = 0.1
    cloning = ((np.tanh(mean.numpy()) - batch.actions.numpy()) ** 2).sum(1)
    if not options:
        cloning = cloning * np.array([1, 0, 1, 0, 1, 0])  # of successful episodes only
    expected = (alpha * log_prob.numpy() - q).mean() + 0.7 * cloning.mean()
    assert losses["actor"].item() == pytest.approx(expected, rel=1e-4)
    assert losses["temperature"].item() == pytest.approx(
        -math.log(alpha) * (log_prob.mean().item() - agent.action_dim / 2), rel=1e-4
    )


@pytest.mark.parametrize("options", [{}, {"lagrange_threshold": 0.8}], ids=str)
@pytest.mark.parametrize("weight", [3.0, 0.0])
def test_p14_each_loss_reaches_its_own_parameters_only(make_agent, make_batch, options, weight):
    """The gradients of the real update equal autograd's with all other parameters frozen."""
    batch, weights = make_batch(), Weights(weight, 0.5)
    agent = make_agent(**options)
    agent.update(batch, weights)
    reached = {name: [p.grad for p in group] for name, group in agent.parameters.items()}

    everything = {name: len(group) for name, group in agent.parameters.items()}
    ids = [id(p) for group in agent.parameters.values() for p in group]
    assert len(ids) == len(set(ids))  # nobody has two optimisers
    for name in everything:
        frozen = make_agent(**options)
        frozen.policy.train()
        for other, group in frozen.parameters.items():
            for parameter in group:
                parameter.requires_grad_(other == name)
        features = frozen.policy.encoder(batch.observations)
        next_features = frozen.policy.encoder(batch.next_observations)
        noise = frozen.draw(6, weights.conservative, True)
        losses, _ = frozen.critic_loss(features, next_features, batch, weights, noise)
        losses |= frozen.actor_loss(features.detach(), batch, weights, noise)[0]
        if name not in losses:
            assert name == "lagrange" and all(grad is None for grad in reached[name])
            continue
        losses[name].backward()
        for parameter, grad in zip(frozen.parameters[name], reached[name], strict=True):
            torch.testing.assert_close(grad, parameter.grad, rtol=1e-5, atol=1e-7)
        assert any((grad != 0).any() for grad in reached[name])
    assert all(p.grad is None and not p.requires_grad for p in agent.targets.parameters())


def test_p14_critic_loss_leaves_the_policy_and_actor_loss_leaves_the_critics(make_agent, make_batch):
    """backward() of the losses themselves, nothing frozen: no path leads from one to the other's parameters."""
    agent, batch, weights = make_agent(lagrange_threshold=0.8), make_batch(), Weights(3.0, 0.5)
    features, next_features = agent.policy.encoder(batch.observations), agent.policy.encoder(batch.next_observations)
    losses, _ = agent.critic_loss(features, next_features, batch, weights, agent.draw(6, True, False))
    (losses["critic"] + losses["lagrange"]).backward()
    assert all(p.grad is None for p in agent.policy.actor.parameters()) and agent.log_alpha.grad is None
    assert all(p.grad is None for p in agent.targets.parameters())
    agent = make_agent()
    before = copy.deepcopy((agent.critics.state_dict(), agent.policy.encoder.state_dict()))
    for group in agent.optimizers["critic"].param_groups:
        group["lr"] = 0.0
    agent.update(batch, weights)
    assert_same(before, (agent.critics.state_dict(), agent.policy.encoder.state_dict()))  # the actor's step left them
    features = agent.policy.encoder(batch.observations).detach()
    losses, _ = agent.actor_loss(features, batch, weights, agent.draw(6, False, True))
    for p in agent.policy.encoder.parameters():
        p.grad = None
    for p in agent.critics.parameters():
        p.grad = None
    losses["actor"].backward()
    assert all(p.grad is None for p in agent.policy.encoder.parameters())
    assert all(p.grad is None for p in agent.critics.parameters())


def test_p07_swapping_two_critics_swaps_their_gradients(make_agent, make_batch):
    batch, order = make_batch(), [1, 0, 2]
    agents = [make_agent(target_subset=0), make_agent(target_subset=0)]
    with torch.no_grad():
        for parameter in agents[1].critics.parameters():
            parameter.copy_(parameter[order])
    for agent in agents:
        agent.update(batch, Weights(2.0, 0.0))
    for one, other in zip(agents[0].critics.parameters(), agents[1].critics.parameters(), strict=True):
        torch.testing.assert_close(one.grad[order], other.grad, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("threshold, direction", [(-1000.0, 1), (1000.0, -1)])
def test_p08_alpha_prime_moves_the_right_way_through_the_update(make_agent, make_batch, threshold, direction):
    agent = make_agent(lagrange_threshold=threshold)
    for _ in range(3):
        agent.update(make_batch(), Weights(1.0, 0.0))
    assert (agent.log_multiplier.item() - 1.0) * direction > 0


def test_p12_a_time_limit_bootstraps_and_success_on_the_last_allowed_step_does_not(make_agent, make_episode, spec):
    """From the episode through the replay to the TD target."""
    agent = make_agent(target_subset=0)
    gamma = agent.config.gamma
    cut, won = make_episode(1, success=False), make_episode(1, success=True)
    won.truncated[-1] = True  # the time limit and success at once
    for episode, bootstraps in ((cut, True), (won, False)):
        replay = Replay(spec, 10, RewardConfig(), gamma)
        replay.add(episode)
        batch = replay.sample(4)
        assert batch.terminated.tolist() == [0.0 if bootstraps else 1.0] * 4
        next_features = agent.policy.encoder(batch.next_observations)
        policy = agent.policy.actor(next_features)
        noise = agent.draw(4, False, False)
        with torch.no_grad():
            target = agent.target(next_features, policy, batch, noise)
            actions, _ = policy.sample(noise["target"])
            value = agent.targets(next_features, actions).min(0).values.max(1).values
        assert value.abs().min() > 1e-3
        expected = batch.rewards + (gamma * value if bootstraps else 0)
        torch.testing.assert_close(target, expected)


def test_targets_follow_the_critics_that_were_just_updated(make_agent, make_batch):
    agent = make_agent(target_rate=0.25)
    before = [p.clone() for p in agent.targets.parameters()]
    agent.update(make_batch(), Weights(1.0, 0.0))
    for old, new, critic in zip(before, agent.targets.parameters(), agent.critics.parameters(), strict=True):
        torch.testing.assert_close(new, 0.25 * critic + 0.75 * old)


def test_target_subset_is_drawn_anew_without_repetition(make_agent, make_batch, monkeypatch):
    agent, spy = make_agent(critics=4, target_subset=2), Spy(monkeypatch)
    for _ in range(20):
        agent.update(make_batch(), Weights(1.0, 0.0))
    chosen = [tuple(sorted(call[3].tolist())) for call in spy.calls if call[0] is agent.targets]
    assert all(len(set(pair)) == 2 for pair in chosen) and len(chosen) == 20
    assert len(set(chosen)) >= 4 and {i for pair in chosen for i in pair} == {0, 1, 2, 3}


def test_an_update_without_the_actor_leaves_policy_head_and_temperature(make_agent, make_batch):
    agent = make_agent()
    before = copy.deepcopy(agent.policy.actor.state_dict())
    critics = copy.deepcopy(agent.critics.state_dict())
    agent.update(make_batch(), Weights(1.0, 1.0), update_actor=False)
    assert_same(before, agent.policy.actor.state_dict())
    assert agent.log_alpha.item() == pytest.approx(math.log(0.1))
    assert not torch.equal(critics["weights.0"], agent.critics.state_dict()["weights.0"])


def test_a_frozen_encoder_stays_as_it_was(make_agent, make_batch):
    agent = make_agent(freeze_encoder=True)
    camera = agent.policy.encoder.cameras["of cam"]
    before = copy.deepcopy(camera.net.state_dict())
    head = copy.deepcopy(camera.out.state_dict())
    agent.update(make_batch(), Weights(1.0, 1.0))
    assert_same(before, camera.net.state_dict())
    assert all(p.grad is None for p in camera.net.parameters())
    assert not torch.equal(head["0.weight"], camera.out.state_dict()["0.weight"])


@pytest.mark.parametrize("encoder", ["cnn", "resnet18", "resnet34"])
def test_fused_steps_equal_plain_ones_whatever_layout_gradients_come_in(make_agent, make_batch, encoder):
    """ResNet's weights are NCHW, and convolutions of channels_last images give channels_last gradients."""
    spec = Spec({"cam": (40, 40, 3)}, {"pos": 3}, 2)  # so that ResNet's last map has more than one place
    fused, plain = (make_agent(spec, encoder=encoder, lagrange_threshold=0.8) for _ in range(2))
    for name, optimizer in fused.optimizers.items():
        rate = optimizer.param_groups[0]["lr"]
        plain.optimizers[name] = torch.optim.Adam(plain.parameters[name], rate, foreach=False, fused=False)
    shared = []  # the layouts that processes would average
    fused.reduce = lambda gradients: shared.append(sorted(gradient.stride() for gradient in gradients))
    for agent in (fused, plain):
        agent.update(make_batch(4, spec), Weights(1.0, 0.5))
    for group, others in zip(fused.parameters.values(), plain.parameters.values(), strict=True):
        for one, two in zip(group, others, strict=True):
            assert one.grad.stride() == one.stride()
            torch.testing.assert_close(one, two, rtol=0, atol=1e-5)  # a step is up to 1e-3
    layouts = sorted(p.stride() for group in fused.parameters.values() for p in group)
    assert shared == [layouts]


def test_a_loaded_optimiser_keeps_what_this_device_needs(make_agent, make_batch):
    """A run on a GPU starts from a checkpoint written on a CPU, whose optimisers can't be captured."""
    old, new = make_agent(), make_agent()
    old.update(make_batch(), Weights(1.0, 0.0))
    state = copy.deepcopy(old.state_dict())
    wanted = {"capturable": False, "fused": True}
    for optimizer in state["optimizers"].values():
        optimizer["param_groups"][0] |= {key: not value for key, value in wanted.items()}
    new.load_state_dict(state)
    for optimizer in new.optimizers.values():
        assert {key: optimizer.param_groups[0][key] for key in wanted} == wanted
    assert_same(new.state_dict(), old.state_dict())


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_every_metric_is_finite_and_detached(make_agent, make_batch, options):
    agent = make_agent(**options)
    metrics = agent.update(make_batch(), Weights(1.0, 1.0))
    wanted = {"td_loss", "cql_difference", "actor_loss", "bc_loss", "q_data", "q_policy", "q_target", "return_to_go"}
    wanted |= {"bound_rate_current", "bound_rate_next", "alpha", "entropy"}
    wanted |= {"alpha_prime"} if "lagrange_threshold" in options else set()
    assert wanted <= set(metrics)
    assert all(v.isfinite().all() and not v.requires_grad for v in metrics.values())
    assert metrics["bound_rate_current"].shape == (3,)


def test_a_new_learning_rate_holds_for_a_loaded_agent(make_agent, make_batch):
    """Fine-tuning may ask for another rate than pretraining had; the checkpoint's optimiser must not win."""
    old = make_agent(actor_lr=1e-3, critic_lr=1e-3)
    old.update(make_batch(), Weights(1.0, 0.0))
    new = make_agent(actor_lr=1e-5, critic_lr=0.0)
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    before = copy.deepcopy(new.critics.state_dict())
    new.update(make_batch(), Weights(1.0, 0.0))
    assert_same(before, new.critics.state_dict())
    assert new.optimizers["actor"].param_groups[0]["lr"] == 1e-5
