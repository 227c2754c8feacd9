"""Compare runs in the browser: success, failed episodes, losses, settings that differ, videos.

  python -m tools.runs                         runs/, then open http://127.0.0.1:8081
  python -m tools.runs runs/lift runs/can      these only
  python -m tools.runs --listen 0.0.0.0:8081   and from any computer that reaches it, with the token

Every folder with a log.jsonl below FOLDER is a run, also one that is still going: the page looks again every few
seconds. It only reads. Settings are those of a run's newest checkpoint. Videos are the MP4 files in a run's folder:

  python -m tools.evaluate --ckpt runs/lift/latest.pt --episodes 5 --video runs/lift/videos

Beyond this computer the page asks for a token: the address with it is printed. Traffic is not encrypted: on a network
that you do not trust, use `ssh -L 8081:127.0.0.1:8081 learner` instead. Ctrl-C ends it.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import asyncio
import contextlib
from pathlib import Path

from agent import cli
from agent.spec import UserError


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="where runs are (runs)")
    parser.add_argument(
        "--listen", metavar="HOST:PORT", default="127.0.0.1:8081", help="where the page is (%(default)s)"
    )
    parser.add_argument("--token", default="", help="what a browser must show; beyond this computer one is made")


def main(argv: list[str] | None = None) -> None:
    flags = cli.parse(argv, __doc__, [], add_flags, prog="python -m tools.runs").flags
    folders = flags.folders or [Path("runs")]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; name those that have runs in them")

    from tools.runs.server import serve  # aiohttp: not before what is cheap to check has been

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(folders, flags.listen, flags.token, lambda url: print(f"page: {url}", flush=True)))


if __name__ == "__main__":
    cli.run(main)
