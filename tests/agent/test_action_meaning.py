"""What actions mean travels with the data, and what differs is refused at each border."""

import dataclasses
import json
import logging

import pytest

from agent import learner, pretrain
from agent.action_meaning import ActionMeaning
from agent.data.episode_file import write_episode
from agent.env_record import EnvRecord, agreed, meaning_of_episode
from agent.mailbox.robots import Robots
from agent.run import checkpoint
from agent.spec import SpecError, UserError

JOINTS = ActionMeaning(
    "absolute", "joint position", units="degrees", names=("a", "b"), low=(-89, 0), high=(89, 50), control_hz=30,
    robot="so101",
)  # fmt: skip
STEPS = ActionMeaning("delta", "end-effector position", "the robot's base", "m", ("x", "y"), (-0.05,) * 2, (0.05,) * 2)
UNKNOWN = ActionMeaning()


def env(meaning, **options):
    return {"name": "fake", "options": options, "actions": meaning.to_dict()}


@pytest.mark.parametrize("meaning", [JOINTS, STEPS, UNKNOWN])
def test_it_survives_a_file(meaning):
    assert ActionMeaning.from_dict(json.loads(json.dumps(meaning.to_dict()))) == meaning
    assert not meaning.differences(meaning) and not meaning.differences(UNKNOWN) and not UNKNOWN.differences(meaning)


def test_in_words():
    assert str(JOINTS) == "absolute joint position, a -89 to 89; b 0 to 50 degrees, 30 Hz, so101"
    assert str(STEPS) == "delta end-effector position in the frame of the robot's base, -0.05 to 0.05 m"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"kind": "delta"}, {"kind": "absolute against delta"}),
        ({"low": (-8.9, 0), "high": (8.9, 50)}, {"range": "a -89 to 89 against -8.9 to 8.9"}),
        ({"low": (-89, 0), "high": (89, 51)}, {"range": "b 0 to 50 against 0 to 51"}),
        ({"low": (-89.0000001, 0)}, {}),
        ({"control_hz": 10.0}, {"control_hz": "30 Hz against 10 Hz"}),
        ({"control_hz": 30.1}, {}),
        ({"robot": "Panda"}, {"robot": "so101 against Panda"}),
        ({"repeat": 5}, {}),  # JOINTS, as older releases, does not state it
        ({"units": "radians"}, {"units": "degrees against radians"}),
        ({"names": ("b", "a")}, {"names": "a, b against b, a"}),
        ({"low": (), "high": (), "robot": "", "names": ()}, {}),
    ],
)
def test_what_differs_is_named(changed, named):
    assert JOINTS.differences(dataclasses.replace(JOINTS, **changed)) == named


@pytest.mark.parametrize(
    "data",
    [
        5,
        [1],
        {"kind": "sideways"},
        {"kind": 5},
        {"low": [1.0]},
        {"low": ["x"], "high": ["y"]},
        {"low": [float("nan")], "high": [1.0]},
        {"low": [True], "high": [1.0]},
        {"names": "abc"},
        {"names": [["x"]]},
        {"control_hz": -1.0},
        {"control_hz": float("inf")},
        {"robot": "x" * 10_000},
        {"low": [0.0] * 100_000, "high": [0.0] * 100_000},
    ],
)
def test_nonsense_from_outside_is_refused_without_repeating_it(data):
    with pytest.raises(SpecError) as caught:
        ActionMeaning.from_dict(data)
    assert len(str(caught.value)) < 120
    found, _ = Robots({}, EnvRecord.from_dict(env(JOINTS)), False).differences({}, {"name": "fake", "actions": data})
    assert any("meaning of actions" in line for line in found)


@pytest.fixture
def folder(tmp_path, make_episode):
    """folder("a", meta): a folder with an episode that has this meta."""

    def make(name, meta):
        episode = make_episode(5, seed=1, success=True)
        kept = {key: value for key, value in episode.meta.items() if key != "env"}
        write_episode(tmp_path / name / "e.hdf5", dataclasses.replace(episode, meta={**kept, **meta}))
        return tmp_path / name

    return make


@pytest.fixture
def train(tmp_path, tiny_flags):
    def run(*folders, out="offline.pt", resume=False):
        if not resume:
            (tmp_path / out).unlink(missing_ok=True)
        data = ["--data", *map(str, folders)]
        where = ["--resume" if resume else "--out", str(tmp_path / out), "--run", str(tmp_path / f"run-{out}")]
        pretrain.main([*data, *where, "--updates", "4" if resume else "2", *tiny_flags])
        return checkpoint.load(tmp_path / out)

    return run


@pytest.mark.parametrize("field", ["kind", "range", "control_hz", "robot"])
def test_pretrain_refuses_folders_whose_actions_mean_different_things(field, folder, train):
    other = {
        "kind": {"kind": "delta"},
        "range": {"low": (-8.9, 0), "high": (8.9, 50)},
        "control_hz": {"control_hz": 10.0},
        "robot": {"robot": "Panda"},
    }
    first = folder("first", {"env": env(JOINTS)})
    second = folder("second", {"env": env(dataclasses.replace(JOINTS, **other[field]))})
    with pytest.raises(UserError, match=f"actions mean different things: {field}: ") as caught:
        train(first, second)
    message = str(caught.value)
    assert "\n" not in message and str(first) in message and str(second) in message
    train(first, first)


