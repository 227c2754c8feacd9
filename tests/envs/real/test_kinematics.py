"""Where a joint arm's hand is, and the joints that bring it somewhere."""

import arm_descriptions as arms
import numpy as np
import pytest

from envs.real.kinematics import REACH_M, Kinematics, description, rotation, rotation_vector
from envs.real.least_squares import bounded


@pytest.fixture
def six(tmp_path):
    (tmp_path / "six.xml").write_text(arms.SIX)
    return Kinematics(str(tmp_path / "six.xml"))


@pytest.fixture
def four(tmp_path):
    def made(axis="0 -1 0"):
        (tmp_path / "four.urdf").write_text(arms.URDF.format(axis=axis))
        return Kinematics(str(tmp_path / "four.urdf"), "tip")

    return made


SO101 = Kinematics("so101")
HOME = np.deg2rad([0, -60, 60, 60, 0])


def test_the_so101_is_where_its_makers_say():
    assert SO101.joints == ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")
    wrist = Kinematics(str(description("so101")), "gripper")  # the same arm, another frame: as in their URDF at zero
    np.testing.assert_allclose(wrist.pose(np.zeros(5)).position, [0.29323, -0.00018, 0.23437], atol=2e-5)
    np.testing.assert_allclose(SO101.pose(np.zeros(5)).position, [0.3892, -0.0007, 0.2444], atol=1e-4)
    np.testing.assert_allclose(SO101.axes(np.zeros(5))[:, 0], [1, 0, 0], atol=1e-6)  # x points out of the hand


def test_pitch_tips_the_hand_down_and_roll_turns_it_clockwise():
    assert SO101.turns == ("roll", "pitch")
    for joint in (1, 2, 3):
        tipped = SO101.axes(np.eye(5)[joint] * 0.3)
        np.testing.assert_allclose(tipped[:, 0], [np.cos(0.3), 0, -np.sin(0.3)], atol=1e-6)
        np.testing.assert_allclose(SO101.pose(np.eye(5)[joint] * 0.3).turn, [0, 0.3])
    before, turned = SO101.axes(np.zeros(5)), SO101.axes(np.eye(5)[4] * -0.3)
    np.testing.assert_allclose(rotation_vector(turned @ before.T), [0.3, 0, 0], atol=1e-6)
    np.testing.assert_allclose(SO101.pose(np.eye(5)[4] * -0.3).turn, [0.3, 0])
    np.testing.assert_allclose(SO101.pose(np.eye(5)[0]).turn, [0, 0])  # whatever the base joint does


def test_a_urdf_is_read_without_its_meshes(four):
    arm = four()
    assert arm.joints == ("pan", "lift", "elbow", "turn") and arm.turns == ("pitch",)
    assert (arm.low == -2).all() and (arm.high == 2).all()
    np.testing.assert_allclose(arm.pose(np.zeros(4)).position, [0.6, 0, 0.1])
    lifted = arm.pose(np.array([np.pi / 2, np.pi / 4, np.pi / 4, 0]))  # lift's axis and the wrist's are the other way
    np.testing.assert_allclose(lifted.position, [0, 0.3 * np.sqrt(0.5) + 0.3, 0.1 + 0.3 * np.sqrt(0.5)], atol=1e-9)
    np.testing.assert_allclose(lifted.turn, [0], atol=1e-9)
    assert four("1 0 0").turns == ("roll",)


@pytest.mark.parametrize("kind", ["so101", "six", "four"])
def test_the_jacobian_is_the_slope_of_the_pose(kind, six, four):
    arm = {"so101": SO101, "six": six}.get(kind) or four()
    rng, step = np.random.default_rng(0), 1e-6
    for _ in range(20):
        at = rng.uniform(arm.low, arm.high)
        slopes = [arm.motion(arm.pose(at + step * one), arm.pose(at - step * one)) for one in np.eye(len(at))]
        np.testing.assert_allclose(arm.jacobian(at), np.array(slopes).T / 2 / step, atol=1e-7)


@pytest.mark.parametrize("kind", ["so101", "six"])
def test_a_motion_is_what_leads_from_one_pose_to_another(kind, six):
    arm, rng = SO101 if kind == "so101" else six, np.random.default_rng(1)
    for _ in range(20):
        here, there = (arm.pose(rng.uniform(arm.low, arm.high)) for _ in range(2))
        came = arm.moved(here, arm.motion(there, here))
        np.testing.assert_allclose(came.position, there.position, atol=1e-12)
        np.testing.assert_allclose(came.turn, there.turn, atol=1e-9)


