"""Actions that move the hand of a joint arm, up to the safety filter."""

import arm_descriptions
import fake_lerobot
import numpy as np
import pytest
from real_env import real_env, sleeping
from remembering_arm import Arm

from envs.real import arm_lerobot
from envs.real.arm import make_arm
from envs.real.hand import CLEAREST, HandActions, read_hand
from envs.real.options import RealOptions, limits_of, read_axis
from envs.real.safety_filter import Filter
from tools.stress.hand import hostile
from tools.stress.safety_filter import violations

PERIOD_S = 0.1
SPEED, TURN = 0.1, 0.5
JOINTS = {
    "shoulder_pan": {"low": -60, "high": 60, "speed": 90},
    "shoulder_lift": {"low": -90, "high": 60, "speed": 90},
    "elbow_flex": {"low": -60, "high": 90, "speed": 90},
    "wrist_flex": {"low": -60, "high": 95, "speed": 90},
    "wrist_roll": {"low": -90, "high": 90, "speed": 90},
}
GRIPPER = {"gripper": {"low": 5, "high": 60, "home": 60, "speed": 100, "gripper": True, "opens": "high"}}
HOME = (0, -20, 40, 50, 0)
SIX = {f"j{n}": {"low": -2, "high": 2, "speed": 2} for n in range(1, 7)}
SIX_HOME = (0.1, 0.4, 0.8, 0.1, 0.5, -0.2)


class Driven:
    """Hand actions and the safety filter behind them, for an arm that goes where it is sent."""

    def __init__(self, axes, home, **hand):
        options = RealOptions(axes=axes, hand={"speed": SPEED, "rotation_speed": TURN, **hand})
        named = {name: read_axis(name, given) for name, given in axes.items()}
        self.limits = limits_of(list(named.values()), PERIOD_S)
        self.actions = HandActions(read_hand(options, named), named, list(axes), PERIOD_S)
        self.filter, self.time_s = Filter(self.limits, PERIOD_S), 0.0
        self.kinematics = self.actions._kinematics
        self.rest(np.array(home, np.float64))

    def rest(self, position):
        self.filter.rest(position, self.time_s)
        self.actions.rest(self.filter.position, True)

    def step(self, *action):
        self.time_s += PERIOD_S
        begun = self.filter.position.copy()
        self.requested = self.actions.requested(np.array(action, np.float64), begun)
        return self.actions.executed(begun, self.filter.target(self.requested, self.time_s))

    @property
    def joints(self):
        return self.actions._joints(self.filter.position)

    @property
    def pose(self):
        return self.kinematics.pose(self.joints)

    def off(self, pose):
        """m, and rad by 0.15 m"""
        return np.abs(self.kinematics.weights * self.kinematics.motion(pose, self.pose)).max()


def so101(rotation=("roll", "pitch"), home=HOME, **hand):
    return Driven(JOINTS, home, description="so101", rotation=list(rotation), **hand)


@pytest.fixture
def six(tmp_path):
    (tmp_path / "six.xml").write_text(arm_descriptions.SIX)
    return Driven(SIX, SIX_HOME, description=str(tmp_path / "six.xml"), rotation=["rx", "ry", "rz"], units="rad")


@pytest.mark.parametrize("number", range(5))
def test_a_step_moves_the_hand_by_its_number_and_by_nothing_else(number):
    arm = so101()
    before = arm.pose
    action = np.eye(5)[number] * 0.5
    executed = [arm.step(*action) for _ in range(4)]
    moved = arm.kinematics.motion(arm.pose, before)
    expected = np.eye(5)[number] * 4 * 0.5 * PERIOD_S * (SPEED if number < 3 else TURN)
    np.testing.assert_allclose(moved, expected, atol=1e-6)
    np.testing.assert_allclose(sum(executed), 4 * action, atol=1e-4)


