"""An arm by LeRobot's public API, as far as it is used; the package itself is tried by tools.interop.lerobot_robot."""

import importlib
import termios
from types import SimpleNamespace

import fake_lerobot
import numpy as np
import pytest
from remembering_arm import Now

from envs.real import lerobot_bus
from envs.real.arm import ArmError, make_arm
from envs.real.bus import registers
from envs.real.lerobot_motors import LeRobotMotors


@pytest.fixture(autouse=True)
def lerobot(tmp_path, monkeypatch):
    fake_lerobot.install(tmp_path, monkeypatch)
    yield
    fake_lerobot.forget()


def arm(**options):
    return make_arm("lerobot:so9_follower", options)


def test_its_axes_are_the_numbers_of_its_action():
    made = arm()
    assert made.axes == ("pan", "lift")
    made.connect()
    state = made.state()
    assert state.position.tolist() == [1.0, 2.0] and list(state.images) == ["front"]


def test_what_it_says_that_it_sent_is_what_was_sent():
    made = arm(most=5.0)
    made.connect()
    assert made.command(np.array([9.0, 4.0])).tolist() == [5.0, 4.0]
    assert made.robot.sent == [{"pan.pos": 9.0, "lift.pos": 4.0}]


def test_to_hold_it_is_to_send_it_where_it_is():
    made = arm()
    made.connect()
    done = []
    made._motors = SimpleNamespace(lost=0, update=lambda: ({}, {}), expire=lambda: done.append("expire"))
    made.hold()
    assert made.robot.sent == [{"pan.pos": 1.0, "lift.pos": 2.0}]
    assert done == ["expire"]  # what its motors report then is of then
    made.disconnect()
    made.disconnect()
    assert not made.robot.is_connected


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("so9_folower", {}, "LeRobot knows no robot 'so9_folower'.*so9_follower"),
        ("so9_follower", {"prot": "/dev/x"}, "lerobot:so9_follower: .*prot"),
        ("so9_follower", {"port": ""}, "lerobot:so9_follower: feetech-servo-sdk is required"),
    ],
)
def test_what_cannot_be_made_is_one_line(kind, options, says):
    with pytest.raises(ValueError, match=says) as caught:
        make_arm(f"lerobot:{kind}", options)
    assert "\n" not in str(caught.value)


def test_a_robot_that_is_driven_by_velocities_is_refused(monkeypatch):
    """To hold it is to send it what is measured: that would drive it on."""
    robots = importlib.import_module("lerobot.robots")
    monkeypatch.setattr(robots.Robot, "action_features", {"pan.pos": float, "x.vel": float, "theta.vel": float})
    with pytest.raises(ValueError, match=r"arm 'lerobot:so9_follower': x\.vel, theta\.vel are velocities"):
        arm()


def test_one_that_is_not_calibrated_says_how():
    with pytest.raises(ArmError, match=r"not calibrated: lerobot-calibrate --robot\.type=so9_follower"):
        arm(calibrated=False).connect()


def denied():
    raise ConnectionError("\nCould not connect on port\n") from OSError(13, "Permission denied")


@pytest.mark.parametrize(
    ("raises", "why"),
    [
        (lambda: [][0], "IndexError: list index out of range"),
        (denied, r"ConnectionError: Could not connect on port; \[Errno 13\] Permission denied"),
        (lambda: exec("raise RuntimeError('missing motor IDs:\\n- 3')"), "RuntimeError: missing motor IDs: - 3"),
        (lambda: exec("raise TimeoutError"), "TimeoutError"),
    ],
)
def test_whatever_it_raises_while_it_connects_may_be_a_lost_reply(monkeypatch, raises, why):
    made = arm()
    monkeypatch.setattr(made.robot, "connect", lambda calibrate: raises())
    line = rf"^lerobot:so9_follower: LeRobot cannot connect it at port /dev/x \({why}\): check power and cables, .*$"
    with pytest.raises(ConnectionError, match=line):
        made.connect()


