"""Nothing in one episode or message ends a run."""

import errno

import msgpack
import numpy as np
import pytest
import test_mailbox
from link_data import SPEC, steps_of
from test_mailbox import drain_until

from agent.data.episode_file import read_episode
from agent.data.episode_store import Store
from agent.data.storage import NoSpace
from agent.spec import Episode, UserError
from agent.wire import messages
from agent.wire.messages import WireError
from agent.wire.schema import KINDS

make_mailbox, mailbox = test_mailbox.make_mailbox, test_mailbox.mailbox
make_robot, robot = test_mailbox.make_robot, test_mailbox.robot

BAD_METAS = [
    {"env": 5},
    {"env": [1]},
    {"env": {"name": 5}},
    {"env": {"name": "x", "options": 5}},
    {"seed": "x"},
    {"run": 5},
    {"marked": ["success"]},
    {"fps": "fast"},
    {"unmarked": 5},
]


def altered(frames, **fields):
    header = msgpack.unpackb(frames[0])
    return [msgpack.packb({**header, **fields}), *frames[1:]]


@pytest.mark.parametrize("meta", BAD_METAS, ids=str)
def test_a_meta_of_wrong_types_is_refused_on_receipt(mailbox, robot, meta):
    steps = steps_of(2)
    robot.socket.send_multipart(altered(messages.pack_step(("raw", "b0", 0), 0, steps[0]), meta=meta))
    drain_until(mailbox, lambda: sum(mailbox.counts.values()), 5.0)
    with pytest.raises(WireError, match="meta"):
        messages.pack_step(("raw", "b0", 0), 0, steps[0], meta)
    assert mailbox.steps == 0


@pytest.mark.parametrize(
    "meta", [{}, {"env": None, "seed": None}, {"env": {}, "seed": 3, "fps": 20.0, "mine": [1, {"a": None}]}], ids=str
)
def test_a_meta_of_right_or_unknown_content_is_taken(meta):
    assert messages.unpack(messages.pack_step(("raw", "b0", 0), 0, steps_of(2)[0], meta)).fields["meta"] == meta


def test_a_verdict_that_cannot_be_taken_back_sends_the_episode_to_quarantine(mailbox, robot, tmp_path):
    steps = steps_of(2)
    robot.step(0, 0, steps[0])
    robot.step(0, 1, steps[1], {"marked": "success", "unmarked": [[99, 0.0, False, False, False]]})
    steps[1].terminated = False
    robot.step(1, 0, steps[0])
    robot.step(1, 1, steps[1], {"marked": "failure", "unmarked": [["x"]]})
    drain_until(mailbox, lambda: len(mailbox.finished) + sum(mailbox.counts.values()) >= 2, 5.0)
    store = Store(tmp_path, lambda episode: None, lambda key: None)
    for episode in mailbox.finished:
        store.take(episode)
        mailbox.acknowledge(episode)
    assert not mailbox.assembly.unacknowledged and robot.expect(mailbox, "ACK")


class Taken:
    """A store whose learning refuses with `error`."""

    def __init__(self, folder, error):
        self.error = error
        self.store = Store(folder, self.use, lambda key: None)

    def use(self, episode):
        if self.error:
            raise self.error


def episode(number=0, **meta):
    return Episode.from_transitions(steps_of(3), {"robot": "raw", "boot": "b0", "number": number, **meta})


@pytest.mark.parametrize("error", [UserError("no"), TypeError("x\ny"), KeyError("a"), RecursionError(), MemoryError()])
def test_an_episode_that_learning_cannot_use_is_quarantined_whatever_the_error(tmp_path, caplog, error):
    taken = Taken(tmp_path, error)
    assert taken.store.take(episode()) is False
    [file] = (tmp_path / "quarantine").iterdir()
    assert read_episode(file).equals(episode(order=0)) and taken.store.quarantined == 1
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"quarantined, excluded from training: {file}: ") and "\n" not in line
    again = Taken(tmp_path, None)  # the reason is gone
    again.store.read_back()
    assert again.store.episodes == 1 and not list((tmp_path / "quarantine").iterdir())


