"""An arm by LeRobot's public API, as far as it is used; the package itself is tried by tools.interop.lerobot_robot."""

import fake_lerobot
import numpy as np
import pytest

from envs.real.arm import ArmError, make_arm


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
    made.hold()
    assert made.robot.sent == [{"pan.pos": 1.0, "lift.pos": 2.0}]
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


def test_one_that_is_not_calibrated_says_how():
    with pytest.raises(ArmError, match=r"not calibrated: lerobot-calibrate --robot\.type=so9_follower"):
        arm(calibrated=False).connect()


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
