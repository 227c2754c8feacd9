"""The page of recorded episodes in a real Chromium, and what its server answers."""

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from browsing import by_browser, until
from recorded_page import ask, asked, contents, drag, names, opened

from agent.data.episode_file import read_episode, write_episode

PANEL = Path(__file__).parents[3] / "tools" / "panel"
MANY = 400


@by_browser
def test_a_failed_episode_is_found_cut_relabelled_and_all_of_it_undone(recorded, folder):
    failed = [path.stem for path in sorted(folder.glob("*.hdf5")) if not read_episode(path).succeeded]
    assert 0 < len(failed) < 6
    recorded.click("[data-outcome=failure]")
    until(lambda: names(recorded) == failed)
    assert recorded.inner_text("#found") == f"{len(failed)} of 6 episodes"
    recorded.click(".episode >> nth=0")
    opened(recorded, failed[0])
    path = folder / f"{failed[0]}.hdf5"
    recordings = [path.read_bytes()]
    whole = read_episode(path)
    drag(recorded, 0, 0.5)
    recorded.click("#remove")
    until(lambda: 0 < len(read_episode(path)) < len(whole))
    assert read_episode(path).meta["cut"] == [len(whole) - len(read_episode(path)), len(whole)]
    recordings.append(path.read_bytes())
    recorded.keyboard.press("y")
    until(lambda: read_episode(path).succeeded)
    until(lambda: names(recorded) == failed[1:])  # it is a success now
    recordings.append(path.read_bytes())
    recorded.click("#drop")
    until(lambda: not path.exists())
    recorded.wait_for_selector("#outcome:text-is('dropped')")
    for key in ("u", "Control+z", "u"):
        recorded.keyboard.press(key)
        until(lambda: path.exists() and path.read_bytes() == recordings[-1])
        recordings.pop()
    until(lambda: recorded.is_disabled("#undo"))
    recorded.keyboard.press("Control+Shift+Z")
    until(lambda: len(read_episode(path)) < len(whole))
    recorded.click("#original")
    until(lambda: len(read_episode(path)) == len(whole))


def ticked(page):
    """Names of the selected episodes in view."""
    return page.locator(".episode[aria-selected=true] .name").all_text_contents()


@by_browser
def test_several_are_selected_edited_and_undone_as_one(recorded, folder):
    every, before = [f"episode_00000{number}" for number in range(6)], contents(folder)
    assert recorded.is_hidden("#several")
    recorded.click(".tick >> nth=0")
    recorded.click(".episode >> nth=2", modifiers=["Shift"])
    recorded.click(".episode >> nth=4", modifiers=["Control"])
    assert ticked(recorded) == [every[0], every[1], every[2], every[4]]
    assert recorded.inner_text("#ticked") == "4 selected" and recorded.is_visible("#none")  # none has been opened
    recorded.click(".tick >> nth=1")
    recorded.click("#several [data-deed=failure]")
    wanted = [every[0], every[2], every[4]]
    recorded.wait_for_selector("#progress:text-is('3 episodes: marked failure')")
    marked = [path.stem for path in sorted(folder.glob("*.hdf5")) if read_episode(path).meta.get("marked") == "failure"]
    assert marked == wanted == ticked(recorded)
    recorded.click("#several [data-deed=drop]")
    until(lambda: sorted(contents(folder)) == [f"{every[number]}.hdf5" for number in (1, 3, 5)])
    until(lambda: "dropped, 3 episodes" in recorded.get_attribute("#undo", "title"))
    recorded.keyboard.press("u")
    recorded.keyboard.press("u")
    until(lambda: contents(folder) == before)
    until(lambda: recorded.is_disabled("#undo"))


@by_browser
def test_a_phone_across_has_the_list_beside_its_filter_and_the_episode_instead(recorded):
    recorded.set_viewport_size({"width": 844, "height": 390})
    recorded.click("#more summary")
    recorded.click(".tick >> nth=0")
    box = {name: recorded.locator(name).bounding_box() for name in ("#filter", "#several", "#list")}
    assert box["#list"]["height"] > 250 and box["#list"]["x"] > box["#filter"]["x"] + box["#filter"]["width"]
    assert all(at["y"] + at["height"] <= 390 for at in box.values())
    recorded.click(".episode >> nth=1")
    opened(recorded, "episode_000001")
    assert recorded.is_hidden("#list") and recorded.evaluate("document.documentElement.scrollWidth") <= 844
    recorded.click("#back")
    recorded.wait_for_selector("#list")


