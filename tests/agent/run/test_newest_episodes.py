"""What a robot is told of Q along its newest episode."""

import pytest
import torch
from link_data import PROGRESS

from agent.config import RewardConfig
from agent.run.newest_episodes import NewestEpisodes
from agent.wire.messages import pack, unpack
from agent.wire.progress import MAX_POINTS, read_progress


@pytest.fixture
def agent(make_agent):
    return make_agent()


@pytest.fixture
def newest(agent):
    return NewestEpisodes(agent, RewardConfig())


def test_each_robot_has_its_own_and_an_older_one_is_never_asked_for(newest, make_episode):
    for number, robot in ((1, "arm"), (4, "other"), (2, "arm")):
        episode = make_episode(5, seed=number, number=number, success=number == 2)
        episode.meta["robot"] = robot
        newest.add(episode)
    newest.ask_critics(70)
    assert {robot: told["number"] for robot, told in newest.curves.items()} == {"arm": 2}
    newest.ask_critics(71)
    newest.ask_critics(72)
    assert {robot: (told["number"], told["updates"]) for robot, told in newest.curves.items()} == {
        "arm": (2, 70), "other": (4, 71),
    }  # fmt: skip
    assert newest.curves["arm"]["success"] and newest.curves["arm"]["steps"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("steps", [1, MAX_POINTS, 4321])
def test_it_is_a_message_that_robots_take_however_long_the_episode(newest, make_episode, steps):
    newest.add(make_episode(steps))
    newest.ask_critics(0)
    told = newest.curves["arm"]
    message = pack("PROGRESS", **{**PROGRESS, "newest_episode": told})
    assert read_progress(unpack(message).fields)["newest_episode"] == told
    assert told["steps"][0] == 0 and told["steps"][-1] == steps - 1 and len(told["steps"]) == min(steps, MAX_POINTS)
    assert sum(map(len, message)) < 8000


def test_q_that_is_not_finite_is_not_told(agent, newest, make_episode):
    with torch.no_grad():
        agent.critics.biases[-1].fill_(float("nan"))
    newest.add(make_episode(5))
    newest.ask_critics(0)
    assert newest.curves == {}


def test_critics_that_cannot_be_asked_end_no_run(newest, make_episode, monkeypatch, caplog):
    def no_memory(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("agent.run.newest_episodes.episode_values", no_memory)
        for number in (1, 2):
            newest.add(make_episode(5, number=number))
            newest.ask_critics(number)
    assert newest.curves == {}
    assert [record.getMessage().count("CUDA out of memory") for record in caplog.records] == [1]  # not every second
    newest.add(make_episode(5, number=3))
    newest.ask_critics(3)
    assert newest.curves["arm"]["number"] == 3
