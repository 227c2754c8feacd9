"""A real arm's environment, with the mock world as hardware: processes, sockets and wall-clock time as they are."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from classifier_file import write

import envs
from envs.real.mock_arm import MockArmOptions, MockCamera, start_world
from envs.real.mock_world import send_fault
from envs.real.options import MOCK_AXES
from envs.real.ready import Ready

SIZE = 48
VIEWS = ("agentview", "robot0_eye_in_hand")
CAMERA = {"source": "mock", "size": SIZE, "fps": 20, "warmup_frames": 1, "max_age_s": 0.5, "frozen_s": 0.5}
STILL = np.array([0, 0, 0, -1], np.float32)
FORWARD = np.array([1, 0, 0, -1], np.float32)


class World:
    def __init__(self, folder):
        self.socket, self.log = str(folder / "mock.sock"), folder / "mock.jsonl"
        os.environ["MOCK_LOG"] = str(self.log)
        try:
            start_world({**vars(MockArmOptions()), "socket": self.socket, "size": SIZE})
        finally:
            del os.environ["MOCK_LOG"]
        self._someone = MockCamera(VIEWS[0], self.socket, SIZE)
        self._someone.open()  # it ends when nobody is there

    def options(self, **changed):
        arm = {"socket": self.socket, "size": SIZE}
        given = {"arm_options": arm, "cameras": {view: CAMERA for view in VIEWS}, "realtime": False, "stuck_s": 0.6}
        given["watchdog_s"] = 1.0  # the machine that tests may be busy
        return {**given, **changed}

    def env(self, **changed):
        return envs.make("mock", **self.options(**changed))

    def fault(self, name, for_s=1.5):
        send_fault(self.socket, name, for_s)

    def places(self, newest=25):
        """Of the hand, 50 a second."""
        lines = self.log.read_text().splitlines()
        return np.array([json.loads(line)["position"][:3] for line in lines[-newest - 1 : -1]])

    def stands(self, timeout_s=20.0):
        """Until it does; a world on a busy machine is slow."""
        end_s = time.monotonic() + timeout_s
        while np.ptp(self.places(), axis=0).max() > 0.005:  # noise is 0.0005
            assert time.monotonic() < end_s
            time.sleep(0.1)

    def close(self):
        self._someone.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("world"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(world):
    env = world.env(horizon=1000)
    yield env
    env.close()


@pytest.fixture
def env(shared):
    shared.reset(seed=3)
    return shared


def cleared(env, timeout_s=20.0):
    end_s = time.monotonic() + timeout_s
    while True:
        try:
            return env.unwrapped.clear()
        except envs.base.RobotFault:
            assert time.monotonic() < end_s
            time.sleep(0.1)


def test_it_is_an_environment_in_wall_clock_time(world, env):
    observation, info = env.reset(seed=5)
    assert env.observation_space.contains(observation) and info["success"] is False
    assert {key: value.shape for key, value in observation.items()} == {
        **{view: (SIZE, SIZE, 3) for view in VIEWS},
        "proprio": (4,),
    }
    for number, name in enumerate(("x", "y", "z")):
        axis = MOCK_AXES[name]
        assert abs(observation["proprio"][number] - axis["home"]) < axis["start"] + 0.01
    begun_s = time.monotonic()
    for _ in range(5):
        observation, reward, terminated, truncated, info = env.step(STILL)
        assert env.observation_space.contains(observation) and (reward, terminated, truncated) == (0.0, False, False)
        assert 0 < info["observation_age_s"] < 0.4 and 0 < info["action_latency_s"] < 0.1
    assert time.monotonic() - begun_s > 0.4


def test_seeds_decide_where_an_episode_starts(env, world):
    def start(seed):
        env.reset(seed=seed)
        world.stands()
        return world.places().mean(0)

    first, again, other = map(start, (1, 1, 2))
    assert np.abs(first - again).max() < 0.006 < np.abs(first - other).max()


def test_what_left_the_filter_is_the_action_that_is_told(env):
    unwrapped, scale = env.unwrapped, MOCK_AXES["x"]["speed"] / 10
    env.step(STILL)  # the first after a reset begins where the arm is
    begun, told = unwrapped.target[0], []
    for _ in range(25):
        told.append(env.step(FORWARD)[4]["action"])
        assert unwrapped.target[0] <= MOCK_AXES["x"]["high"] + 1e-9
    assert unwrapped.target[0] - begun == pytest.approx(scale * sum(action[0] for action in told), abs=1e-5)
    assert (
        max(action[0] for action in told) > 0.9 and abs(told[-1][0]) < 0.05
    )  # it cannot go beyond the end of its range
    assert all(action[3] == -1 and action.dtype == np.float32 for action in told)
    assert unwrapped.state.position[0] == pytest.approx(MOCK_AXES["x"]["high"], abs=0.02)


def test_what_is_no_number_does_not_move_it(env):
    env.step(STILL)
    before = env.unwrapped.state.position.copy()
    for _ in range(3):
        action = env.step(np.full(4, np.nan, np.float32))[4]["action"]
        assert np.abs(action[:3]).max() < 0.05
    assert np.abs(env.unwrapped.state.position - before)[:3].max() < 0.01
    with pytest.raises(ValueError, match="action must be 4 numbers"):
        env.step(np.zeros(3, np.float32))


@pytest.mark.parametrize(
    ("fault", "says", "by_itself"),
    [
        ("stall", "axis 'x' has stood still at .*: stuck, or pushed", False),
        ("disconnect", "mock arm|cable|Connection|Broken|away|EOF", False),
        ("fault", "fault|motor", False),
        ("freeze:agentview", "camera 'agentview'.*same", True),
        ("unplug:robot0_eye_in_hand", "camera 'robot0_eye_in_hand'", True),
    ],
)
def test_what_breaks_holds_the_arm_and_is_said_until_it_is_cleared(world, env, fault, says, by_itself):
    for _ in range(2):
        env.step(FORWARD)
    world.fault(fault)
    with pytest.raises(envs.base.RobotFault, match=f"(?i){says}") as caught:
        for number in range(30):
            env.step(FORWARD if number < 6 else STILL)
    assert caught.value.by_itself is by_itself and "\n" not in str(caught.value)
    world.stands()
    cleared(env)
    env.reset(seed=0)
    assert env.step(STILL)[4]["observation_age_s"] < 0.4


def test_an_arm_that_answers_late_moves_no_farther_than_it_was_told(world, env):
    env.step(FORWARD)
    world.fault("late")
    try:
        for _ in range(3):
            env.step(FORWARD)
    except envs.base.RobotFault:
        pass
    assert env.unwrapped.target[0] < MOCK_AXES["x"]["home"] + 0.025 * 6
    time.sleep(1.5)
    cleared(env)


def test_a_fault_that_the_world_has_not_is_refused(world):
    with pytest.raises(ValueError, match=r"freeze:agentvew: there is no such fault.*did you mean 'freeze:agentview'"):
        world.fault("freeze:agentvew")


def test_a_second_process_is_refused(world, env):
    with pytest.raises(ValueError, match=r"arm 'mock': another process \(\d+\) drives it"):
        world.env()
    env.step(STILL)


def test_a_pause_within_a_step_holds_it_at_once(env):
    unwrapped, asked = env.unwrapped, []
    for _ in range(3):
        env.step(FORWARD)

    def pause(left_s):
        time.sleep(left_s)
        asked.append(left_s)
        return True

    unwrapped.paused, before = pause, unwrapped.paused
    try:
        env.step(FORWARD)
    finally:
        unwrapped.paused = before
    assert asked and unwrapped._motion.held


DRIVE = """
import json, sys
import numpy as np
import envs
env = envs.make("mock", **json.loads(sys.argv[1]))
env.reset(seed=0)
print("moving", flush=True)
while True:
    for y in [1] * 12 + [-1] * 12:
        env.step(np.array([0, y, 0, -1], np.float32))
