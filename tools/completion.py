"""Tab completion of `calql` for bash, zsh and fish: commands, flags, choices and files.

eval "$(python -m tools.completion bash)"        # in ~/.bashrc, after `source .venv/bin/activate`; zsh alike
python -m tools.completion fish | source         # in ~/.config/fish/config.fish
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import os
from collections.abc import Callable, Mapping, Sequence

from agent import cli

SHELLS = ("bash", "zsh", "fish")


def command(commands: Mapping[str, str], benchmarks: Callable[[], Sequence[str]]) -> list[str]:
    """The words that name the command whose flags are completed. Answers the shell where the name itself is typed.

    commands: name -> what it is for.
    """
    import argcomplete

    from agent import completion

    words = completion.typed()[0][1:]
    names = 2 if words[:1] == ["bench"] else 1
    os.environ["_ARGCOMPLETE"] = str(1 + min(len(words), names))  # the first word of those that argcomplete looks at
    if len(words) < names:
        parser = argparse.ArgumentParser(add_help=False)
        choices = parser.add_subparsers()
        for name in benchmarks() if words else commands:
            choices.add_parser(name, help=commands.get(name, ""))
        argcomplete.autocomplete(parser)
    return words[:names]


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="whose code to print")


def main(argv: list[str] | None = None) -> None:
    shell = cli.parse(argv, __doc__ or "", [], add_flags, prog="python -m tools.completion").flags.shell
    from argcomplete.shell_integration import shellcode

    print(shellcode(["calql"], shell=shell))


if __name__ == "__main__":
    cli.run(main)
