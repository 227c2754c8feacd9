"""The operator's page: see what the robot sees and does, drive it, pause it, stop it, judge its episodes.

  python -m tools.panel                                  then open http://127.0.0.1:8080 on this computer
  python -m tools.panel --listen 0.0.0.0:8080            and on any laptop or phone that reaches it, with the token
  python -m tools.panel --episodes demos/lift            and /recorded.html: mark, cut and drop recorded episodes

Run it on the robot's computer, beside `python -m robot_server` (or `python -m tools.collect --device browser`, which
opens it by itself). Beyond this computer the page asks for a token: the address with it is printed. Traffic is not
encrypted: on a network that you do not trust, use `ssh -L 8080:127.0.0.1:8080 robot` instead.

Who takes over drives with the keyboard, the pads on the screen or a gamepad; one person at a time. Whoever loses the
connection, closes the page or looks at another one while driving holds the arm within 0.2 s; a command that was under
way for longer does not count. STOP ends the episode and holds the robot until somebody holds Release for a second; if
STOP is pressed again meanwhile, the robot stays stopped. Ctrl-C here stops the page only; the robot goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import ipaddress
import json
import math
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from agent import cli
from agent.layout import WireError
from agent.spec import UserError
from robot_server.control_address import find
from robot_server.operator import Operator, answer, question
from robot_server.teleop import EVENTS
from tools import panel_episodes
from tools.panel_robot import Robot, deliver

PAGE = Path(__file__).parent / "panel_page"
COOKIE = "panel_token"
STATE_S = 0.05  # between two states to a browser: what it sends tells which it has seen, and so how old it is
LATE_S = 0.2  # a command, or what it answers to, was under way for too long
MAX_BROWSERS = 20
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Browser:
    """One open page: what it is sent, and what it asks for."""

    def __init__(self, socket: web.WebSocketResponse, robot: Robot) -> None:
        self._socket, self._robot, self._operator = socket, robot, robot.operator()
        self._refused = ""
        self._late = 0

    async def run(self) -> None:
        tasks = [asyncio.create_task(each()) for each in (self._tell, self._show, self._answers)]
        self._robot.watchers += 1
        try:
            async for message in self._socket:
                if message.type == WSMsgType.TEXT and not await self._take(message.data):
                    await self._socket.close(code=WSCloseCode.POLICY_VIOLATION)
        finally:
            self._robot.watchers -= 1
            for task in tasks:
                task.cancel()
            self._operator.close()

    async def _take(self, text: str) -> bool:
        """Pass on what the page asks for; False when it is nothing that the page would."""
        try:
            asked = json.loads(text)
            event, drive = asked.get("event"), asked.get("drive")
            if event in EVENTS:
                saw = {name: asked.get(name) for name in ("stop", "pause", "seen_s")}
                if not await deliver(self._operator, question("event", event=event, **saw)):
                    why = "The robot server does not answer."
                    await self._socket.send_json({"ignored": event, "why": why})
            else:
                motion = [float(number) for number in drive["motion"]]
                gripper = None if drive["gripper"] is None else float(drive["gripper"])
                now, seen_s = time.monotonic(), float(drive["seen"])
                age_s = now - seen_s
                if self._robot.away or not 0 <= age_s <= LATE_S:
                    self._late += 1
                    return True
                self._refused = ""
                sent_s = min(now, seen_s + STATE_S)  # what it took to come here counts, too
                fields = {"motion": motion, "gripper": gripper, "enabled": drive["enabled"], "sent_s": sent_s}
                message = question("drive", **fields)
                await deliver(self._operator, message)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return False
        return True

    async def _tell(self) -> None:
        robot = self._robot
        while True:
            away = robot.why_away if robot.away else ""
            told = {"away": away, "refused": self._refused, "late": self._late, "vectors": robot.vectors}
            state = {} if away else robot.state
            await self._socket.send_json(finite({**told, "seen": time.monotonic(), "state": state}))
            await asyncio.sleep(STATE_S)

    async def _show(self) -> None:
        """Every newest image, as fast as this browser takes them: a slow one sees fewer, and slows nobody."""
        robot, number = self._robot, -1
        while True:
            async with robot.news:
                while robot.number == number:
                    await robot.news.wait()
                number, images = robot.number, robot.images
            for name, image in images.items():
                text = name.encode()[:255]
                await self._socket.send_bytes(bytes([len(text)]) + text + image)

    async def _answers(self) -> None:
        while True:
            with contextlib.suppress(WireError):
                told = answer(await self._operator.socket.recv_multipart())
                self._refused = told.get("refused", "")
                if told.keys() & {"done", "ignored"}:
                    words = ("done", "ignored", "why")
                    await self._socket.send_json({word: told[word] for word in words if word in told})


def finite(value: Any) -> Any:
    """`value` for JSON, which has no word for numbers that are not finite: they become null."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def same_site(request: web.Request) -> bool:
    """Whether the page that asks is ours: not one of another site in the same browser."""
    origin = request.headers.get("Origin", "")
    return origin.partition("://")[2] == request.host


