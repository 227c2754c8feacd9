"""A flow as the policy: what it learns, which of its samples acts, and chunks of actions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from agent.calql.algorithm import Weights
from agent.calql.values import episode_values
from agent.chunks import Chunks
from agent.config import CalQLConfig, NetworkConfig, RewardConfig, RunConfig
from agent.critics import Critics
from agent.data.replay_buffer import Replay
from agent.flow import FlowActor
from agent.policy import Policy
from agent.run.network_size import check_sizes, policy_parameters
from agent.spec import UserError

FLOW = {"policy": "flow", "chunk": 3, "candidates": 4, "flow_steps": 5}
OFFLINE = Weights(1.0, 1.0)


@pytest.fixture
def agent(make_agent):
    return make_agent(**FLOW, importance_sampling=False)


@pytest.fixture
def make_chunks(spec, make_episode):
    """make_chunks(6): a batch of six chunks."""

    def make(size=6, seed=0):
        replay = Replay(spec, 100, RewardConfig(), 0.95, seed, chunk=FLOW["chunk"])
        for number in range(4):
            replay.add(make_episode(7, seed=number, success=number % 2 == 0))
        return replay.sample(size)

    return make


@pytest.fixture
def observation(make_chunks):
    return {key: value[0].numpy() for key, value in make_chunks(1).observations.items()}


def test_it_learns_both_modes():
    """Half of the actions are at 0.6, half at -0.6: a Gaussian's mean would be at 0, where none is."""
    torch.manual_seed(0)
    actor = FlowActor(1, 1, NetworkConfig(actor_hidden=[64, 64], flow_steps=10))
    optimizer, features = torch.optim.Adam(actor.parameters(), 3e-3), torch.zeros(256, 1)
    for _ in range(400):
        actions = (torch.rand(256, 1) < 0.5).float() * 1.2 - 0.6
        loss = actor(features).matching_loss(actions, torch.randn(256, 1), torch.rand(256, 1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        samples = actor(features[:1]).sample(torch.randn(1, 1000, 1))[0].flatten()
    near = [((samples - place).abs() < 0.15).float().mean() for place in (-0.6, 0.6)]
    assert min(near) > 0.35 and sum(near) > 0.9


def test_samples_are_actions(agent, make_chunks):
    batch = make_chunks()
    flow = agent.policy(batch.observations)
    actions, log_prob = flow.sample(10 * torch.randn(6, 5, agent.action_dim))
    assert actions.shape == (6, 5, 3 * 2) and actions.abs().max() <= 1
    assert torch.equal(log_prob, torch.zeros(6, 5))
    assert flow.mode.shape == (6, 6)


def test_matching_is_exact_where_the_velocity_is():
    """A velocity of actions - noise has no loss, and one that is 1 off in each of 2 numbers a loss of 2."""
    actor = FlowActor(1, 2, NetworkConfig(actor_hidden=[4]))
    actions, noise, time = torch.rand(5, 2), torch.randn(5, 2), torch.rand(5, 1)
    for off in (0.0, 1.0):
        actor.velocity = torch.nn.Module()
        actor.velocity.forward = lambda _, off=off: actions - noise + off
        loss = actor(torch.zeros(5, 1)).matching_loss(actions, noise, time)
        assert torch.allclose(loss, torch.full((5,), 2 * off))


def test_the_way_begins_at_the_noise_and_ends_at_the_action():
    actor = FlowActor(1, 2, NetworkConfig(actor_hidden=[4]))
    actions, noise, seen = torch.rand(3, 2), torch.randn(3, 2), []
    actor.velocity = torch.nn.Module()
    actor.velocity.forward = lambda inputs: seen.append(inputs) or torch.zeros(3, 2)
    actor(torch.zeros(3, 1)).matching_loss(actions, noise, torch.tensor([[0.0], [0.5], [1.0]]))
    inputs = seen[0][:, 1:]  # without the features
    assert torch.allclose(inputs[0], torch.cat([noise[0], torch.zeros(1)]))
    assert torch.allclose(inputs[1], torch.cat([(noise[1] + actions[1]) / 2, torch.full((1,), 0.5)]))
    assert torch.allclose(inputs[2], torch.cat([actions[2], torch.ones(1)]))


def test_the_target_is_the_best_of_the_candidates(agent, make_chunks):
    batch = make_chunks()
    with torch.no_grad():
        following = agent.policy.encoder(batch.next_observations)
        flow, noise = agent.policy.actor(following), agent.draw(6, True, True)
        found = agent.target(following, flow, batch, noise)
        assert noise["target"].shape == (6, 4, 6)
        q = agent.targets(following, flow.sample(noise["target"])[0], noise["members"]).amin(0)  # (B, 4)
    wanted = batch.rewards + agent.config.gamma * (1 - batch.terminated) * q.max(-1).values
    assert torch.allclose(found, wanted, atol=1e-5) and q.std(-1).min() > 0


@pytest.mark.parametrize("bc_filter", ["all", "success"])
def test_it_clones_the_episodes_that_it_should(make_agent, make_chunks, bc_filter):
    agent, batch = make_agent(**FLOW, importance_sampling=False, bc_filter=bc_filter), make_chunks(32)
    noise = agent.draw(32, True, True)
    with torch.no_grad():
        features = agent.policy.encoder(batch.observations)
        losses, metrics = agent.actor_loss(features, batch, Weights(1.0, 0.5), noise)
        each = agent.policy.actor(features).matching_loss(
            batch.actions, noise["actor"][:, 0], noise["time"][:, 0, :1]
        )  # (B,)
    wanted = (each * batch.succeeded if bc_filter == "success" else each).mean()
    assert set(losses) == {"actor"} and losses["actor"] == pytest.approx(float(0.5 * wanted))
    assert metrics["bc_loss"] == pytest.approx(float(wanted)) and 0 < batch.succeeded.mean() < 1


def test_an_update_moves_policy_critics_and_encoder(agent, make_chunks):
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    critics = [value.clone() for value in agent.critics.parameters()]
    metrics = agent.learn(make_chunks(), OFFLINE)
    assert all(torch.isfinite(value).all() for value in metrics.values())
    moved = {name for name, value in agent.policy.state_dict().items() if not torch.equal(value, before[name])}
    assert {"actor.velocity.0.weight", "encoder.state.0.weight"} & moved and any("encoder" in name for name in moved)
    assert all(not torch.equal(old, new) for old, new in zip(critics, agent.critics.parameters(), strict=True))
    for own, target in zip(agent.average.critics.parameters(), agent.targets.parameters(), strict=True):
        assert torch.equal(own, target)


def test_noise_flows_in_equal_steps_of_time():
    actor, times = FlowActor(1, 2, NetworkConfig(actor_hidden=[4], flow_steps=5)), []
    actor.velocity = torch.nn.Module()
    actor.velocity.forward = lambda inputs: times.append(inputs[..., -1]) or torch.full((1, 3, 2), 0.2)
    actions, _ = actor(torch.zeros(1, 1)).sample(torch.full((1, 3, 2), -0.5))
    assert torch.allclose(torch.stack(times)[:, 0, 0], torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8]))
    assert torch.allclose(actions, torch.full((1, 3, 2), -0.3))


