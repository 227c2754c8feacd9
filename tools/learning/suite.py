"""What a suite of learning runs is: a YAML file in tools/learning/suites/, or one of your own.

  tasks:                       name -> how its data come
    lift:
      configs: [configs/lift.yaml]
      demonstrations: scripted                # by tools.collect, as the config's `collect` section says
    door:
      configs: [configs/tasks/adroit_door.yaml]
      demonstrations: convert                 # by tools.convert, from what --source door=PATH names
      convert: [--actions, clip]              # its flags, besides --config and --env
      rollouts: {configs: [configs/presets/bc.yaml], env_steps: 20000}   # and then so much by a policy trained on them
    maze:
      configs: [configs/tasks/point_maze_medium.yaml]
      demonstrations: maze                    # by tools.learning.maze
      maze: [--reach, "7"]                    # its flags, besides --config, --seed and --out
    pen:
      configs: [configs/tasks/adroit_pen.yaml]
      demonstrations: policy                  # by tools.learning.adroit_policy, from what --source pen=PATH names
      policy: [--noise, "1"]                  # its flags, besides --seed and --out; `convert` has tools.convert's
  presets:                     name -> config files that come after the task's, or what one would say, or a list of both
    calql: [configs/presets/paper.yaml]
    cql: [configs/presets/paper.yaml, configs/presets/cql.yaml]
    patient: {calql: {gamma: 0.98}}
    short: [configs/presets/wsrl.yaml, {online: {warmup_steps: 500}}]
  seeds: 3
  episodes: 50                 of each evaluation
  at: [0.05, 0.1, 0.2, 0.6, 1]      shares of the online env steps after which there is an evaluation

Every preset gets the same demonstrations; each seed has its own, where a program makes them.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from agent import cli, yaml_file
from agent.spec import UserError
from tools.learning.settings import put

SUITES = Path(__file__).parent / "suites"
NAME = r"[A-Za-z0-9_-]+"  # of tasks and presets: results are files named after them
AT = (0.05, 0.1, 0.15, 0.2, 0.4, 0.6, 0.8, 1.0)  # dense where a policy collapses, if it does


@dataclass
class Rollouts:
    configs: list[str] = field(default_factory=list)
    env_steps: int = 10_000


@dataclass
class Task:
    configs: list[str] = field(default_factory=list)
    demonstrations: Literal["scripted", "convert", "maze", "policy"] = "scripted"
    convert: list[str] = field(default_factory=list)
    maze: list[str] = field(default_factory=list)
    policy: list[str] = field(default_factory=list)
    rollouts: dict[str, Any] | None = None

    @property
    def given(self) -> bool:
        """Whether they are made from what the user has."""
        return self.demonstrations in ("convert", "policy")


@dataclass
class Suite:
    tasks: dict[str, Any] = field(default_factory=dict)
    presets: dict[str, Any] = field(default_factory=dict)
    seeds: int = 3
    episodes: int = 50
    at: list[float] = field(default_factory=lambda: list(AT))


@dataclass(frozen=True)
class Job:
    """One run. configs: files, in their order."""

    task: str
    preset: str
    seed: int
    configs: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.task}-{self.preset}-{self.seed}"


def names() -> list[str]:
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def read(name: str) -> Suite:
    """The suite of that name, or in that file. Raises UserError naming what is wrong with it."""
    path = Path(name) if name.endswith(".yaml") else SUITES / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"--suite {name}: there are {', '.join(names())}{cli.nearest(name, names())}")
    suite = cli.build(Suite, yaml_file.load(path) or {}, f"{path}: ")
    for name in [*suite.tasks, *suite.presets]:
        if not re.fullmatch(NAME, str(name)) or not isinstance(name, str):
            raise UserError(f"{path}: {name!r}: a name is letters, digits, - and _ (yes, no, on, off in quotes)")
    files = Counter(f"{task}-{preset}" for task in suite.tasks for preset in suite.presets)
    for name, count in files.items():
        if count > 1:
            raise UserError(f"{path}: two runs would be {name}: rename a task or a preset")
    for name in suite.tasks:
        if (whole := re.fullmatch(r"(.+)-\d+", name)) and whole[1] in suite.tasks:
            raise UserError(f"{path}: {name}: that is a seed's folder of the task {whole[1]}: rename one")
    suite.tasks = {key: cli.build(Task, given or {}, f"{path}: {key}: ") for key, given in suite.tasks.items()}
    for key, task in suite.tasks.items():
        if task.rollouts is not None:
            task.rollouts = cli.build(Rollouts, task.rollouts, f"{path}: {key}: rollouts: ")
    for key, given in suite.presets.items():
        parts = given if isinstance(given, list) else [given]
        if isinstance(given, str) or not all(isinstance(part, (str, dict)) for part in parts):
            raise UserError(f"{path}: presets: {key}: a list of config files or mappings of sections, not {given!r}")
    if not suite.tasks or not suite.presets or suite.seeds < 1 or suite.episodes < 1:
        raise UserError(f"{path}: at least one task, preset, seed and episode")
    if not suite.at or any(not 0 < share <= 1 for share in suite.at) or sorted(suite.at) != suite.at:
        raise UserError(f"{path}: at: shares above 0, up to 1, in their order; not {suite.at}")
    return suite


def jobs(suite: Suite, root: Path) -> list[Job]:
    """All runs, seed by seed: the first results show every preset once. Written-out presets become files in `root`."""
    files = {name: _files(given, root / "presets" / f"{name}.yaml") for name, given in suite.presets.items()}
    return [
        Job(task, preset, seed, (*suite.tasks[task].configs, *files[preset]))
        for seed in range(suite.seeds)
        for task in suite.tasks
        for preset in suite.presets
    ]


def _files(given: list[str | dict[str, Any]] | dict[str, Any], path: Path) -> list[str]:
    files = []
    for number, part in enumerate(given if isinstance(given, list) else [given]):
        if isinstance(part, dict):
            file = path if given is part else path.with_suffix("") / f"{number}.yaml"  # no other preset's
            put(file, yaml.safe_dump(part))
            part = str(file)
        files.append(part)
    return files