@by_browser
def test_several_are_selected_and_edited_by_keyboard_alone(recorded, folder):
    before = contents(folder)
    recorded.locator("#list").focus()
    recorded.keyboard.press("ArrowDown")
    recorded.keyboard.press("Shift+ArrowDown")
    assert ticked(recorded) == ["episode_000000", "episode_000001"]
    recorded.keyboard.press("ArrowDown")
    recorded.keyboard.press("ArrowDown")
    recorded.keyboard.press("s")
    recorded.keyboard.press("ArrowUp")
    assert ticked(recorded) == ["episode_000000", "episode_000001", "episode_000003"]
    recorded.keyboard.press("Delete")
    until(lambda: len(contents(folder)) == 3 and "episode_000002.hdf5" in contents(folder))
    recorded.keyboard.press("Control+z")
    until(lambda: contents(folder) == before)
    recorded.keyboard.press("Escape")
    assert ticked(recorded) == [] and recorded.is_hidden("#several")
    recorded.keyboard.press("Control+a")
    assert len(ticked(recorded)) == 6
    recorded.click("[data-outcome=success]")  # what is not shown is not selected
    until(lambda: 0 < len(names(recorded)) < 6)
    assert ticked(recorded) == names(recorded)
    shown = ticked(recorded)
    recorded.keyboard.press("n")
    until(lambda: not any(read_episode(folder / f"{name}.hdf5").succeeded for name in shown))
    until(lambda: names(recorded) == [] and recorded.is_hidden("#several"))


@by_browser
def test_no_key_cuts_an_episode_by_another_s_selection_and_undo_outlives_a_lost_connection(recorded, folder):
    before, waiting, posts = contents(folder), [], []
    recorded.click(".episode >> nth=0")
    opened(recorded, "episode_000000")
    drag(recorded, 0, 0.5)
    recorded.route("**/episode_000001.hdf5/numbers", lambda route: waiting.append(route))
    recorded.on("request", lambda request: posts.append(request) if request.method == "POST" else None)
    recorded.keyboard.press("ArrowDown")
    until(lambda: recorded.inner_text("#name") == "episode_000001" and waiting)
    for key in ("x", "k"):
        recorded.keyboard.press(key)
    waiting[0].continue_()
    opened(recorded, "episode_000001")
    assert recorded.is_disabled("#keep") and not posts and contents(folder) == before
    recorded.keyboard.press("Delete")
    until(lambda: recorded.is_enabled("#undo"))
    recorded.route("**/api/episodes", lambda route: route.abort())
    recorded.keyboard.press("u")
    recorded.wait_for_selector("#alert:has-text('no answer to')")
    for _ in range(2):  # the list is there again
        with recorded.expect_response("**/api/episodes?since=*"):
            pass
    assert recorded.inner_text("#alert").startswith('no answer to "dropped: undone"')
    recorded.unroute("**/api/episodes")
    assert recorded.is_enabled("#undo")
    recorded.keyboard.press("u")
    until(lambda: contents(folder) == before)


@by_browser
def test_one_transport_for_all(recorded, folder):
    recorded.locator("#list").focus()
    recorded.keyboard.press("ArrowDown")
    opened(recorded, "episode_000000")
    last = len(read_episode(folder / "episode_000000.hdf5"))
    step = lambda: int(recorded.inner_text("#where").split()[1])  # noqa: E731
    drawn = "Number(document.querySelector('#views canvas').dataset.step)"
    recorded.keyboard.press("End")
    until(lambda: step() == last == recorded.evaluate(drawn))
    recorded.keyboard.press("Home")
    recorded.keyboard.press("ArrowRight")
    until(lambda: step() == 1 == recorded.evaluate(drawn))
    value = recorded.locator(".curve >> nth=0 >> .number b >> nth=0")
    action = read_episode(folder / "episode_000000.hdf5").actions[1, 0]
    assert float(value.inner_text()) == pytest.approx(action, rel=0.01, abs=1e-3)
    assert recorded.locator(".curve h3").all_text_contents() == ["action", "reward", "proprio"]
    named = recorded.locator(".curve >> nth=2 >> .number").all_text_contents()
    assert [text.rstrip("-0123456789.e") for text in named] == ["x", "y", "x velocity", "y velocity"]
    recorded.locator("#speed").select_option("8")
    recorded.locator("#speed").blur()
    recorded.keyboard.press("Home")
    recorded.keyboard.press("Space")
    until(lambda: step() == last and recorded.inner_text("#play") == "Play")
    recorded.keyboard.press("ArrowDown")
    opened(recorded, "episode_000001")
    assert step() == 0 and "episode=episode_000001" in recorded.url
    recorded.reload()
    opened(recorded, "episode_000001")


def with_idle_start(episode, steps):
    def longer(rows, first):
        return np.concatenate([np.repeat(first, steps, axis=0), rows])

    names = [field.name for field in dataclasses.fields(episode) if field.name not in ("observations", "meta")]
    columns = {name: longer(rows := getattr(episode, name), np.zeros_like(rows[:1])) for name in names}
    seen = {key: longer(rows, rows[:1]) for key, rows in episode.observations.items()}
    return dataclasses.replace(episode, observations=seen, **columns)


