"""The page of recorded episodes when something goes wrong or takes long: the page's server, which has STOP, goes on."""

import asyncio
import contextlib
import os
import threading

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from recorded_page import asked, contents

from agent.files import try_lock
from agent.spec import UserError
from tools import edit
from tools.common.edit_journal import Journal
from tools.panel.episode_catalogue import Catalogue
from tools.panel.episode_reader import Reader
from tools.panel.episode_worker import Busy, Worker
from tools.panel.episodes import Episodes

THREE = [f"episode_00000{number}" for number in (1, 2, 3)]


@contextlib.asynccontextmanager
async def served(folder):
    """A client of its requests, and the Episodes behind them."""
    episodes, app = Episodes(folder), web.Application()
    app.add_routes(episodes.routes(lambda request: True))
    task = asyncio.create_task(episodes.run())
    try:
        async with TestClient(TestServer(app)) as client:
            yield client, episodes
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def talk(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 120))


def test_long_work_on_the_list_leaves_the_page_s_server_free(folder, monkeypatch):
    begun, over, plain = threading.Event(), threading.Event(), Catalogue.listed

    async def listed(self, *arguments):
        begun.set()
        assert over.wait(30), "the page's server waited for it"
        return await plain(self, *arguments)

    monkeypatch.setattr(Catalogue, "listed", listed)

    async def ask():
        async with served(folder) as (client, _):
            asked = asyncio.create_task(client.get("/api/episodes"))
            while not begun.is_set():
                await asyncio.sleep(0.01)
            over.set()
            answer = await asked
            return answer.status, len((await answer.json())["episodes"])

    assert talk(ask()) == (200, 6)


def test_an_edit_is_made_in_a_process_whose_end_is_not_that_of_the_page_s_server(folder, monkeypatch):
    monkeypatch.setattr(edit, "mark", lambda *arguments: pytest.fail("in the page's server"))
    plain = Worker.ask

    async def ask(worker, what, *arguments):
        if what == "figures":  # an edit counts all the same
            raise Busy("too many requests at once")
        return await plain(worker, what, *arguments)

    monkeypatch.setattr(Worker, "ask", ask)

    async def change():
        async with served(folder) as (client, episodes):

            async def post(**question):
                return await (await client.post("/api/episodes", json=question)).json()

            first = await post(**asked(folder, THREE, "failure"))
            episodes._editor._process.kill()
            episodes._editor._process.join()
            marked = await post(**asked(folder, THREE, "success"))
            episodes._editor._process.kill()
            episodes._editor._process.join()
            return first, marked, [await post(do="back", edit=each["edit"]) for each in (marked, first)]

    before = contents(folder)
    first, marked, backs = talk(change())
    assert first["edit"] > 0 and [entry["name"] for entry in first["entries"]] == [f"{name}.hdf5" for name in THREE]
    assert first["edit"] != marked["edit"] and [len(each["entries"]) for each in backs] == [3, 3]
    assert contents(folder) == before and not (folder / edit.ORIGINALS).exists()


def test_what_cannot_be_taken_back_at_the_start_is_taken_back_before_the_next_edit_and_said(folder):
    before, journal = contents(folder), Journal(folder)
    journal.begin([folder / f"{name}.hdf5" for name in THREE[:2]])
    edit.mark(folder / f"{THREE[0]}.hdf5", "failure")
    os.close(journal._lock)  # its process was killed
    learner = os.open(folder, os.O_RDONLY)

    async def change():
        async with served(folder) as (client, _):

            async def said():
                return (await (await client.get("/api/episodes")).json())["interrupted"]

            while not (at_first := await said()):
                await asyncio.sleep(0.05)
            os.close(learner)
            answer = await client.post("/api/episodes", json=asked(folder, THREE[2:], "drop"))
            return at_first, answer.status, await said()

    assert try_lock(learner)
    at_first, status, later = talk(change())
    assert "is not taken back yet" in at_first and "a learner or tools.collect is using it" in at_first
    assert (status, later) == (200, "an edit of 2 episodes was interrupted after 1 of them, and has been taken back")
    assert contents(folder) == {name: whole for name, whole in before.items() if name != f"{THREE[2]}.hdf5"}


def test_a_damaged_file_is_an_entry_of_the_index_that_is_not_kept(folder, tmp_path):
    """What is kept is JSON, whatever is in the names and the figures."""
    (folder / "episode_000000.hdf5").rename(folder / 'a "b", c.hdf5')
    (folder / "episode_000005.hdf5").write_bytes(b"nothing")

    async def look():
        async with served(folder) as (client, _):
            while True:
                told = await (await client.get("/api/episodes")).json()
                if not told["pending"] and not told["unexamined"]:
                    return {each["name"] for each in told["episodes"] if "steps" in each}

    good = talk(look())
    (index,) = (tmp_path / "cache").rglob("*.json")
    reader = Reader(folder, "episodes")
    kept = Catalogue(folder, "episodes", reader, reader)._kept
    assert index.exists() and set(kept) == good and 'a "b", c.hdf5' in good


def test_a_file_that_ends_its_reader_costs_itself_only(folder):
    class Deadly:
        reader = Reader(folder, "episodes")

        async def ask(self, what, *arguments):
            if "episode_000002.hdf5" in (arguments[0] if what == "figures" else ()):
                raise UserError("reading it ended the process that reads it")
            return getattr(self.reader, what)(*arguments)

    async def look():
        catalogue = Catalogue(folder, "episodes", Deadly(), Deadly())
        task = asyncio.create_task(catalogue.run())
        try:
            while (told := await catalogue.listed(0, ""))["pending"]:
                await asyncio.sleep(0.01)
            return {each["name"]: each.get("error") for each in told["episodes"]}
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    errors = talk(look())
    assert len(errors) == 6 and [name for name, error in errors.items() if error] == ["episode_000002.hdf5"]
