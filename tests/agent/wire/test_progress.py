"""What a robot believes of a learner's PROGRESS."""

import pytest
from link_data import NEWEST_EPISODE, PROGRESS

from agent.wire.messages import pack, unpack
from agent.wire.progress import MAX_POINTS, MAX_WARNINGS, read_progress
from agent.wire.untrusted import WireError


def told(**changes):
    return read_progress(unpack(pack("PROGRESS", **{**PROGRESS, **changes})).fields)


def test_what_a_learner_says_comes_through():
    assert told() == PROGRESS
    assert told(figures={})["figures"] == {} and told(newest_episode={})["newest_episode"] == {}


def test_text_is_printable_and_short_and_there_is_little_of_it():
    found = told(warnings=["\x1b[2J" + "x" * 5000] * 50)["warnings"]
    assert len(found) == MAX_WARNINGS and found[0].startswith("?[2Jx") and len(found[0]) == 500


def test_figures_that_nobody_knows_or_that_are_no_numbers_are_left_out():
    figures = {"updates": 7, "q_data": 0.5, "<img>": 1.0, "td_loss": "much", "entropy": 3, "alpha": 1e999}
    assert told(figures=figures)["figures"] == {"updates": 7, "q_data": 0.5}


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": "<b>done</b>"},
        {"seconds_left": float("nan")},
        {"checkpoint_age_s": float("inf")},
        {"figures": {"q_data": 0.5}},
        {"figures": {"updates": "many"}},
        {"figures": {"updates": -3}},
    ],
    ids=str,
)
def test_anything_else_is_a_bad_message(changes):
    with pytest.raises(WireError, match="PROGRESS"):
        told(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"number": "<b>"},
        {"number": -1},
        {"success": 1},
        {"steps": 3},
        {"steps": [0, 20, 20]},
        {"steps": [0, 20]},
        {"steps": [0, 20, True]},
        {"return_to_go": [0.5, 0.5, float("inf")]},
        {"policy_action": [0.5, 0.5, "<img>"]},
        {"recorded_action": {"0": 1.0}},
        {"more": 1},
        {"steps": list(range(MAX_POINTS + 1))},
    ],
    ids=str,
)
def test_an_episode_of_another_shape_is_a_bad_message(changes):
    with pytest.raises(WireError, match="PROGRESS: newest_episode"):
        told(newest_episode={**NEWEST_EPISODE, **changes})
