"""What is behind the page of recorded episodes: reading in a process, the list, edits that can be taken back."""

import asyncio
import os
import shutil

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from recorded_page import asked

from agent.data.episode_file import read_episode, write_episode
from agent.spec import UserError
from tools import edit
from tools.convert import convert
from tools.formats.common.foreign import Choices
from tools.panel.episode_catalogue import Catalogue
from tools.panel.episode_edits import Edits
from tools.panel.episode_reader import Reader, kind_of
from tools.panel.episode_worker import Worker
from tools.panel.episodes import Episodes


class Direct:
    """A Worker without a process."""

    def __init__(self, folder, kind="episodes"):
        self.reader, self.asked = Reader(folder, kind), []

    async def ask(self, what, *arguments):
        self.asked.append((what, *arguments))
        return getattr(self.reader, what)(*arguments)


def refuse(*_):
    raise PermissionError


@pytest.mark.parametrize("links", [True, False])
def test_edits_are_taken_back_one_after_another_and_done_again(folder, monkeypatch, links):
    if not links:  # a file system without them
        monkeypatch.setattr(os, "link", refuse)
    path, edits = folder / "episode_000001.hdf5", Edits(folder)
    states, numbers = [path.read_bytes()], []
    for deed in ({"do": "failure"}, {"do": "cut", "first": 1, "end": 3}, {"do": "drop"}):
        number, names = edits.do(asked(folder, ["episode_000001"], **deed))
        assert list(names) == [path.name]
        numbers.append(number)
        states.append(path.read_bytes() if path.exists() else None)
    redo = []
    for number, state in zip(reversed(numbers), reversed(states[:-1]), strict=True):
        redo.append(edits.do({"do": "back", "edit": number})[0])
        assert path.read_bytes() == state
    assert not (folder / edit.ORIGINALS / path.name).exists()
    for number, state in zip(reversed(redo), states[1:], strict=True):
        edits.do({"do": "back", "edit": number})
        assert (path.read_bytes() if path.exists() else None) == state
    assert (folder / edit.ORIGINALS / path.name).read_bytes() == states[0]
    with pytest.raises(UserError, match="cannot be taken back any more"):
        edits.do({"do": "back", "edit": numbers[0]})


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.hdf5")}


def test_several_are_edited_and_taken_back_as_one(folder):
    edits, before = Edits(folder), contents(folder)
    edits.do(asked(folder, ["episode_000002"], "cut", first=0, end=2))  # its original is not what is undone
    begun, three = contents(folder), [f"episode_00000{number}.hdf5" for number in (1, 2, 4)]
    number, names = edits.do(asked(folder, [*three, "episode_000004"], "failure"))
    assert list(names) == three
    marked = contents(folder)
    assert {name for name in begun if begun[name] != marked[name]} == set(three)
    again, names = edits.do({"do": "back", "edit": number})
    assert list(names) == three and contents(folder) == begun
    assert list(contents(folder / edit.ORIGINALS)) == ["episode_000002.hdf5"]
    edits.do({"do": "back", "edit": again})
    assert contents(folder) == marked
    dropped, _ = edits.do(asked(folder, three, "drop"))
    assert set(before) - set(contents(folder)) == set(three)
    edits.do({"do": "back", "edit": dropped})
    assert contents(folder) == marked
    edits.do(asked(folder, three, "undo"))
    assert contents(folder) == before


def test_an_edit_that_fails_for_one_of_several_changes_none(folder):
    edits, three = Edits(folder), [f"episode_00000{number}" for number in (1, 2, 3)]
    edits.do(asked(folder, three[:1], "cut", first=0, end=2))
    (folder / f"{three[2]}.hdf5").write_bytes(b"nothing")
    before, originals = contents(folder), contents(folder / edit.ORIGINALS)
    with pytest.raises(UserError, match=r"episode_000003\.hdf5: not an episode file"):
        edits.do(asked(folder, three, "failure"))
    assert contents(folder) == before and contents(folder / edit.ORIGINALS) == originals
    number, _ = edits.do(asked(folder, three[:2], "failure"))
    edit.mark(folder / f"{three[1]}.hdf5", "success")
    before = contents(folder)
    with pytest.raises(UserError, match=r"episode_000002\.hdf5: has been changed since"):
        edits.do({"do": "back", "edit": number})
    assert contents(folder) == before


@pytest.mark.parametrize("names", [[], "episode_000001", [3], None, ["episode_000001"] * 1000])
def test_names_that_are_none_or_too_many_are_refused(folder, names):
    with pytest.raises(UserError, match=r"a list of names|300 at most"):
        Edits(folder).do({"names": names, "versions": names, "do": "drop"})
    assert len(contents(folder)) == 6


