"""What is wrong with a recorded episode: black or frozen cameras, idle parts, clipped actions, jumps, near duplicates.

tools.inspect prints the flags, the page of recorded episodes (tools.panel) shows them. They are hints: nothing is left
out of training because of one. Thresholds are in units of a step, so they hold for any control rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.action_meaning import ActionMeaning
from agent.data.frames import blocks
from agent.env_record import meaning_of_episode
from agent.spec import ACTION_LIMIT, Episode, SpecError, plural
from agent.wire.bad_messages import shown
from envs.real.view_change import DARK

KINDS = ("black", "frozen", "idle", "clipped", "jump", "duplicate")
AT_LIMIT = 0.999  # of an action's number: as good as 1
CLIPPED = 0.25  # of the actions' numbers at their limits
FROZEN_STEPS = 5  # frames that are equal to the last byte, while the robot is commanded to move
BRIGHTEST = 3 * DARK  # 99 % of a black picture's values are below
IDLE_STEPS, IDLE_SHARE = 5, 0.3  # the shortest idle part that counts, and how much of an episode may be idle
IDLE_END = 0.1  # of an episode, at its start or its end
STILL_DELTA = 0.02  # a step's number, of [-1, 1], that asks for nothing
STILL_TARGET = 0.01  # of the largest range of a target, within IDLE_STEPS steps
JUMP, JUMP_RANGE = 6.0, 0.25  # times the steps around it, and of the range in the episode
MOST_JUMPS = 2  # of a number: what jumps again and again is a sensor's noise, or a switch
SIGNATURE_ROWS, SIGNATURE_NUMBERS = 16, 32  # of what episodes are compared by
NEAR = 0.02  # standard deviations apart, root mean square
NEAR_LENGTH = 0.02
ROWS_AT_ONCE = 256  # of all pairs of episodes that are compared: products of matrices, and bounded memory

Span = tuple[int, int]  # steps from the first to before the second


@dataclass(frozen=True)
class Flag:
    """kind: of KINDS. text: what was found, in words. spans: the steps concerned."""

    kind: str
    text: str
    spans: tuple[Span, ...] = ()


def flags(episode: Episode, actions: np.ndarray | None = None) -> list[Flag]:
    """All flags but "duplicate", which `duplicates` finds. Images may be Frames; they are read once, block by block.

    actions: (T, A) as their source has them, where the episode's own were clipped to [-1, 1].
    """
    given = episode.actions if actions is None else actions
    meaning = meaning_of(episode.meta)
    idle = idle_steps(given, meaning)
    found = [
        flag for camera in episode.spec.cameras for flag in camera_flags(episode.observations[camera], camera, idle)
    ]
    found += idle_flags(idle)
    found += clipped_flags(given, meaning)
    return found + jump_flags(episode.observations, episode.meta)


def meaning_of(meta: Mapping[str, Any]) -> ActionMeaning:
    """What the actions mean; nothing is known where the meta states nonsense."""
    try:
        return meaning_of_episode(meta)
    except SpecError:
        return ActionMeaning()


def spans(steps: np.ndarray, shortest: int = 1) -> list[Span]:
    """The runs of True in `steps` (T,) that are at least so long."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.asarray(steps, np.bool_), [False]]).astype(np.int8)))
    pairs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return [(first, end) for first, end in pairs if end - first >= shortest]


def grippers(actions: np.ndarray, meaning: ActionMeaning) -> np.ndarray:
    """(A,) bool: the numbers that open and close something, by their names; without names the last, where it is only
    ever -1 or 1.
    """
    size = actions.shape[1]
    if len(meaning.names) == size:
        return np.array(["grip" in name.lower() for name in meaning.names], np.bool_)
    found = np.zeros(size, np.bool_)
    found[-1:] = size > 1 and bool((np.abs(actions[:, -1]) >= AT_LIMIT).all())
    return found


