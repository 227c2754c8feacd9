"""What an arm's motors report: its limits, grippers that are relaxed, and what the operator sees."""

import re

import numpy as np
import pytest
from remembering_arm import PERIOD_S, Arm, Now, go

from envs.real import effort as effort_module
from envs.real import guard as guard_module
from envs.real.arm import ArmError, State
from envs.real.effort import EffortLimits, EffortReport
from envs.real.guard import Guard, Setup
from envs.real.safety_filter import Limits

INF, NAN = np.inf, np.nan


class Motors(Arm):
    """x is a joint, y a gripper."""

    def __init__(self, now):
        super().__init__(now)
        self.effort = {name: np.zeros(2) for name in ("load", "current", "temperature")}
        self.errors = {}

    def state(self):
        return State(self.at.copy(), self.now.monotonic(), effort=self.effort, errors=self.errors)

    def reports(self, figure, *values):
        self.effort = {**self.effort, figure: np.array(values)}


@pytest.fixture
def now(monkeypatch):
    now = Now()
    for module in (guard_module, effort_module):
        monkeypatch.setattr(module, "time", now)
    return now


@pytest.fixture
def arm(now):
    return Motors(now)


@pytest.fixture
def made(arm):
    def make(squeeze=(NAN, 0.02), press=None, **most):
        ones = np.ones(2)
        limits = Limits(-ones, ones, 0.2 * ones, 2.0 * ones, 100 * ones)
        most = {figure: np.array(values) for figure, values in most.items()}
        setup = Setup(
            "", {}, limits, PERIOD_S, 0.15, 0.0, 0.0, 0.1 * ones, 0.5,
            squeeze=np.array(squeeze), press=press, effort=EffortLimits(most, 1.0),
        )  # fmt: skip
        guard = Guard(setup, arm)
        guard.connect()
        arm.log.clear()
        return guard

    return make


def steps(guard, now, count, x=0.0, y=0.0):
    return [go(guard, now, x, y)[1] for _ in range(count)]


@pytest.mark.parametrize(
    ("figure", "limit", "unit", "remedy"),
    [
        ("load", 80, "%", "take off what loads it, then release"),
        ("current", 900, "mA", "take off what loads it, then release"),
        ("temperature", 60, "°C", "let it cool, then release"),
    ],
)
def test_a_limit_that_is_exceeded_for_too_long_holds_the_arm(made, arm, now, figure, limit, unit, remedy):
    guard = made(**{figure: (limit, INF)})
    arm.reports(figure, limit, 5 * limit)
    steps(guard, now, 30)
    arm.reports(figure, limit + 1, 0)
    steps(guard, now, 10)
    with pytest.raises(ArmError) as caught:
        steps(guard, now, 2)
    line = rf"axis 'x': {figure} {limit + 1} {unit} for 1\.[01] s, above max_{figure} {limit}; {remedy}"
    assert re.fullmatch(line, str(caught.value)) and arm.log[-1] == "hold"
    with pytest.raises(ArmError):
        guard.state()


def test_a_peak_is_no_fault_and_the_time_begins_anew(made, arm, now):
    guard = made(load=(80, INF))
    for _ in range(3):
        arm.reports("load", 100, 0)
        steps(guard, now, 9)
        arm.reports("load", 10, 0)
        steps(guard, now, 1)
    assert guard.error is None


def test_a_hold_does_not_begin_the_time_anew_and_a_person_does(made, arm, now):
    guard = made(load=(80, INF))
    arm.reports("load", 100, 0)
    with pytest.raises(ArmError, match="load 100 %"):
        for _ in range(12):
            steps(guard, now, 1)
            guard.hold()
    arm.log.clear()
    guard.clear()
    assert arm.log == ["hold"]  # it keeps its power: it may hang there
    steps(guard, now, 10)
    with pytest.raises(ArmError, match="load 100 %"):
        steps(guard, now, 2)


def test_a_hot_motor_is_found_while_the_arm_only_looks(made, arm, now):
    guard = made(temperature=(60, INF))
    arm.reports("temperature", 70, 20)
    guard.state()
    now.now_s += 1.1
    with pytest.raises(ArmError, match=r"axis 'x': temperature 70 °C for 1\.1 s"):
        guard.state()


def test_what_a_motor_reports_holds_the_arm_at_once_and_it_is_connected_anew(made, arm, now):
    guard = made()
    steps(guard, now, 2, 0.05)
    arm.errors = {"x": "overheating"}
    with pytest.raises(ArmError, match=r"axis 'x': its motor reports overheating; support the arm.*power off and on"):
        steps(guard, now, 1, 0.1)
    assert arm.log[-1] == "hold"
    with pytest.raises(ArmError, match="overheating"):
        guard.clear()
    arm.errors, arm.log = {}, []
    guard.clear()
    assert arm.log == ["disconnect", "connect"]
    steps(guard, now, 1, 0.05)