def known_host(request: web.Request) -> bool:
    """Without a token only this computer's own names are served: another name that leads here is a trap."""
    with contextlib.suppress(ValueError):
        return request.url.host == "localhost" or ipaddress.ip_address(request.url.host or "").is_loopback
    return False


def application(robot: Robot, token: str, episodes: Path | None) -> web.Application:
    """The pages. token: what a browser must show; empty: none, and only this computer's own names.

    episodes: folder of those that the page /recorded.html may edit.
    """

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
        response = await handler(request)
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
            raise web.HTTPForbidden(text="this page is not from here")
        if robot.watchers >= MAX_BROWSERS:
            raise web.HTTPServiceUnavailable(text="too many pages are open")
        socket = web.WebSocketResponse(heartbeat=5.0, max_msg_size=4096, compress=False)
        await socket.prepare(request)
        with contextlib.suppress(ConnectionError):
            await Browser(socket, robot).run()
        return socket

    async def watching(app: web.Application) -> Any:
        task = asyncio.create_task(robot.watch())
        yield
        task.cancel()
        robot.context.destroy(linger=0)

    app = web.Application(middlewares=[guard])
    app.cleanup_ctx.append(watching)
    app.add_routes(panel_episodes.routes(episodes, same_site) if episodes else [])
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
) -> None:
    """Until cancelled, or with `attached` until stdin is closed. Says where the page is. Raises UserError when the
    address is taken, or impossible.
    """
    host, port, local = parse_listen(listen)
    Operator(address).close()
    token = token or ("" if local else secrets.token_urlsafe(16))
    runner = web.AppRunner(application(Robot(address), token, episodes), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise UserError(f"--listen {listen}: {(error.strerror or str(error)).lower()}") from None
        where = runner.addresses[0]
        name = f"[{where[0]}]" if ":" in where[0] else where[0]
        name = "<this computer's name>" if where[0] in ("0.0.0.0", "::") else name
        say(f"http://{name}:{where[1]}/" + (f"?token={token}" if token else ""))
        over = asyncio.Event()
        if attached:
            asyncio.get_running_loop().add_reader(0, over.set)  # nothing is written there: it is the end
        await over.wait()
    finally:
        await runner.cleanup()


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--robot", metavar="ADDRESS", help="its operator's socket (robot.control)")
    parser.add_argument(
        "--listen", metavar="HOST:PORT", default="127.0.0.1:8080", help="where the page is (%(default)s)"
    )
    parser.add_argument("--episodes", type=Path, metavar="FOLDER", help="recorded episodes to edit on /recorded.html")
    parser.add_argument("--attached", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--token", default="", help="what a browser must show; beyond this computer one is made")


def main(argv: list[str] | None = None) -> None:
    arguments = cli.parse(argv, __doc__, ["robot"], add_flags, prog="python -m tools.panel")
    flags = arguments.flags
    if flags.episodes and not flags.episodes.is_dir():
        raise UserError(f"--episodes {flags.episodes}: no such folder")
    address = flags.robot or find(arguments)

    def say(url: str) -> None:
        print(f"page: {url}", flush=True)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(address, flags.listen, flags.token, say, flags.episodes, flags.attached))


if __name__ == "__main__":
    cli.run(main)
