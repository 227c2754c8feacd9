"""What the doctor makes of an arm that stands, and of demonstrations that it recorded."""

import numpy as np
import pytest

from agent.data.episode_file import write_episode
from agent.spec import Episode
from envs.real.options import Axis
from tools.doctor.arm import LAG, bus_line, jogs, lag_lines, loop_line
from tools.doctor.recorded import recorded, start_lines

AXES = {
    "pan": Axis(low=-60, high=60, speed=30, home=0, start=3),
    "lift": Axis(low=-90, high=30, speed=30, home=-90),
    "gripper": Axis(low=0, high=100, speed=100, gripper=True),
}


def test_jogs_stay_within_the_limits_and_move_every_axis():
    for place in jogs({**AXES, "tight": Axis(low=0, high=1, home=1)}):
        for name, value in place.items():
            axis = {**AXES, "tight": Axis(low=0, high=1, home=1)}[name]
            assert axis.low <= value <= axis.high and value != axis.home
    assert len({place["pan"] for place in jogs(AXES)}) > 1


def test_an_axis_that_stands_off_is_named_with_what_was_then():
    assert [line.remedy for line in lag_lines({"pan": 0.2, "lift": -1.0}, AXES, {}, "")] == [""]
    (line,) = lag_lines({"pan": 17.0, "lift": -1.0}, AXES, {"pan": 0.4, "lift": -1.2}, "the demonstrations")
    assert line.check == "axis pan" and "is 17, in the demonstrations 0.4" in line.says and line.remedy
    assert lag_lines({"pan": LAG * 120 + 0.1}, AXES, {}, "")[0].remedy
    assert not lag_lines({"pan": 8.0}, AXES, {"pan": 7.0}, "the demonstrations")[0].remedy  # it sags as it did then
    assert lag_lines({"pan": 0.0}, AXES, {"pan": 7.0}, "the demonstrations")[0].remedy


def test_loop_and_bus():
    assert (
        not loop_line([0.01] * 50, 10.0, False).remedy
        and "10.0 ms of 100 ms" in loop_line([0.01] * 50, 10.0, False).says
    )
    assert loop_line([0.01] * 40 + [0.09] * 10, 10.0, False).remedy
    assert "no real-time" in loop_line([0.01] * 5, 10.0, True).says
    assert not bus_line(0, 300, 4.0).remedy and not bus_line(2, 300, 4.0).remedy
    assert bus_line(10, 300, 4.0).remedy and "3.3 %" in bus_line(10, 300, 4.0).says


def episode(kind, offset, start=0.0, axes=("pan", "gripper"), numbers=3):
    """pan goes from `start` to +10 and stands there `offset` below its target; proprio: pan, lift, gripper."""
    wanted = np.concatenate([np.linspace(start, start + 10, 11)[1:], np.full(30, start + 10)])
    position = np.concatenate([[start], wanted - offset * np.minimum(1, np.arange(1, 41) / 5)])
    if kind == "delta":
        asked, reach = np.diff(np.concatenate([[start], wanted])), 3.0
    else:
        asked, reach = wanted, 60.0
    actions = np.zeros((40, 2), np.float32)
    actions[:, 0] = asked / reach
    proprio = np.zeros((41, numbers), np.float32)
    proprio[:, 0] = position
    meaning = {"kind": kind, "names": list(axes), "low": [-reach, -1.0], "high": [reach, 1.0]}
    false = np.zeros(40, bool)
    end = false.copy()
    end[-1] = True
    zeros = np.zeros(40)
    return Episode(
        {"proprio": proprio}, actions, zeros.astype(np.float32), false, end, false, zeros.astype(np.int64), false,
        zeros, zeros.astype(np.float32), zeros.astype(np.float32), {"env": {"name": "real", "actions": meaning}},
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["delta", "absolute"])
@pytest.mark.parametrize("offset", [0.0, 17.0, -2.0])
def test_demonstrations_tell_how_far_an_axis_stood_from_its_command(tmp_path, kind, offset):
    for number in range(3):
        write_episode(tmp_path / f"episode_{number:06d}.hdf5", episode(kind, offset, start=number - 1.0))
    named = {name: AXES[name] for name in ("pan", "gripper")}
    found = recorded([tmp_path], named, [0, 2], of=3)
    assert found.lag["pan"] == pytest.approx(offset, abs=0.01) and "gripper" not in found.lag
    assert found.start == {"pan": 0.0} and start_lines(found.start, AXES) == []


def test_demonstrations_that_start_elsewhere(tmp_path):
    write_episode(tmp_path / "episode_000000.hdf5", episode("delta", 0.0, start=17.0))
    found = recorded([tmp_path], {"pan": AXES["pan"]}, [0], of=3)
    (line,) = start_lines(found.start, AXES)
    assert line.check == "axis pan" and "start at 17, a reset goes to 0 +- 3" in line.says


def test_demonstrations_of_another_arm_or_without_a_meaning_tell_nothing(tmp_path):
    write_episode(tmp_path / "episode_000000.hdf5", episode("delta", 1.0, numbers=4))
    assert recorded([tmp_path], {"pan": AXES["pan"]}, [0], of=3).start == {}
    for kind, axes in (("velocity", ("pan", "gripper")), ("delta", ("base", "gripper"))):
        write_episode(tmp_path / "episode_000000.hdf5", episode(kind, 1.0, axes=axes))
        found = recorded([tmp_path], {"pan": AXES["pan"]}, [0], of=3)
        assert found.lag == {} and found.start == {"pan": 0.0}