@pytest.mark.parametrize(
    "meta", [{"env": 5}, {"env": {"options": object()}}, {"x": {1, 2}}], ids=["number", "object", "set"]
)
def test_an_episode_whose_meta_no_file_can_hold_is_quarantined_without_it(tmp_path, caplog, meta):
    taken = Taken(tmp_path, None)
    assert taken.store.take(episode(**meta)) is False and taken.store.take(episode(1)) is True
    [file] = (tmp_path / "quarantine").iterdir()
    kept = read_episode(file)
    assert np.array_equal(kept.actions, episode().actions) and "Error" in kept.meta["quarantined"]
    assert taken.store.stored(("raw", "b0", 0)) == 3 and "excluded from training" in caplog.text
    again = Taken(tmp_path, None)
    again.store.read_back()
    assert (again.store.episodes, again.store.quarantined) == (1, 1) and len(again.store.steps) == 2


def test_an_episode_that_no_file_can_hold_is_lost_with_a_line_and_the_run_goes_on(tmp_path, caplog, monkeypatch):
    def fail(path, episode):
        raise RuntimeError("no")

    monkeypatch.setattr("agent.data.episode_store.write_episode", fail)
    taken = Taken(tmp_path, None)
    assert taken.store.take(episode()) is False
    assert "lost: episode raw" in caplog.text and "excluded from training" in caplog.text


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), NoSpace("full")])
def test_a_full_disk_is_not_the_episodes_fault(tmp_path, monkeypatch, error):
    taken = Taken(tmp_path, error if isinstance(error, NoSpace) else None)
    if isinstance(error, OSError):

        def fail(path, episode):
            raise error

        monkeypatch.setattr("agent.data.episode_store.write_episode", fail)
    with pytest.raises(type(error)):
        taken.store.take(episode())
    assert not (tmp_path / "quarantine").exists()


def test_quarantined_episodes_of_older_releases_are_read_back(tmp_path):
    taken = Taken(tmp_path, UserError("no"))
    taken.store.take(episode())
    (tmp_path / "quarantine").rename(tmp_path / "set_aside")
    again = Taken(tmp_path, None)
    again.store.read_back()
    assert again.store.episodes == 1 and again.store.stored(("raw", "b0", 0)) == 3


@pytest.mark.parametrize("kind", ["STEP", "PULL", "HELLO", "PROBE", "BYE"])
def test_an_error_nobody_foresaw_drops_one_message_only(mailbox, robot, monkeypatch, caplog, kind):
    owner, handler = {
        "STEP": (mailbox.delivery, "step"),
        "PULL": (mailbox.delivery, "report"),
        "HELLO": (mailbox.registry, "admit"),
        "PROBE": (mailbox.registry, "differences"),
        "BYE": (mailbox.registry, "leave"),
    }[kind]

    def fail(*_):
        raise RecursionError("too\ndeep")

    with monkeypatch.context() as patch:
        patch.setattr(owner, handler, fail)
        fields = {name: of() for name, of in KINDS[kind].items()}
        fields |= {"spec": SPEC.to_dict()} if kind == "PROBE" else {}
        fields |= {name: "raw" for name in ("robot", "boot") if name in fields}
        robot.step(0, 0, steps_of(2)[0]) if kind == "STEP" else robot.send(kind, **fields)
        drain_until(mailbox, lambda: sum(mailbox.counts.values()), 5.0)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "unexpected RecursionError at test_bad_episodes.py" in line and "\n" not in line
    for at, step in enumerate(steps_of(3)):
        robot.step(1, at, step)
    drain_until(mailbox, lambda: mailbox.finished, 5.0)


@pytest.mark.parametrize("levels", [17, 300, 1000])
def test_nested_containers_from_a_stranger_drop_one_message(mailbox, make_robot, levels):
    raw = make_robot(mailbox)
    deep = b"\x91" * (levels - 1) + b"\x90"
    sent = 0
    for kind, field in (("HELLO", "env"), ("HELLO", "outbox"), ("PROBE", "spec"), ("PULL", "v"), ("STEP", "meta")):
        good = {name: of() for name, of in KINDS[kind].items()} | {"robot": "raw", "boot": "b0"}
        header = {"v": messages.PROTOCOL, "kind": kind, **good, "arrays": b"\x90", field: "HERE"}
        for inner in (deep, b"\x81\xa1v" + deep):
            raw.socket.send(msgpack.packb(header).replace(b"\xa4HERE", inner))
            sent += 1
    drain_until(mailbox, lambda: sum(mailbox.counts.values()) == sent, 5.0)
    assert raw.hello(mailbox).kind == "WELCOME" and SPEC
