"""Results of learning runs, read from their files, and the figures of one run: regret, drop, failures in training."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from agent.config import FELL_BACK
from agent.spec import UserError
from tools.learning.settings import differences

FIRST = 0.2  # of the online phase: where a policy collapses, if it does
SLACK = 0.025  # of it: an evaluation is of the checkpoint nearest to where it was wanted
BINS = 10  # of the online phase, for success in training
GOAL = 0.9
EACH = ("seed", "data.seed")  # settings in which runs of one preset differ
Points = Sequence[tuple[float, float]]  # (env steps, success), the first at 0


@dataclass(frozen=True)
class Run:
    """One result file, and what it says of learning."""

    task: str
    preset: str
    seed: int
    env_steps: int
    points: list[tuple[float, float]]
    episodes: int  # of each evaluation
    training: list[tuple[float, float]]
    warnings: list[str]
    died: bool
    minutes: float
    lived: float  # the share of its env steps that it had a policy for
    offline_updates: int
    made_of: dict[str, Any]  # settings
    commit: str | None

    @property
    def is_online(self) -> bool:
        """Whether it was evaluated after its first online step."""
        return len(self.points) > 1

    @property
    def fell_back(self) -> bool:
        """Whether it asked for bfloat16 on a CPU that is slower in it."""
        return any(FELL_BACK in line for line in self.warnings)

    @classmethod
    def of(cls, result: dict[str, Any]) -> Run:
        points = [(float(e["env_steps"]), float(e["success"])) for e in result["evaluations"]]
        end, lived = float(result["env_steps"]), 1.0
        if result["died"]:  # from there on it has no policy
            last = max(points[-1][0], float(result["died_at"]))
            lived = min(1.0, last / end) if end else 0.0
            points += [(steps, 0.0) for steps in (last + 1, end) if steps > points[-1][0]]
        training = [(float(steps), float(success)) for steps, success in result["training"]]
        same = {key: result[key] for key in ("task", "preset", "seed", "env_steps", "warnings", "minutes")}
        same["episodes"] = result["evaluations"][0]["episodes"]
        same |= {"offline_updates": result.get("offline_updates", 0), "made_of": result.get("made_of", {})}
        same["commit"] = result.get("machine", {}).get("commit")
        return cls(points=points, training=training, died=bool(result["died"]), lived=lived, **same)


def read(folders: Sequence[Path]) -> list[Run]:
    """Of several folders, a task's name has its folder's before it. Raises UserError when there is none, or naming the
    file that is no result.
    """
    runs = []
    for path in [path for folder in folders for path in sorted(folder.glob("*.json"))]:
        try:
            run = Run.of(json.loads(path.read_text()))
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(f"{path}: not a result of tools.learning: {type(error).__name__} {error}") from None
        runs.append(replace(run, task=f"{path.parent.name}-{run.task}") if len(folders) > 1 else run)
    if not runs:
        raise UserError("no results there yet")
    return runs


def regret(points: Points) -> float:
    """Mean of 1 - success from the first point to the last, the curve taken as straight between two of them."""
    steps, success = np.array(points, float).T
    return float(np.trapezoid(1 - success, steps) / (steps[-1] - steps[0]))


def early(points: Points, env_steps: float, share: float = FIRST) -> list[float]:
    """Success in this first share of the online phase, the offline policy's left out."""
    return [success for steps, success in points[1:] if steps <= (share + SLACK) * env_steps]


def lowest(points: Points, env_steps: float, share: float = FIRST) -> float | None:
    """The least success after the first online step and in that share; None if nobody looked there."""
    return min(seen) if (seen := early(points, env_steps, share)) else None


def largest_drop(points: Points, env_steps: float, share: float = FIRST) -> float | None:
    """How far success fell below its first value in that share; 0 if it did not, None if nobody looked there."""
    least = lowest(points, env_steps, share)
    return None if least is None else max(0.0, points[0][1] - least)


def failures(run: Run) -> float | None:
    """Share of the training episodes online that failed; None if there were none."""
    return 1 - run.lived * fmean(won for _, won in run.training) if run.training else None


def steps_to(goal: float, points: Points) -> float | None:
    """Env steps of the first point that reaches `goal`; None without one."""
    return next((steps for steps, success in points if success >= goal), None)


def robot_minutes(run: Run, env_steps: float, reset_s: float) -> float | None:
    """What a robot would have taken for so many env steps, at the task's own rate and so long a reset for each training
    episode that began by then. None where the settings do not say the rate.
    """
    options = run.made_of.get("env", ("", {}))[1]
    hz = run.made_of.get("robot", {}).get("hz") or options.get("control_hz")
    if not hz:
        return None
    ended = sum(steps < env_steps for steps, _ in run.training)
    return float(env_steps / hz + (ended + (env_steps > 0)) * reset_s) / 60


def in_training(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """(env steps, success) of the training episodes that ended in each tenth of the online phase, where some did."""
    steps, success = np.array(run.training, float).reshape(-1, 2).T
    part = np.minimum(BINS * steps / run.env_steps, BINS - 1).astype(int)
    there = np.unique(part)
    return (there + 0.5) * run.env_steps / BINS, np.array([success[part == each].mean() for each in there])


def other_settings(one: Run, two: Run) -> dict[str, tuple[Any, Any]]:
    """As settings.differences, of what both files tell: old ones lack settings, or those of the demonstrations."""
    both = one.made_of.keys() & two.made_of.keys()
    data = {"data"} - both
    parts = ({key: run.made_of[key] for key in run.made_of.keys() - data} for run in (one, two))
    return differences(*parts) if both else {}


def grouped(runs: Iterable[Run]) -> dict[str, dict[str, list[Run]]]:
    """task -> preset -> its runs. Raises UserError if runs of one preset differ in more than their seeds, or not in
    these.
    """
    groups: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        same = groups.setdefault(run.task, {}).setdefault(run.preset, [])
        if same and (same[0].env_steps, same[0].episodes) != (run.env_steps, run.episodes):
            raise UserError(f"{run.task}, {run.preset}: runs of other lengths, or evaluated otherwise, are no mean")
        if any(run.seed == other.seed for other in same):
            raise UserError(f"{run.task}, {run.preset}: two results of seed {run.seed}; are two folders of one name?")
        for key, (first, own) in other_settings(same[0], run).items() if same else ():
            if key not in EACH:
                seeds = f"seeds {same[0].seed} and {run.seed}"
                raise UserError(f"{run.task}, {run.preset}: {seeds} have other settings ({key}: {first!r}, {own!r})")
        same.append(run)
    return groups
