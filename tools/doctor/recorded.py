"""What demonstrations say of the arm that recorded them: where they start, and how far it stood from its commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agent.action_meaning import ActionMeaning
from agent.data.episode_file import episode_paths, read_episode
from agent.env_record import meaning_of_episode
from agent.spec import Episode
from envs.real.options import Axis
from tools.doctor.lines import Line

NEWEST = 20  # episodes
STILL = 0.002  # of an axis's range in a step: it stands
LEAST_STILL = 10  # steps
ELSEWHERE = 0.03  # of an axis's range


@dataclass
class Recorded:
    """Medians, in the arm's units. lag: commanded minus measured on still frames; start: where episodes start."""

    lag: dict[str, float] = field(default_factory=dict)
    start: dict[str, float] = field(default_factory=dict)


def recorded(places: Sequence[Path], axes: Mapping[str, Axis], numbers: Sequence[int], of: int) -> Recorded:
    """axes: those that actions move; numbers: where they are among the `of` numbers of "proprio".

    Raises UserError for files that cannot be read.
    """
    lags: dict[str, list[np.ndarray]] = {name: [] for name in axes}
    starts: dict[str, list[float]] = {name: [] for name in axes}
    for path in episode_paths(places)[-NEWEST:]:
        episode = read_episode(path, stream=True)
        proprio = episode.observations.get("proprio")
        if proprio is None or proprio.shape[1] != of:
            continue
        meaning = meaning_of_episode(episode.meta)
        for (name, axis), number in zip(axes.items(), numbers, strict=True):
            if axis.gripper:
                continue
            starts[name].append(float(proprio[0, number]))
            if meaning.low and name in meaning.names:
                lags[name].append(_lag(episode, meaning, name, proprio[:, number], axis))
    found = Recorded(start={name: float(np.median(values)) for name, values in starts.items() if values})
    for name, parts in lags.items():
        values = np.concatenate(parts) if parts else np.zeros(0)
        if len(values) >= LEAST_STILL:
            found.lag[name] = float(np.median(values))
    return found


def _lag(episode: Episode, meaning: ActionMeaning, name: str, position: np.ndarray, axis: Axis) -> np.ndarray:
    """(s,) commanded minus measured after each step in which the axis stood. position: (T + 1,)"""
    number = meaning.names.index(name)
    if number >= episode.actions.shape[1]:
        return np.zeros(0)
    low, high = meaning.low[number], meaning.high[number]
    asked = low + (episode.actions[:, number].astype(np.float64) + 1) / 2 * (high - low)
    if meaning.kind == "delta":
        target = position[0] + np.cumsum(asked)
    elif meaning.kind == "absolute":
        target = asked
    else:
        return np.zeros(0)
    stands = np.abs(np.diff(position)) < STILL * (axis.high - axis.low)
    stands &= np.abs(np.diff(target, prepend=target[0])) < STILL * (axis.high - axis.low)
    return np.asarray((target - position[1:])[stands])


def start_lines(start: Mapping[str, float], axes: Mapping[str, Axis]) -> list[Line]:
    """A line for each axis whose demonstrations start elsewhere than a reset does."""
    return [
        Line(
            f"axis {name}",
            f"demonstrations start at {value:.3g}, a reset goes to {axes[name].home:g} +- {axes[name].start:g}",
            "set home as it was when they were recorded; was the arm calibrated since?",
        )
        for name, value in start.items()
        if abs(value - axes[name].home) > axes[name].start + ELSEWHERE * (axes[name].high - axes[name].low)
    ]
