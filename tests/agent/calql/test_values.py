"""Q along an episode: of the critics as they are, for the steps asked for, and without a trace."""

import numpy as np
import pytest
import torch

from agent.calql import values
from agent.config import RewardConfig
from agent.data.frames import Frames
from agent.data.returns import rewards_and_returns

REWARD = RewardConfig(10.0, -1.0)


@pytest.fixture
def agent(make_agent):
    return make_agent(critics=3, gamma=0.9)


def test_each_is_what_its_name_says(agent, make_episode):
    episode = make_episode(7, success=True)
    found = values.episode_values(agent, REWARD, episode)
    for step in (0, 4, 6):
        seen = {key: torch.from_numpy(rows[step : step + 1]) for key, rows in episode.observations.items()}
        with torch.no_grad():
            actions = {
                "recorded_action": torch.from_numpy(episode.actions[[step]]),
                "policy_action": agent.average(seen).mode,
            }
            for name, action in actions.items():
                each = agent.critics(agent.policy.encoder(seen), action[:, None])  # (3, 1, 1)
                assert found[name][step] == pytest.approx(float(each.mean()), rel=1e-4, abs=1e-5)
    assert not np.allclose(found["recorded_action"], found["policy_action"], atol=1e-3)
    np.testing.assert_array_equal(found["return_to_go"], rewards_and_returns(episode, REWARD, 0.9)[1])
    assert found["return_to_go"][-1] == 9.0 and {len(rows) for rows in found.values()} == {7}


def test_some_steps_are_as_in_the_whole_also_of_images_that_are_read_in_blocks(agent, make_episode, monkeypatch):
    monkeypatch.setattr(values, "BATCH", 3)
    episode = make_episode(9)
    whole, steps = values.episode_values(agent, REWARD, episode), np.array([0, 2, 3, 7, 8])
    for key in episode.spec.cameras:
        images = episode.observations[key]
        episode.observations[key] = Frames(images.shape, lambda first, end, images=images: images[first:end])
    some = values.episode_values(agent, REWARD, episode, steps)
    for name, rows in whole.items():
        np.testing.assert_allclose(some[name], rows[steps], rtol=1e-4, atol=1e-5)


def test_the_agent_is_as_it_was(agent, make_episode):
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    random, drawn = torch.get_rng_state(), agent.generator.get_state()
    values.episode_values(agent, REWARD, make_episode(4))
    assert all(torch.equal(before[name], value) for name, value in agent.policy.state_dict().items())
    assert torch.equal(random, torch.get_rng_state()) and torch.equal(drawn, agent.generator.get_state())
    assert all(parameter.grad is None for parameter in agent.critics.parameters())