@by_browser
def test_flags_appear_and_an_idle_start_is_two_keys_away(arm, folder, start_panel, chromium):
    path, episode = folder / "episode_000002.hdf5", read_episode(folder / "episode_000003.hdf5")
    write_episode(path, with_idle_start(episode, 6))
    page = chromium()[1].contexts[0].new_page()
    page.goto(start_panel(arm.control.address, "--episodes", str(folder)) + "recorded.html#flag=idle")
    until(lambda: names(page) == ["episode_000002"])
    page.click(".episode")
    opened(page, "episode_000002")
    assert "the first 6 steps" in page.inner_text("#flags")
    page.keyboard.press("i")
    assert page.inner_text("#selection").startswith("6 of")
    page.keyboard.press("x")
    until(lambda: len(read_episode(path)) == len(episode))
    until(lambda: names(page) == [])  # it is examined again


@by_browser
def test_only_the_rows_in_view_exist_and_text_of_files_is_no_markup(arm, folder, start_panel, chromium):
    for number in range(6, MANY):
        os.link(folder / f"episode_{number % 6:06d}.hdf5", folder / f"episode_{number:06d}.hdf5")
    episode = read_episode(folder / "episode_000000.hdf5")
    episode.meta["robot"] = "<img src=x onerror='document.title=1'>"
    episode.meta["instruction"] = "lift the <b>cube</b>"
    write_episode(folder / "episode_000000.hdf5", episode)
    (folder / "episode_000001.hdf5").write_bytes(b"nothing")
    page = chromium()[1].contexts[0].new_page()
    page.goto(start_panel(arm.control.address, "--episodes", str(folder)) + "recorded.html")
    page.wait_for_selector(f"#found:has-text('{MANY} episodes')")
    page.wait_for_selector(".episode >> nth=0 >> text=<img src=x", timeout=60_000)
    assert page.locator(".episode").count() < 40 and page.locator(".episode .figures img").count() == 0
    page.wait_for_selector(".episode >> nth=1 >> text=not an episode file")
    page.click(".episode >> nth=0")
    page.wait_for_selector("#facts:has-text('task: lift the <b>cube</b>')")
    page.evaluate("document.querySelector('#list').scrollTop = 1e9")
    page.wait_for_selector(f".episode .name:text-is('episode_{MANY - 1:06d}')")
    assert page.locator(".episode").count() < 40
    page.fill("#f-text", f"{MANY - 1}")
    until(lambda: names(page) == [f"episode_{MANY - 1:06d}"])


# Without a browser ----------------------------------------------------------------------------------------------------


def test_edits_from_other_sites_and_bad_requests_are_refused(arm, folder, start_panel):
    url = start_panel(arm.control.address, "--episodes", str(folder))
    ours, drop = url.rstrip("/"), asked(folder, ["episode_000000"], "drop")
    wrong = [{**drop, "names": ["../demos/episode_000000"]}, {**drop, "do": "purge"}, [], {"names": [3], "do": "drop"}]
    wrong += [{"name": "episode_000000", "do": "drop"}, {**drop, "names": ["episode_000000", "episode_000077"]}]
    wrong += [{"do": "back", "edit": 7}, {"do": "back", "edit": [1]}, {**drop, "do": "cut", "first": 0, "end": "3"}]
    posts = [("POST", "api/episodes", asked, ours) for asked in wrong]
    refused = ask(url, ("GET", "api/episodes", None, ""), *posts)[1:]
    assert [status for status, _ in refused] == [400] * len(wrong)
    assert all(told["error"] and "\n" not in told["error"] for _, told in refused)
    for origin in ("http://evil.example", ""):
        assert ask(url, ("POST", "api/episodes", drop, origin))[0][0] == 403
    assert len(list(folder.glob("*.hdf5"))) == 6
    name = "episode_000000.hdf5"
    paths = [
        f"{name}/frames?first=-1",
        f"{name}/frames?count=x",
        "nothing/frames",
        "..%2F..%2Fetc/picture",
        "a/numbers",
    ]
    for status, told in ask(url, *(("GET", f"api/episodes/{path}", None, "") for path in paths)):
        assert status == 400 and told["error"] and "\n" not in told["error"]
    (status, told), (_, image), (_, frames) = ask(
        url,
        ("POST", "api/episodes", {**drop, "do": "failure"}, ours),
        ("GET", f"api/episodes/{name}/picture", None, ""),
        ("GET", f"api/episodes/{name}/frames?first=0&count=999999", None, ""),
    )
    (entry,) = told["entries"]
    assert status == 200 and entry["marked"] == "failure" and entry["edited"]
    assert image.startswith(b"\xff\xd8") and frames[4:6] == b"\xff\xd8"


def test_a_place_that_cannot_be_shown_is_refused_in_one_line(tmp_path, refused):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    where = ("panel", "--robot", "tcp://127.0.0.1:9", "--listen", "127.0.0.1:0", "--episodes")
    assert "no such file or folder" in refused(*where, tmp_path / "nothing")
    assert "neither episode files nor a dataset" in refused(*where, tmp_path / "notes")


@pytest.mark.skipif(not shutil.which("tsc"), reason="no tsc on this machine (npm install -g typescript)")
@pytest.mark.parametrize("page", ["live", "recorded", "runs"])
def test_the_pages_scripts_have_the_types_that_they_say(page):
    done = subprocess.run(["tsc", "-p", PANEL / f"types/{page}.json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
