"""The task in words: a person's, or that of a known simulator task."""

import pytest

import envs
from agent.data.episode_file import episode_paths, read_episode
from envs.instructions import KNOWN, MAX_LENGTH, instruction
from envs.sim import TASKS
from tools.collect import collect
from tools.common.rollout import make_env
from tools.recording.config import CollectConfig


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, KNOWN["reach"]),
        ({"after_success": 3}, KNOWN["reach"]),  # a wrapper around it
        ({"instruction": " touch the circle "}, "touch the circle"),
        ({"reset_task": True}, ""),  # another task, of which nothing is known
        ({"reset_task": True, "instruction": "back to the middle"}, "back to the middle"),
    ],
)
def test_an_environment_says_its_task(options, text):
    env = make_env("fake", options)
    assert instruction(env) == text
    env.close()


def test_each_simulator_task_has_words():
    assert TASKS.keys() <= KNOWN.keys()
    assert all(len(text) < 60 for text in KNOWN.values())


def test_an_unknown_environment_says_nothing():
    env = envs.make("gym:Pendulum-v1")
    assert instruction(env) == "" and instruction(object()) == ""
    env.close()


@pytest.mark.parametrize("text", ["two\nlines", "x" * (MAX_LENGTH + 1)])
def test_more_than_a_line_is_refused(text):
    with pytest.raises(ValueError, match=r"^instruction: one line of at most 200 characters$"):
        envs.make("fake", instruction=text)


def test_recordings_have_it_and_can_be_continued_in_other_words(tmp_path):
    for text in ("touch the circle", "go to the circle"):
        collect("fake", {"instruction": text}, "scripted", CollectConfig(episodes=1), tmp_path)
    found = [read_episode(path).meta["instruction"] for path in episode_paths([tmp_path])]
    assert found == ["touch the circle", "go to the circle"]