def idle_steps(actions: np.ndarray, meaning: ActionMeaning) -> np.ndarray:
    """(T,) bool: steps that command nothing new, of runs of at least IDLE_STEPS.

    Of absolute targets, those that stay where they are; of steps and velocities, those near zero, while the gripper's
    number stays what it was.
    """
    actions = np.asarray(actions, np.float64)
    idle = np.zeros(len(actions), np.bool_)
    if len(actions) < IDLE_STEPS:
        return idle
    if meaning.kind == "absolute":
        windows = np.lib.stride_tricks.sliding_window_view(actions, IDLE_STEPS, axis=0)  # a slow motion is none
        still = np.ptp(windows, axis=2).max(axis=1) <= STILL_TARGET * np.ptp(actions, axis=0).max()
        for first in np.flatnonzero(still).tolist():
            idle[first : first + IDLE_STEPS] = True
        return idle
    changed = np.abs(np.diff(actions, axis=0, prepend=actions[:1]))
    asks = np.where(grippers(actions, meaning), changed, np.abs(actions))
    for first, end in spans(np.asarray((asks <= STILL_DELTA).all(axis=1)), IDLE_STEPS):
        idle[first:end] = True
    return idle


def idle_flags(idle: np.ndarray) -> list[Flag]:
    """idle: (T,) bool, of idle_steps."""
    runs, steps = spans(idle), len(idle)
    least = max(IDLE_STEPS, IDLE_END * steps)
    starts = [run for run in runs if run[0] == 0 and run[1] - run[0] >= least]
    ends = [run for run in runs if run[1] == steps and run[1] - run[0] >= least and run not in starts]
    words = [f"the first {plural(end - first, 'step')}" for first, end in starts]
    words += [f"the last {plural(end - first, 'step')}" for first, end in ends]
    share = float(idle.mean()) if steps else 0.0
    if share <= IDLE_SHARE and not words:
        return []
    return [Flag("idle", ", ".join([f"idle for {share:.0%} of it", *words]), tuple(runs))]


def clipped_flags(actions: np.ndarray, meaning: ActionMeaning) -> list[Flag]:
    """Of actions in [-1, 1]; others are in units whose limits are not known."""
    size = np.abs(np.asarray(actions, np.float64))
    if not size.size or size.max() > ACTION_LIMIT:
        return []
    at_limit: np.ndarray = size[:, ~grippers(actions, meaning)] >= AT_LIMIT
    share = float(at_limit.mean()) if at_limit.size else 0.0
    if share <= CLIPPED:
        return []
    runs = spans(np.asarray(at_limit.any(axis=1)))
    return [Flag("clipped", f"{share:.0%} of the actions' numbers at their limits", tuple(runs))]


def jump_flags(observations: Mapping[str, Any], meta: Mapping[str, Any]) -> list[Flag]:
    """Numbers of the states that leave for elsewhere within one step, while the steps around it are small."""
    found: dict[int, list[str]] = {}
    given = meta.get("state_names")
    for key, rows in observations.items():
        if rows.ndim != 2 or len(rows) < 4:
            continue
        names = given.get(key) if isinstance(given, Mapping) else None
        if not isinstance(names, list) or len(names) != rows.shape[1]:
            names = [f"{key}.{number}" for number in range(rows.shape[1])]
        for number, name in enumerate(map(shown, names)):
            for step in jumps(rows[:, number], name):
                found.setdefault(step, []).append(name)
    if not found:
        return []
    step, names = next(iter(sorted(found.items())))
    more = f", and {plural(len(found) - 1, 'more step')}" if len(found) > 1 else ""
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return [Flag("jump", f"{listed} at step {step}{more}", tuple((each, each + 1) for each in sorted(found)))]


def jumps(column: np.ndarray, name: str = "") -> list[int]:
    """The steps in which `column` (T + 1,) jumps; none of a gripper or of what jumps more than MOST_JUMPS times."""
    column = np.asarray(column, np.float64)
    if "grip" in name.lower() or len(np.unique(column)) <= 8:
        return []
    size = np.abs(np.diff(column))
    padded = np.pad(size, 3, constant_values=0)
    around = np.max([padded[k : k + len(size)] for k in (0, 1, 2, 4, 5, 6)], axis=0)
    large = size > JUMP_RANGE * np.ptp(column)
    found = np.flatnonzero(large & (size > JUMP * around) & (size > np.median(size) * JUMP))
    return found.tolist() if len(found) <= MOST_JUMPS else []


