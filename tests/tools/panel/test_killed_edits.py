"""An edit of several episodes that is killed between two files: it is taken back, and so can be the edits before it."""

import os
import subprocess
import sys

import aiohttp
import pytest
from browsing import CHROMIUM
from recorded_page import ask, asked, contents

from agent.data.episode_file import EpisodeFileError, episode_paths
from agent.data.episode_store import Store
from tools import edit

THREE = [f"episode_00000{number}" for number in (1, 2, 3)]
KILL = """
import os, sys

def kill(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith("/episode_000002.hdf5") and os.path.exists({order!r}):
        whom = open({order!r}).read()
        os.unlink({order!r})
        if whom == "server":
            os.kill(os.getppid(), 9)
        os.kill(os.getpid(), 9)

sys.addaudithook(kill)
"""


@pytest.fixture
def kill(tmp_path, monkeypatch):
    """kill("editor") or kill("server"): the next time that a process is about to replace episode 2."""
    code, order = tmp_path / "code", tmp_path / "order"
    code.mkdir()
    (code / "sitecustomize.py").write_text(KILL.format(order=str(order)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH")])))
    return order.write_text


def edited(folder):
    return contents(folder), contents(folder / edit.ORIGINALS)


def post(url, question):
    ((status, told),) = ask(url, ("POST", "api/episodes", question, url.rstrip("/")))
    return status, told


def interrupted(url):
    while not (told := ask(url, ("GET", "api/episodes", None, ""))[0][1])["interrupted"]:
        assert not told["trouble"]
    return told["interrupted"]


def folder_of_run(episodes, place):
    """A run whose episodes these are."""
    run = place / "run"
    run.mkdir()
    (run / "episodes").symlink_to(episodes)
    return run


@pytest.mark.parametrize("whom", ["editor", "server"])
def test_an_edit_that_is_killed_is_taken_back_and_so_can_be_those_before_it(
    arm, folder, start_panel, kill, whom, request
):
    url, before = start_panel(arm.control.address, "--episodes", str(folder)), edited(folder)
    _, first = post(url, asked(folder, THREE[:1], "cut", first=0, end=2))
    cut = edited(folder)
    _, second = post(url, asked(folder, THREE, "failure"))
    marked = edited(folder)
    kill(whom)
    said = "an edit of 3 episodes was interrupted after 1 of them, and has been taken back"
    if whom == "server":
        with pytest.raises(aiohttp.ClientError):  # no answer
            post(url, asked(folder, THREE, "success"))
        assert contents(folder) != marked[0]  # it was half done
        url = start_panel(arm.control.address, "--episodes", str(folder))
        assert interrupted(url) == said
    else:
        status, told = post(url, asked(folder, THREE, "success"))
        assert status == 400 and told["error"].endswith(said)
    assert edited(folder) == marked
    assert post(url, {"do": "back", "edit": second["edit"]})[0] == 200
    assert edited(folder) == cut
    assert post(url, {"do": "back", "edit": first["edit"]})[0] == 200
    assert edited(folder) == (before[0], {})
    assert not [path for path in folder.iterdir() if path.name.endswith(".part")]
    if CHROMIUM and whom == "server":
        page = request.getfixturevalue("chromium")()[1].contexts[0].new_page()
        page.goto(f"{url}recorded.html#episode={THREE[0]}.hdf5")
        page.wait_for_selector(f"#alert:text-is('{said}')")
        page.wait_for_selector(f"#name:text-is('{THREE[0]}')")
        assert page.is_visible("#alert")


def test_the_command_takes_an_interrupted_edit_back_before_its_own(folder, kill, tmp_path):
    """Of episodes, of which the first had an original already; of a drop, too, which replaces nothing."""
    edit.mark(folder / f"{THREE[0]}.hdf5", "failure")
    before = edited(folder)
    source = "import pathlib, sys; from tools.panel.episode_edits import Edits; from recorded_page import asked; "
    source += "folder = pathlib.Path(sys.argv[1]); Edits(folder).do(asked(folder, sys.argv[2:], 'undo'))"
    for path in (folder / f"{name}.hdf5" for name in THREE[1:]):
        edit.mark(path, "success")
    marked = edited(folder)
    kill("editor")
    tests = os.pathsep.join([os.environ["PYTHONPATH"], "tests"])
    killed = subprocess.run([sys.executable, "-c", source, folder, *THREE], env={**os.environ, "PYTHONPATH": tests})
    assert killed.returncode == -9 and edited(folder) != marked != before
    refusal = "an edit of several episodes is under way, or was interrupted; .* take it back: python -m tools.edit"
    with pytest.raises(EpisodeFileError, match=refusal):  # nothing learns from half of it, or copies that
        episode_paths([folder])
    with pytest.raises(EpisodeFileError, match=refusal):
        episode_paths(sorted(folder.glob("*.hdf5"))[:1])
    with pytest.raises(EpisodeFileError, match=refusal):
        Store(folder_of_run(folder, tmp_path), lambda _: None, lambda _: None).read_back()
    done = subprocess.run([sys.executable, "-m", "tools.edit", folder], capture_output=True, text=True)
    assert done.returncode == 0
    assert "an edit of 3 episodes was interrupted after 1 of them, and has been taken back" in done.stderr
    assert edited(folder) == marked
    assert len(episode_paths([folder])) == len(contents(folder))
    edit.purge(folder)
    assert not (folder / edit.ORIGINALS).exists()
