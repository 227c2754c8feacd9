"""A run's log in an experiment tracker. W&B and trackio are tried where they are installed, without a network."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from agent.config import CalQLConfig, NetworkConfig
from agent.run.log import RunLog
from agent.run.records import Tail, curves
from agent.spec import Spec, UserError
from tools import export_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path):
    """A short run: 3 episodes, 2 updates, a warning."""
    log = RunLog(tmp_path / "lift")
    for number in range(3):
        log.write("episode", 10 * (number + 1), 0, success=number % 2, length=10, **{"return": float(number)})
    for number in (1, 2):
        log.write("update", 30, number, stage="online", td_loss=torch.tensor(0.5 / number), q=torch.tensor([1.0, 3.0]))
    log.write("robot", 30, 2, robot="arm", late_p50_s=0.001)
    log.warn("slow", 30, 2)
    log.close()
    return tmp_path / "lift"


class Sent:
    """A tracker that keeps what it is sent."""

    def __init__(self, project, name, config):
        self.begun, self.rows, self.closed = (project, name, config), [], False

    def send(self, step, numbers, record):
        self.rows.append((step, numbers))

    def close(self):
        self.closed = True


@pytest.fixture
def sent(monkeypatch):
    trackers = []
    monkeypatch.setitem(export_run.TRACKERS, "wandb", lambda *begun: trackers.append(Sent(*begun)) or trackers[-1])
    return trackers


def test_curves_have_the_names_and_positions_of_tensorboard(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run)).Reload()
    shown = {(name, e.step): e.value for name in board.Tags()["scalars"] for e in board.Scalars(name)}
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    found = {(name, step): value for step, numbers in map(curves, records) for name, value in numbers.items()}
    assert len(found) == 14 and found == pytest.approx(shown)


def test_every_record_with_numbers_is_sent(run, sent, capsys):
    export_run.main([str(run), "--to", "wandb", "--project", "arms"])
    [tracker] = sent
    assert tracker.begun == ("arms", "lift", {}) and tracker.closed
    assert [step for step, _ in tracker.rows] == [10, 20, 30, 1, 2, 30]
    assert tracker.rows[1][1] == {"episode/success": 1, "episode/length": 10, "episode/return": 1.0}
    assert tracker.rows[3][1] == {"update/td_loss": 0.5, "update/q": 2.0}
    assert tracker.rows[5][1] == {"robot/arm/late_p50_s": 0.001}
    assert capsys.readouterr().out == f"{run / 'log.jsonl'}: 6 records sent to wandb\n"


def test_what_a_resumed_learner_went_over_again_is_sent_once(run, sent):
    with (run / "log.jsonl").open("a") as log:
        log.write('{"kind": "episode", "env_steps": 15, "updates": 0, "success": 1}\n')
    export_run.main([str(run), "--to", "wandb"])
    assert [step for step, numbers in sent[0].rows if "episode/success" in numbers] == [10, 15]


def test_the_tail_gives_whole_lines_as_they_come_and_counts_damaged_ones(run):
    tail = Tail(run)
    assert len(tail.read()) == 7 and tail.read() == []
    with (run / "log.jsonl").open("a", buffering=1) as log:
        log.write('{"kind": "eval", "env_s')
        log.flush()
        assert tail.read() == []
        log.write('teps": 5, "updates": 1}\n{"kind": "ev\n')
    assert [record["kind"] for record in tail.read()] == ["eval"] and tail.unread == 1
    tail.close()


def test_the_settings_are_those_of_the_checkpoint_without_the_link(run):
    from agent.calql.algorithm import CalQL
    from agent.env_record import EnvRecord
    from agent.run.checkpoint import Checkpoint

    network = NetworkConfig(channels=[4], strides=[2], features=4, critics=2, actor_hidden=[4], critic_hidden=[4])
    spec = Spec({}, {"pos": 3}, 2)
    agent = CalQL(spec, network, CalQLConfig(gamma=0.9), torch.device("cpu"), 0)
    config = {"calql": {"gamma": 0.9}, "link": {"address": "tcp://10.0.0.7:5555"}}
    Checkpoint(spec, EnvRecord("fake"), config, agent.state_dict()).save(run / "latest.pt")
    found = export_run.settings(run)
    assert found["calql"]["gamma"] == 0.9 and found["env"]["name"] == "fake" and "link" not in found


def test_mistakes_are_one_line(run, refused, tmp_path):
    assert "no such file" in refused("export_run", tmp_path / "none", "--to", "wandb").lower()
    assert "--to" in refused("export_run", run)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="uv pip install wandb"):
        export_run.installed("wandb")


def wandb_records(path):
    """The records of a .wandb file: after a header of 7 bytes, LevelDB's log format in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, last
            yield Record.FromString(whole)
            whole = b""


def history(folder):
    """Rows of the one offline run in `folder`: name -> value."""
    [path] = (folder / "wandb").glob("offline-run-*/*.wandb")
    rows = [record.history.item for record in wandb_records(path) if record.HasField("history")]
    return [{i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in row} for row in rows]


def start(tmp_path, *words):
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "TRACKIO_DIR": str(tmp_path / "trackio")}
    command = [sys.executable, "-m", "tools.export_run", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=tmp_path, env=environ, text=True, **pipes)


def test_wandb_has_the_run_while_it_goes_until_ctrl_c(run, tmp_path):
    pytest.importorskip("wandb")
    exporter = start(tmp_path, run, "--to", "wandb", "--follow")
    try:
        end_s = time.monotonic() + 60
        while not list((tmp_path / "wandb").glob("offline-run-*/*.wandb")) and time.monotonic() < end_s:
            time.sleep(0.1)
        log = RunLog(run)  # the exporter holds nothing of the log
        log.write("eval", 40, 2, success=0.5)
        log.close()
        time.sleep(3 * export_run.POLL_S)
        exporter.send_signal(signal.SIGINT)
        out, err = exporter.communicate(timeout=60)
    finally:
        exporter.kill()
    assert exporter.returncode == 0 and "7 records sent" in out, err
    rows = history(tmp_path)
    assert [row["env_steps"] for row in rows] == [10, 20, 30, 30, 30, 30, 40]
    assert rows[3]["update/td_loss"] == 0.5 and rows[6]["eval/success"] == 0.5 and rows[6]["updates"] == 2


def test_trackio_has_the_run(run, tmp_path):
    pytest.importorskip("trackio")
    exporter = start(tmp_path, run, "--to", "trackio")
    _, err = exporter.communicate(timeout=120)
    assert exporter.returncode == 0, err
    read = "import json, trackio; print(json.dumps(trackio.SQLiteStorage.get_logs('calql', 'lift'), default=str))"
    environ = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run([sys.executable, "-c", read], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert [row["step"] for row in rows] == [10, 20, 30, 1, 2, 30] and rows[3]["update/td_loss"] == 0.5
