"""The emulated servo buses, by a minimal client; and our own stack on top of them."""

import os
import time

import numpy as np
import pytest

import envs
from agent.spec import Spec
from envs.base import RobotFault
from envs.real.bus.bus import Bus
from envs.real.bus.client import Client
from envs.real.bus.protocol import DYNAMIXEL, FEETECH

PROTOCOLS = [FEETECH, DYNAMIXEL]
SERVOS = [1, 2, 3, 4, 5, 6]


@pytest.fixture(params=PROTOCOLS, ids=lambda protocol: protocol.name)
def bus(request):
    with Bus(request.param) as made:
        yield made


@pytest.fixture
def client(bus):
    made = Client(bus.protocol, bus.port, timeout_s=0.5)
    yield made
    made.close()


def until(what, timeout_s=10.0):
    end_s = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_frames_are_those_of_the_manuals():
    assert FEETECH.frame(1, bytes([1])) == bytes.fromhex("FFFF010201FB")
    assert DYNAMIXEL.frame(1, bytes([1])) == bytes.fromhex("FFFFFD00010300 01194E")
    assert DYNAMIXEL.frame(1, bytes([2, 0x84, 0, 4, 0])) == bytes.fromhex("FFFFFD0001070002840004001D15")


def test_no_header_is_within_a_packet_and_noise_before_one_costs_nothing(bus):
    protocol = bus.protocol
    body = bytes([3, 116, 0]) + b"\xff\xff\xfd\x00\xff\xff\xfd\xfd"
    buffer = bytearray(b"\x00\xff" + protocol.frame(1, body) + protocol.frame(2, body)[:5])
    assert protocol.take(buffer) == (1, body) and protocol.take(buffer) is None
    if protocol is DYNAMIXEL:
        assert protocol.frame(1, body).count(b"\xff\xff\xfd\xfd") == 2
        assert protocol.frame(1, body).count(b"\xff\xff\xfd\x00") == 1


def test_malformed_requests_neither_end_the_bus_nor_harm_a_servo(bus, client):
    """Each of them is a whole packet with a right checksum."""
    width = bus.protocol.width
    bodies = [b"", *(bytes([code]) + bytes(size) for code in (1, 2, 0x82, 0x83) for size in range(2 * width + 1))]
    bodies += [
        bytes([3]),
        bytes([3]) + bytes(width),
        bytes([3]) + b"\xff" * width + bytes(64),
        bytes([2]) + b"\xff" * 2 * width,
        bytes([99]),
    ]
    for body in bodies:
        for servo in (1, 0xFE):
            os.write(client._port, bus.protocol.frame(servo, body))
    until(lambda: bus.requests == 2 * len(bodies) - 2 and not bus._due)  # those without a body are no packets
    assert client.read(1, "model") == bus.protocol.model and len(bus.servos[1].memory) == 256


def test_replies_that_nobody_reads_do_not_stop_the_servos(bus, client):
    protocol = bus.protocol
    request = protocol.frame(1, bytes([2]) + protocol.number(0) + protocol.number(250))
    for number in range(400):
        os.write(client._port, request)
        until(lambda number=number: bus.requests > number)
    assert client.read(1, "model") == protocol.model


@pytest.mark.parametrize("body", [b"", b"\x01"])
def test_a_reply_that_is_none_is_a_lost_one(bus, client, body, monkeypatch):
    monkeypatch.setattr(bus.servos[1], "answer", lambda code, given: body)
    with pytest.raises((ConnectionError, TimeoutError)):
        client.read(1, "model")


def test_a_goal_beyond_the_end_moves_a_servo_as_the_real_one(bus, client):
    """A Feetech stops at its limits; a Dynamixel turns on, in its extended mode, also below 0."""
    bus.place(10.0)
    client.write(1, "low", 50)
    client.write(1, "torque", 1)
    if bus.protocol is DYNAMIXEL:
        client.write(1, "goal", 2**32 - 100)
        until(lambda: bus.servos[1].position < -8)
        assert client.read(1, "position") in range(2**32 - 101, 2**32)
    else:
        client.write(1, "goal", 0x8000 + 100)
        until(lambda: client.read(1, "position") == 50)
        client.write(1, "goal", 5000)
        until(lambda: client.read(1, "position") == 4095)