def test_a_reply_that_is_too_short_is_a_lost_one(on_a_bus, monkeypatch):
    """The makers' libraries stumble over the reply to a write that comes when a read is asked."""
    monkeypatch.setattr(lerobot_bus, "SILENCE_S", 0.0)
    bus, short = on_a_bus.robot.bus, [1] * lerobot_bus.RETRIES
    ping = bus.ping
    bus.read = lambda *given, **named: ping(*given, **named) if not short else [][short.pop()]
    on_a_bus.connect()
    assert bus.read("x") == lerobot_bus.RETRIES and not short
    short[:] = [1] * 9
    with pytest.raises(ConnectionError, match=r"too short \(IndexError: list index out of range\)"):
        bus.read("x")
    on_a_bus.robot.get_observation = lambda: [][0]
    with pytest.raises(ConnectionError, match="too short"):
        on_a_bus.state()


def test_a_line_that_breaks_is_for_the_keeper():
    made = arm(broken=True)
    made.connect()
    with pytest.raises(OSError, match="sync read"):
        made.state()


def test_an_axis_that_it_does_not_observe_is_named():
    made = arm()
    made.connect()
    made.robot.at = {"pan.pos": 1.0}
    with pytest.raises(ArmError, match=r"does not observe lift\.pos"):
        made.state()


def test_without_the_package(tmp_path, monkeypatch):
    fake_lerobot.forget()
    (tmp_path / "lerobot" / "__init__.py").write_text("raise ImportError('not here')")
    with pytest.raises(ValueError, match=r"LeRobot cannot be loaded \(not here\)"):
        arm()


class Bus:
    """As far as it is used: motors that remember, of which `dead` ones do not answer."""

    def __init__(self, robot):
        self.robot, self.motors, self.dead, self.log = robot, ["pan", "lift"], set(), []
        self.is_connected, self.lost = True, 0

    def sync_read(self, name, motors=None, normalize=True, num_retry=0):
        return dict.fromkeys(self.motors, 2000)

    def sync_write(self, name, values, normalize=True):
        self.log.append((name, values, normalize))

    def enable_torque(self, motors=None, num_retry=0):
        self.log.append("enable")

    def disable_torque(self, motors=None, num_retry=0):
        for motor in [motors] if motors else self.motors:
            if motor in self.dead or self.lost > num_retry:
                raise ConnectionError("no status packet")
            self.log.append(("disable", motor))

    def ping(self, motor, num_retry=0):
        return num_retry

    read = write = ping

    def disconnect(self, disable_torque=True):
        if disable_torque:
            self.disable_torque(num_retry=5)
        self.is_connected = False


@pytest.fixture
def on_a_bus():
    made = arm()
    robot = made.robot
    robot.bus = Bus(robot)
    robot.connect = lambda calibrate: (robot.bus.enable_torque(), setattr(robot, "is_connected", True))
    robot.disconnect = lambda: (
        robot.bus.disconnect(getattr(robot.config, "disable_torque_on_disconnect", True)),
        setattr(robot, "is_connected", False),
    )
    return made


def test_torque_goes_on_with_the_goal_where_each_servo_is(on_a_bus):
    on_a_bus.connect()
    bus = on_a_bus.robot.bus
    assert bus.log == [("Goal_Position", {"pan": 2000, "lift": 2000}, False), "enable"]
    assert bus.ping("pan") == bus.read("x") == bus.write("x") == 2 and bus.ping("pan", num_retry=5) == 5


def test_a_library_that_asks_again_and_again_waits_for_a_reply(on_a_bus):
    """Each port that it opens, from the first ping on; also when it connects anew."""
    robot, connect, timeouts = on_a_bus.robot, on_a_bus.robot.connect, []
    robot.bus.port_handler = port = SimpleNamespace()
    port.setupPort = lambda baud: setattr(port, "ser", SimpleNamespace(timeout=0)) or baud

    def opens(calibrate):
        assert port.setupPort(1000000) == 1000000
        timeouts.append(port.ser.timeout)
        connect(calibrate)

    robot.connect = opens
    for _ in range(2):
        on_a_bus.connect()
        on_a_bus.disconnect()
    assert timeouts == [lerobot_bus.POLL_S] * 2
    opened = port.setupPort
    lerobot_bus.wait_for_replies(robot.bus)
    assert port.setupPort is opened


def test_torque_goes_off_on_every_servo_that_answers(on_a_bus):
    on_a_bus.connect()
    bus = on_a_bus.robot.bus
    bus.dead.add("pan")
    bus.lost = lerobot_bus.RETRIES  # replies, each time
    on_a_bus.disconnect()
    assert bus.log[-1] == ("disable", "lift") and not bus.is_connected


