"""The page of recorded episodes: its requests. Episodes of our own folders can be edited, others are shown only."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from agent.spec import UserError
from tools.common.edit_journal import left_over
from tools.panel.aside import Aside
from tools.panel.browser import finite
from tools.panel.episode_catalogue import Catalogue
from tools.panel.episode_reader import OWN, kind_of
from tools.panel.episode_worker import EDITS, Worker

MOST_PICTURES = 16 << 20  # bytes of thumbnails in memory
Handler = Callable[[web.Request], Coroutine[Any, Any, web.Response]]
READING, EXAMINING = 0, 10  # how much the processes give way to a robot server on the same computer


class Episodes:
    """Of a folder of ours, or of a source that tools.formats reads. names(): of the numbers of an action and of each
    vector, where an episode does not have them. coming: a folder of ours, which may not exist yet.
    Raises UserError for a place that cannot be shown.
    """

    def __init__(self, place: Path, names: Callable[[], Mapping[str, list[str]]] = dict, coming: bool = False) -> None:
        kind = OWN if coming else kind_of(place)
        self._reader, self._examiner = (Worker(place, kind, nice) for nice in (READING, EXAMINING))
        self._catalogue = Catalogue(place, kind, self._reader, self._examiner)
        self._editor, self._one_at_a_time = Worker(place, EDITS, READING), asyncio.Lock()
        self._place, self._interrupted, self._left = place, "", False  # left: an interrupted edit is not taken back
        self._pictures, self._names = Pictures(MOST_PICTURES), names
        self._aside = Aside()  # all below happens there: thousands of episodes must not delay a STOP
        self._looked_at = asyncio.Event()
        if not coming:
            self._looked_at.set()

    async def run(self) -> None:
        """Read what the list shows; until it is cancelled. Nothing is read beside a recording until somebody looks."""
        try:
            await self._aside.do(self._read())
        finally:
            await asyncio.to_thread(self._aside.close)  # after the edit that is under way
            await asyncio.to_thread(self._editor.finish, "close")

    async def _read(self) -> None:
        try:
            await self._looked_at.wait()
            if self._catalogue.own and left_over(self._place):
                self._interrupted = await self._recover()
            await self._catalogue.run()
        finally:
            self._reader.close()
            self._examiner.close()

    def routes(self, same_site: Callable[[web.Request], bool]) -> list[web.RouteDef]:
        async def change(request: web.Request) -> web.Response:
            if not same_site(request):
                raise web.HTTPForbidden(text="this page comes from another server")
            return await self._aside.do(self._change(await request.json()))

        def aside(handler: Handler) -> Handler:
            return _plain(lambda request: self._aside.do(handler(request)))

        return [
            web.get("/api/episodes", aside(self._listed)),
            web.post("/api/episodes", _plain(change)),
            web.get("/api/episodes/{name}/numbers", aside(self._numbers)),
            web.get("/api/episodes/{name}/frames", aside(self._frames)),
            web.get("/api/episodes/{name}/picture", aside(self._picture)),
        ]

    async def _listed(self, request: web.Request) -> web.Response:
        self._looked_at.set()
        since = _number(request, "since", 0)
        told = await self._catalogue.listed(since, request.query.get("boot", ""))
        return _json({**told, "interrupted": self._interrupted}, "episodes")

    async def _change(self, asked: object) -> web.Response:
        if not self._catalogue.own:
            raise UserError("these episodes are not in a folder of ours; tools.convert makes one that can be edited")
        async with self._one_at_a_time:
            if self._left:
                self._interrupted = await self._recover()
            try:
                number, versions = await self._editor.ask("do", asked)
            except UserError as error:
                if self._editor.alive:
                    raise
                raise UserError(": ".join(filter(None, [str(error), await self._recover()]))) from None
            entries = await self._catalogue.refresh(list(versions))
            return _json({"edit": number, "versions": versions, "entries": entries}, "entries")

    async def _recover(self) -> str:
        """Take back an edit whose process was killed; what is to be said of it."""
        try:
            lines = await self._editor.ask("recover")
            self._left = False
            return "; ".join(lines)
        except UserError as error:
            self._left = True
            return f"an edit may have been interrupted, and is not taken back yet: {error}"

    async def _numbers(self, request: web.Request) -> web.Response:
        told = await self._reader.ask("numbers", self._catalogue.known(request.match_info["name"]))
        names = self._names()
        for plot in told["plots"]:
            known = names.get(plot["title"], [])
            if not plot["names"] and len(known) == plot["size"]:
                plot["names"] = known[: len(plot["values"])]
        return _json(told, "plots")

    async def _frames(self, request: web.Request) -> web.Response:
        name = self._catalogue.known(request.match_info["name"])
        first, count = _number(request, "first", 0), _number(request, "count", 1)
        return web.Response(body=await self._reader.ask("frames", name, first, count))

    async def _picture(self, request: web.Request) -> web.Response:
        name = self._catalogue.known(request.match_info["name"])
        key = f"{name} {_number(request, 'v', 0)}"
        if (image := self._pictures.get(key)) is None:
            image = await self._reader.ask("thumbnail", name)
            self._pictures.put(key, image)
        return web.Response(body=image, content_type="image/jpeg")


class Pictures:
    """The newest used ones, up to so many bytes."""

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: str, image: bytes) -> None:
        self._size += len(image) - len(self._kept.pop(key, b""))
        self._kept[key] = image
        while self._size > self._most and len(self._kept) > 1:
            self._size -= len(self._kept.popitem(last=False)[1])


def _number(request: web.Request, name: str, default: int) -> int:
    """A number of the query. Raises UserError unless it is one, and not negative."""
    given = request.query.get(name, str(default))
    if not (given.isascii() and given.isdecimal() and len(given) < 16):
        raise UserError(f"{name}={given[:30]}: a number, 0 or more")
    return int(given)


def _json(told: Mapping[str, Any], items: str) -> web.Response:
    """`told`, its list `items` one by one: json.dumps of all would stop the other threads for as long as it takes."""
    whole = json.dumps(finite({name: value for name, value in told.items() if name != items}))
    listed = ", ".join(json.dumps(finite(each)) for each in told[items])
    return web.Response(text=f'{whole[:-1]}, "{items}": [{listed}]}}', content_type="application/json")


def _plain(handler: Handler) -> Handler:
    """What is wrong with a request becomes one line of JSON, {"error"}."""

    async def answer(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except (UserError, ValueError, RecursionError) as error:
            return web.json_response({"error": " ".join(str(error).split())}, status=400)

    return answer