def test_a_servo_answers_and_goes_to_its_goal_at_its_speed(bus, client):
    client.ping(1)
    assert client.read(1, "model") == bus.protocol.model
    client.write(1, "goal", 3000)
    time.sleep(0.1)
    assert client.read(1, "position") == 2048  # without torque it stands
    client.write(1, "torque", 1)
    begun_s = time.monotonic()
    until(lambda: abs(client.read(1, "position") - 3000) < 5)
    assert time.monotonic() - begun_s > 0.2  # 84 degrees at 300 a second
    assert client.sync_read(SERVOS, "position")[1:] == [2048] * 5


def test_all_are_read_and_written_at_once(bus, client):
    for servo in SERVOS:
        client.write(servo, "torque", 1)
    client.sync_write({servo: 2000 + servo for servo in SERVOS}, "goal")
    until(lambda: np.ptp(np.array(client.sync_read(SERVOS, "position")) - 2000 - np.array(SERVOS)) < 2)


def test_a_servo_that_is_blocked_shows_load_and_gets_warm(bus, client):
    bus.servos[2].blocked = True
    client.write(2, "torque", 1)
    client.write(2, "goal", 3000)
    until(lambda: client.read(2, "load") > 900 and client.read(2, "temperature") > 25)
    assert client.read(2, "current") > 100 and client.read(1, "load") == 0


def test_faults(bus, client):
    bus.faults.lost = 1000
    with pytest.raises(TimeoutError):
        client.ping(1)
    bus.faults.lost, bus.faults.corrupted = 0, 1000
    for _ in range(5):
        with pytest.raises((ConnectionError, TimeoutError)):
            client.read(1, "position")
    bus.faults.corrupted, bus.faults.late, bus.faults.late_s = 0, 1000, 0.8
    with pytest.raises(TimeoutError):
        client.ping(1)
    bus.faults.late = 0
    time.sleep(0.8)
    client.ping(1)
    bus.servos[3].dead = True
    with pytest.raises(OSError, match="servo 3"):
        client.sync_read(SERVOS, "position")


def test_an_overloaded_servo_gives_less_until_it_is_sent_the_other_way(bus, client):
    servo = bus.servos[2]
    servo.blocked = True
    client.write(2, "torque", 1)
    client.write(2, "goal", 3000)
    until(lambda: client.read(2, "status") == 0x20)
    assert bus.protocol.reports(client.read(2, "status")) == "overload"
    until(lambda: client.read(2, "load") <= 200)
    assert client.read(1, "status") == 0
    if bus.protocol is DYNAMIXEL:  # it has let go, and stays so until its power is cut
        client.write(2, "torque", 1)
        assert client.read(2, "torque") == 0 and client.read(2, "status") == 0x20
        bus.power(False)
        bus.power(True)
    else:
        client.write(2, "goal", 1000)
    until(lambda: client.read(2, "status") == 0)


def test_how_soon_a_servo_is_overloaded_is_written_to_it():
    with Bus(FEETECH) as bus:
        client = Client(FEETECH, bus.port, timeout_s=0.5)
        client.write(1, "overload_load", 25)
        client.write(1, "overload_time", 10)
        for servo in (1, 2):
            bus.servos[servo].blocked = True
            client.write(servo, "torque", 1)
            client.write(servo, "goal", 2048 + 46)  # 4 degrees: 40 % of its force
        until(lambda: client.read(1, "status") == 0x20)
        time.sleep(0.3)
        assert client.read(2, "status") == 0 and client.read(2, "load") == pytest.approx(404, abs=10)
        client.write(2, "goal", 2048 - 46)
        until(lambda: client.read(2, "load") == pytest.approx(0x400 + 404, abs=10))
        client.close()