@pytest.mark.parametrize("number", range(6))
def test_six_joints_turn_the_hand_about_the_axes_of_the_base(number, six):
    before = six.kinematics.axes(six.joints), six.pose.position
    for _ in range(4):
        executed = six.step(*np.eye(6)[number] * 0.5)
    np.testing.assert_allclose(executed, np.eye(6)[number] * 0.5, atol=1e-4)
    angle = 4 * 0.5 * PERIOD_S * TURN * (number > 2)
    axis, (c, s) = number % 3, (np.cos(angle), np.sin(angle))
    turn = np.roll(np.roll([[1, 0, 0], [0, c, -s], [0, s, c]], axis, 0), axis, 1)
    np.testing.assert_allclose(six.kinematics.axes(six.joints), turn @ before[0], atol=1e-5)
    shift = np.eye(6)[number][:3] * 4 * 0.5 * PERIOD_S * SPEED
    np.testing.assert_allclose(six.pose.position, before[1] + shift, atol=1e-6)


def test_what_actions_do_not_turn_stays_as_it_was():
    arm = so101(rotation=())
    before = arm.pose.turn
    for action in ([1, 0.5, -0.3], [-1, 1, 0], [0, -1, 1]):
        for _ in range(5):
            arm.step(*action)
    np.testing.assert_allclose(arm.pose.turn, before, atol=1e-5)


def test_a_thousand_moves_there_and_back_end_where_they_began():
    arm, rng = so101(), np.random.default_rng(0)
    begun = arm.pose
    for _ in range(1000):
        action = rng.uniform(-0.5, 0.5, 5)
        arm.step(*action)
        arm.step(*-action)
    for _ in range(3):
        arm.step(*np.zeros(5))
    assert arm.off(begun) < 1e-6


def test_what_the_filter_cuts_off_is_made_up_for():
    axes = {name: {**axis, "acceleration": 100} for name, axis in JOINTS.items()}  # slow to start and to stop
    arm = Driven(axes, HOME, description="so101", rotation=["roll", "pitch"])
    before = arm.pose
    for _ in range(5):
        arm.step(0.5, 0, 0, 0, 0)
    assert arm.off(before._replace(position=before.position + [0.025, 0, 0])) > 1e-4  # on its way
    for _ in range(10):
        arm.step(*np.zeros(5))
    assert arm.off(before._replace(position=before.position + [0.025, 0, 0])) < 1e-5


@pytest.mark.parametrize("way", [(1, 0, 0), (-1, 0, 0), (0, 0, 1), (0, 0, -1), (0, 1, 0), (1, 1, 1), (-1, 0, -1)])
def test_an_unreachable_hand_stops_and_comes_back_at_once(way):
    arm = so101()
    turn = arm.pose.turn
    for _ in range(100):
        arm.step(*way, 0, 0)
    stopped, clear = arm.pose, arm.kinematics.clearance(arm.joints)
    assert clear >= CLEAREST or clear > 0.9 * CLEAREST
    for _ in range(20):
        arm.step(*way, 0, 0)
    assert np.abs(arm.pose.position - stopped.position).max() < (0.04 if sum(map(abs, way)) > 1 else 1e-3)
    np.testing.assert_allclose(arm.pose.turn, turn, atol=0.02)  # it isn't bent to reach farther
    stopped = arm.pose.position
    for _ in range(2):
        arm.step(*-np.array(way), 0, 0)
    assert (arm.pose.position - stopped) @ way < -0.003  # nothing has to be unwound


def test_a_turn_ends_at_the_joints_range_and_leaves_the_hand_in_its_place():
    arm = so101()
    before = arm.pose.position
    for number, way in [(4, 1), (4, -1), (3, 1), (3, -1)]:
        for _ in range(80):
            arm.step(*np.eye(5)[number] * way)
        np.testing.assert_allclose(arm.pose.position, before, atol=1e-3)
    assert arm.filter.position[4] == pytest.approx(90, abs=1e-6)  # roll is the other way round than the joint


def test_the_hand_stops_at_its_workspace_and_comes_back_into_it():
    arm = so101(low=[0.15, -0.05, 0.02], high=[0.3, 0.05, 0.2])
    for way in ([0, 0, -1], [0, 1, 0], [1, 0, 0]):
        for _ in range(40):
            arm.step(*way, 0, 0)
    np.testing.assert_allclose(arm.pose.position, [0.3, 0.05, 0.02], atol=1e-4)
    arm = so101(low=[0.15, -0.05, 0.2], high=[0.4, 0.05, 0.3])  # it is below that
    before = arm.pose.position[2]
    assert before < 0.19
    arm.step(0, 0, -1, 0, 0)
    assert arm.pose.position[2] == pytest.approx(before, abs=1e-5)
    arm.step(0, 0, 1, 0, 0)
    assert arm.pose.position[2] == pytest.approx(before + SPEED * PERIOD_S, abs=1e-5)


