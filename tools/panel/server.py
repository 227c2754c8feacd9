"""The server of the operator's page: its routes, its socket, and who keeps a place."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from tools.panel import site
from tools.panel.browser import Browser
from tools.panel.connections import Connections
from tools.panel.episodes import Episodes
from tools.panel.robots import Robots
from tools.panel.site import same_site

MAX_BROWSERS = 20
ACTIVE_S = 30.0  # whoever drove or pressed something so lately keeps the place


def make_room(pages: list[Browser]) -> bool:
    """Close the page that was not used for the longest, of those not used lately; whether there was one.

    Whoever wants to stop or drive the robot must not be kept out by pages that somebody left open.
    """
    quiet = min(pages, key=lambda page: page.used_s)
    if time.monotonic() - quiet.used_s < ACTIVE_S:
        return False
    pages.remove(quiet)
    quiet.leave("another page took its place")
    return True


def application(
    robots: Robots, token: str, episodes: Path | None, connections: Connections, attached: bool = False
) -> web.Application:
    """The pages. token, connections: as in site.application. episodes: a folder or dataset for /recorded.html.

    attached: it belongs to a program that will put its recordings into `episodes`.
    """
    pages: list[Browser] = []  # the oldest first
    robots.recorded = episodes is not None

    def names() -> dict[str, list[str]]:
        known = list(robots.robots.values())  # asked for by another thread
        return {key: each for robot in known for key, each in robot.history.names.items()}

    shown = Episodes(episodes, names, attached) if episodes else None

    async def talk(request: web.Request) -> web.WebSocketResponse:
        if not same_site(request):
            raise web.HTTPForbidden(text="this page comes from another server")
        if len(pages) >= MAX_BROWSERS and not make_room(pages):
            raise web.HTTPServiceUnavailable(text="too many pages are open")
        socket = web.WebSocketResponse(heartbeat=5.0, max_msg_size=4096, compress=False)
        await socket.prepare(request)
        browser = Browser(socket, robots, robots.shown(request.query.get("robot", "")))
        pages.append(browser)
        try:
            with contextlib.suppress(ConnectionError):
                await browser.run()
        finally:
            if browser in pages:
                pages.remove(browser)
        return socket

    async def watching(app: web.Application) -> Any:
        tasks = [asyncio.create_task(each) for each in [robots.watch(), *([shown.run()] if shown else [])]]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def no_episodes(request: web.Request) -> web.Response:
        raise web.HTTPNotFound(text="no episodes to show: start tools.panel with --episodes FOLDER")

    recorded = shown.routes(same_site) if shown else [web.get("/api/episodes", no_episodes)]
    routes = [web.get("/ws", talk), *recorded]
    app = site.application(routes, ["index.html", "recorded.html"], token, connections)
    app.cleanup_ctx.append(watching)
    return app


async def serve(
    robots: Callable[[], Robots],
    listen: str,
    token: str,
    say: Callable[[str], None],
    episodes: Path | None = None,
    attached: bool = False,
) -> None:
    """As site.serve. Raises UserError for an impossible address of a robot, too."""

    def make(token: str, connections: Connections) -> web.Application:
        return application(robots(), token, episodes, connections, attached)

    await site.serve(make, listen, token, say, attached)