"""


def test_the_arm_is_held_when_its_robot_server_is_killed_and_the_next_one_takes_it_over(world, shared, capfd):
    shared.close()
    given = json.dumps(world.options(release_s=60.0))
    process = subprocess.Popen([sys.executable, "-c", DRIVE, given], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "moving\n"
        while np.ptp(world.places(), axis=0)[1] < 0.02:
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        world.stands()
        assert "the robot server has exited: the arm is held for 60 s" in capfd.readouterr().err
    finally:
        process.kill()
    env = world.env()
    env.reset(seed=0)
    env.step(STILL)
    env.close()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"axes": {}}, "axes: none"),
        ({"axes": {"w": {"low": 0, "high": 1}}}, "'w'"),
        ({"axes": {"x": {"low": 0, "high": 1, "hi": 2}}}, "'x': hi: no such option .did you mean 'high'"),
        ({"axes": {"x": {"low": 0, "high": 1, "home": 3}}}, "home 3"),
        ({"axes": {"x": {"low": 0, "high": 0}}}, "axes: 'x': low 0 is not below high 0; .* is left out"),
        ({"control_hz": 0}, "control_hz"),
        ({"control_hz": float("nan")}, "control_hz is nan; it must be 0.5 or more and 1000 or less"),
        ({"watchdog_s": 0.1}, r"watchdog_s \(at 10 Hz\) is 0\.1; it must be 0\.15 or more and 1 or less"),
        ({"watchdog_s": float("nan")}, "watchdog_s.* is nan"),
        ({"watchdog_s": 60}, "watchdog_s.* is 60"),
        ({"coast_s": 0.5}, "coast_s is 0.5; it must be 0 or more and 0.3 or less"),
        ({"setpoint_hz": -5}, "setpoint_hz is -5; it must be 0 or more"),
        ({"release_s": -1}, "release_s is -1"),
        ({"stuck_s": -1}, "stuck_s is -1"),
        ({"reset_speed": 0}, "reset_speed is 0; it must be above 0 and 1 or less"),
        ({"axes": {"x": {"low": "abc", "high": 1}}}, "axes: 'x': low is 'abc'; it must be a number"),
        ({"axes": {"x": {"low": None, "high": 1}}}, "axes: 'x': low is None"),
        ({"axes": {"x": {"low": 0, "high": 1, "lag": -1}}}, "axes: 'x': lag is -1; it must be above 0"),
        ({"axes": {"x": {"low": 0, "high": 1, "lag": float("nan")}}}, "axes: 'x': lag is nan"),
        ({"axes": {"x": {"low": 0, "high": float("inf")}}}, "axes: 'x': high is inf; it must be a finite number"),
        ({"axes": {"x": {"low": 0, "high": 1, "speed": 0}}}, "axes: 'x': speed is 0; it must be above 0"),
        ({"axes": {"x": {"low": 0, "high": 1, "gripper": "no"}}}, "gripper is 'no'; it must be true or false"),
        ({"via": [{"x": 9.0}]}, "via: x is 9; it must be 0.4 or more and 0.72 or less"),
        ({"via": [{"w": 1}]}, "via"),
        ({"arm_options": {"sokcet": "/x"}}, "sokcet.*socket"),
        ({"cameras": {"top": {"source": "usb"}}}, "camera 'top': source is 'usb'"),
    ],
)
def test_options_that_make_no_sense_are_one_line(tmp_path, given, says):
    given = {"arm_options": {"socket": str(tmp_path / "nobody")}, "realtime": False, **given}
    with pytest.raises(ValueError, match=says) as caught:
        envs.make("mock", **given).close()
    assert "\n" not in str(caught.value)


def test_its_actions_are_steps_of_at_most_its_speed(shared):
    stated = envs.base.action_meaning(shared)
    assert (stated["kind"], stated["control_hz"], stated["robot"]) == ("delta", 10.0, "mock")
    reach = [axis["speed"] / 10 if not axis.get("gripper") else 1.0 for axis in MOCK_AXES.values()]
    assert stated["names"] == list(MOCK_AXES) and stated["high"] == pytest.approx(reach)


def test_a_reset_asks_a_person_only_while_the_scene_is_not_ready(world, shared, tmp_path):
    shared.close()  # one process drives the arm
    cameras = {VIEWS[0]: (SIZE, SIZE, 3)}
    always = Ready(write(tmp_path / "always.pt", 9.0, cameras, k=2, n=2))
    asked = []
    env = world.env(horizon=50, ready=write(tmp_path / "never.pt", -9.0, cameras))
    try:
        env.unwrapped.ask = asked.append
        env.reset(seed=3)
        assert len(asked) == 2 and asked[0] == "put the scene back" and "still" in asked[1]  # then the person is right

        env.unwrapped._ready = always
        env.reset(seed=3)
        assert len(asked) == 2
        for _ in range(8):
            seen, *_ = env.step(FORWARD)
        before = seen["proprio"][:3]
        observation, info = env.reset(seed=4, options={"reset_task": True})
        assert np.abs(observation["proprio"][:3] - before).max() < 0.03 and not info["success"]  # it stays where it is
        assert [env.step(STILL)[1:3] for _ in range(2)] == [(0.0, False), (1.0, True)]  # two of two frames

        observation, _ = env.reset(seed=5)  # and home again
        assert abs(observation["proprio"][0] - MOCK_AXES["x"]["home"]) < 0.05
        assert env.step(STILL)[1:3] == (0.0, False)  # the task's own success, not that of the scene
    finally:
        env.close()


def test_a_ready_classifier_of_other_cameras_is_refused(world, tmp_path):
    with pytest.raises(ValueError, match="camera 'top', which the environment has not"):
        world.env(ready=write(tmp_path / "top.pt"))