def test_what_somebody_else_changed_since_is_not_taken_back(folder):
    path, edits = folder / "episode_000001.hdf5", Edits(folder)
    number, _ = edits.do(asked(folder, [path.name], "failure"))
    edit.mark(path, "success")
    after = path.read_bytes()
    with pytest.raises(UserError, match="has been changed since by somebody else"):
        edits.do({"do": "back", "edit": number})
    edits.do(asked(folder, [path.name], "undo"))
    restored = path.read_bytes()
    with pytest.raises(UserError, match="has not been edited"):
        edits.do(asked(folder, [path.name], "undo"))
    assert path.read_bytes() == restored != after


def test_files_that_edits_keep_are_bounded_and_gone_at_the_end(folder, monkeypatch):
    monkeypatch.setattr("tools.panel.episode_edits.MOST", 3)
    edits, before = Edits(folder), len(os.listdir("/proc/self/fd"))
    for number in range(8):
        edits.do(asked(folder, ["episode_000001"], ("failure", "success")[number % 2]))
    assert len(list((folder / edit.ORIGINALS).glob(".edits-*/*/episode_000001.hdf5"))) == 3
    assert len(os.listdir("/proc/self/fd")) == before + 1
    edits.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert [path.name for path in (folder / edit.ORIGINALS).iterdir()] == ["episode_000001.hdf5"]


def test_what_a_purge_has_removed_is_not_taken_back(folder):
    edits = Edits(folder)
    numbers = [edits.do(asked(folder, ["episode_000001"], deed))[0] for deed in ("failure", "success")]
    before = contents(folder)
    edit.purge(folder)
    for number in numbers:
        with pytest.raises(UserError, match="cannot be taken back any more"):
            edits.do({"do": "back", "edit": number})
    assert contents(folder) == before
    edits.do({"do": "back", "edit": edits.do(asked(folder, ["episode_000001"], "drop"))[0]})
    assert contents(folder) == before


def test_so_are_the_episodes_of_all_edits_together(folder, monkeypatch):
    monkeypatch.setattr("tools.panel.episode_edits.MOST_EPISODES", 4)
    edits, before, three = Edits(folder), contents(folder), [f"episode_00000{number}" for number in (1, 2, 3)]
    first, _ = edits.do(asked(folder, three, "failure"))
    second, _ = edits.do(asked(folder, three, "success"))
    third, _ = edits.do({"do": "back", "edit": second})
    with pytest.raises(UserError, match="cannot be taken back any more"):
        edits.do({"do": "back", "edit": first})
    edits.do({"do": "back", "edit": third})
    assert all(read_episode(folder / f"{name}.hdf5").succeeded for name in three)
    edits.do(asked(folder, three, "undo"))
    assert contents(folder) == before