def test_a_hot_servo_lets_go(bus, client):
    client.write(5, "torque", 1)
    bus.servos[5].temperature = 80.0
    until(lambda: bus.protocol.reports(client.read(5, "status")) == "overheating")
    client.write(5, "goal", 3000)
    time.sleep(0.1)
    assert client.read(5, "position") == 2048
    bus.servos[5].temperature = 60.0
    if bus.protocol is DYNAMIXEL:
        time.sleep(0.1)
        assert client.read(5, "status") == 0x04
        bus.power(False)
        bus.power(True)
    until(lambda: client.read(5, "status") == 0)


def test_how_many_packets_are_lost_is_what_was_asked_for():
    with Bus(FEETECH) as bus:
        bus.faults.lost = 100
        lost = sum(bus._chance(bus.faults.lost) for _ in range(10_000))
    assert 900 < lost < 1100


def test_power_and_cable(bus, client):
    client.write(1, "torque", 1)
    bus.power(False)
    with pytest.raises(TimeoutError):
        client.ping(1)
    bus.power(True)
    assert client.read(1, "torque") == 0
    bus.unplug()
    with pytest.raises(OSError):
        client.read(1, "torque")
    bus.plug()
    again = Client(bus.protocol, bus.port, timeout_s=1.0)
    again.ping(1)
    again.close()


# ---- our own stack, with an arm on that bus ----

AXES = {name: {"low": 90, "high": 270, "speed": 30, "lag": 15, "home": 180} for name in "abcdef"}


def opened(bus, **options):
    """The environment `real` with a BusArm on `bus`."""
    return envs.make(
        "real",
        arm="envs.real.bus.client:BusArm",
        arm_options={"port": str(bus.port), "protocol": bus.protocol.name},
        **{"axes": AXES, "realtime": False, **options},
    )


@pytest.fixture
def env(bus):
    made = opened(
        bus,
        watchdog_s=1.0,  # the machine that tests may be busy
        coast_s=0.3,
        horizon=10_000,
    )
    yield made
    made.close()


def steps(env, count, action=1.0):
    return [env.step(np.broadcast_to(np.float32(action), 6))[4] for _ in range(count)]


def test_lost_and_corrupted_replies_do_not_hold_the_arm(bus, env):
    env.reset(seed=0)
    bus.faults.lost = bus.faults.corrupted = 10
    begun = env.unwrapped.target[0]
    infos = steps(env, 40)
    assert env.unwrapped.lost_replies > 0 and env.unwrapped.state.position[0] > 200
    told = sum(info["action"][0] for info in infos) * AXES["a"]["speed"] / env.unwrapped.options.control_hz
    assert told == pytest.approx(env.unwrapped.target[0] - begun, abs=3.0)  # a hold by the watchdog costs some
    # the filter lets it go at 36 degrees/s; a servo on its own goes at 300
    rows = [row for row in bus.history if row[0] > time.monotonic() - 3.0]
    speeds = [(b[1][0] - a[1][0]) / (b[0] - a[0]) for a, b in zip(rows[::40], rows[40::40], strict=False)]
    assert max(speeds) < 100


def test_a_dead_servo_is_a_fault_and_the_arm_stands(bus, env):
    env.reset(seed=0)
    steps(env, 5)
    bus.servos[3].dead = True
    with pytest.raises(RobotFault, match="servo 3"):
        steps(env, 20)
    time.sleep(0.5)
    where = bus.history[-1][1]
    time.sleep(0.3)
    assert bus.history[-1][1] == pytest.approx(where, abs=0.1)
    bus.servos[3].dead = False
    env.unwrapped.clear()
    steps(env, 2)


@pytest.mark.parametrize(("broken", "says"), [("overloaded", "overload"), ("temperature", "overheating")])
def test_what_a_servo_reports_is_a_fault(bus, env, broken, says):
    env.reset(seed=0)
    steps(env, 5)
    setattr(bus.servos[3], broken, 80.0 if broken == "temperature" else True)
    with pytest.raises(RobotFault, match=f"axis 'c': its motor reports {says}; support the arm"):
        steps(env, 30)
    time.sleep(0.5)
    where = bus.history[-1][1]
    time.sleep(0.3)
    assert bus.history[-1][1] == pytest.approx(where, abs=0.5)
    if broken == "temperature" or bus.protocol is DYNAMIXEL:
        with pytest.raises(RobotFault, match=says):
            env.unwrapped.clear()
        bus.servos[3].temperature = 30.0
        bus.power(False)
        bus.power(True)
    env.unwrapped.clear()  # its torque goes off and on
    steps(env, 2)


