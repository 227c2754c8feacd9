"""Steps in, episodes out: what is counted."""

import dataclasses

import pytest
from link_data import steps_of

from agent.mailbox.assembly import Assembly

KEY, ROUTE = ("arm", "b0", 0), b"route"
STEPS = steps_of(6)


def open_step(number):
    return dataclasses.replace(STEPS[number], terminated=False, truncated=False, final_observation=None)


@pytest.mark.parametrize("count", range(1, 6))
@pytest.mark.parametrize("earlier", [0, 1])
def test_a_last_step_that_was_sent_before_counts_once(count, earlier):
    """A robot that is stopped sends its newest step again, as the last one: no update is due for it a second time."""
    assembly, last = Assembly({}), max(0, count - 1 - earlier)
    for step in range(count):
        assembly.add(KEY, step, open_step(step), {}, ROUTE)
    assembly.add(KEY, last, dataclasses.replace(STEPS[-1], reward=0.0), {}, ROUTE)
    assert assembly.steps == count
    assert [len(episode) for episode in assembly.take()] == [last + 1]


def test_an_episode_that_is_sent_whole_again_counts_what_is_new():
    assembly = Assembly({})
    for step in range(3):
        assembly.add(KEY, step, open_step(step), {}, ROUTE)
    assembly.cut_short("arm", "b1", set(), ROUTE)
    assert [len(episode) for episode in assembly.take()] == [2] and assembly.steps == 2
    assembly.reopen(KEY)
    counted = []
    for step, transition in enumerate(STEPS):
        assembly.add(KEY, step, transition, {}, ROUTE)
        counted.append(assembly.steps)
    assert counted == [2, 2, 3, 4, 5, 6]
    assert [len(episode) for episode in assembly.take()] == [6]