def test_a_worker_reports_a_damaged_file_and_outlives_its_process(folder):
    (folder / "episode_000002.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + 500 * b"\xff")

    async def talk():
        worker = Worker(folder, "episodes", 0)
        try:
            found = {}
            while len(found) < 6:
                left = [path.name for path in sorted(folder.glob("*.hdf5")) if path.name not in found]
                found |= await worker.ask("figures", left)
            with pytest.raises(UserError, match=r"episode_000002\.hdf5: not an episode file, or damaged"):
                await worker.ask("numbers", "episode_000002.hdf5")
            worker._process.kill()
            with pytest.raises(UserError, match=r"episode_000001\.hdf5: reading it ended the process"):
                while True:  # one at work when the process ends
                    worker._process.kill()
                    await worker.ask("examine", "episode_000001.hdf5")
                    break
                raise UserError("episode_000001.hdf5: reading it ended the process")
            assert len((await worker.ask("examine", "episode_000003.hdf5"))["signature"]) > 0
            return found
        finally:
            worker.close()

    found = asyncio.run(talk())
    assert "damaged" in found["episode_000002.hdf5"]["error"]
    assert found["episode_000000.hdf5"]["steps"] == len(read_episode(folder / "episode_000000.hdf5"))


def listed(catalogue, until_told):
    """Run the catalogue until its list is as wanted."""

    async def run():
        task = asyncio.create_task(catalogue.run())
        try:
            while not until_told(told := await catalogue.listed(0, "")):
                await asyncio.sleep(0.01)
            return told
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return asyncio.run(asyncio.wait_for(run(), 60))


def done(told):
    return not told["pending"] and not told["unexamined"]


def test_what_is_known_of_a_folder_is_kept_and_changes_are_read_again(folder):
    shutil.copy(folder / "episode_000000.hdf5", folder / "episode_000009.hdf5")
    first = Direct(folder)
    told = listed(
        Catalogue(folder, "episodes", first, first), lambda told: done(told) and told["episodes"][6].get("twin")
    )
    assert told["episodes"][6]["twin"] == "episode_000000.hdf5" and told["source"]["editable"]
    assert sum(what == "examine" for what, *_ in first.asked) == 7
    edit.mark(folder / "episode_000004.hdf5", "failure")
    (folder / "episode_000005.hdf5").unlink()
    again = Direct(folder)
    told = listed(Catalogue(folder, "episodes", again, again), done)
    assert [what for what, *_ in again.asked] == ["ready", "figures", "examine"] and len(told["episodes"]) == 6
    by_name = {each["name"]: each for each in told["episodes"]}
    assert by_name["episode_000004.hdf5"]["marked"] == "failure" and by_name["episode_000004.hdf5"]["edited"]


def test_an_index_that_is_damaged_is_made_anew(folder, tmp_path):
    first = Direct(folder)
    listed(Catalogue(folder, "episodes", first, first), done)
    (index,) = (tmp_path / "cache").rglob("*.json")
    index.write_text('{"version": 1, "episodes": {"episode_000000.hdf5": 3}}')
    again = Direct(folder)
    assert len(listed(Catalogue(folder, "episodes", again, again), done)["episodes"]) == 6


def test_only_what_has_changed_is_told(folder):
    async def talk():
        direct = Direct(folder)
        catalogue = Catalogue(folder, "episodes", direct, direct)
        everything = await catalogue.listed(0, "")
        nothing = await catalogue.listed(everything["stamp"], everything["boot"])
        (entry,) = await catalogue.refresh(["episode_000003.hdf5"])
        changed = await catalogue.listed(everything["stamp"], everything["boot"])
        with pytest.raises(UserError, match="no episode is called"):
            catalogue.known("../x")
        return everything, nothing, entry, changed

    everything, nothing, entry, changed = asyncio.run(talk())
    assert everything["anew"] and len(everything["episodes"]) == 6 and everything["pending"] == 6
    assert not nothing["anew"] and not nothing["episodes"]
    assert changed["episodes"] == [entry] and "steps" in entry


def test_a_folder_that_is_yet_to_come_is_shown_when_it_has_episodes(demos, tmp_path):
    async def talk():
        episodes = Episodes(tmp_path / "coming", coming=True)
        task = asyncio.create_task(episodes.run())
        try:
            async with TestClient(TestServer(application(episodes))) as client:
                told = await (await client.get("/api/episodes")).json()
                assert told["episodes"] == [] and told["source"]["editable"] and not told["trouble"]
                shutil.copytree(demos, tmp_path / "coming")
                while not all("steps" in each for each in told["episodes"]) or not told["episodes"]:
                    told = await (await client.get("/api/episodes")).json()
                return len(told["episodes"])
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def application(episodes):
        app = web.Application()
        app.add_routes(episodes.routes(lambda request: True))
        return app

    assert asyncio.run(asyncio.wait_for(talk(), 60)) == 6


@pytest.mark.parametrize("format", ["lerobot", "robomimic"])
def test_sources_of_others_are_shown_as_they_are(demos, tmp_path, format):
    if format == "lerobot":
        pytest.importorskip("av")
    small = tmp_path / "small"
    for name in ("episode_000000.hdf5", "episode_000001.hdf5"):
        write_episode(small / name, read_episode(demos / name))
    convert(small, out := tmp_path / "theirs", Choices(fps=10.0) if format == "lerobot" else Choices(), writes=format)
    before = {path: path.read_bytes() for path in ([out] if out.is_file() else out.rglob("*")) if path.is_file()}
    assert kind_of(out) == format
    reader = Reader(out, format)
    first, second = reader.names()
    episode = read_episode(demos / "episode_000001.hdf5")
    assert first in reader.figures([first, second])
    figures = reader.figures([second])[second]
    assert figures["steps"] == len(episode) and figures["success"] == episode.succeeded
    told = reader.numbers(second)
    assert {plot["title"] for plot in told["plots"]} == {"action", "reward", "proprio"}
    assert np.allclose(np.array(told["plots"][0]["values"]).T, episode.actions, atol=1e-3)
    packed = reader.frames(second, 0, 99)
    assert packed.count(b"\xff\xd8\xff") == len(episode) + 1
    assert reader.examine(second)["signature"] and reader.thumbnail(second)[:2] == b"\xff\xd8"
    with pytest.raises(UserError, match="no episode is called"):
        reader.numbers("episode 77")
    assert before == {path: path.read_bytes() for path in before}


def test_a_source_that_states_no_reward_and_no_success_has_none(tmp_path):
    import h5py

    with h5py.File(tmp_path / "theirs.hdf5", "w") as file:
        demo = file.create_group("data/demo_0")
        demo["actions"] = 90 * np.linspace(-1, 1, 40).reshape(20, 2)
        demo["obs/q"] = np.random.default_rng(0).normal(size=(20, 3))
    reader = Reader(tmp_path / "theirs.hdf5", kind_of(tmp_path / "theirs.hdf5"))
    (name,) = reader.names()
    figures, told = reader.figures([name])[name], reader.numbers(name)
    assert figures["success"] is figures["return"] is None and figures["steps"] == 20 and not figures["images"]
    assert [plot["title"] for plot in told["plots"]] == ["action", "q"]
    assert told["plots"][0]["values"][0][0] == -90  # in the source's units
    assert reader.thumbnail(name) == reader.frames(name, 0, 3) == b""
