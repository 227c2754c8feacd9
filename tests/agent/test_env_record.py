"""The environment that files and messages name: what it says, what differs, and what may be taken from a stranger's."""

import pytest

from agent.env_record import EnvRecord
from agent.spec import SpecError, UserError


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"name": "fake", "options": {}},
        {"name": "sim", "options": {"task": "Lift", "cameras": ["front"]}, "actions": {"kind": "delta"}},
        {"actions": {"kind": "delta"}},
    ],
)
def test_it_survives_a_file(data):
    assert EnvRecord.from_dict(data).to_dict() == data


@pytest.mark.parametrize("data", [{"name": "fake"}, {"name": "fake", "options": None, "actions": None, "more": 1}])
def test_records_of_older_releases_may_lack_anything(data):
    assert EnvRecord.from_dict(data) == EnvRecord("fake")


def test_tuples_and_lists_are_the_same():
    assert EnvRecord("sim", {"cameras": ("front",)}) == EnvRecord("sim", {"cameras": ["front"]})


def test_differences():
    lift = EnvRecord("sim", {"task": "Lift", "horizon": 40})
    assert lift.differences(EnvRecord("sim", {"task": "Lift", "horizon": 40})) == {}
    assert lift.differences(EnvRecord("real")) == {"env": "sim against real"}
    can = EnvRecord("sim", {"task": "Can", "hz": 5, "horizon": 40})
    assert lift.differences(can) == {"task": "Lift against Can", "hz": "None against 5"}


def test_guards_of_the_arm_make_no_difference():
    """Episodes recorded before there were such options, or with another, can be continued."""
    with_check = EnvRecord("real", {"arm": "a", "camera_check": "refuse", "camera_reference": "mine.npz"})
    assert with_check.differences(EnvRecord("real", {"arm": "a", "camera_check": "warn"})) == {}
    assert with_check.differences(EnvRecord("real", {"arm": "a"})) == {}
    parks = EnvRecord("real", {"arm": "a", "park": {"x": 0.5}, "prompt": "put it back", "release_s": 5.0})
    assert parks.differences(with_check) == {}
    assert parks.differences(EnvRecord("real", {"arm": "a", "observe": ["load"]})) == {
        "observe": "None against ['load']"
    }


@pytest.mark.parametrize("data", [{"name": "sim", "options": 3}, {"name": 5}])
def test_nonsense_from_outside_is_refused_in_one_line(data):
    with pytest.raises(SpecError, match="malformed"):
        EnvRecord.from_dict(data)


@pytest.mark.parametrize(
    "name", ["gym:os:Ant-v5", "gym:a.b:c:d", "real", "mock", "lerobot:so101_follower", "gym:", "x"]
)
def test_an_environment_that_runs_code_is_not_taken_from_a_file(name):
    """Made by its name alone, gym:module:Id imports a module, and an arm moves."""
    with pytest.raises(UserError, match=r"environment .* if you trust it, repeat its name, --env ") as caught:
        EnvRecord(name).usable(None)
    assert "\n" not in str(caught.value)
    assert EnvRecord(name).usable(name).name == name  # typed


def test_a_switch_that_a_record_lacks_was_off():
    old, new = EnvRecord("gym:A-v0", {"binary": True}), EnvRecord("gym:A-v0", {"binary": True, "count_tasks": False})
    assert not old.differences(new) and not new.differences(old)
    on = EnvRecord("gym:A-v0", {"binary": True, "count_tasks": True})
    assert old.differences(on) == {"count_tasks": "None against True"}


@pytest.mark.parametrize(
    "name", ["sim", "fake", "gym:Ant-v5", "gym:ns/Ant-v5", "gym:gymnasium_robotics:AdroitHandDoor-v1"]
)
def test_plain_environments_are_taken_from_a_file(name):
    assert EnvRecord(name, {"a": 1}).usable(None) == EnvRecord(name, {"a": 1})


@pytest.mark.parametrize("name", ["real", "mock", "lerobot:so101_follower"])
def test_an_arm_s_options_are_never_taken_from_a_file(name):
    record = EnvRecord(name, {"arm": "a_module:Arm", "axes": {"x": {"high": 100.0}}})
    assert record.usable(name) == EnvRecord(name)


@pytest.mark.parametrize("record", [None, {}, [], 5, {"name": "", "options": {}}, {"name": None}])
def test_a_file_without_an_environment_names_none(record):
    assert EnvRecord.from_dict(record).usable(None) == EnvRecord()