def test_a_gripper_that_reports_overload_is_no_reason_to_cut_the_power_of_a_joint_that_is_hot(made, arm, now):
    guard = made(temperature=(60, INF))
    arm.errors = {"y": "overload"}
    arm.reports("temperature", 70, 20)
    with pytest.raises(ArmError, match="axis 'x': temperature 70"):
        steps(guard, now, 12)
    arm.log.clear()
    guard.clear()
    assert arm.log == ["hold"]


def test_an_arm_whose_motor_reports_an_error_does_not_connect(made, arm, now):
    arm.errors = {"y": "overload, overheating"}
    with pytest.raises(ArmError, match="axis 'y': its motor reports overload, overheating"):
        made()


@pytest.mark.parametrize("why", ["load", "current", "overload", "stuck"])
def test_a_gripper_that_presses_is_relaxed(made, arm, now, why):
    guard = made(load=(INF, 30), current=(INF, 300))
    steps(guard, now, 2, y=0.2)
    arm.stuck, at = True, arm.at[1]
    if why == "stuck":
        count = 8
        target = steps(guard, now, 3, y=0.9)[-1][1]  # farther ahead than 0.9 lag
    else:
        count = 12
        if why == "overload":
            arm.errors = {"y": "overload"}
        else:
            arm.reports(why, 0, 500)
        target = steps(guard, now, 3, y=at + 0.05)[-1][1]  # so near that it does not count as stuck
    assert target > at + 0.04 and guard.state().relaxed == ()
    goal = 0.9 if why == "stuck" else at + 0.05
    assert steps(guard, now, count, y=goal)[-1][1] == pytest.approx(at + 0.02)
    assert guard.error is None and guard.state().relaxed == ("y",)
    arm.reports("load", 0, 5)
    arm.reports("current", 0, 5)
    arm.errors = {}
    assert steps(guard, now, 20, y=0.9)[-1][1] == pytest.approx(at + 0.02)  # also when that has helped
    arm.stuck = False
    assert steps(guard, now, 1, y=0.9)[-1][1] == pytest.approx(at + 0.02)
    assert guard.state().relaxed == ("y",)  # what it held slips: it follows gently
    steps(guard, now, 3, y=-0.5)
    assert guard.state().relaxed == () and arm.at[1] < at


def test_a_gripper_presses_anew_after_it_was_opened(made, arm, now):
    guard = made(load=(INF, 30))
    arm.stuck = True
    arm.reports("load", 0, 50)
    steps(guard, now, 14, y=0.05)
    assert guard.state().relaxed == ("y",)
    steps(guard, now, 1, y=-0.05)
    assert guard.state().relaxed == ()
    assert steps(guard, now, 3, y=0.05)[-1][1] == pytest.approx(0.05)


@pytest.mark.parametrize(("pressed", "relaxed"), [(9, ("y",)), (5, ())])
def test_a_gripper_that_pressed_opens_at_its_full_pace(made, arm, now, pressed, relaxed):
    """It has not moved yet when the next command comes; that it stood before, the other way, does not count."""
    guard = made()
    arm.stuck = True
    steps(guard, now, pressed, y=0.9)
    assert guard.state().relaxed == relaxed
    assert steps(guard, now, 5, y=-0.9)[-1][1] == pytest.approx(-0.1) and guard.state().relaxed == ()
    steps(guard, now, 3, y=-0.9)
    assert guard.state().relaxed == ("y",)  # it presses outwards


@pytest.mark.parametrize("why", ["load", "current", "stuck"])
def test_a_joint_that_presses_is_relaxed_until_it_has_moved_on_or_is_asked_to_go_back(made, arm, now, why):
    guard = made(press=np.array([0.02, NAN]), load=(80, INF), current=(900, INF))
    steps(guard, now, 2, 0.2)
    arm.stuck, at = True, arm.at[0]
    goal = 0.9 if why == "stuck" else at + 0.05  # so near that it does not count as stuck
    if why != "stuck":
        arm.reports(why, 1000, 0)
    assert steps(guard, now, 3, goal)[-1][0] > at + 0.04 and guard.state().relaxed == ()
    assert steps(guard, now, 12, goal)[-1][0] == pytest.approx(at + 0.02)
    assert guard.error is None and guard.state().relaxed == ("x",)
    arm.reports("load", 40, 0)
    arm.reports("current", 400, 0)
    assert steps(guard, now, 20, 0.9)[-1][0] == pytest.approx(at + 0.02)  # also when that has helped
    arm.at[0] = at - 0.06  # it gives way
    steps(guard, now, 1, 0.9)
    assert guard.state().relaxed == ("x",)
    arm.at[0] = at + 0.06  # it has come past what was in its way
    assert steps(guard, now, 3, 0.9)[-1][0] > at + 0.1 and guard.state().relaxed == ()
    steps(guard, now, 14, 0.9)
    assert guard.state().relaxed == ("x",)  # it stands again
    steps(guard, now, 1, -0.9)
    assert guard.state().relaxed == ()


@pytest.mark.parametrize("what", ["temperature", "overload"])
def test_a_joint_that_may_press_is_held_for_heat_and_for_what_its_motor_reports(made, arm, now, what):
    guard = made(press=np.array([0.02, NAN]), temperature=(60, INF))
    if what == "temperature":
        arm.reports("temperature", 70, 0)
    else:
        arm.errors = {"x": "overload"}
    with pytest.raises(ArmError, match=f"axis 'x'.*{what}"):
        steps(guard, now, 14, 0.1)