@pytest.mark.parametrize("kind", ["so101", "six"])
def test_the_joints_found_bring_the_hand_where_it_is_to_be(kind, six):
    arm, rng = SO101 if kind == "so101" else six, np.random.default_rng(2)
    for number in range(40):
        goal = arm.pose(rng.uniform(arm.low, arm.high))
        joints, left = arm.solve(goal, (arm.low + arm.high) / 2, arm.low, arm.high, seed=number)
        assert left < 1e-6 and np.abs(arm.motion(goal, arm.pose(joints))).max() < 1e-5
        assert (joints >= arm.low).all() and (joints <= arm.high).all()


def test_the_nearest_joints_are_near_and_within_their_bounds():
    rng = np.random.default_rng(3)
    for _ in range(100):
        at = rng.uniform(SO101.low, SO101.high)
        goal = SO101.moved(SO101.pose(at), rng.uniform(-0.3, 0.3, 5))
        low, high = np.maximum(at - 0.05, SO101.low), np.minimum(at + 0.05, SO101.high)
        found = SO101.nearest(goal, at, low, high)
        assert (found >= low).all() and (found <= high).all()
        weights = [1, 1, 1, REACH_M, REACH_M]
        before, after = (np.linalg.norm(weights * SO101.motion(goal, SO101.pose(one))) for one in (at, found))
        assert after <= before


def test_what_weighs_more_is_kept_where_not_all_can_be_reached():
    far = SO101.moved(SO101.pose(HOME), np.array([0.5, 0, 0, 0, 0]))  # out of reach
    off = [
        np.abs(SO101.motion(far, SO101.pose(SO101.nearest(far, HOME, SO101.low, SO101.high, weights, 100))))
        for weights in (np.ones(5), np.array([0.1, 10, 10, 10, 10]))
    ]
    assert off[0][3:].max() > 0.1 > 0.01 > off[1][1:].max()
    assert off[1][0] > off[0][0]


def test_bounded_least_squares_end_where_no_number_may_improve_them():
    rng = np.random.default_rng(4)
    for _ in range(500):
        count = rng.integers(1, 7)
        motion, wanted = rng.normal(size=(count + 2, count)), rng.normal(size=count + 2)
        low, high = -rng.random(count) * rng.integers(0, 2, count), rng.random(count) * rng.integers(0, 2, count)
        found = bounded(motion.T @ motion, motion.T @ wanted, low, high)
        assert (found >= low).all() and (found <= high).all()
        slope = motion.T @ (wanted - motion @ found)  # Karush, Kuhn, Tucker: only a bound keeps one from going on
        assert (slope[found < high] < 1e-9).all() and (slope[found > low] > -1e-9).all()


def test_rotations_are_right_handed():
    np.testing.assert_allclose(rotation(np.array([0, 0, np.pi / 2])) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(rotation(np.zeros(3)), np.eye(3))
    for vector in np.random.default_rng(5).uniform(-1.7, 1.7, (20, 3)):
        np.testing.assert_allclose(rotation_vector(rotation(vector)), vector, atol=1e-9)


@pytest.mark.parametrize(
    "text, frame, line",
    [
        (None, "", "no file 'so102'.*did you mean 'so101'"),
        ("<mujoco><worldbody>", "", "description: .*arm.xml"),
        (arms.SIX, "hend", "no frame 'hend'.*did you mean 'hand'"),
        (arms.SIX, "link2", "expected 3 to 6 hinges .*, not j1, j2$"),
        (arms.SIX, "base", "expected 3 to 6 hinges .*, not none$"),
        (arms.SIX, "link5", "an arm of 5 joints has to be"),
        (arms.SIX.replace('name="j3" axis="0 1 0"', 'name="j3" type="slide" axis="0 1 0"'), "", "3 to 6 hinges"),
    ],
)
def test_a_bad_description_is_one_line(text, frame, line, tmp_path):
    path = tmp_path / "arm.xml"
    if text:
        path.write_text(text)
    with pytest.raises(ValueError, match=line) as raised:
        Kinematics(str(path) if text else "so102", frame)
    assert "\n" not in str(raised.value)
