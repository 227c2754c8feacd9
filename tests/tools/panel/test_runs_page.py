"""The page of runs: the list, the curves, settings that differ, videos; and that it serves nothing else."""

import asyncio
import gc
import json

import pytest
from aiohttp.test_utils import TestClient, TestServer
from browsing import by_browser, until
from run_folder import OUTCOMES, write_run

from tools.panel import site
from tools.panel.browser import finite
from tools.panel.connections import Connections
from tools.runs import __main__ as command
from tools.runs import read, server


def test_runs_are_found_and_named_by_their_folder(runs):
    assert list(read.found([runs])) == ["a/online", "b"]
    assert list(read.found([runs / "a", runs / "b"])) == ["a/online", "b"]
    assert list(read.found([runs / "b"])) == ["b"]


def test_the_figures_of_a_run(runs):
    one, other = read.listed(read.found([runs]))
    assert one["env_steps"] == 260 and one["updates"] == 26 and one["episodes"] == 26
    assert one["success"] == 1 and one["failed"] == pytest.approx(3 / 26)
    assert (one["offline"], one["evaluated"], one["regret"]) == (0.5, 1.0, 0.25)
    assert one["warnings"] == ["Q is far from the returns"] and one["unread"] == 0
    assert (other["success"], other["failed"], other["regret"]) == (0, 1, 0.75)


def test_curves_of_a_run(runs):
    told = read.curves(runs / "a/online")
    assert told["episodes"]["success"] == OUTCOMES and told["episodes"]["env_steps"][:2] == [10, 20]
    assert told["evaluations"] == {
        **{"env_steps": [0, 260], "success": [0.5, 1.0], "low": [0.3, 0.8], "high": [0.7, 1.0]},
        "episodes": [20, 20],
    }
    assert told["updates"]["td_loss"][1] == 0.5 and told["updates"]["q"][0] == 2.0  # critics: their mean
    assert told["updates"]["updates"] == list(range(1, 27)) and "stage" not in told["updates"]


def test_a_long_run_has_a_bounded_number_of_points(tmp_path):
    lines = [json.dumps({"kind": "update", "env_steps": n, "updates": n, "td_loss": 1.0}) for n in range(2500)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    assert 800 < len(read.curves(tmp_path)["updates"]["td_loss"]) <= read.POINTS


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind": "episode", "env_steps": 5, "success": "won", "return": 1, "length": 3}',
        b'{"kind": "episode", "env_steps": NaN, "success": 1, "return": 1, "length": 2}',
        b'{"kind": "robot", "env_steps": 5, "updates": Infinity, "time_s": "x"}',
        b'{"kind": "update", "env_steps": 1e400, "updates": {}, "td_loss": "x"}',
        b'{"kind": "eval", "env_steps": NaN, "success": 0.5}',
        b'{"kind": "episode", "env_steps": "5", "success": 1, "return": 1, "length": 3}',
        b'{"kind": "update", "env_steps": 1%s, "updates": 1}' % (400 * b"0"),
        b'{"kind": "update", "env_steps": 100, "updates": 1%s, "td_loss": 1%s}' % (400 * b"0", 400 * b"0"),
        b'{"kind": ["update"], "env_steps": 1}',
        b"\xff\xfe\x00{",
        b"[" * 5000,
    ],
)
def test_a_strange_line_costs_itself_only(runs, line):
    log = runs / "b/log.jsonl"
    log.write_bytes(log.read_bytes() + line + b"\n")
    row = read.listed(read.found([runs]))[1]
    assert row["env_steps"] == 100 and row["failed"] == 1 and row["regret"] == 0.75
    json.dumps(finite(read.curves(runs / "b")), allow_nan=False)


def test_a_log_that_grows_is_in_memory_once(runs):
    log = runs / "b/log.jsonl"
    for _ in range(5):
        line = json.dumps({"kind": "update", "env_steps": 100, "updates": 1, "note": str(runs)})
        log.write_text(log.read_text() + line + "\n")
        last = read.records(runs / "b")
    assert read.records(runs / "b") is last and len(last[0]) > 5
    gc.collect()
    lists = [each for each in gc.get_objects() if type(each) is list and len(each) > 5 and type(each[-1]) is dict]
    alive = [each for each in lists if each[-1].get("note") == str(runs)]
    assert len(alive) == 1


def served(runs, *paths, token=""):
    """(status, content type, body) of each path."""

    async def main():
        app = site.application(server.routes([runs]), ["runs.html"], token, Connections())
        async with TestClient(TestServer(app)) as client:
            answers = [await client.get(path) for path in paths]
            return [(each.status, each.content_type, await each.read()) for each in answers]

    return asyncio.run(main())


def test_only_runs_and_their_videos_are_served(runs):
    good, *bad = served(
        runs,
        "/api/video?run=b&video=videos/episode_000000.mp4",
        "/api/video?run=b&video=../../secret.mp4",
        "/api/video?run=b&video=log.jsonl",
        "/api/video?run=..&video=secret.mp4",
        "/api/curves?run=../runs/b",
        "/api/curves?run=",
        "/api/settings",
        "/index.html",
        "/recorded.html",
    )
    assert good[:2] == (200, "video/mp4") and b"ftyp" in good[2][:12]
    assert [status for status, _, _ in bad] == [404] * 8
    assert [status for status, _, _ in served(runs, "/", "/api/runs", token="t")] == [403, 403]


def test_a_damaged_checkpoint_is_said_and_the_curves_stay(runs):
    (runs / "b/latest.pt").write_bytes(b"no checkpoint")
    (_, _, curves), (status, _, settings) = served(runs, "/api/curves?run=b", "/api/settings?run=b")
    assert status == 200 and "latest.pt" in json.loads(settings)["error"] and json.loads(curves)["episodes"]["success"]


def test_settings_have_the_options_of_the_environment_and_no_address(runs):
    told = read.flat_settings(runs / "b")
    assert (
        told["calql.gamma"] == 0.95 and told["env.horizon"] == 9 and not {"learner.run", "link.address"} & told.keys()
    )


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(command.UserError, match="no such folder"):
        command.main([str(tmp_path / "none")])


@by_browser
def test_runs_are_compared_in_the_browser(runs, runs_page, chromium):
    _, browser = chromium()
    page = browser.contexts[0].new_page()
    problems = []
    page.on("pageerror", lambda problem: problems.append(problem))
    page.goto(runs_page)
    page.get_by_role("checkbox", name="b", exact=True).check(timeout=60_000)
    page.get_by_role("checkbox", name="a/online").check()
    page.wait_for_selector("#settings tr:has-text('calql.gamma')", timeout=60_000)
    assert page.locator("#settings tr").all_text_contents() == ["settingba/online", "calql.gamma0.950.9"]
    assert page.locator("#figures .plot canvas").count() == 3  # success, failed, TD loss; the log has no others
    steps, _, evaluated, online, _ = page.evaluate("runPlots[0].data")
    assert len(steps) == 23 and evaluated[0] == 0.5 and online[:2] == [None, pytest.approx(2 / 5)]
    page.get_by_text("episode_000000.mp4").click()
    until(lambda: page.evaluate("document.querySelector('video')?.readyState >= 2"))
    page.locator("#filter").fill("online")
    assert page.locator("#runs tbody tr").count() == 1
    page.reload()  # what is chosen is in the address
    page.wait_for_selector("#legend li:has-text('a/online')", timeout=60_000)
    write_run(runs / "c", [1] * 30)
    page.wait_for_selector("#runs tbody tr:has-text('100 %') >> text=c", timeout=60_000)
    assert not problems
