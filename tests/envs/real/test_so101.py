"""The simulated SO-101: its description, its desk, and the whole stack on its emulated bus."""

import importlib.util
import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import envs
from envs import scripted
from envs.base import RobotFault
from envs.real import arm_lerobot
from envs.real import so101_model as so101
from envs.real.bus.client import TICKS_PER_DEGREE, Client
from envs.real.bus.protocol import FEETECH
from envs.real.kinematics import Kinematics, description
from envs.real.mock_arm import SO101Options, calibration_of, mock_options, port_of
from envs.real.mock_world import send_fault
from envs.real.so101_arm import SO101Arm
from envs.real.so101_expert import PITCH, SO101LiftExpert

HARDWARE = Path(__file__).parents[3] / "configs" / "hardware"
HERE = importlib.util.find_spec(so101.PACKAGE) is not None
described = pytest.mark.skipif(not HERE, reason="without the extra [so101]")


def options_of(name):
    return yaml.safe_load((HARDWARE / name).read_text())["env"]


def test_the_rehearsal_is_of_the_real_arms_options():
    real, mock, hand = (options_of(f"so101{which}.yaml") for which in ("", "_mock", "_hand"))
    assert tuple(mock["axes"]) == so101.JOINTS and set(mock["cameras"]) == set(real["cameras"])
    of_the_arm = {"name", "arm", "arm_options", "cameras"}
    of_the_task = {"horizon", "reset_speed", "prompt", "instruction"}
    for options in (real, mock):
        for key in of_the_arm | of_the_task:
            options.pop(key, None)
    assert mock == real
    ways = {"low", "high", "velocity", "step", "gripper", "opens"}  # a hand's way needs more of its joints

    def limits(axes):
        return {name: {key: value for key, value in axis.items() if key not in ways} for name, axis in axes.items()}

    assert limits(hand["axes"]) == limits(real["axes"])


def test_without_its_description_it_is_one_line(monkeypatch):
    monkeypatch.setattr(so101, "PACKAGE", "no_such_package")
    with pytest.raises(ValueError, match=r"install the extra \[so101\]") as refused:
        envs.make("mock", arm="mock:so101", axes=options_of("so101.yaml")["axes"])
    assert "\n" not in str(refused.value)


def test_another_robot_is_refused():
    with pytest.raises(ValueError, match=r"mock:so10'.*did you mean 'so101'|mock:so10'.*so101"):
        envs.make("mock", arm="mock:so10", axes=options_of("so101.yaml")["axes"])
    with pytest.raises(ValueError, match="lost is 2000"):
        mock_options({"lost": 2000}, "so101")


def test_lerobots_driver_gets_the_port_and_the_calibration(monkeypatch):
    seen = {}
    monkeypatch.setattr(arm_lerobot, "LeRobotArm", lambda kind, **options: seen.update(options, kind=kind))
    SO101Arm(driver="lerobot", socket="/x/world.sock")  # also where MuJoCo and the description are missing
    wanted = {"kind": "so101_follower", "port": "/x/world.port", "id": "world", "calibration_dir": "/x"}
    assert seen == {**wanted, "use_degrees": True, "disable_torque_on_disconnect": False}


def test_the_expert_moves_the_hand_where_actions_do():
    axes, asked = options_of("so101.yaml")["axes"], {}
    options = SimpleNamespace(axes=axes, hand={"description": "so101"}, control_hz=10.0)
    state = SimpleNamespace(position=np.array([0, -60.0, 60, 60, 0, 60]), thing=np.zeros(3))
    real = SimpleNamespace(options=options, state=state, target=state.position)
    real.towards = lambda position: np.full(6, asked.update(position) or 0.5)
    expert = SO101LiftExpert(real, 0.0, 0.0, 0.0, np.random.default_rng(0))
    assert (expert.towards(np.array([0.2, 0.1, 0.05]), np.zeros(3), scripted.CLOSE) == 0.5).all()
    assert asked == {"x": 0.2, "y": 0.1, "z": 0.05, "pitch": PITCH, "gripper": axes["gripper"]["low"]}
    expert.towards(np.zeros(3), np.zeros(3), scripted.OPEN)
    assert asked["gripper"] == axes["gripper"]["high"]


# ---- the description and the desk, without a clock ----


@described
def test_units_there_and_back():
    units = so101.Units(so101.arm_spec().compile())
    values = np.array([10.0, -20.0, 30.0, 40.0, -50.0, 60.0])
    assert np.allclose(units.of(units.radians(values)), values)
    assert np.allclose(units.of(units.low)[[0, 5]], [-110, 0], atol=0.01)
    assert np.allclose(units.of(units.high)[[0, 5]], [110, 100], atol=0.01)


