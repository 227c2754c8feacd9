"""What a driven arm reports, without an arm: a program that says it by a script."""

import json
import sys

import pytest

from tools.stress.driven import Driver


@pytest.fixture
def says(tmp_path):
    """A Driver of a program that reports `events` and then reads on, or ends."""
    made = []

    def start(*events, ends=False):
        lines = "".join(json.dumps({"time_s": number, **event}) + "\n" for number, event in enumerate(events))
        program = tmp_path / "python"
        program.write_text(f"#!{sys.executable}\nprint('''{lines}''', flush=True)\n" + "input()\n" * (not ends))
        program.chmod(0o755)
        made.append(Driver(program, "real", {}))
        return made[-1]

    yield start
    for driver in made:
        driver.kill()


STEP, CLEARED = {"event": "step", "lost": 0}, {"event": "cleared"}
FAULT, STILL = {"event": "fault", "line": "the elbow is stuck"}, {"event": "still", "line": "the elbow is stuck"}


@pytest.mark.parametrize("events", [[STEP, FAULT], [STEP, FAULT, STILL], [FAULT, CLEARED, STEP, FAULT]])
def test_an_arm_that_has_a_fault_is_not_waited_for(says, events):
    with pytest.raises(SystemExit, match=r"no 'step', .* a fault: the elbow is stuck"):
        says(*events).wait("step", len(events), timeout_s=30.0)
    assert says(*events).wait("fault", timeout_s=30.0)["line"] == "the elbow is stuck"


def test_one_that_was_cleared_is_waited_for(says):
    with pytest.raises(SystemExit, match=r"no 'closed' within 0.5 s"):
        says(STEP, FAULT, CLEARED).wait("closed", timeout_s=0.5)
    assert says(FAULT, CLEARED, STEP).wait("step", timeout_s=30.0)["time_s"] == 2


def test_a_program_that_has_ended_is_not_waited_for(says):
    refused = {"event": "refused", "line": "no such port"}
    with pytest.raises(SystemExit, match=r"no 'connected', .* ended.*no such port"):
        says(refused, ends=True).wait("connected", timeout_s=30.0)
    assert says(STEP, {"event": "closed"}, ends=True).wait("closed", timeout_s=30.0)
