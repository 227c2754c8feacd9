"""The server of the operator's page: who gets in, which page and which socket; and its start and end."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from agent import signals
from agent.spec import UserError
from robot_server.control_client import Operator
from tools.panel.addresses import reachable
from tools.panel.browser import Browser
from tools.panel.connections import Connections, is_of_a_request
from tools.panel.connections import listen as open_listener
from tools.panel.episodes import routes as episode_routes
from tools.panel.robot import Robot

PAGE = Path(__file__).parent / "page"
COOKIE = "panel_token"
MAX_BROWSERS = 20
ACTIVE_S = 30.0  # whoever drove or pressed something so lately keeps the place
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def same_site(request: web.Request) -> bool:
    """Whether the page that asks is ours: not one of another site in the same browser."""
    origin = request.headers.get("Origin", "")
    return origin.partition("://")[2] == request.host


def known_host(request: web.Request) -> bool:
    """Without a token only this computer's own names are served: another name that leads here is a trap."""
    with contextlib.suppress(ValueError):
        return request.url.host == "localhost" or ipaddress.ip_address(request.url.host or "").is_loopback
    return False


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


def application(robot: Robot, token: str, episodes: Path | None, connections: Connections) -> web.Application:
    """The pages. token: what a browser must show; empty: none, and only this computer's own names.

    episodes: folder of those that the page /recorded.html may edit. connections: told of each request.
    """
    pages: list[Browser] = []  # the oldest first
    robot.recorded = episodes is not None

    @web.middleware
    async def guard(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
        if not token:
            if not known_host(request):
                raise web.HTTPForbidden(text="open the page by 127.0.0.1 or localhost")
        elif hmac.compare_digest(request.query.get("token", "").encode(), token.encode()):
            away = web.HTTPFound("/")  # without the token in the address bar
            away.set_cookie(COOKIE, token, httponly=True, samesite="Strict", max_age=30 * 86400)
            raise away
        elif not hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), token.encode()):
            raise web.HTTPForbidden(text="open the page by the address that tools.panel printed, with its token")
        try:
            await request.read()  # its body; until then the connection waits
        except ConnectionError:
            raise web.HTTPBadRequest from None
        connections.begin(request.transport)
        try:
            response = await handler(request)
        finally:
            connections.end(request.transport)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def page(request: web.Request) -> web.FileResponse:
        name = request.match_info.get("name") or "index.html"
        if name not in {path.name for path in PAGE.iterdir()}:
            raise web.HTTPNotFound
        return web.FileResponse(PAGE / name)

    async def talk(request: web.Request) -> web.WebSocketResponse:
        if not same_site(request):
            raise web.HTTPForbidden(text="this page comes from another server")
        if len(pages) >= MAX_BROWSERS and not make_room(pages):
            raise web.HTTPServiceUnavailable(text="too many pages are open")
        socket = web.WebSocketResponse(heartbeat=5.0, max_msg_size=4096, compress=False)
        await socket.prepare(request)
        browser = Browser(socket, robot)
        pages.append(browser)
        try:
            with contextlib.suppress(ConnectionError):
                await browser.run()
        finally:
            if browser in pages:
                pages.remove(browser)
        return socket

    async def watching(app: web.Application) -> Any:
        task = asyncio.create_task(robot.watch())
        yield
        task.cancel()
        robot.context.destroy(linger=0)

    app = web.Application(middlewares=[guard])
    app.cleanup_ctx.append(watching)
    app.add_routes(episode_routes(episodes, same_site) if episodes else [])
    app.add_routes([web.get("/ws", talk), web.get("/", page), web.get("/{name}", page)])
    return app


def parse_listen(text: str) -> tuple[str, int, bool]:
    """Host, port, and whether that is this computer only."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    try:
        number = int(port)
        if not 0 <= number < 65536:
            raise ValueError
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise UserError(f"--listen {text}: an IP address and a port, such as 127.0.0.1:8080 or 0.0.0.0:8080") from None
    return host, number, local


async def serve(
    address: str,
    listen: str,
    token: str,
    say: Callable[[str], None],
    episodes: Path | None = None,
    attached: bool = False,
    offline: float | None = None,
) -> None:
    """Serve until a signal asks to stop, or with `attached` until stdin is closed. say(url): called with each
    address of the page. offline: see Robot. Raises UserError when the address is taken, or impossible.
    """
    over = asyncio.Event()
    for number in signals.heeded():  # an exception out of a handler could be lost in a destructor
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    host, port, local = parse_listen(listen)
    Operator(address).close()
    token = token or ("" if local else secrets.token_urlsafe(16))
    connections = Connections()
    logging.getLogger("aiohttp.server").addFilter(is_of_a_request)
    app = application(Robot(address, offline), token, episodes, connections)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    accepting, listener = None, None
    try:
        try:
            listener = open_listener(host, port)
        except OSError as error:
            raise UserError(f"--listen {listen}: {(error.strerror or str(error)).lower()}") from None
        assert runner.server
        accepting = asyncio.create_task(connections.serve(listener, runner.server))
        port = listener.getsockname()[1]
        for name in reachable(host):
            say(f"http://{name}:{port}/" + (f"?token={token}" if token else ""))
        if attached:
            asyncio.get_running_loop().add_reader(0, over.set)  # nothing is written there: it is the end
        await over.wait()
    finally:
        if accepting:
            accepting.cancel()
        if listener:
            listener.close()
        await runner.cleanup()
