"""The ways of a reset, without an arm; and the environment's resets along them, with the guard in this process."""

import numpy as np
import pytest
from real_env import real_env, sleeping
from remembering_arm import PERIOD_S, Arm

from envs.base import RobotFault
from envs.real.camera_options import CameraError
from envs.real.options import Axis, RealOptions
from envs.real.route import ARRIVED, RELAXED_TOLERANCE, Route, Ways
from envs.real.standing import STANDS
from envs.real.startup import parking, sag
from envs.reward_classifier import KofN, SuccessClassifier

NAMES = ("x", "spare", "y", "grip")
AXES = {
    "x": Axis(low=0.0, high=2.0, speed=0.5),
    "y": Axis(low=0.0, high=1.0, speed=0.2),
    "grip": Axis(low=0.0, high=1.0, speed=9.0, gripper=True),
}
BEGIN, PLACE = np.array([0.0, 7.0, 0.0, 0.0]), {"x": 1.0, "y": 0.1, "grip": 1.0}
THERE = np.array([1.0, 7.0, 0.1, 0.0])  # but for the gripper, which has something in its hand
NEAR = ARRIVED * np.array([2.0, 1.0])


@pytest.fixture
def ways():
    return Ways(AXES, NAMES, 0.5, PERIOD_S)


def test_a_way_is_even_and_as_slow_as_its_slowest_axis(ways):
    route = ways.route(BEGIN, PLACE)
    steps = [route.next() for _ in range(40)]
    np.testing.assert_allclose(np.diff([BEGIN, *steps], axis=0), [[0.025, 0, 0.0025, 0.025]] * 40, atol=1e-12)
    np.testing.assert_array_equal(route.next(), [1.0, 7.0, 0.1, 1.0])  # and no farther
    there = ways.route(np.array([1.0, 7.0, 0.1, 1.0]), PLACE)
    np.testing.assert_array_equal(there.next(), [1.0, 7.0, 0.1, 1.0])


def test_it_arrives_where_all_but_the_grippers_are_near(ways):
    route = ways.route(BEGIN, PLACE)
    assert not route.arrived(THERE)  # its target has not been there yet
    for _ in range(40):
        route.next()
    assert not route.arrived(THERE + [1.01 * NEAR[0], 0, 0, 0])
    assert not route.arrived(THERE - [0, 0, 1.01 * NEAR[1], 0])
    assert route.arrived(THERE + [0.99 * NEAR[0], 5.0, -0.99 * NEAR[1], 0])
    assert not route.over


@pytest.mark.parametrize("grip", [Axis(gripper=True), Axis(squeeze=0.1)])
def test_a_gripper_need_not_arrive_in_a_reset_nor_where_the_arm_is_parked(grip):
    """Whether actions open and close it, or move it as configs/hardware/so101.yaml does."""
    axes = {"x": Axis(), "grip": grip}
    route = Ways(axes, tuple(axes), 1.0, 1.0).route(np.zeros(2), {"x": 0.05, "grip": -1.0})
    for _ in range(10):
        route.next()
    assert route.arrived(np.array([0.05, 0.3]))
    park = parking(RealOptions(park={"x": 0.5, "grip": -1.0}), tuple(axes), list(axes.values()))
    assert np.isinf(park.near).tolist() == np.isinf(park.still).tolist() == park.grippers.tolist() == [False, True]


def test_how_far_an_axis_may_sag_is_known_of_each():
    axes = [Axis(high=3.0), Axis(press=0.3), Axis(press=0.3, squeeze=0.5), Axis(gripper=True, squeeze=0.1)]
    assert [sag(axis) for axis in axes] == pytest.approx([0.08, 0.3, 0.5, 0.1])


@pytest.mark.parametrize(("share", "axis"), [(0.99 * RELAXED_TOLERANCE, None), (1.01 * RELAXED_TOLERANCE, 2)])
def test_one_that_comes_no_nearer_is_waited_for_a_while(ways, share, axis):
    route, count = ways.route(BEGIN, PLACE), 0
    sagged = THERE - [NEAR[0] / 2, 0, share * NEAR[1], 0]
    while not route.over:
        route.next()
        assert not route.arrived(sagged)
        count += 1
    assert 40 <= count <= 41 and route.missed() == axis
    slow = Route(np.zeros(1), np.ones(1), np.ones(1), np.full(1, 0.01), patience=3)
    slow.next()
    for place in np.linspace(0, 0.9, 30):  # each time nearer by more than half of `near`
        assert not slow.arrived(np.full(1, place)) and not slow.over
    for left in (3, 2, 1):
        assert not slow.over, left
        slow.arrived(np.full(1, 0.904))
    assert slow.over and slow.missed() == 0