def test_joints_never_flip_and_the_hand_keeps_away_from_singularities():
    arm, rng = so101(), np.random.default_rng(1)
    side = np.sign(np.linalg.det(arm.kinematics.jacobian(arm.joints)))
    for _ in range(60):
        way = rng.choice([-1, 0, 1], 5)
        for _ in range(10):
            arm.step(*way)
            assert np.sign(np.linalg.det(arm.kinematics.jacobian(arm.joints))) == side
    assert arm.kinematics.clearance(arm.joints) > 0.5 * CLEAREST


def test_an_arm_that_begins_in_a_singularity_can_leave_it():
    axes = {**JOINTS, "elbow_flex": {"low": -95, "high": 90, "speed": 90}}
    arm = Driven(axes, (0, 20, -70, 10, 0), description="so101", rotation=["roll", "pitch"])
    begun = arm.kinematics.clearance(arm.joints)
    assert begun < CLEAREST
    place = arm.pose.position
    for _ in range(15):
        arm.step(-1, 0, 0, 0, 0)
    assert arm.kinematics.clearance(arm.joints) > CLEAREST
    assert arm.pose.position[0] < place[0] - 0.05


def test_hostile_actions_lead_to_no_command_outside_of_a_limit():
    class Careless(Filter):
        def target(self, requested, time_s):
            self.position = np.where(np.isfinite(requested), requested, self.position) * 1.01
            return self.position

    for kind in (Filter, Careless):
        arm, rng = so101(), np.random.default_rng(2)
        filter = kind(arm.limits, PERIOD_S)
        filter.rest(np.array(HOME, np.float64), 0.0)
        found = violations(filter, arm.limits, 500, rng, source=hostile(rng, arm.actions, filter))
        assert (found > 0) == (kind is Careless)


def test_nan_stands_still():
    arm = so101()
    arm.step(0.5, 0, 0, 0, 0)
    before = arm.filter.refused
    for bad in (np.nan, np.inf):
        at = arm.filter.position.copy()
        arm.step(0, 0, bad, 0, 0)
    assert arm.filter.refused == before + 2
    np.testing.assert_allclose(arm.filter.position, at, atol=1e-9)
    pose = arm.pose
    arm.step(0.5, 0, 0, 0, 0)
    assert arm.off(pose._replace(position=pose.position + [0.005, 0, 0])) < 1e-5


def test_the_gripper_is_beside_the_hand():
    arm = Driven({**GRIPPER, **JOINTS}, (60, *HOME), description="so101", rotation=["pitch"])
    meaning = arm.actions.meaning
    assert meaning["high"] == pytest.approx([0.01, 0.01, 0.01, 0.05, 1])
    assert meaning == {
        "quantity": "end-effector pose", "frame": "the robot's base", "units": "m and rad",
        "names": ["x", "y", "z", "pitch", "gripper"],
        "low": [-value for value in meaning["high"]], "high": meaning["high"],
    }  # fmt: skip
    executed = arm.step(1, 0, 0, 0, 1)
    assert arm.requested[0] == 5 and executed[4] == 1  # closed, where it is low
    executed = arm.step(0, 0, 0, 0, 0)
    assert arm.requested[0] == 5 and executed[4] == 1  # as it was asked for last
    executed = arm.step(0, 0, 0, 0, -1)
    assert arm.requested[0] == 60 and executed[4] == -1


def test_a_hand_and_a_leader_arm_are_followed():
    arm = Driven({**JOINTS, **GRIPPER}, (*HOME, 60), description="so101", rotation=["roll", "pitch"])
    at = arm.pose.position
    target = arm.filter.position
    action = arm.actions.towards({"x": at[0] + 0.002, "z": at[2] - 1, "pitch": arm.pose.turn[1] + 0.01}, target)
    np.testing.assert_allclose(action, [0.2, 0, -1, 0, 0.2, 0], atol=1e-6)
    leader = dict(zip(JOINTS, (10, -10, 30, 40, 20), strict=True)) | {"gripper": 7}
    for _ in range(100):
        action = arm.actions.towards(leader, arm.filter.position)
        arm.step(*action)
    assert action[5] == 1
    np.testing.assert_allclose(arm.filter.position[:5], [10, -10, 30, 40, 20], atol=0.01)