@described
def test_the_meshes_are_on_the_joints_of_our_own_description():
    import mujoco

    model, arm = so101.arm_spec().compile(), Kinematics(str(description("so101")), "gripper")
    data, units, rng = mujoco.MjData(model), so101.Units(model), np.random.default_rng(0)
    assert (model.geom_contype > 0).sum() == sum(map(len, so101.SHAPES.values()))
    for _ in range(5):
        data.qpos[:] = joints = rng.uniform(units.low, units.high)
        mujoco.mj_forward(model, data)
        assert np.allclose(data.body("gripper").xpos, arm.pose(joints[:5]).position, atol=2e-4)


@described
def test_the_desk():
    from envs.real.so101_scene import CUBE_M, HOME, LIFTED_M, PLACE_M, SPREAD_M, Desk

    desk, on = Desk(), np.ones(6)
    home = desk.units.radians(np.array(HOME))
    desk.place(3)
    first = desk.cube
    desk.place(4)
    assert np.abs(desk.cube - first)[:2].max() > 0.001
    places = []
    for seed in range(30):
        desk.place(seed)
        places.append(desk.cube)
    assert np.abs(np.array(places)[:, :2] - PLACE_M).max(axis=0) == pytest.approx(SPREAD_M, rel=0.3)
    desk.advance(home, on, 1.0)
    assert not desk.lifted and desk.cube[2] == pytest.approx(CUBE_M / 2, abs=0.001)
    assert np.rad2deg(np.abs(desk.radians - home)).max() < 3  # the servos hold it, but sag
    desk.data.qpos[desk._cube + 2] = CUBE_M / 2 + LIFTED_M + 0.001
    assert desk.lifted
    desk.place(0)
    before = desk.radians
    desk.advance(home + np.pi / 2 * np.eye(6)[0], on, 0.1)
    assert 5 < np.rad2deg(desk.radians - before)[0] < 35  # no faster than such a servo
    desk.advance(home, 0 * on, 1.0)
    assert np.rad2deg(np.abs(desk.radians - home)).max() > 10  # without torque it falls
    assert not desk.load.any()


@described
def test_both_cameras_see_the_cube():
    from envs.real.so101_scene import CAMERAS, Desk
    from envs.rendering import Cameras, choose_backend

    choose_backend()
    desk = Desk()
    cameras = Cameras(desk.model, list(CAMERAS), 64)
    try:
        for seed in range(5):
            desk.place(seed)
            for image in cameras.images(desk.data).values():
                red = (image[..., 0] > 90) & (image[..., 1:].max(axis=-1) < 60)
                assert red.sum() > 12
    finally:
        cameras.close()


@described
def test_the_servos_protect_themselves_and_a_fault_of_the_world_is_one_of_its_bus_or_its_motors(tmp_path):
    from envs.real.mock_so101 import OVERLOADED, SO101

    world = SO101(mock_options({"socket": str(tmp_path / "w.sock"), "size": 16, "lost": 5.0, "late_s": 0.3}, "so101"))
    try:
        faults, first, second = world.bus.faults, world.bus.servos[1], world.bus.servos[2]
        world.tick()
        assert (faults.lost, faults.late, faults.late_s) == (5.0, 0.0, 0.3) and first.torque
        assert world.measured == pytest.approx([0, -60, 60, 60, 0, 60], abs=3)
        second.set("goal", second.ticks + 700)  # down on the desk
        for number in range(30):
            world._advanced_s = time.monotonic() - 0.09
            world.tick()
            second.advance(0.1)  # as the bus does, in wall-clock time
            assert second.overloaded <= (number > 3)  # by its firmware, after 2 s: the bus adds its own time
        assert second.overloaded and second.share == pytest.approx(0.2, abs=0.01)
        second.power_lost()
        first.set("goal", first.ticks + 300)

        def moves(fault=""):
            world.break_(fault, 60.0)
            before, world._advanced_s = world.measured[0], time.monotonic() - 0.09
            world.tick()
            return world.measured[0] - before

        assert moves("late") > 1 and faults.late == 1000 and not world.bus.servos[OVERLOADED].overloaded
        assert moves("fault") > 1 and world.bus.servos[OVERLOADED].overloaded
        world.break_("late", 0.0)
        first.set("goal", first.ticks + 300)
        for _ in range(10):
            moves("stall")
        assert moves("stall") < 0.5 and faults.late == 0
        moves("disconnect")
        assert not port_of(str(tmp_path / "w.sock")).exists()
        world.break_("disconnect", 0.0)
        world.tick()
        assert port_of(str(tmp_path / "w.sock")).exists()
    finally:
        world.close()
    assert not calibration_of(str(tmp_path / "w.sock")).exists()