def test_from_where_it_was_held_it_goes_on_evenly(ways):
    route = ways.route(BEGIN, PLACE)
    for _ in range(30):
        route.next()
    route.restart(np.array([0.5, 7.0, 0.05, 0.5]))
    steps = [route.next() for _ in range(20)]
    np.testing.assert_allclose(np.diff([[0.5, 7.0, 0.05, 0.5], *steps], axis=0), [[0.025, 0, 0.0025, 0.025]] * 20)
    assert route.arrived(THERE)


def test_an_arm_stands_that_moved_by_less_than_a_hundredth_for_long_enough(ways):
    def seen(last, count):
        return [np.array([0.03 * k, 9.0 * k, 0.0, 0.0]) for k in range(10)] + [np.array(last)] * count

    place = [0.27, 0.0, 0.0, 0.0]
    assert not ways.stands([np.array(place)] * 5) and ways.stands([np.array(place)] * 6)
    assert not ways.stands(seen(place, 3)) and ways.stands(seen(place, 4))
    swings = [np.array([0.0, 0.0, 0.0, 0.011 * (k % 2)]) for k in range(9)]
    assert not ways.stands(swings) and ways.stands([0.8 * each for each in swings])


# ---- the environment ----


@pytest.fixture
def now(monkeypatch):
    return sleeping(monkeypatch)


@pytest.fixture
def make(now, monkeypatch):
    def made(kind=Arm, **options):
        own = options.pop("axes", {})
        axes = {name: {"low": -1, "high": 1, "speed": 0.5, "lag": 0.5, **own.get(name, {})} for name in "xy"}
        arm = kind(now)
        return real_env(RealOptions(axes=axes, realtime=False, stuck_s=0.0, **options), arm, now, monkeypatch), arm

    return made


def test_an_arm_that_does_not_get_home_is_a_fault(make):
    env, arm = make()
    arm.at, arm.stuck = np.array([0.3, 0.0]), True
    env._motion.hold()
    with pytest.raises(RobotFault, match=r"axis 'x' does not reach 0, it is at 0\.3"):
        env.reset(seed=0)
    arm.at = np.array([0.15, 0.0])  # within five times the tolerance: it touches something
    env.reset(seed=0)


class Late(Arm):
    """Comes nearer by a fifth in each 0.1 s."""

    def __init__(self, now):
        super().__init__(now)
        self.goal, self.moved_s = self.at.copy(), now.now_s

    def state(self):
        left = 0.8 ** ((self.now.now_s - self.moved_s) / PERIOD_S)
        self.at, self.moved_s = self.goal + (self.at - self.goal) * left, self.now.now_s
        return super().state()

    def command(self, target):
        self.state()
        self.log.append("command")
        self.goal = np.array(target)
        return self.goal


def test_an_episode_begins_when_the_arm_stands(make, now):
    env, arm = make(Late, axes={name: {"start": 0.3} for name in "xy"}, via=[{"x": 0.5}])
    motion, legs = env._motion, []
    go, settle = motion.go, motion.settle
    motion.go = lambda place: (go(place), legs.append((place, now.now_s)))
    motion.settle = lambda place: (settle(place), legs.append((place, now.now_s)))
    env.reset(seed=0)
    (via, _), (home, _), (start, start_s), (stood, stood_s) = legs
    assert via == {"x": 0.5} and home == {"x": 0.0, "y": 0.0} and stood == start  # only there it is waited for
    assert 0.2 < stood_s - start_s < 1.2
    assert arm.at == pytest.approx(list(start.values()), abs=STANDS * 2)


@pytest.mark.parametrize(("at", "moves"), [(-1.45, True), (1.45, True), (-1.55, False), (1.55, False)])
def test_an_arm_that_stands_far_outside_moves_only_after_a_person_has_looked(make, at, moves):
    class Outside(Arm):
        def __init__(self, now):
            super().__init__(now)
            self.at = np.array([0.0, at])

    env, arm = make(Outside)
    if not moves:
        for _ in range(2):
            with pytest.raises(
                RobotFault, match=r"axis 'y' stands at -?1\.55, outside of its limits -1 to 1: is it cal"
            ):
                env.reset(seed=0)
        assert "command" not in arm.log
        env.clear()
    env.reset(seed=0)
    assert abs(arm.at[1]) < 0.05


