"""A web server for pages of ours: who gets in, the files of the pages; its start and end."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from agent import signals
from agent.spec import UserError
from tools.panel.addresses import reachable
from tools.panel.connections import Connections, is_of_a_request
from tools.panel.connections import listen as open_listener

PAGE = Path(__file__).parent / "page"
COOKIE = "panel_token"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; media-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def same_site(request: web.Request) -> bool:
    """Whether the page that asks is ours: not one of another site in the same browser."""
    origin = request.headers.get("Origin", "")
    return origin.partition("://")[2] == request.host


def cookie_of(request: web.Request) -> str:
    """Its name: browsers keep cookies by host, not by port, and another page of ours there has another token."""
    port = request.host.rpartition(":")[2]
    return f"{COOKIE}_{port if port.isascii() and port.isdecimal() else ''}"


def known_host(request: web.Request) -> bool:
    """Without a token only this computer's own names are served: another name that leads here is a trap."""
    with contextlib.suppress(ValueError):
        return request.url.host == "localhost" or ipaddress.ip_address(request.url.host or "").is_loopback
    return False


def application(
    routes: Iterable[web.AbstractRouteDef], pages: Sequence[str], token: str, connections: Connections
) -> web.Application:
    """The routes, and beside them the files of the `pages`; / is the first of these.

    token: what a browser must show; empty: none, and only this computer's own names. connections: told of each request.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
        if not token:
            if not known_host(request):
                raise web.HTTPForbidden(text="open the page by 127.0.0.1 or localhost")
        elif hmac.compare_digest(request.query.get("token", "").encode(), token.encode()):
            away = web.HTTPFound("/")  # without the token in the address bar
            away.set_cookie(cookie_of(request), token, httponly=True, samesite="Strict", max_age=30 * 86400)
            raise away
        elif not hmac.compare_digest(request.cookies.get(cookie_of(request), "").encode(), token.encode()):
            raise web.HTTPForbidden(text="open the page by the address that was printed at its start, with the token")
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
        name = request.match_info.get("name") or pages[0]
        if name not in {path.name for path in PAGE.iterdir() if path.suffix != ".html" or path.name in pages}:
            raise web.HTTPNotFound
        return web.FileResponse(PAGE / name)

    app = web.Application(middlewares=[guard])
    app.add_routes([*routes, web.get("/", page), web.get("/{name}", page)])
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
    make: Callable[[str, Connections], web.Application],
    listen: str,
    token: str,
    say: Callable[[str], None],
    attached: bool = False,
) -> None:
    """Serve until a signal asks to stop, or with `attached` until stdin is closed. say(url): called with each
    address of the page. make(token, connections): the application. Raises UserError when the address is taken, or
    impossible.
    """
    over = asyncio.Event()
    for number in signals.heeded():  # an exception out of a handler could be lost in a destructor
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    host, port, local = parse_listen(listen)
    token = token or ("" if local else secrets.token_urlsafe(16))
    connections = Connections()
    logging.getLogger("aiohttp.server").addFilter(is_of_a_request)
    runner = web.AppRunner(make(token, connections), access_log=None, shutdown_timeout=0.5)
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
