"""One command for all: `calql NAME ...` is `python -m MODULE ...`, in any folder.

The working directory is searched for modules last, so that its folders `envs` or `tools` do not stand in front of ours.
"""

from __future__ import annotations

import agent.installed

import difflib
import os
import runpy
import sys

from agent import commands

EPILOG = "`calql NAME --help` says more. `calql bench` lists the benchmarks."
COMMANDS = {
    "demo": ("tools.demo", "the whole job on this machine, without a robot: 10 minutes or more"),
    "collect": ("tools.collect", "record demonstrations"),
    "inspect": ("tools.inspect", "summarise and check recorded episodes"),
    "replay": ("tools.replay", "write episodes as videos, or repeat their actions"),
    "edit": ("tools.edit", "relabel, cut and drop recorded episodes"),
    "convert": ("tools.convert", "read and write LeRobot, robomimic, Minari and robosuite datasets"),
    "train-reward": ("tools.train_reward", "train a success classifier from images"),
    "pretrain": ("agent.pretrain", "train a policy offline from demonstrations"),
    "learner": ("agent.learner", "fine-tune it online from what robots stream here"),
    "robot": ("robot_server", "act with the newest policy and stream to the learner"),
    "teleop": ("tools.teleop", "drive the robot of a robot server"),
    "panel": ("tools.panel", "the operator's page: cameras, STOP, verdicts"),
    "evaluate": ("tools.evaluate", "success rate of a checkpoint"),
    "plot": ("tools.plot", "learning curves of runs"),
    "runs": ("tools.runs", "compare runs in the browser"),
    "export-run": ("tools.export_run", "send a run's curves to W&B or trackio"),
    "doctor": ("tools.doctor", "is this arm ready? cameras, axes, bus, disk, clock, link"),
    "rerun": ("tools.rerun", "episodes or the live robot for the Rerun viewer"),
    "learning": ("tools.learning", "compare presets on a suite of tasks"),
    "keys": ("tools.keys", "make the keys of learner and robots"),
    "link": ("tools.link", "check the connection to the learner"),
    "completion": ("tools.completion", "tab completion for bash, zsh and fish"),
    "bench": ("tools.bench", "benchmarks: calql bench NAME"),
}


def benchmarks() -> list[str]:
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench")
    names = [name.removesuffix(".py") for name in sorted(os.listdir(folder)) if name.endswith(".py")]
    return [name for name in names if _has_main(os.path.join(folder, f"{name}.py"))]


def _has_main(path: str) -> bool:
    with open(path, encoding="utf-8") as file:
        return "def main(" in file.read()


def usage() -> str:
    lines = [f"  {name:14}{about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(["usage: calql NAME ...", "", *lines, "", EPILOG])


def module_of(words: list[str]) -> tuple[str, list[str]]:
    """The module that `words` mean, and its arguments. Exits with 2 and one line for an unknown name."""
    name, *rest = words
    known = list(COMMANDS)
    if name == "bench":
        known = benchmarks()
        if not rest or rest[0] in ("-h", "--help"):
            print(f"usage: calql bench NAME ...\n\nNAME: {', '.join(known)}")
            raise SystemExit(0)
        name, *rest = rest
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}"
        print(f"error: calql has no command '{name}': {hint}", file=sys.stderr)
        raise SystemExit(2)
    return (f"tools.bench.{name}" if words[0] == "bench" else COMMANDS[name][0]), rest


def main() -> None:
    if "_ARGCOMPLETE" in os.environ:  # the shell asks what may follow
        from tools import completion

        sys.argv[1:] = completion.command({name: about for name, (_, about) in COMMANDS.items()}, benchmarks)
    if sys.argv[1:] == ["--version"]:
        import importlib.metadata

        print(f"calql {importlib.metadata.version(agent.installed.PROJECT)}")
        return
    if (words := sys.argv[1:]) in ([], ["-h"], ["--help"]):
        print(usage())
        return
    module, rest = module_of(words)
    commands.names.update({module: name for name, (module, _) in COMMANDS.items()})
    if words[0] == "bench":
        commands.names[module] = f"bench {words[1]}"
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    sys.argv[1:] = rest
    runpy.run_module(module, run_name="__main__", alter_sys=True)
