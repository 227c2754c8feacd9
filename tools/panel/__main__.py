"""The operator's page: see what the robot sees and does, drive it, pause it, stop it, judge its episodes.

  python -m tools.panel                                  then open http://127.0.0.1:8080 on this computer
  python -m tools.panel --listen 0.0.0.0:8080            and on any laptop or phone that reaches it, with the token
  python -m tools.panel --robot-name arm2                that robot only, where several run here
  python -m tools.panel --episodes demos/lift            and /recorded.html: watch, mark, cut and drop recordings

Run it on the robot's computer, beside `python -m robot_server` (or `python -m tools.collect --device browser`, which
opens it by itself). Beyond this computer the page asks for a token: the address with it is printed, in a terminal
also as a QR code. Traffic is not encrypted: on a network that you do not trust, use
`ssh -L 8080:127.0.0.1:8080 robot` instead.

Where several robot servers run on this computer, each has its STOP on the page, beside STOP ALL; Escape stops all.

Who takes over drives with the keyboard, the pads on the screen or a gamepad; one person at a time. Whoever loses the
connection, closes the page or looks at another one while driving holds the arm within 0.2 s; a command that was under
way for longer does not count. STOP ends the episode and holds the robot until somebody holds Release for a second; if
STOP is pressed again meanwhile, the robot stays stopped. Ctrl-C here stops the page only; the robot goes on.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import asyncio
import contextlib
import secrets
import sys
from pathlib import Path

from agent import cli
from agent.files import raise_descriptor_limit
from agent.spec import UserError
from robot_server.control_address import AUTO, bound, key_path, named, running


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--robot", metavar="ADDRESS", action="append", help="its operator's socket (robot.control); repeatable"
    )
    parser.add_argument(
        "--listen", metavar="HOST:PORT", default="127.0.0.1:8080", help="where the page is (%(default)s)"
    )
    parser.add_argument("--episodes", type=Path, metavar="PATH", help="recorded episodes for /recorded.html")
    parser.add_argument(
        "--offline-success",
        type=_rate,
        metavar="RATE",
        help="success rate of the offline policy (tools.evaluate), 0 to 1: a line in the success history",
    )
    parser.add_argument("--attached", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--token", nargs="?", default="", const=secrets.token_urlsafe(16),
        help="what a browser must show; without a value, and beyond this computer, one is made",
    )  # fmt: skip


def _rate(text: str) -> float:
    try:
        if 0 <= (rate := float(text)) <= 1:
            return rate
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r}: a success rate is between 0 and 1")


OFTEN = ("listen", "episodes", "robot")  # of the flags, first in --help


def main(argv: list[str] | None = None) -> None:
    arguments = cli.parse(argv, __doc__, ["robot"], add_flags, prog="python -m tools.panel", often=OFTEN)
    flags = arguments.flags
    if flags.episodes and not flags.episodes.exists() and not flags.attached:
        raise UserError(f"--episodes {flags.episodes}: no such file or folder")
    addresses = {address: address for address in flags.robot or filter(None, [named(arguments)])}
    for address in addresses:
        key_path(address)  # is one, or says why not
    if found := not addresses:
        names = running() or [arguments.section("robot").robot_name]
        addresses = {name: bound(AUTO, name) for name in names}

    from tools.panel.addresses import qr_code
    from tools.panel.robots import Robots
    from tools.panel.server import serve  # aiohttp: not before what is cheap to check has been

    urls: list[str] = []

    def say(url: str) -> None:
        urls.append(url)
        print(f"page: {url}", flush=True)
        if "token" in url and len(urls) == 1 and sys.stdout.isatty():
            print(qr_code(url), end="", flush=True)  # for a phone

    raise_descriptor_limit()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            serve(
                lambda: Robots(addresses, found, flags.offline_success),
                flags.listen, flags.token, say, flags.episodes, flags.attached,
            )
        )  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