def test_a_load_that_lasts_is_a_fault_and_is_observed(bus, logged):
    axes = {**AXES, "b": {**AXES["b"], "max_load": 60.0}}
    env = opened(bus, axes=axes, watchdog_s=1.0, stuck_s=0.0, observe=["load", "temperature"])
    try:
        observation, _ = env.reset(seed=0)
        assert observation["load"].shape == observation["temperature"].shape == (6,)
        assert observation["temperature"] == pytest.approx(25, abs=1)
        assert observation["load"].min() >= 0
        assert env.observation_space.contains(observation)
        spec = Spec.from_spaces(env.observation_space, env.action_space)
        assert spec.states == {"load": 6, "proprio": 6, "temperature": 6}
        bus.servos[2].blocked = True
        with pytest.raises(RobotFault, match=r"axis 'b': load \d+ % for \d\.\d s, above max_load 60; take off what"):
            steps(env, 60)
        row = env.unwrapped.motors["b"]
        assert row["load"] > 60 and row["over"] == ["load"]
        assert 500 < row["current"] <= (1300 if bus.protocol is FEETECH else 1750)
        assert sum("axis 'b': load" in line for line in logged()) == 1
        bus.servos[2].blocked = False
        env.unwrapped.clear()
        steps(env, 10)
    finally:
        env.close()


def test_a_gripper_is_relaxed_before_its_servo_protects_itself(bus):
    """So is one that is mounted the other way round: it closes towards the low end of its range."""
    grip = {**AXES["f"], "max_load": 50.0, "squeeze": 1.0, "gripper": True}
    env = opened(bus, axes={**AXES, "e": grip, "f": {**grip, "opens": "high"}}, watchdog_s=1.0, overload_s=0.5)
    try:
        env.reset(seed=0)
        bus.servos[5].blocked = bus.servos[6].blocked = True
        closes = np.array([0, 0, 0, 0, 1, 1], np.float32)
        loads, pushes = [], []
        for _ in range(40):  # 4 s: longer than the servo's own protection waits
            env.step(closes)
            motors, servos = env.unwrapped.motors, (bus.servos[5], bus.servos[6])
            loads.append([motors[name]["load"] for name in "ef"])
            pushes.append([servo.get("goal") - servo.ticks for servo in servos])
        assert np.max(loads, axis=0) == pytest.approx(100) and np.max(loads[-10:]) <= 12
        assert np.all(np.sign(pushes[-1]) == [1, -1]) and np.abs(pushes).max() < 15.5 * 4096 / 360
        assert env.unwrapped.state.relaxed == ("e", "f") and not any(servo.status for servo in servos)
        bus.servos[5].blocked = bus.servos[6].blocked = False
        steps(env, 5, -closes)
        assert bus.servos[5].position < 178 and bus.servos[6].position > 182
        assert env.unwrapped.state.relaxed == ()
    finally:
        env.close()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"observe": ["effort"]}, "observe.* is 'effort'; it must be one of load, current, temperature"),
        ({"axes": {**AXES, "a": {**AXES["a"], "max_load": 0}}}, "axes: 'a': max_load is 0; it must be above 0"),
    ],
)
def test_options_that_make_no_sense_are_one_line(bus, given, says):
    with pytest.raises(ValueError, match=says) as caught:
        opened(bus, **given)
    assert "\n" not in str(caught.value)


def test_a_stale_goal_does_not_move_the_arm_at_connect(bus):
    bus.place(180.0, goal=240.0)
    made = opened(bus)
    time.sleep(0.2)
    moved = np.abs(np.array([row[1] for row in bus.history]) - 180.0).max()
    assert moved < 1.0 and all(bus.torque().values())
    bus.servos[2].dead = True
    made.close()
    until(lambda: not any(on for servo, on in bus.torque().items() if servo != 2))