# ---- the whole stack, in wall-clock time ----


@pytest.fixture(scope="module")
def socket(tmp_path_factory):
    return str(tmp_path_factory.mktemp("so101") / "world.sock")


@pytest.fixture(scope="module")
def env(socket):
    if not HERE:
        pytest.skip("without the extra [so101]")
    given = options_of("so101_mock.yaml")
    given = {key: value for key, value in given.items() if key != "name"}
    given["arm_options"] = {**given["arm_options"], "socket": socket}
    made = envs.make("mock", realtime=False, watchdog_s=1.0, coast_s=0.3, **given)
    yield made
    made.close()


def test_the_expert_lifts_the_cube(env):
    expert = scripted.make(env, seed=1)
    observation, info = env.reset(seed=1)
    assert env.observation_space.contains(observation) and not info["success"]
    expert.reset()
    images = [observation["wrist"]]
    for _ in range(80):
        observation, reward, terminated, truncated, info = env.step(expert.act(observation))
        images.append(observation["wrist"])
        if terminated or truncated:
            break
    assert info["success"] and reward == 1.0 and env.unwrapped.state.thing[2] > 0.06
    assert np.abs(images[0].astype(int) - images[-1]).mean() > 5
    _, info = env.reset(seed=2)
    assert not info["success"] and env.unwrapped.state.thing[2] < 0.02


def test_one_that_is_to_fail_does(env):
    expert = scripted.make(env, failure_rate=1.0, seed=3)
    observation, _ = env.reset(seed=1)
    expert.reset()
    assert expert.failure
    for _ in range(40):
        observation, _, _, _, info = env.step(expert.act(observation))
        assert not info["success"]


def test_a_policy_that_presses_on_the_desk_does_not_hold_the_arm(env):
    """Nor does it overload the servos, whose own protection would."""
    env.reset(seed=6)
    down, relaxed = np.array([0, 1, 0.5, 0.3, 0, 0], np.float32), set()
    for _ in range(50):
        env.step(down)
        relaxed |= {name for name, row in env.unwrapped.motors.items() if row.get("relaxed")}
    assert relaxed & {"shoulder_lift", "elbow_flex"}
    assert all(env.unwrapped.motors[name]["load"] < 75 for name in relaxed)


def test_one_that_stands_keeps_its_target_when_it_is_held(env):
    env.reset(seed=6)
    still = np.zeros(6, np.float32)
    for _ in range(5):
        env.step(still)
    target = env.unwrapped.target.copy()
    assert np.abs(target - env.unwrapped.state.position).max() > 0.1  # it sags
    for _ in range(3):
        env.unwrapped.hold()
        env.step(still)
        np.testing.assert_allclose(env.unwrapped.target, target, atol=1e-9)


def test_actions_mean_what_those_of_the_real_arm_mean(env):
    meaning = env.unwrapped.action_meaning
    assert meaning["robot"] == "so101" and meaning["names"] == list(so101.JOINTS) and meaning["high"][0] == 3.0


def test_the_bus_is_as_a_calibrated_arms(env, socket):
    found = json.loads(calibration_of(socket).read_text())
    assert list(found) == list(so101.JOINTS)
    env.reset(seed=5)
    env.unwrapped.hold()  # so that its driver leaves the port alone
    measured = env.unwrapped.state.position
    client = Client(FEETECH, port_of(socket), timeout_s=0.5)
    try:
        for number, (joint, about) in enumerate(found.items(), 1):
            ends = about["range_min"], about["range_max"]
            assert about["id"] == number
            assert (client.read(number, "low"), client.read(number, "high")) == ends
            ticks = client.read(number, "position")
            share = (ticks - ends[0]) / (ends[1] - ends[0])
            wanted = 100 * share if joint == "gripper" else (ticks - sum(ends) / 2) / TICKS_PER_DEGREE
            assert measured[number - 1] == pytest.approx(wanted, abs=1.0)
        assert client.read(1, "torque") == 1
    finally:
        client.close()


def test_an_unplugged_bus_holds_the_arm_until_somebody_has_looked(env, socket):
    env.reset(seed=4)
    send_fault(socket, "disconnect", 1.0)
    with pytest.raises(RobotFault):
        for _ in range(30):
            env.step(np.zeros(6, np.float32))
    end_s = time.monotonic() + 10
    while True:
        try:
            env.unwrapped.clear()
            break
        except RobotFault:
            assert time.monotonic() < end_s
            time.sleep(0.1)
    env.reset(seed=4)
    env.step(np.zeros(6, np.float32))


def test_options_have_their_place():
    assert SO101Options().socket.endswith("mock-so101.sock")
