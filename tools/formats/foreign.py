"""What all formats share: an episode as its source has it (Raw), the person's choices, and what became of it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from PIL import Image

from agent.hdf5 import UnsafeFile, open_hdf5
from agent.memory import available_bytes
from agent.spec import ACTION_LIMIT, STEP_COLUMNS, Episode, UserError

SIMPLE = [  # what a source need not have
    "policy_versions",
    "interventions",
    "times_s",
    "observation_ages_s",
    "action_latencies_s",
]
MAX_PIXELS = 1 << 24  # of an image or a video's frame, 4096 x 4096


class FormatError(UserError):
    """A source that is damaged or not what it seems; the message names it."""


@contextlib.contextmanager
def hdf5(path: Path) -> Iterator[h5py.File]:
    """agent.hdf5.open_hdf5 for a source. Raises FormatError naming `path` when it is damaged or not safe to read."""
    try:
        with open_hdf5(path) as file:
            yield file
    except (UnsafeFile, OSError, RuntimeError) as error:
        raise FormatError(f"{path}: not read: {' '.join(str(error).split())}") from None


@dataclass
class Choices:
    """What the person decided. None: not decided, and refused where the source leaves it open."""

    rename: dict[str, str] = field(default_factory=dict)  # the source's name -> the name that is written
    drop: list[str] = field(default_factory=list)  # observations left out, by the source's names
    reward: str | None = None  # sparse-at-end | success | zero
    success: str | None = None  # end | never | a reward that means success
    actions: str | None = None  # clip | scale
    final: str = "repeat"  # repeat | drop
    end: str = "source"  # source | success: where an episode ends
    resize: int | None = None  # pixels a side
    no_ops: str = "keep"  # keep | drop
    sim: dict[str, Any] = field(default_factory=dict)  # options of envs.sim, for what is rendered anew
    env: dict[str, Any] | None = None  # {"name", "options"} to remember as the episodes' environment
    action_range: np.ndarray | None = None  # (2, A) lowest and highest, for "scale"
    fps: float | None = None
    instruction: str | None = None  # the task in words


@dataclass
class Report:
    """What a conversion did, in plain lines; counts are summed over episodes."""

    lines: list[str] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)

    def say(self, line: str) -> None:
        """`line`, once however often it is said."""
        if line not in self.lines:
            self.lines.append(line)

    def list(self, what: str, name: str) -> None:
        """`name` belongs to the line that begins with `what`."""
        if name not in self.names.setdefault(what, []):
            self.names[what].append(name)

    def count(self, what: str, part: int, whole: int) -> None:
        """`what` holds "{}" where "n of m (p %)" is to stand."""
        self.counts[what, 0] += part
        self.counts[what, 1] += whole

    def __str__(self) -> str:
        counted = []
        for what, kind in self.counts:
            part, whole = self.counts[what, 0], self.counts[what, 1]
            if kind == 0 and part:
                counted.append(what.format(f"{part:,} of {whole:,} ({part / whole:.1%})"))
        listed = [f"{what}: {', '.join(names)}" for what, names in self.names.items()]
        return "\n".join([*self.lines, *listed, *counted])


@dataclass
class Raw:
    """One episode as its source has it: `observations` have T or T + 1 rows, `columns` are those it has of ours."""

    name: str  # for messages
    observations: dict[str, np.ndarray]
    actions: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    dones: np.ndarray | None = None  # ends, whatever their kind
    meta: dict[str, Any] | None = None  # ours, where the source was written by this project
    origin: dict[str, Any] = field(default_factory=dict)  # for the meta of an episode that somebody else wrote


def to_episode(raw: Raw, choices: Choices, report: Report) -> Episode:
    """`raw` as an Episode. Raises UserError where the source leaves open what the person has not decided."""
    actions = _actions(raw, choices, report)
    observations = _observations(raw, choices, report)
    columns = dict(raw.columns)
    steps = len(actions)
    if any(len(rows) not in (steps, steps + 1) for rows in observations.values()):
        raise FormatError(f"{raw.name}: {steps} actions, but observations of other lengths")
    if any(len(rows) == steps for rows in observations.values()):
        if choices.final == "drop":
            report.say("final observation: not in the source, so the last action of each episode was left out")
            steps -= 1
            actions, columns = actions[:steps], _head(columns, steps)
        else:
            report.say("final observation: not in the source; the one before the last action stands in its place")
    if steps < 1:
        raise FormatError(f"{raw.name}: no steps")
    observations = {k: v if len(v) > steps else np.concatenate([v, v[-1:]]) for k, v in observations.items()}
    if raw.dones is not None and (early := np.count_nonzero(raw.dones[: steps - 1])):
        report.count("ends inside an episode: {} steps say 'done' before the last; ignored", int(early), steps)
    rewards = _rewards(raw.name, columns, steps, choices, report)
    success = _success(raw.name, columns, rewards, choices, report)
    if choices.reward == "success":
        rewards = success.astype(np.float32)
        report.say("rewards: 1 where there is a success, else 0, as asked (the source's own are not used)")
    if "terminated" in columns and "truncated" in columns:
        terminated, truncated = (np.array(columns[name], np.bool_) for name in ("terminated", "truncated"))
        truncated[-1] |= not terminated[-1]
    else:  # ends: by success, or by a clock or a person
        terminated, truncated = np.zeros(steps, np.bool_), np.zeros(steps, np.bool_)
        terminated[-1] = success[-1]
        truncated[-1] = not success[-1]
    if choices.end == "success" and success.any():
        report.count("cut: {} steps, after the first success", steps - int(success.argmax()) - 1, steps)
        steps = int(success.argmax()) + 1
        observations = {key: rows[: steps + 1] for key, rows in observations.items()}
        actions, rewards, success = actions[:steps], rewards[:steps], success[:steps]
        terminated, truncated, columns = success.copy(), np.zeros(steps, np.bool_), _head(columns, steps)
    others = {name: np.asarray(columns.get(name, np.zeros(steps)), STEP_COLUMNS[name]) for name in SIMPLE}
    return Episode(
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
        success=success,
        meta=raw.meta if raw.meta is not None else _meta(raw, choices),
        **others,
    )


def _head(columns: Mapping[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
    return {name: rows[:steps] for name, rows in columns.items()}


def _meta(raw: Raw, choices: Choices) -> dict[str, Any]:
    meta = dict(raw.origin)
    if choices.env is not None:
        meta["env"] = choices.env
    if choices.actions == "scale" and choices.action_range is not None:
        meta["action_range"] = np.asarray(choices.action_range, np.float64).tolist()
    return meta


def _actions(raw: Raw, choices: Choices, report: Report) -> np.ndarray:
    actions = np.asarray(raw.actions)
    if actions.dtype.kind != "f":
        raise UserError(f"{raw.name}: actions are {actions.dtype}; continuous ones are needed")
    actions = actions.reshape(len(actions), -1)
    if not np.isfinite(actions).all():
        raise FormatError(f"{raw.name}: actions that are not finite")
    if choices.actions == "scale" and choices.action_range is not None:
        low, high = choices.action_range
        span = np.where(high > low, high - low, 1)
        centred = np.where(high > low, 2 * (actions - low) / span - 1, 0)
        report.say("actions: each dimension's range in the source is [-1, 1] now; the range is in the episodes' meta")
        return np.clip(centred, -1, 1).astype(np.float32)
    beyond = np.abs(actions) > ACTION_LIMIT
    if beyond.any() and choices.actions != "clip":
        reach = np.abs(actions).max()
        raise UserError(
            f"{raw.name}: actions reach {reach:.3g}; --actions clip or --actions scale brings them to [-1, 1]"
        )
    if choices.actions == "clip":
        report.count("actions: {} values lay outside [-1, 1] and were clipped", int(beyond.sum()), actions.size)
        actions = np.clip(actions, -1, 1)
    return actions.astype(np.float32)


def _observations(raw: Raw, choices: Choices, report: Report) -> dict[str, np.ndarray]:
    kept: dict[str, np.ndarray] = {}
    for source, rows in raw.observations.items():
        name = choices.rename.get(source, source)
        if source in choices.drop:
            report.list("dropped, as asked", source)
            continue
        if rows.dtype == np.uint8 and rows.ndim == 4 and rows.shape[3] == 3:
            rows = resized(rows, choices.resize)
        elif rows.dtype.kind in "fiub" and rows.ndim <= 2 and rows.dtype != np.uint8:
            if rows.dtype != np.float32:
                report.list(f"rounded from {rows.dtype} to float32", source)
            rows = rows.reshape(len(rows), -1).astype(np.float32)
        else:
            report.list("dropped, neither an RGB image nor a vector", f"{source} ({rows.dtype} {list(rows.shape[1:])})")
            continue
        if name in kept:
            raise UserError(f"{raw.name}: two observations would be called '{name}'")
        if name != source:
            report.list("renamed", f"{source} is {name}")
        kept[name] = rows
    if not kept:
        raise UserError(f"{raw.name}: no observation is left")
    return kept


def resized(images: np.ndarray, side: int | None) -> np.ndarray:
    """(T, H, W, 3) at `side` x `side` pixels; unchanged for None."""
    if side is None or images.shape[1:3] == (side, side):
        return images
    return np.stack([cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images])


def picture(data: bytes) -> np.ndarray:
    """(H, W, 3) from PNG or JPEG. Raises FormatError, also for one of more than MAX_PIXELS."""
    try:
        with Image.open(io.BytesIO(data or b""), formats=["PNG", "JPEG"]) as head:  # reads no more than its size
            width, height = head.size
    except Image.DecompressionBombError:
        raise FormatError(f"an image in the table has more than {MAX_PIXELS:,} pixels") from None
    except (OSError, ValueError, SyntaxError):
        raise FormatError("an image in the table is missing or damaged") from None
    if width * height > MAX_PIXELS:
        raise FormatError(f"an image in the table has more than {MAX_PIXELS:,} pixels: {width} x {height}")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise FormatError("an image in the table is missing or damaged")
    return image[..., ::-1]


def pictures(cells: Iterable[bytes], count: int) -> np.ndarray:
    """(count, H, W, 3) from as many PNGs or JPEGs. Raises FormatError, before the memory is taken."""
    rows: np.ndarray | None = None
    for number, cell in enumerate(cells):
        image = picture(cell)
        if rows is None:
            check_fits(count * image.nbytes)
            rows = np.empty((count, *image.shape), np.uint8)
        if image.shape != rows.shape[1:]:
            raise FormatError(f"image {number} has another size than the first")
        rows[number] = image
    return np.empty((0, 0, 0, 3), np.uint8) if rows is None else rows


def check_fits(count_bytes: int) -> None:
    """Raise FormatError unless so many bytes are free twice."""
    if 2 * count_bytes > (free := available_bytes()):
        raise FormatError(f"{count_bytes / 1e9:.1f} GB of frames, too many for {free / 1e9:.1f} GB of memory")


def _rewards(name: str, columns: Mapping[str, np.ndarray], steps: int, choices: Choices, report: Report) -> np.ndarray:
    if "rewards" in columns and choices.reward in (None, "success"):
        return np.asarray(columns["rewards"], np.float32)
    if choices.reward == "success":
        return np.zeros(steps, np.float32)
    if choices.reward is None:
        raise UserError(
            f"{name}: no rewards in it; --reward sparse-at-end (1 at the last step, a success) or --reward zero says "
            "what they were"
        )
    was = " (the source's own are not used)" if "rewards" in columns else ""
    said = "1 at the last step of each episode" if choices.reward == "sparse-at-end" else "0 at every step"
    report.say(f"rewards: {said}, as asked{was}")
    rewards = np.zeros(steps, np.float32)
    rewards[-1] = choices.reward == "sparse-at-end"
    return rewards


def _success(
    name: str, columns: Mapping[str, np.ndarray], rewards: np.ndarray, choices: Choices, report: Report
) -> np.ndarray:
    asked = choices.success or ("end" if choices.reward == "sparse-at-end" else None)
    if asked is None and "success" in columns:
        return np.asarray(columns["success"], np.bool_)
    if asked is None:
        raise UserError(
            f"{name}: it does not say which episodes succeeded; --success end (all, at their last step), never, or a "
            "number (where the reward reaches it) does"
        )
    success = np.zeros(len(rewards), np.bool_)
    if asked == "end":
        success[-1] = True
        report.say("success: at the last step of each episode, as asked")
    elif asked == "never":
        report.say("success: never, as asked")
    else:
        success = rewards >= float(asked)
        report.say(f"success: where the reward is {float(asked):g} or more, as asked")
    return success


def renamed(episode: Episode, choices: Choices, report: Report) -> Episode:
    """An episode of ours on its way out, under the names that were asked for."""
    observations = _observations(Raw("episode", episode.observations, episode.actions), choices, report)
    return dataclasses.replace(episode, observations=observations)


def check_names(path: Path, known: set[str], choices: Choices) -> None:
    """Raise UserError for a --rename or --drop of what the source does not have."""
    for name in [*choices.rename, *choices.drop]:
        if name not in known:
            raise UserError(f"{path}: no observation '{name}'; it has {', '.join(sorted(known))}")