@pytest.mark.parametrize("layer_norm", [True, False])
def test_its_layers_are_those_of_the_config(layer_norm):
    config = NetworkConfig(actor_hidden=[4, 4], actor_layer_norm=layer_norm, init="orthogonal", last_gain=0.0)
    layers = FlowActor(1, 2, config).velocity
    assert sum(isinstance(layer, torch.nn.LayerNorm) for layer in layers) == (2 if layer_norm else 0)
    assert not layers[-1].weight.any() and layers[0].weight.any() and not layers[0].bias.any()


def test_the_mode_is_where_no_noise_flows_to(agent, make_chunks):
    flow = agent.policy(make_chunks().observations)
    with torch.no_grad():
        assert torch.equal(flow.mode, flow.sample(torch.zeros(6, 1, 6))[0][:, 0])


def test_times_are_drawn_evenly(agent):
    times = agent.draw(2000, True, True)["time"][:, 0, 0]
    assert 0 <= times.min() < 0.01 and 0.99 < times.max() <= 1 and times.mean() == pytest.approx(0.5, abs=0.03)


def test_the_best_candidate_acts(agent, observation, monkeypatch):
    policy, asked = agent.average, []

    def prefer_the_third(critics, features, actions):
        asked.append(actions)
        # The mean's favourite is the third; the first critic's is the fourth, the second's and the highest value
        # are the first's, the highest minimum is the second's.
        return torch.tensor([[[0.0, 2.0, 1.5, 3.0]], [[5.0, 2.5, 4.0, 1.0]]])

    monkeypatch.setattr(Critics, "forward", prefer_the_third)
    chunk = policy.act_chunk(observation)
    assert asked[0].shape == (1, 4, 6) and chunk.shape == (3, 2) and chunk.dtype == np.float32
    np.testing.assert_array_equal(chunk.flatten(), asked[0][0, 2].numpy())
    assert not torch.equal(asked[0][0, 2], asked[0][0, 1])
    np.testing.assert_array_equal(policy.act(observation, True), policy.act_chunk(observation, True)[0])


