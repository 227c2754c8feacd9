"""What people read of the link."""

import json
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agent.mailbox.robots import Robot
from agent.run import link_report
from agent.run.link_report import LinkReport
from agent.run.log import RunLog
from agent.wire.bad_messages import Faults


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr("time.monotonic", lambda: now.s)
    return now


def test_a_line_a_minute_for_each_robot(tmp_path, clock, logged):
    facts = {"steps": 1234, "unacknowledged": 12, "spooled": 3, "reconnects": 1, "round_trip_s": 0.023, "acting": 57}
    facts |= {"steps_timed": 1300, "deadlines_missed": 2, "late_p50_s": 0.0001, "late_p99_s": 0.0021}
    arm = Robot("arm1", "b", {}, b"r", **facts, seen_s=clock.s)
    gone = Robot("arm2", "b", {}, b"s", seen_s=clock.s)
    mailbox = SimpleNamespace(known=[arm, gone], faults=Faults(), policy_age_s=lambda robot: 3.2)
    log = RunLog(tmp_path)
    report = LinkReport(mailbox, log)
    report.tell(10, 5)
    assert logged() == []
    for _ in range(3):
        mailbox.faults.note("STEP", "arm1", "nonsense")
    clock.s += link_report.EVERY_S
    arm.seen_s = clock.s
    for _ in range(5):
        report.tell(20, 6)
    assert [line for line in logged() if not line.startswith("dropped")] == [
        "robot arm1: 1234 steps received, 12 unacknowledged, 3 episodes spooled, 1 reconnect, round trip 23 ms, "
        "policy 57 (3 s old), 2 of 1300 deadlines missed, late 0.1 ms (median; p99 2.1)",
        "robot arm2: not heard of for 60 s",
        "3 bad messages in the last minute: 3 from arm1",
    ]
    clock.s += link_report.EVERY_S
    report.tell(30, 7)
    assert "bad messages" not in "".join(logged())
    log.close()
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(record["kind"], record["robot"], record["env_steps"]) for record in records] == [
        ("robot", "arm1", 20), ("robot", "arm2", 20), ("robot", "arm1", 30), ("robot", "arm2", 30)
    ]  # fmt: skip
    told = {**facts, "policy_version": 57, "policy_age_s": 3.2}
    del told["acting"]
    assert told.items() <= records[0].items()
    board = EventAccumulator(str(tmp_path)).Reload()
    for name, value in told.items():
        points = board.Scalars(f"robot/arm1/{name}")
        assert [point.step for point in points] == [20, 30] and points[0].value == pytest.approx(value)
