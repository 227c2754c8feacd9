"""What the robot server does about an arm that is held, and while a reset or a step of one takes its time."""

from types import SimpleNamespace

import pytest

from envs.base import RobotFault
from robot_server import session
from robot_server.control import Control
from robot_server.history import History
from robot_server.waiting import Pauses, Prompt

STUCK = RobotFault("axis 'x' stands")
CAMERA = RobotFault("camera 'top': its newest frame is old", by_itself=True)


class Arm:
    """Each `clear` finds the next of `troubles`."""

    def __init__(self, *troubles):
        self.troubles, self.asked = list(troubles), 0

    def clear(self):
        self.asked += 1
        if self.troubles and (trouble := self.troubles.pop(0)):
            raise trouble


@pytest.fixture
def control():
    """Of the operator's socket what is looked at here, without the socket."""

    class Fake(SimpleNamespace):
        latch_stop, latch_pause = Control.latch_stop, Control.latch_pause

    return Fake(
        stopped=False, fault="", hold_reason="", paused=False, serve=lambda: None, numbers={"stop": 0, "pause": 0},
        history=History(), prompt="",
    )  # fmt: skip


@pytest.fixture
def served(monkeypatch):
    """What happens in each turn in which both are served; then the person presses resume."""
    turns = []

    def serve(link, control, timeout_s, until):
        turns.append((control.stopped, control.fault) if control else None)
        if control and len(turns) >= 3:
            control.stopped = False

    monkeypatch.setattr(session, "serve", serve)
    return turns


def test_what_a_person_has_to_look_at_waits_for_them(served, control, logged):
    arm = Arm()
    session.cleared(STUCK, arm, None, control, lambda: False)
    assert served == [(True, "axis 'x' stands")] * 3 and arm.asked == 1
    assert not control.stopped and control.fault == ""
    assert logged() == [
        "the arm is held: axis 'x' stands",
        "Inspect the arm, then hold Release in the panel.",
        "the arm resumes",
    ]


def test_what_is_still_the_matter_is_said_and_waited_for_again(served, control, logged):
    arm = Arm(RobotFault("motor 3 is hot"))
    session.cleared(STUCK, arm, None, control, lambda: False)
    assert arm.asked == 2 and "the arm is held: motor 3 is hot" in "".join(logged())
    assert (True, "motor 3 is hot") in served


def test_what_ends_by_itself_waits_for_nobody(served, control, logged):
    arm = Arm(CAMERA, CAMERA, None)
    session.cleared(CAMERA, arm, None, control, lambda: False)
    assert arm.asked == 3 and not any(stopped for stopped, _ in served)
    assert logged() == [f"the arm is held: {CAMERA}", "the arm resumes"]


def test_something_worse_meanwhile_waits_for_a_person(served, control, logged):
    arm = Arm(CAMERA, STUCK)
    session.cleared(CAMERA, arm, None, control, lambda: False)
    assert (True, "axis 'x' stands") in served and arm.asked == 3


def test_without_a_page_it_ends(served, logged):
    arm = Arm()
    with pytest.raises(SystemExit) as caught:
        session.cleared(STUCK, arm, None, None, lambda: False)
    assert caught.value.code == 1 and arm.asked == 0 and "axis 'x' stands" in "".join(logged())


def test_ctrl_c_while_it_waits(served, control):
    turns = iter([False, False, True, True, True])
    arm = Arm()
    session.cleared(STUCK, arm, None, control, lambda: next(turns, True))
    assert arm.asked == 0


def test_a_step_under_way_serves_both_and_says_when_it_is_to_be_held(control):
    waited, served = [], []
    link = SimpleNamespace(wait=waited.append)
    control.serve = lambda: served.append(1)
    pauses = Pauses(link, control)
    assert pauses(0.5) is False and waited == [0.01] and served == [1]
    control.hold_reason = True
    assert pauses(0.004) is True and waited[-1] == 0.004
    assert Pauses(link, None)(0.5) is False


def test_a_reset_that_is_to_stop_goes_no_farther(control):
    with pytest.raises(KeyboardInterrupt):
        Pauses(SimpleNamespace(wait=lambda s: None), control, lambda: True)(0.1)


def test_a_prompt_waits_for_resume_on_the_page(control, logged):
    turns = []
    control.__dict__["hold_reason"] = True

    def serve():
        turns.append(control.paused)
        control.hold_reason = len(turns) < 4

    control.serve = serve
    Prompt(SimpleNamespace(wait=lambda s: None), control)("put it back")
    assert turns == [True] * 4 and "put it back (then press Resume in the panel)" in logged()


def test_without_a_page_it_waits_for_enter(monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", asked.append)
    Prompt(SimpleNamespace(), None)("put it back")
    assert asked == ["put it back (Enter) "]


def test_without_a_page_or_a_terminal_nobody_can_answer(monkeypatch):
    def closed(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", closed)
    with pytest.raises(RobotFault, match=r"a reset asks a person \(put it back\), and there is no terminal"):
        Prompt(SimpleNamespace(), None)("put it back")