def test_deterministic_is_always_the_same_and_leaves_other_random_numbers_alone(agent, observation):
    first = agent.average.act_chunk(observation, True)
    state = torch.get_rng_state()
    np.testing.assert_array_equal(first, agent.average.act_chunk(observation, True))
    assert torch.equal(state, torch.get_rng_state())
    assert not np.array_equal(agent.average.act_chunk(observation), agent.average.act_chunk(observation))


def test_a_robot_gets_policy_and_critics(agent, spec, network, make_chunks, observation):
    agent.learn(make_chunks(), OFFLINE)
    robot = Policy(spec, dataclasses.replace(network, **FLOW))
    robot.load_weights(agent.average.weights())
    np.testing.assert_array_equal(robot.act_chunk(observation, True), agent.average.act_chunk(observation, True))
    assert any(name.startswith("critics.") for name in agent.average.weights())


@pytest.mark.parametrize("policy", ["flow", "gaussian"])
def test_the_declared_size_counts_them(make_agent, spec, network, policy):
    config = dataclasses.replace(network, **{**FLOW, "policy": policy})
    agent = make_agent(**{**FLOW, "policy": policy}, importance_sampling=False)
    there = sum(value.numel() for value in agent.average.parameters())
    assert 0.5 * there < policy_parameters(spec, config) <= there
    check_sizes(spec, config, agent.state_dict())
    for larger in ({"chunk": 100}, {"critic_hidden": [2000, 2000]}, {"actor_hidden": [2000, 2000]}):
        with pytest.raises(ValueError, match="parameters or more"):
            check_sizes(spec, dataclasses.replace(config, **larger), agent.state_dict())


def test_values_along_an_episode_are_those_of_its_chunks(agent, make_episode):
    episode = make_episode(7)
    values = episode_values(agent, RewardConfig(sparse=False), episode)
    last = torch.from_numpy(np.tile(episode.actions[6], 3))[None, None]
    seen = {key: torch.from_numpy(value[6:7]) for key, value in episode.observations.items()}
    with torch.no_grad():
        q = agent.critics(agent.policy.encoder(seen), last).mean()
    assert values["recorded_action"][6] == pytest.approx(float(q), rel=1e-4)
    assert all(len(curve) == 7 for curve in values.values())


class Counting:
    """A policy whose actions are counted: the number of the chunk, and of the action in it."""

    def __init__(self, chunk):
        self.chunk, self.made = chunk, 0

    def act_chunk(self, observation, deterministic=False):
        self.made += 1
        return np.array([[self.made, k] for k in range(self.chunk)], np.float32)


def test_a_chunk_is_used_up_before_the_next_is_made():
    chunks = Chunks(Counting(3))
    made = [chunks.act({}).tolist() for _ in range(7)]
    assert made == [[1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [2, 2], [3, 0]]


def test_the_rest_of_a_chunk_is_dropped_when_something_else_acts():
    chunks = Chunks(Counting(3))
    chunks.act({})
    chunks.forget()
    assert chunks.act({}).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("network", "calql", "message"),
    [
        ({"policy": "flow"}, {}, r"calql.importance_sampling needs densities, and network.policy flow has none"),
        ({"policy": "flow"}, {"importance_sampling": False, "entropy_backup": True}, r"calql.entropy_backup needs den"),
        ({"policy": "flow"}, {"importance_sampling": False, "bc_weight": 0.0}, r"a flow .* learns by cloning alone"),
        ({"chunk": 3}, {"n_step": 2}, r"n_step is 2, but with network.chunk a target looks ahead by the chunk"),
    ],
)
def test_what_does_not_fit_a_flow_or_chunks_is_refused(network, calql, message):
    with pytest.raises(UserError, match=message):
        RunConfig(network=NetworkConfig(**network), calql=CalQLConfig(**calql)).checked()