def camera_flags(rows: Any, name: str, idle: np.ndarray) -> list[Flag]:
    """rows: uint8 (T + 1, H, W, 3), an array or Frames. idle: (T,) bool, of idle_steps."""
    stride = max(1, min(rows.shape[1:3]) // 64)
    black, same = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
    last: np.ndarray | None = None
    for first, block in blocks(rows):
        for number, image in enumerate(block, first):
            small = image[::stride, ::stride]
            black[number] = small.mean() < DARK and np.percentile(small, 99) < BRIGHTEST
            same[number] = last is not None and np.array_equal(image, last)
            last = image
    steps = len(idle)
    found = []
    if runs := spans(black[:steps]):
        found.append(Flag("black", f"{name}: {black[:steps].mean():.0%} of the frames are black", tuple(runs)))
    frozen = [
        (first, end)
        for first, end in spans(same[:steps], FROZEN_STEPS - 1)
        if np.count_nonzero(~idle[first:end]) >= FROZEN_STEPS - 1 and not black[first:end].all()
    ]
    if frozen:
        first, end = max(frozen, key=lambda span: span[1] - span[0])
        text = f"{name}: the same frame for {plural(end - first + 1, 'step')} from step {first - 1}"
        found.append(Flag("frozen", text, tuple(frozen)))
    return found


def signature(episode: Episode) -> np.ndarray:
    """float32 (SIGNATURE_ROWS * n,): what was done and seen, at evenly spaced steps; without images."""
    steps = np.linspace(0, len(episode) - 1, SIGNATURE_ROWS).round().astype(int)
    columns = [episode.actions, *(rows[:-1] for _, rows in sorted(episode.observations.items()) if rows.ndim == 2)]
    return np.concatenate([rows[steps] for rows in columns], axis=1)[:, :SIGNATURE_NUMBERS].ravel().astype(np.float32)


def duplicates(signatures: Mapping[str, tuple[int, Sequence[float] | np.ndarray]]) -> dict[str, str]:
    """Episode -> the earlier one that it is nearly equal to. signatures: episode -> (steps, its signature)."""
    groups: dict[int, list[str]] = {}
    for name, (_, numbers) in signatures.items():
        groups.setdefault(len(numbers), []).append(name)
    found: dict[str, str] = {}
    for width, names in groups.items():
        if width and len(names) > 1:
            rows = np.array([signatures[name][1] for name in names], np.float64)
            found |= _near(names, rows, np.array([signatures[name][0] for name in names]))
    return found


def _near(names: Sequence[str], rows: np.ndarray, lengths: np.ndarray) -> dict[str, str]:
    """rows: (N, width), of one spec; lengths: (N,) steps."""
    table = rows.reshape(len(rows) * SIGNATURE_ROWS, -1)
    scale = table.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    rows = ((table - table.mean(axis=0)) / scale).reshape(len(rows), -1)
    squares = (rows**2).sum(axis=1)
    found = {}
    for first in range(0, len(rows), ROWS_AT_ONCE):
        end = min(first + ROWS_AT_ONCE, len(rows))
        distance = squares[first:end, None] + squares[:end] - 2 * rows[first:end] @ rows[:end].T
        near = distance <= rows.shape[1] * NEAR**2
        near &= np.abs(lengths[first:end, None] - lengths[:end]) <= NEAR_LENGTH * lengths[first:end, None]
        near &= np.arange(end) < np.arange(first, end)[:, None]  # earlier ones
        for number in np.flatnonzero(near.any(axis=1)).tolist():
            found[names[first + number]] = names[int(near[number].argmax())]
    return found


def counted(found: Iterable[tuple[str, Iterable[str]]]) -> dict[str, list[str]]:
    """Kind -> the episodes that have it, of (episode, kinds); in the order of KINDS."""
    pairs = [(name, set(kinds)) for name, kinds in found]
    by_kind = {kind: list(dict.fromkeys(name for name, kinds in pairs if kind in kinds)) for kind in KINDS}
    return {kind: names for kind, names in by_kind.items() if names}
