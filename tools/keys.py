"""Make the keys with which learner and robots know each other, and encrypt what they say.

  python -m tools.keys                        on the GPU box: keys/learner.key, keys/learner.key_secret
  python -m tools.keys --robot arm1           on the robot's machine: keys/arm1.key, keys/arm1.key_secret

Then carry each public key (.key) to the other side, and nothing else:
  learner.key   to keys/ on every robot's machine
  arm1.key      to keys/authorized/ on the GPU box; the file's name is the one that the robot must have there
and give both sides --keys keys. A secret key (.key_secret) never leaves its machine. To lock a robot out, remove its
file from keys/authorized/: it counts from the robot's next connection on.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import sys
from pathlib import Path

from agent import cli
from agent.spec import UserError
from agent.wire import keys
from agent.wire.schema import NAME


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--robot", metavar="NAME", help="keys of the robot NAME (its --robot-name); none: the learner's"
    )
    parser.add_argument("--out", metavar="FOLDER", default="keys", help="where they go (keys)")


def main(argv: list[str] | None = None) -> None:
    flags = cli.parse(argv, __doc__ or "", [], add_flags, prog="python -m tools.keys").flags
    if flags.robot is not None and (not NAME.fullmatch(flags.robot) or flags.robot == keys.LEARNER):
        raise UserError(f"--robot {flags.robot!r}: letters, digits, '_', '-' and '.', 64 at most, and not 'learner'")
    folder = Path(flags.out)
    public, secret = keys.create(folder, flags.robot or keys.LEARNER)
    if flags.robot:
        where = f"{keys.AUTHORIZED}/ on the learner's machine"
    else:
        (folder / keys.AUTHORIZED).mkdir(exist_ok=True)
        where = "the keys folder of every robot's machine"
    print(f"{secret}: stays here\n{public}: copy it to {where}", file=sys.stdout)


if __name__ == "__main__":
    cli.run(main)