def test_files_of_older_conversions_are_compared_by_range_and_rate(folder, train, caplog):
    old = {"source": {"format": "lerobot"}, "robot": "so101", "fps": 30.0, "action_range": [[-89, -89], [89, 89]]}
    first = folder("first", old)
    train(first)
    assert "do not say what their actions mean" in caplog.text
    for key, value in (("action_range", [[-8.9] * 2, [8.9] * 2]), ("fps", 10.0), ("robot", "Panda")):
        with pytest.raises(UserError, match="actions mean different things"):
            train(first, folder(f"other-{key}", {**old, key: value}))


def test_files_that_say_nothing_are_mixed_with_a_warning_only(folder, train, caplog):
    old = {"name": "fake", "options": {}}
    assert train(folder("old", {"env": old})).env.to_dict() == old
    (line,) = [line for line in caplog.messages if "actions" in line]
    assert line.startswith("1 of 1 episodes") and line.endswith("taken to mean what the robot's actions mean")
    caplog.clear()
    start = train(folder("older", {"env": {"name": "fake"}}), folder("new", {"env": env(JOINTS)}), out="mixed.pt")
    assert start.env.actions == JOINTS.to_dict()
    (line,) = [line for line in caplog.messages if "actions" in line]
    assert line.startswith("1 of 2 episodes") and "older/e.hdf5" in line and "the same as the others'" in line


def test_other_environments_are_named(folder, train, caplog):
    train(folder("a", {"env": env(JOINTS, task="Lift")}), folder("b", {"env": env(JOINTS, task="Stack")}))
    assert [line for line in caplog.messages if "different environments: task: Stack against Lift" in line]


def test_the_meaning_is_kept_in_the_checkpoint_and_compared_when_it_is_resumed(folder, train):
    start = train(folder("a", {"env": {"actions": JOINTS.to_dict()}}))  # converted: without an environment
    assert start.env.to_dict() == {"actions": JOINTS.to_dict()}
    with pytest.raises(UserError, match=r"range: a -89 to 89 against -8\.9 to 8\.9"):
        train(folder("b", {"env": env(dataclasses.replace(JOINTS, low=(-8.9, 0), high=(8.9, 50)))}), resume=True)


def test_a_run_refuses_demonstrations_whose_actions_mean_something_else(folder, train, tmp_path, tiny_flags):
    train(folder("a", {"env": env(JOINTS)}))
    start = ["--ckpt", tmp_path / "offline.pt", "--run", tmp_path / "online", "--address", "tcp://127.0.0.1:0"]
    words = [*start, "--offline.data", folder("b", {"env": env(STEPS)}), *tiny_flags]
    with pytest.raises(UserError, match=r"the checkpoint and .*/b: .* mean different things: kind: absolute against"):
        learner.main(list(map(str, words)))
    assert not (tmp_path / "online").exists()


def test_one_episode_among_thousands_is_compared():
    metas = [(f"e{k}", {"env": env(JOINTS)}) for k in range(2000)]
    assert agreed(metas) == (JOINTS, [])
    with pytest.raises(UserError, match=r"^e2000 and e0: "):
        agreed([*metas, ("e2000", {"env": env(STEPS)})])


@pytest.mark.parametrize("meta", [{}, {"env": None}, {"env": 5}, {"env": {}}, {"source": 5}, {"source": {}}])
def test_a_meta_that_says_nothing(meta):
    assert meaning_of_episode(meta) == UNKNOWN


class TestRobots:
    """Which robots may join a learner."""

    @pytest.fixture
    def join(self, spec):
        def ask(data, robot, other_env=False, name="fake"):
            """What keeps a robot out, and what is only reported."""
            return Robots(spec, EnvRecord.from_dict(data), other_env).differences(
                spec.to_dict(), {**robot, "name": name}
            )

        return ask

    def test_a_checkpoint_of_converted_data_is_not_for_any_robot(self, join):
        found, _ = join({"actions": JOINTS.to_dict()}, env(STEPS))
        assert "actions, kind: delta against absolute" in found
        assert join({"actions": JOINTS.to_dict()}, env(JOINTS)) == ([], [])

    @pytest.mark.parametrize(
        "changed", [{"control_hz": 10.0}, {"robot": "Panda"}, {"low": (-8.9, 0), "high": (8.9, 50)}]
    )
    def test_another_range_rate_or_robot_is_refused_unless_other_env_allows_it(self, join, changed):
        robot = env(dataclasses.replace(JOINTS, **changed))
        found, _ = join(env(JOINTS), robot)
        assert len(found) == 1 and found[0].endswith("(link.other_env true allows it)")
        found, notes = join(env(JOINTS), robot, other_env=True, name="real")
        assert not found and any(note.startswith("actions, ") for note in notes)

    def test_absolute_and_delta_are_never_alike(self, join):
        found, _ = join(env(JOINTS), env(dataclasses.replace(JOINTS, kind="delta")), other_env=True)
        assert found == ["actions, kind: delta against absolute"]

    def test_data_that_do_not_say_it_are_taken_as_before_with_a_note(self, join):
        found, notes = join({"name": "fake", "options": {}}, env(JOINTS))
        assert not found and len(notes) == 1 and "not stated" in notes[0] and "absolute joint position" in notes[0]
        assert join(env(JOINTS), {"options": {}}) == ([], [])


def test_warnings_are_logged_once_a_run(folder, train, caplog):
    with caplog.at_level(logging.WARNING):
        train(folder("old", {}))
    assert len([line for line in caplog.messages if "actions" in line]) == 1