def test_a_reset_begins_where_the_arm_was_moved_by_hand(make):
    env, arm = make()
    env.reset(seed=0)
    arm.at = np.array([0.8, 0.0])
    sent, command = [], arm.command
    arm.command = lambda target: (sent.append(target.copy()), command(target))[1]
    env.reset(seed=1)
    ways = -np.diff([0.8, *(target[0] for target in sent)])
    assert ways.max() <= 0.5 * env.options.reset_speed / env.options.setpoint_hz + 1e-9 and abs(arm.at[0]) < 0.05


def test_a_camera_that_fails_within_a_step_holds_the_arm_at_once(make):
    env, arm = make()
    env.reset(seed=0)
    arm.log.clear()

    def gone():
        raise CameraError("camera 'front': no frame for 1 s")

    env._motion._watch = gone
    with pytest.raises(RobotFault, match="camera 'front'") as fault:
        env.step(np.ones(2))
    assert fault.value.by_itself and arm.log == ["command", "hold"]


def test_a_second_interrupt_while_it_parks_lets_the_cameras_go_too(make, monkeypatch):
    env, _ = make()
    closed = []

    def interrupted(paused):
        raise KeyboardInterrupt

    monkeypatch.setattr(env._arm, "close", interrupted, raising=False)
    monkeypatch.setattr(env._cameras, "close", lambda: closed.append("cameras"))
    with pytest.raises(KeyboardInterrupt):
        env.close()
    assert closed == ["cameras"]


class Scene(Arm):
    """Its driver puts the scene back."""

    def reset_scene(self, seed):
        self.log.append("scene")


def test_the_scene_is_put_back_while_the_arm_is_held(make):
    env, arm = make(Scene)
    env.reset(seed=0)
    at = arm.log.index("scene")
    assert arm.log[at - 1] == "hold" and "command" in arm.log[at:]


@pytest.mark.parametrize("moment", ["scene", "ask", "home"])
def test_nothing_moves_after_a_stop_within_a_reset(make, moment, monkeypatch):
    """Whatever the reset did when it came: putting the scene back, asking a person, looking at the cameras."""
    env, arm = make(Scene, prompt="put it back")
    stopped, tick = [], env.paused

    def stop(*_, **__):
        stopped.append(len(arm.log))

    def paused(left_s):
        tick(max(left_s, 0.01))
        if stopped and len(stopped) < 50:
            stopped.append(len(arm.log))
            return True
        return False

    env.paused, env.ask = paused, stop if moment == "ask" else lambda prompt: None
    if moment == "scene":
        monkeypatch.setattr(env._arm, "scene", lambda seed, paused: (env._arm.guard.scene(seed), stop())[0])
    if moment == "home":
        env._start_check.due = True
        env._start_check.at_home = stop
    env.reset(seed=0)
    begun, released = stopped[0], stopped[-1]
    assert len(stopped) == 50 and "command" not in arm.log[begun:released] and "scene" not in arm.log[begun:released]
    assert "command" in arm.log[released:]


def test_a_scene_is_ready_by_the_rule_that_its_classifier_was_trained_with(make, now, monkeypatch):
    """k of n frames, each a period after the one before: one that is wrong, or old, is not enough."""
    seen, times, asked = iter([0.9, 0.1, 0.1, 0.9, 0.9, 0.1]), [], []

    class Classifier:
        threshold, n = 0.5, 3

        def check(self, space):
            pass

        def recent(self):
            return KofN(0.5, 2, 3)

        def probability(self, observation):
            times.append(now.now_s)
            return next(seen)

    monkeypatch.setattr(SuccessClassifier, "load", lambda path: Classifier())
    env, _ = make(ready="ready.pt", prompt="put it back")
    env.ask = asked.append
    env.reset(seed=0)
    assert asked == ["put it back"] and len(times) == 6
    assert np.diff(times[:3]) == pytest.approx([PERIOD_S] * 2) and np.diff(times[3:]) == pytest.approx([PERIOD_S] * 2)
