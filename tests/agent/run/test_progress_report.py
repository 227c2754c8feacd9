"""How much of a run is left, as the operator's page is told."""

from types import SimpleNamespace

import pytest

from agent.config import OnlineConfig
from agent.run.progress_report import EVERY_S, UNKNOWN_S, WINDOW, ProgressReport
from agent.wire.messages import pack, unpack
from agent.wire.progress import MAX_WARNINGS, read_progress


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr("time.monotonic", lambda: now.s)
    return now


@pytest.fixture
def report():
    return ProgressReport(OnlineConfig(env_steps=1000, warmup_steps=200, utd=2.0))


def later(report, clock, env_steps, updates, seconds=10.0):
    clock.s += seconds
    assert report.sampled(env_steps, updates)


def test_the_time_left_is_that_of_whatever_takes_longer(report, clock):
    later(report, clock, 300, 0)
    assert report.seconds_left() == UNKNOWN_S
    later(report, clock, 400, 400)  # 10 steps and 40 updates a second: 60 s of steps, 30 s of updates
    assert report.seconds_left() == pytest.approx(60.0)
    later(report, clock, 500, 410)  # now 20.5 updates a second, and 1190 are left
    assert report.seconds_left() == pytest.approx(1190 / 20.5)
    later(report, clock, 900, 420)
    assert report.seconds_left() == pytest.approx(1180 / 14)


def test_it_is_not_known_while_nothing_comes_and_zero_at_the_end(report, clock):
    later(report, clock, 300, 200)
    later(report, clock, 300, 200)
    assert report.seconds_left() == UNKNOWN_S
    for number in range(WINDOW):
        later(report, clock, 1000, 1600, EVERY_S + number / 1000)
    assert report.seconds_left() == 0.0


def test_what_is_told_is_a_message_and_of_the_newest(report, clock):
    later(report, clock, 300, 150)
    assert not report.sampled(310, 160)
    record = {"updates": 100, "q_data": 0.25, "td_loss": [0.5, 1.5], "entropy": float("nan"), "stage": "online"}
    report.recorded({**record, "updates": 50})
    report.recorded(record)
    for number in range(MAX_WARNINGS + 3):
        report.warned("Q is far from the returns", number)
    told = report.fields("online", 200, 12)
    assert told["checkpoint_age_s"] == UNKNOWN_S and told["figures"] == {"updates": 100, "q_data": 0.25, "td_loss": 1.0}
    assert told["warnings"][-1] == "at 7 env steps: Q is far from the returns" and len(told["warnings"]) == MAX_WARNINGS
    assert (told["env_steps"], told["updates"], told["updates_due"]) == (300, 150, 200)
    assert read_progress(unpack(pack("PROGRESS", **told, newest_episode={})).fields) == {**told, "newest_episode": {}}
    report.saved()
    clock.s += 30
    assert report.fields("online", 200, 12)["checkpoint_age_s"] == 30.0
