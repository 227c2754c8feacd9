"""A run's log: every record a line, every tensor of it read at once."""

import json
import resource
import sys
import time

import pytest
import torch

from agent.run.log import RunLog
from agent.run.records import read_log
from agent.spec import UserError


def test_tensors_of_every_type_and_shape_are_read_in_one_wait(tmp_path, monkeypatch):
    reads = []
    for name in ("cpu", "item", "tolist"):
        plain = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda tensor, plain=plain, name=name: (reads.append(name), plain(tensor))[1]
        )
    log = RunLog(tmp_path)
    values = {
        "td_loss": torch.tensor(0.5),
        "rates": torch.tensor([0.25, 0.75, 0.5]),
        "half": torch.tensor(2.0, dtype=torch.bfloat16),
        "one": torch.tensor([3.0]),
    }
    log.write("update", 7, 3, stage="online", **values, speed=1.5)
    assert reads.count("cpu") == 1 and "item" not in reads  # lists are made of what is on the host by then
    log.write("episode", 8, 3, length=4)
    log.close()
    first, second = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert (first["td_loss"], first["rates"], first["half"], first["one"]) == (0.5, [0.25, 0.75, 0.5], 2.0, [3.0])
    assert (first["stage"], first["speed"], first["env_steps"], second["length"]) == ("online", 1.5, 7, 4)


def test_a_run_has_one_writer(tmp_path):
    log = RunLog(tmp_path)
    with pytest.raises(UserError, match="in use by another process"):
        RunLog(tmp_path)
    log.close()
    RunLog(tmp_path).close()


def _curves(folder):
    """Points of a curve that are in TensorBoard's files."""
    return sum(file.read_bytes().count(b"episode/length") for file in folder.glob("events.*"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's thread dies
def test_a_full_disk_costs_records_and_never_the_run(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a module that is cut short would be read by the next run
    log = RunLog(tmp_path)
    log.write("episode", 1, 0, length=1)
    board, before = log.board, resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "log.jsonl").stat().st_size + 20, before[1]))
        for step in range(2, 30):
            log.write("episode", step, 0, length=1)
        deadline = time.monotonic() + 30
        while log.board is board and time.monotonic() < deadline:  # until its thread has met the limit, too
            log.write("episode", step, 0, length=1)
            time.sleep(0.01)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert log.board is not board
    curves = _curves(tmp_path)
    log.write("episode", 30, 0, length=1)
    while _curves(tmp_path) == curves and time.monotonic() < deadline + 30:
        log.write("episode", 30, 0, length=1)
        time.sleep(0.01)
    assert _curves(tmp_path) > curves
    log.close()
    assert caplog.text.count("cannot write the log") == 1
    whole, torn = [], 0
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        try:
            whole.append(json.loads(line)["env_steps"])
        except ValueError:
            torn += 1
    assert whole[0] == 1 and set(whole[1:]) == {30} and torn == 1


def test_a_log_is_read_as_far_as_it_can_be_and_each_kind_resumes_by_itself(tmp_path):
    episodes = [{"kind": "episode", "env_steps": steps} for steps in (10, 20, 30)]
    again, first = {"kind": "episode", "env_steps": 20, "again": True}, {"kind": "eval", "env_steps": 0}
    lines = [json.dumps(record) for record in (*episodes, again, first)]
    (tmp_path / "log.jsonl").write_text("\n".join(['{"kind": "epi', "[1]", *lines, "", '{"kind": "epi']))
    unread = []
    assert read_log(tmp_path, damaged=unread.append) == [*episodes[:2], again, first] and unread == [2]
    assert read_log(tmp_path / "log.jsonl", "eval") == [first]
    with pytest.raises(FileNotFoundError):
        read_log(tmp_path / "none")
