"""python -m tools.link against a real learner's end, well and not well."""

import shutil
import threading

import msgpack
import numpy as np
import pytest

import envs
from agent.env_record import EnvRecord
from agent.mailbox.mailbox import Mailbox
from agent.spec import Spec
from agent.wire import messages
from tools import keys, link


@pytest.fixture
def learner(monkeypatch):
    """learner(spec, **options): a mailbox that is drained in the background; returns it."""
    monkeypatch.setattr(link, "CONNECT_S", 20.0)  # a busy machine
    monkeypatch.setattr("agent.mailbox.cpu_budget.SHARE_S", 60.0)
    made = []

    def start(spec, **options):
        mailbox = Mailbox("tcp://127.0.0.1:0", spec, {"features": 8}, **options)
        mailbox.offer(7, {"w": np.zeros(3, np.float32)})
        over = threading.Event()

        def serve():
            while not over.is_set():
                mailbox.wait(0.01)
                mailbox.drain()
            mailbox.close()

        thread = threading.Thread(target=serve)
        thread.start()
        made.append((over, thread))
        return mailbox

    yield start
    for over, thread in made:
        over.set()
        thread.join()


@pytest.fixture(scope="module")
def fake():
    env = envs.make("fake")
    yield Spec.from_spaces(env.observation_space, env.action_space)
    env.close()


def test_all_is_well(learner, fake, capsys):
    mailbox = learner(fake, run="lift-1", env=EnvRecord("fake"))
    assert link.main(["--learner", mailbox.address, "--env", "fake"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*("connection", "learner", "its", "round", "up", "down", "spaces")]
    text = "\n".join(lines)
    assert "run lift-1, policy 7, robots: none" in text and "fake: top 24x24, proprio (4); actions (2)" in text
    assert "spaces       match" in text and "not measured" not in text
    assert not mailbox.known and mailbox.steps == 0 and not mailbox.counts


def test_spaces_are_compared_only_when_they_are_known(learner, fake, capsys):
    assert link.main(["--learner", learner(fake).address]) == 0
    assert "not compared (--env)" in capsys.readouterr().out


def test_spaces_that_do_not_match(learner, fake, capsys):
    mailbox = learner(Spec(fake.cameras, {"proprio": 9}, fake.action_dim))
    assert link.main(["--learner", mailbox.address, "--env", "fake"]) == 1
    assert "would be refused: state 'proprio'" in capsys.readouterr().err


def test_keys(learner, fake, capsys, tmp_path):
    box, arm = tmp_path / "box", tmp_path / "arm"
    keys.main(["--out", str(box)])
    keys.main(["--out", str(arm), "--robot", "arm1"])
    keys.main(["--out", str(arm), "--robot", "arm2"])
    shutil.copy(box / "learner.key", arm)
    shutil.copy(arm / "arm1.key", box / "authorized")
    where = ["--learner", learner(fake, keys=box).address]
    mine = [*where, "--keys", str(arm), "--robot-name"]
    capsys.readouterr()
    assert link.main([*mine, "arm1"]) == 0
    assert "key          arm1: known" in capsys.readouterr().out
    assert link.main([*mine, "arm2"]) == 1
    said = capsys.readouterr()
    assert "does not know the key of 'arm2'" in said.err and "known" not in said.out
    assert link.main(where) == 1
    assert "requires keys (--keys)" in capsys.readouterr().err


def test_nobody_listens(capsys, monkeypatch):
    monkeypatch.setattr(link, "CONNECT_S", 0.5)
    assert link.main(["--learner", "tcp://127.0.0.1:9"]) == 1
    assert "nothing listens at tcp://127.0.0.1:9" in capsys.readouterr().err


def test_a_learner_of_another_release(learner, fake, capsys, monkeypatch):
    mailbox = learner(fake)

    def older(*args, **fields):
        header, *arrays = messages.pack(*args, **fields)
        return [msgpack.packb({**msgpack.unpackb(header), "v": 0}), *arrays]

    monkeypatch.setattr(link, "pack", older)
    assert link.main(["--learner", mailbox.address]) == 1
    assert "must be of the same release" in capsys.readouterr().err


def test_a_learner_that_is_stuck(fake, capsys, monkeypatch):
    monkeypatch.setattr(link, "ANSWER_S", 0.3)
    monkeypatch.setattr(link.Probe.answer, "__defaults__", (0.3,))
    mailbox = Mailbox("tcp://127.0.0.1:0", fake, {})
    try:
        assert link.main(["--learner", mailbox.address]) == 1
    finally:
        mailbox.close()
    assert "is the learner stuck?" in capsys.readouterr().err
