"""Two people at the same episodes: an edit is of what its page shows, or it is refused and the page loads it anew."""

import os
import shutil

import pytest
from browsing import by_browser, until
from recorded_page import ask, asked, contents, drag, opened

from agent.data.episode_file import read_episode
from tools import edit
from tools.panel.episode_version import version_now

FIRST, NAME = "episode_000000.hdf5", "episode_000001"
EDITS = [("cut", {"first": 0, "end": 2}), ("success", {}), ("drop", {}), ("undo", {})]
BY_OTHERS = {1: ("failure", {}), 2: ("cut", {"first": 1, "end": 3}), 3: ("drop", {}), 4: ("undo", {})}  # episode: what


def test_an_edit_of_what_somebody_else_has_changed_is_refused(arm, folder, start_panel):
    edit.mark(folder / "episode_000004.hdf5", "failure")
    whole, url = contents(folder), start_panel(arm.control.address, "--episodes", str(folder))
    ours = url.rstrip("/")
    ((_, listed),) = ask(url, ("GET", "api/episodes", None, ""))
    seen = {entry["name"]: entry["version"] for entry in listed["episodes"]}
    names = [f"episode_{number:06d}.hdf5" for number in BY_OTHERS]
    theirs = [asked(folder, [name], deed, **more) for name, (deed, more) in zip(names, BY_OTHERS.values(), strict=True)]
    done = dict(zip(names, ask(url, *(("POST", "api/episodes", each, ours) for each in theirs)), strict=True))
    assert all(told["versions"][name][0] == seen[name] for name, (_, told) in done.items())
    before, originals = contents(folder), contents(folder / edit.ORIGINALS)
    for name in names:
        stale = {"names": [name], "versions": [seen[name]]}
        both = {"names": [FIRST, name], "versions": [seen[FIRST], seen[name]]}
        posts = [{**stale, "do": deed, **more} for deed, more in EDITS] + [{**both, "do": "failure"}]
        for status, told in ask(url, *(("POST", "api/episodes", post, ours) for post in posts)):
            assert status == 400
            assert told["error"].startswith(f"{name}: changed since this page showed it; nothing was done.")
    assert (contents(folder), contents(folder / edit.ORIGINALS)) == (before, originals)
    ((_, changed),) = ask(url, ("GET", f"api/episodes?since={listed['stamp']}&boot={listed['boot']}", None, ""))
    now = {entry["name"]: entry["version"] for entry in changed["episodes"]}
    assert all(now[name] == told["versions"][name][1] for name, (_, told) in done.items())
    undo = [{"do": "back", "edit": told["edit"]} for _, told in done.values()]
    backs = ask(url, *(("POST", "api/episodes", each, ours) for each in undo))
    assert [status for status, _ in backs] == [200] * 4 and contents(folder) == whole


def test_an_edit_that_does_not_say_what_was_seen_is_refused(arm, folder, start_panel):
    url, before = start_panel(arm.control.address, "--episodes", str(folder)), contents(folder)
    ((status, told),) = ask(url, ("POST", "api/episodes", {"names": [NAME], "do": "drop"}, url.rstrip("/")))
    assert status == 400 and "reload the page" in told["error"] and contents(folder) == before


def test_versions_tell_files_of_one_size_and_one_moment_apart(folder):
    path = folder / FIRST
    seen, there = version_now(path), path.stat()
    other = shutil.copyfile(path, path.with_suffix(".new"))
    os.utime(other, ns=(there.st_atime_ns, there.st_mtime_ns))
    os.replace(other, path)
    assert path.stat().st_mtime_ns == there.st_mtime_ns and version_now(path) != seen


@by_browser
def test_a_page_whose_view_is_old_shows_what_is_there_and_keeps_what_was_selected(recorded, folder):
    path, other = folder / f"{NAME}.hdf5", recorded.context.new_page()
    other.goto(recorded.url)
    for page in (recorded, other):
        page.click(f".episode:has-text('{NAME}')")
        opened(page, NAME)
    whole = len(read_episode(path))
    drag(other, 0.2, 0.8)
    selected, held, heard = other.inner_text("#selection"), [], False
    other.route("**/api/episodes?*", lambda route: route.continue_() if heard else held.append(route))
    until(lambda: other.evaluate("1") and held)  # it hears of nothing
    recorded.click("#failure")
    until(lambda: read_episode(path).meta.get("marked") == "failure")
    marked = path.read_bytes()
    other.keyboard.press("k")
    other.wait_for_selector("#alert:has-text('changed since this page showed it')")
    assert path.read_bytes() == marked
    first, heard = held[0], True
    first.continue_()
    other.wait_for_selector("#outcome:text-is('failure, by a person')")
    until(lambda: other.inner_text("#selection") == selected)  # of the same steps
    other.wait_for_function("document.querySelector('#keep').disabled === false")

    def cut():
        """One press, and time for it: a second one would be for the episode as it was before the first."""
        other.keyboard.press("k")
        for _ in range(100):
            if len(read_episode(path)) < whole:
                return True
            other.wait_for_timeout(50)
        return False

    until(cut)
    other.wait_for_selector("#alert", state="hidden")
    recorded.wait_for_selector(f"#where:has-text('of {len(read_episode(path))},')")
    other.keyboard.press("u")
    until(lambda: path.read_bytes() == marked)


@by_browser
def test_quick_keys_count_though_each_changes_the_file(recorded, folder):
    path = folder / f"{NAME}.hdf5"
    recorded.click(f".episode:has-text('{NAME}')")
    opened(recorded, NAME)
    drag(recorded, 0, 0.5)
    whole, held = len(read_episode(path)), []
    recorded.route("**/numbers", lambda route: held.append(route))  # it still shows the first version
    for key in ("n", "y", "k", "k"):
        recorded.keyboard.press(key)
    recorded.wait_for_selector("#alert:has-text('changed since this page showed it')")  # the second cut
    kept = read_episode(path)
    assert kept.meta["cut"] == [0, len(kept)] and whole / 3 < len(kept) < whole
    assert recorded.is_enabled("#undo")


@by_browser
@pytest.mark.parametrize("way_back", ["#undo", "#original"])
def test_steps_can_be_cut_after_a_verdict_that_was_taken_back(recorded, folder, way_back):
    """The file is then the one that was seen at first: its version comes back."""
    path = folder / f"{NAME}.hdf5"
    recorded.click(f".episode:has-text('{NAME}')")
    opened(recorded, NAME)
    whole = path.read_bytes()
    recorded.click("#failure")
    recorded.wait_for_selector("#outcome:text-is('failure, by a person')")
    recorded.click(way_back)
    until(lambda: path.read_bytes() == whole)
    recorded.wait_for_selector("#outcome:not(:text-is('failure, by a person'))")
    drag(recorded, 0, 0.5)
    recorded.keyboard.press("k")
    until(lambda: path.read_bytes() != whole or recorded.is_visible("#alert"))
    assert not recorded.is_visible("#alert"), recorded.inner_text("#alert")