def test_torque_stays_on_where_that_is_asked_for(on_a_bus):
    on_a_bus.connect()
    bus = on_a_bus.robot.bus
    on_a_bus.robot.config.disable_torque_on_disconnect = False
    on_a_bus.disconnect()
    assert bus.log[-1] == "enable" and not bus.is_connected


class Port:
    """A serial port in which something `waits`."""

    def __init__(self, waits):
        self.waits = waits

    @property
    def in_waiting(self):
        return len(self.waits)

    def reset_input_buffer(self):
        self.waits = b""


def test_what_has_come_since_the_last_reply_is_not_taken_for_the_next(on_a_bus):
    port = Port(b"a reply of before")
    on_a_bus.robot.bus.port_handler = SimpleNamespace(ser=port)
    seen, observe = [], on_a_bus.robot.get_observation
    on_a_bus.robot.get_observation = lambda: seen.append(port.waits) or observe()
    on_a_bus.state()
    assert seen == [b""]


def test_a_reply_that_came_too_late_is_not_taken_for_the_next(on_a_bus, monkeypatch):
    waiting, flushed = [0, 6, 6, 0], []  # bytes at each look, the last first
    monkeypatch.setattr(lerobot_bus, "SILENCE_S", 0.0)

    class Serial:
        in_waiting = property(lambda self: waiting.pop())

        def reset_input_buffer(self):
            flushed.append(len(waiting))

    serial = Serial()
    on_a_bus.robot.bus.port_handler = SimpleNamespace(ser=serial)
    on_a_bus.robot.config.broken = True
    with pytest.raises(ConnectionError):
        on_a_bus.state()
    assert flushed == [3, 2, 1]  # until nothing comes any more


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), termios.error(5, "Input/output error")])
def test_a_port_that_is_gone_asks_for_the_cable(on_a_bus, monkeypatch, error):
    def gone(*_):
        raise error

    for name in ("get_observation", "send_action"):
        monkeypatch.setattr(on_a_bus.robot, name, gone, raising=False)
    for call in (on_a_bus.state, lambda: on_a_bus.command(np.zeros(2))):
        with pytest.raises(ArmError, match=r"so9_follower: its port does not work \(.*Input/output.*is its cable in\?"):
            call()


class Register:
    """A bus with registers, of motors of these models."""

    tables = {
        "sts3215": {"Present_Load", "Present_Current", "Present_Temperature", "Status"},
        "scs0009": {"Present_Load", "Present_Temperature", "Status"},
        "xl330-m288": {"Present_Current", "Present_Temperature", "Hardware_Error_Status", "Current_Limit"},
    }
    tables["xl430-w250"] = tables["xl330-m288"]
    model_ctrl_table = tables

    def __init__(self, values, *models):
        self.values, self.lost, self.reads = values, set(), []
        self.motors = {name: SimpleNamespace(model=model) for name, model in zip(("pan", "lift"), models, strict=True)}

    def sync_read(self, register, motors, *, normalize, num_retry=0):
        assert normalize is False and register in self.values
        self.reads.append(register)
        if register in self.lost:
            raise ConnectionError("There is no status packet!")
        return dict(zip(motors, self.values[register], strict=True))

    def read(self, register, motor, *, normalize, num_retry=0):
        assert register == "Current_Limit" and motor == "lift"
        return 1750


@pytest.fixture
def now(monkeypatch):
    now = Now()
    monkeypatch.setattr(registers, "time", now)
    return now


def motors(bus):
    return LeRobotMotors(bus, ("pan", "elbow", "lift"), lambda call: call())


def test_feetech_motors_report_load_current_temperature_and_errors(now):
    values = {
        "Present_Load": [1024 + 250, -120],
        "Present_Current": [0x8000 + 100, 10],
        "Present_Temperature": [31, 62],
    }
    made = motors(Register({**values, "Status": [0, 0x24]}, "sts3215", "sts3215"))
    effort, errors = made.update()
    assert effort["load"] == pytest.approx(
        [25.0, np.nan, 12.0], nan_ok=True
    )  # signs that LeRobot did not, and did decode
    assert effort["current"] == pytest.approx([650, np.nan, 65], nan_ok=True)
    assert effort["temperature"] == pytest.approx([31, np.nan, 62], nan_ok=True)
    assert errors == {"lift": "overheating, overload"}