@pytest.mark.parametrize("what", ["temperature", "overheating", "joint"])
def test_a_gripper_is_no_way_around_heat_and_no_joint_is_relaxed(made, arm, now, what):
    guard = made(temperature=(INF, 60), load=(30, INF))
    if what == "temperature":
        arm.reports("temperature", 0, 70)
    elif what == "overheating":
        arm.errors = {"y": "overload, overheating"}
    else:
        arm.reports("load", 90, 0)
    with pytest.raises(ArmError, match="axis 'x': load" if what == "joint" else f"axis 'y'.*{what}"):
        steps(guard, now, 14)


def test_an_arm_that_reports_nothing_is_as_before(made, arm, now):
    guard = made(load=(1, 1))
    arm.effort = {}
    steps(guard, now, 30)
    assert guard.error is None


@pytest.mark.parametrize(
    ("effort", "errors", "says"),
    [
        ({"load": np.zeros(3)}, {}, "reports load .* of 2 axes"),
        ({"torque": np.zeros(2)}, {}, "torque.*figures: load, current, temperature"),
        ({}, {"z": "overload"}, "an error of 'z', which is no axis: overload"),
    ],
)
def test_what_no_motors_can_report_holds_it(made, arm, now, effort, errors, says):
    guard = made()
    arm.effort, arm.errors = effort, errors
    with pytest.raises(ArmError, match=says):
        steps(guard, now, 1)
    assert arm.log[-1] == "hold"


def test_replies_that_a_driver_went_on_without_count_and_their_time_is_bridged(made, arm, now):
    guard = made()
    guard.setup = guard_module.replace(guard.setup, coast_s=0.2)
    steps(guard, now, 1)
    arm.lost, state = 0, arm.state

    def slow():
        now.now_s += 0.06
        arm.lost += 1
        return state()

    arm.state = slow
    now.now_s += PERIOD_S
    assert guard.state().lost == 1
    guard.tick()
    assert guard.holds == 0  # 0.16 s after the command; the watchdog's 0.15 s are longer by 0.06
    now.now_s += 0.06
    guard.tick()
    assert guard.holds == 1


def report(limits=None):
    most = {"load": np.array([80.0, INF])} if limits is None else limits
    return EffortReport(EffortLimits(most), ("x", "y"), [], State(np.zeros(2), 0.0))


def test_what_is_observed_is_of_the_axes_that_have_it():
    first = State(np.zeros(2), 0.0, effort={"load": np.array([NAN, 1.0]), "current": np.full(2, NAN)})
    made = EffortReport(EffortLimits(), ("x", "y"), ["load"], first)
    seen = made.states(State(np.zeros(2), 0.0, effort={"load": np.array([NAN, 3.5])}))
    assert seen["load"].tolist() == [3.5] and seen["load"].dtype == np.float32
    with pytest.raises(ValueError, match="observe: the arm reports no current of its motors; it reports load"):
        EffortReport(EffortLimits(), ("x", "y"), ["load", "current"], first)
    with pytest.raises(ValueError, match="it reports none"):
        EffortReport(EffortLimits(), ("x", "y"), ["load"], State(np.zeros(2), 0.0))


def test_what_the_operator_sees(now, logged):
    made, at = report(), np.zeros(2)
    assert made.update(State(at, 0.0)) == {}
    effort = {"load": np.array([12.34, NAN]), "temperature": np.array([31.0, 32.0])}
    rows = made.update(State(at, 0.0, effort=effort, errors={"y": "overload"}, relaxed=("y",)))
    assert rows == {
        "x": {"load": 12.3, "temperature": 31.0},
        "y": {"temperature": 32.0, "error": "overload", "relaxed": True},
    }
    assert not logged()


def test_a_limit_that_is_passed_is_logged_once_a_minute(now, logged):
    made = report()
    high = State(np.zeros(2), 0.0, effort={"load": np.array([91.0, 99.0])})
    assert made.update(high)["x"]["over"] == ["load"] and "over" not in made.update(high)["y"]
    assert logged() == ["axis 'x': load 91 %, above max_load 80"]
    now.now_s += 59
    made.update(high)
    assert not logged()
    now.now_s += 2
    made.update(high)
    assert len(logged()) == 1


def test_a_limit_of_what_an_arm_does_not_report_is_a_mistake():
    limits = EffortLimits({"load": np.array([INF, 50.0])})
    limits.check(State(np.zeros(2), 0.0, effort={"load": np.array([NAN, 1.0])}), ("x", "y"))
    with pytest.raises(ValueError, match="axes: 'y': max_load: the arm reports no load of it, but temperature"):
        limits.check(State(np.zeros(2), 0.0, effort={"temperature": np.ones(2)}), ("x", "y"))
    with pytest.raises(ValueError, match="but none"):
        limits.check(State(np.zeros(2), 0.0), ("x", "y"))
