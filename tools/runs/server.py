"""The server of the page of runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from agent.spec import UserError
from tools.panel import site
from tools.panel.browser import finite
from tools.panel.connections import Connections
from tools.runs import read


def routes(roots: Sequence[Path]) -> list[web.RouteDef]:
    at_once = asyncio.Semaphore(2)  # readers of logs and checkpoints

    async def told(look: Callable[[], Any]) -> web.Response:
        async with at_once:
            return web.json_response(finite(await asyncio.to_thread(look)))

    def run(request: web.Request) -> Path:
        """Raises HTTPNotFound unless it is one of those that the page lists."""
        place = read.found(roots).get(request.query.get("run", ""))
        if not place:
            raise web.HTTPNotFound(text="no such run")
        return place

    async def runs(request: web.Request) -> web.Response:
        return await told(lambda: read.listed(read.found(roots)))

    async def curves(request: web.Request) -> web.Response:
        return await told(lambda: read.curves(run(request)))

    async def settings(request: web.Request) -> web.Response:
        def look() -> dict[str, Any]:
            try:
                return {"settings": read.flat_settings(run(request))}
            except UserError as error:
                return {"error": str(error)}

        return await told(look)

    async def videos(request: web.Request) -> web.Response:
        return await told(lambda: read.videos(run(request)))

    async def video(request: web.Request) -> web.FileResponse:
        def find() -> Path:
            return read.video(run(request), request.query.get("video", ""))

        try:
            return web.FileResponse(await asyncio.to_thread(find))
        except UserError:
            raise web.HTTPNotFound from None

    return [
        web.get("/api/runs", runs),
        web.get("/api/curves", curves),
        web.get("/api/settings", settings),
        web.get("/api/videos", videos),
        web.get("/api/video", video),
    ]


async def serve(roots: Sequence[Path], listen: str, token: str, say: Callable[[str], None]) -> None:
    """As site.serve."""

    def make(token: str, connections: Connections) -> web.Application:
        return site.application(routes(roots), ["runs.html"], token, connections)

    await site.serve(make, listen, token, say)