def test_an_error_counts_when_it_is_read_twice(now):
    """The temperature's reply of 25 degrees, come too late, would be voltage and overcurrent."""
    bus = Register({"Present_Load": [0, 0], "Status": [0, 0x20]}, "scs0009", "sts3215")
    bus.model_ctrl_table = {model: {"Present_Load", "Status"} for model in bus.tables}
    whole, late = bus.sync_read, [{"pan": 25, "lift": 25}]

    def sync_read(register, *given, **named):
        values = whole(register, *given, **named)
        return late.pop() if register == "Status" and late else values

    bus.sync_read = sync_read
    assert motors(bus).update()[1] == {} and not late
    assert motors(bus).update()[1] == {"lift": "overload"}


def test_a_leap_of_the_temperature_counts_when_it_is_read_twice(now):
    """A position that came too late would be 248 degrees."""
    values = {"Present_Temperature": [30, 31]}
    bus = Register(values, "sts3215", "sts3215")
    bus.model_ctrl_table = {model: set(values) for model in bus.tables}
    made, whole, late = motors(bus), bus.sync_read, []
    bus.sync_read = lambda *given, **named: late.pop() if late else whole(*given, **named)

    def temperatures():
        now.now_s += 10.0
        return made.update()[0]["temperature"][[0, 2]].tolist()

    assert temperatures() == [30, 31]
    late.append({"pan": 248, "lift": 8})
    assert temperatures() == [30, 8] and not late
    values["Present_Temperature"] = [80, 31]
    assert temperatures() == [80, 31]


def test_dynamixel_motors_report_current_or_load(now):
    values = {"Present_Current": [-305, -875], "Present_Temperature": [31, 32], "Hardware_Error_Status": [0x20, 0]}
    effort, errors = motors(Register(values, "xl430-w250", "xl330-m288")).update()
    assert effort["load"] == pytest.approx([30.5, np.nan, 50.0], nan_ok=True)
    assert effort["current"] == pytest.approx([np.nan, np.nan, 875], nan_ok=True)
    assert errors == {"pan": "overload"}


def test_a_register_that_not_all_motors_have_is_not_read(now):
    bus = Register({"Present_Load": [1, 1], "Present_Temperature": [1, 1], "Status": [0, 0]}, "scs0009", "sts3215")
    effort, _ = motors(bus).update()
    assert set(effort) == {"load", "temperature"}


def test_one_register_is_read_at_a_time(now):
    values = {"Present_Load": [0, 0], "Present_Current": [0, 0], "Present_Temperature": [0, 0], "Status": [0, 0]}
    bus = Register(values, "sts3215", "sts3215")
    made = motors(bus)
    made.update()
    assert sorted(bus.reads) == sorted(values)  # all at first
    bus.reads.clear()
    for _ in range(8):
        now.now_s += 0.05
        made.update()
    assert len(bus.reads) == len(set(bus.reads)) == 4
    now.now_s += 3.0
    bus.reads.clear()
    made.update()
    assert len(bus.reads) == 4  # all after a pause
    now.now_s += 0.1
    made.expire()
    made.update()
    assert len(bus.reads) == 8  # and after a hold


def test_a_lost_register_keeps_its_last_value_and_is_counted(now):
    bus = Register({"Present_Load": [100, 0], "Present_Temperature": [1, 1], "Status": [0, 0]}, "scs0009", "scs0009")
    made = motors(bus)
    bus.lost.add("Status")
    with pytest.raises(ConnectionError):  # nothing is known of it yet
        made.update()
    bus.lost.clear()
    bus.reads.clear()
    made.update()
    assert bus.reads == ["Status"]  # it goes on from there
    bus.lost |= set(bus.values)
    bus.reads.clear()
    for _ in range(19):
        now.now_s += 0.1
        effort, _ = made.update()
    assert effort["load"][0] == 10.0 and made.lost == len(bus.reads) == 2  # it has cost time: the next after a second


def test_an_arm_on_a_bus_reports_its_motors():
    made = arm()
    made.robot.bus = Register(
        {"Present_Load": [900, 0], "Present_Temperature": [31, 62], "Status": [0, 4]}, *["scs0009"] * 2
    )
    made.robot.bus.ping = made.robot.bus.write = made.robot.bus.enable_torque = lambda *_, **__: None
    made.connect()
    state = made.state()
    assert state.effort["load"].tolist() == [90.0, 0.0] and state.errors == {"lift": "overheating"} and made.lost == 0