def test_the_hand_is_observed():
    arm = so101()
    states = arm.actions.states(np.zeros(5))
    assert {name: (value.shape, value.dtype) for name, value in states.items()} == {
        "ee_pos": ((3,), np.float32), "ee_rot": ((6,), np.float32)
    }  # fmt: skip
    np.testing.assert_allclose(states["ee_pos"], [0.3892, -0.0007, 0.2444], atol=1e-4)
    np.testing.assert_allclose(states["ee_rot"], [1, 0, 0, 0, 0.9988, 0.0487], atol=1e-3)


def test_the_arms_own_axes_and_units_are_turned_into_joints():
    axes = {"pan": {**JOINTS["shoulder_pan"], "low": -1, "high": 1}}
    axes |= {name: {**axis, "low": -2, "high": 2} for name, axis in JOINTS.items() if name != "shoulder_pan"}
    hand = {"joints": {"pan": "shoulder_pan"}, "units": "rad", "zero": {"elbow_flex": 0.1}, "reversed": ["elbow_flex"]}
    arm = Driven(axes, (0.2, -0.3, 0.5, 0.6, 0), description="so101", **hand)
    np.testing.assert_allclose(arm.joints, [0.2, -0.3, -0.4, 0.6, 0])
    before = arm.pose
    arm.step(0.5, 0, 0)
    assert arm.off(before._replace(position=before.position + [0.005, 0, 0])) < 1e-6


@pytest.fixture
def env(monkeypatch):
    now = sleeping(monkeypatch)
    arm = Arm(now)
    arm.axes, arm.at = (*JOINTS, "gripper"), np.array([5.0, -20, 45, 50, 5, 30])
    axes = {name: {**axis, "home": home} for (name, axis), home in zip(JOINTS.items(), HOME, strict=True)} | GRIPPER
    hand = {"description": "so101", "rotation": ["pitch"], "speed": SPEED}
    made = real_env(RealOptions(axes=axes, hand=hand, realtime=False, horizon=9), arm, now, monkeypatch)
    made.reset(seed=0)
    return made


def test_the_environment_moves_and_observes_the_hand(env):
    assert env.action_space.shape == (5,)
    assert env.action_meaning["names"] == ["x", "y", "z", "pitch", "gripper"]
    assert env.action_meaning["kind"] == "delta" and env.action_meaning["control_hz"] == 10
    first = env.reset(seed=0)[0]
    assert env.observation_space.contains(first) and set(first) == {"proprio", "ee_pos", "ee_rot"}
    for _ in range(3):
        observation, _, _, _, info = env.step(np.array([0.5, 0, 0, 0, 1], np.float32))
        np.testing.assert_allclose(info["action"], [0.5, 0, 0, 0, 1], atol=1e-3)
    moved = observation["ee_pos"] - first["ee_pos"]
    np.testing.assert_allclose(moved, [3 * 0.5 * SPEED * PERIOD_S, 0, 0], atol=1e-3)
    here = env.state.position.copy()
    env.hold()
    np.testing.assert_allclose(env.step(np.array([0, 0, 0, 0, 1.0]))[4]["action"], [0, 0, 0, 0, 1], atol=1e-3)
    np.testing.assert_allclose(env.state.position[:5], here[:5], atol=0.1)  # it goes on from where it stands
    with pytest.raises(ValueError, match="action must be 5 numbers"):
        env.step(np.zeros(6))
    np.testing.assert_allclose(env.towards({"z": float(observation["ee_pos"][2]) - 1})[2], -1)


def test_an_episode_begins_with_the_gripper_where_the_reset_has_left_it(env):
    env.step(np.array([0, 0, 0, 0, 1.0]))
    env.reset(seed=0)
    assert env.step(np.zeros(5))[4]["action"][4] == -1
    assert env.state.position[5] > 55


@pytest.mark.parametrize(
    "axes, hand, line",
    [
        (JOINTS, {"description": ""}, "hand: description: none"),
        (JOINTS, {"speed": 0}, "hand: speed is 0"),
        (JOINTS, {"rotaton": []}, "rotaton.*did you mean 'rotation'"),
        (JOINTS, {"rotation": ["yaw"]}, r"rotation is \['yaw'\]; of this arm it must be some of \['roll', 'pitch'\]"),
        (JOINTS, {"rotation": ["roll", "roll"]}, "of this arm it must be"),
        (JOINTS, {"low": [0, 0]}, r"hand: low is \[0(.0)?, 0(.0)?\]; it must be x, y and z"),
        (JOINTS, {"low": [0, 0, 1], "high": [1, 1, 0]}, "low .* is above high"),
        (JOINTS, {"zero": {"elbow": 3}}, "'elbow' is none of its joints.*'elbow_flex'"),
        (JOINTS, {"units": "rad"}, "a range of 120 rad; hand: units: rad"),
        ({"elbow": JOINTS["elbow_flex"]}, {}, "the joint 'shoulder_pan' of its description is none of axes"),
        ({**JOINTS, "wrist_roll": GRIPPER["gripper"]}, {}, "the joint 'wrist_roll' is the gripper"),
    ],
)
def test_a_bad_option_is_one_line(axes, hand, line):
    with pytest.raises(ValueError, match=line) as raised:
        Driven(axes, [0] * len(axes), **{"description": "so101", **hand})
    assert "\n" not in str(raised.value)


def test_the_hand_of_an_arm_that_lerobot_drives_moves_as_asked(tmp_path, monkeypatch):
    """Through LeRobot's dictionaries, in its units, with its gripper that is open where it is high."""
    fake_lerobot.install(tmp_path, monkeypatch)
    now = sleeping(monkeypatch)
    monkeypatch.setattr(arm_lerobot, "time", now)
    try:
        arm = make_arm("lerobot:so9_follower", {})
        axes = {**{name: {**about, "home": home} for (name, about), home in zip(JOINTS.items(), HOME)}, **GRIPPER}
        arm.axes, arm._keys = tuple(axes), [f"{name}.pos" for name in axes]
        arm.robot.at = {f"{name}.pos": float(about["home"]) for name, about in axes.items()}
        options = RealOptions(
            axes=axes, hand={"description": "so101", "rotation": ["pitch"], "speed": SPEED}, realtime=False
        )
        env = real_env(options, arm, now, monkeypatch)
        before, _ = env.reset(seed=0)
        assert env.action_meaning["names"] == ["x", "y", "z", "pitch", "gripper"]
        for _ in range(8):
            seen, *_ = env.step(np.array([0, 0, 0.5, 0, 1], np.float32))
        assert seen["ee_pos"] - before["ee_pos"] == pytest.approx([0, 0, 8 * 0.5 * SPEED * PERIOD_S], abs=0.004)
        assert arm.robot.sent[-1]["gripper.pos"] < 30 and set(arm.robot.sent[-1]) == set(arm._keys)
    finally:
        fake_lerobot.forget()


@pytest.mark.parametrize("held", ["by a pause", "by the watchdog", "before the first step"])
def test_an_arm_that_was_moved_by_hand_while_it_was_held_does_not_go_back(env, held):
    guard = env._arm.guard
    arm, moved = guard.arm, np.array([10.0, 5.0, 0, 0, 0, 0])
    if held == "before the first step":
        arm.at = arm.at + moved
    elif held == "by a pause":
        env.step(np.array([1.0, 0, 0, 0, 1]))
        env.hold()
        arm.at = arm.at + moved
    else:
        tick = env.paused

        def stalled(left_s):  # the robot server is stopped in the middle of a step
            env.paused = tick
            tick(1.0)
            arm.at = arm.at + moved
            return False

        env.paused = stalled
        env.step(np.array([1.0, 0, 0, 0, 1]))
    there = arm.at.copy()
    for _ in range(5):
        np.testing.assert_allclose(env.step(np.zeros(5))[4]["action"][:4], 0, atol=1e-3)
    np.testing.assert_allclose(arm.at[:5], there[:5], atol=0.05)
