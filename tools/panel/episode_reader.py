"""What the page of recorded episodes shows of a source, read in a process of its own (tools.panel.episode_worker).

A source is a folder of our own episodes, or what tools.formats reads; that is never changed. Images are read when they
are asked for. Everything that is returned is plain: numbers, texts, lists, bytes.
"""

from __future__ import annotations

import contextlib
import math
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agent.data.episode_file import SUFFIX, read_episode, read_outcome
from agent.spec import Episode, SpecError, UserError
from tools.common import quality
from tools.common.originals import ORIGINALS
from tools.common.video import enlarge, fps_of, jpeg
from tools.formats.common.foreign import Choices, FormatError, Report
from tools.formats.common.source import Part, explained
from tools.formats.format import format_of, reader

OWN = "episodes"
BATCH_S = 0.2  # for figures of several episodes at once; somebody may be waiting
MAX_HEIGHT, THUMBNAIL_HEIGHT = 480, 72  # pixels
MAX_FRAMES = 64  # steps in one answer
MAX_POINTS = 3000  # of a curve; of a longer episode every n-th step is shown
MAX_NUMBERS = 64  # of a vector
MAX_TEXT = 60


def kind_of(place: Path) -> str:
    """The format of `place`: OWN, or one of tools.formats. Raises UserError for what the page cannot show."""
    if not place.exists():
        raise UserError(f"--episodes {place}: no such file or folder")
    if place.is_dir() and (_has_episodes(place) or not any(place.iterdir())):
        return OWN
    try:
        kind = format_of(place)
    except FormatError:
        raise
    except UserError:
        what = "neither episode files nor a dataset of LeRobot, robomimic or Minari"
        raise UserError(f"--episodes {place}: {what}") from None
    if kind == "robosuite":
        raise UserError(f"--episodes {place}: robosuite's raw recordings have no images; tools.convert renders them")
    if kind == OWN and place.is_file():
        raise UserError(f"--episodes {place}: a single episode; name its folder, {place.parent}")
    return kind


def _has_episodes(folder: Path) -> bool:
    places = (folder, folder / ORIGINALS)
    return any(next(place.glob(f"[!.]*{SUFFIX}"), None) for place in places)


class Reader:
    """kind: of kind_of. Raises UserError for a source that cannot be opened, as do all methods for an episode."""

    def __init__(self, place: Path, kind: str) -> None:
        self._place, self._own = place, kind == OWN
        self._open = contextlib.ExitStack()
        self._parts: dict[str, Part] = {}
        self._choices: list[Choices] = []
        self._newest: tuple[str, Episode, np.ndarray] | None = None
        if not self._own:
            self._choices = [
                Choices(actions="clip", reward=reward, success=success)
                for reward in (None, "zero")
                for success in (None, "never")
            ]
            with explained(place):
                parts = self._open.enter_context(reader(kind).parts(place, self._choices[0], Report()))
            self._parts = {part.name.removeprefix(f"{place}: "): part for part in parts}

    def ready(self) -> bool:
        """Asked at the start: loading this module takes longer than any answer."""
        return True

    def names(self) -> list[str]:
        """Of a source that is not a folder of ours."""
        return list(self._parts)

    def figures(self, names: list[str]) -> dict[str, dict[str, Any]]:
        """For the list; of the first of `names` only, as many as a moment allows. A damaged episode has an "error"."""
        end_s, found = time.monotonic() + BATCH_S, {}
        for name in names:
            try:
                found[name] = self._figures(name)
            except UserError as error:
                found[name] = {"error": str(error)}
            if time.monotonic() > end_s:
                break
        return found

    def _figures(self, name: str) -> dict[str, Any]:
        if self._own:
            episode, images = read_outcome(self._path(name))
        else:
            episode, _ = self._load(name)
            images = bool(episode.spec.cameras)
        known = self._choices[0] if self._choices else Choices()
        return {
            "steps": len(episode),
            "success": episode.succeeded if known.success is None else None,
            "return": round(episode.episode_return, 3) if known.reward is None else None,
            "hand": int(episode.interventions.sum()),
            "marked": text(episode.meta.get("marked")),
            "robot": text(episode.meta.get("robot")),
            "policy": text(episode.meta.get("policy")),
            "images": images,
        }

    def examine(self, name: str) -> dict[str, Any]:
        """Its flags and its signature (tools.common.quality); reads all images."""
        episode, actions = self._load(name)
        with explained(self._place):
            found = quality.flags(episode, actions)
        listed = [{"kind": flag.kind, "text": flag.text, "spans": flag.spans} for flag in found]
        return {"flags": listed, "signature": quality.signature(episode).tolist()}

    def numbers(self, name: str) -> dict[str, Any]:
        """For the player and its curves. "x": the steps of the points; "plots": each number's values at those."""
        episode, actions = self._load(name)
        steps, meaning = len(episode), quality.meaning_of(episode.meta)
        stride = -(-(steps + 1) // MAX_POINTS)
        names = episode.meta.get("state_names")
        states = {key: rows for key, rows in episode.observations.items() if rows.ndim == 2}
        plots = [_plot("action", actions, stride, meaning.names)]
        if not self._choices or self._choices[0].reward is None:
            plots.append(_plot("reward", episode.rewards[:, None], stride, ("reward",)))
        for key, rows in sorted(states.items()):
            plots.append(_plot(key, rows, stride, names.get(key, ()) if isinstance(names, Mapping) else ()))
        spans = {"hand": episode.interventions, "success": episode.success}
        return {
            "steps": steps,
            "fps": _rate(episode),
            "cameras": {key: list(shape[:2]) for key, shape in episode.spec.cameras.items()},
            "x": list(range(0, steps + 1, stride)),
            "plots": plots,
            "spans": {key: quality.spans(flags) for key, flags in spans.items()},
            "idle": quality.spans(quality.idle_steps(actions, meaning)),
            "cut": text(str(episode.meta.get("cut", ""))),
            "task": text(episode.meta.get("instruction"), 200),
        }

    def frames(self, name: str, first: int, count: int) -> bytes:
        """JPEGs of every camera at each step from `first` on, each after its length (4 bytes, the lowest first).

        The step after the last action, len(episode), has images, too. Fewer where the episode ends before.
        """
        episode, _ = self._load(name)
        end = min(first + min(count, MAX_FRAMES), len(episode) + 1)
        with explained(self._place):
            rows = [episode.observations[camera][first:end] for camera in episode.spec.cameras]
        packed = []
        for images in zip(*rows, strict=True):
            for image in images:
                image = jpeg(enlarge(image, MAX_HEIGHT) if image.shape[0] > MAX_HEIGHT else image, 85)
                packed += [struct.pack("<I", len(image)), image]
        return b"".join(packed)

    def thumbnail(self, name: str) -> bytes:
        """JPEG of what its first camera saw last; empty without cameras."""
        episode, _ = self._load(name)
        if not episode.spec.cameras:
            return b""
        rows = episode.observations[next(iter(episode.spec.cameras))]
        with explained(self._place):
            return jpeg(enlarge(rows[len(rows) - 1], THUMBNAIL_HEIGHT), 75)

    def _path(self, name: str) -> Path:
        """Of an episode of ours; of a dropped one, its original."""
        path = self._place / name
        return path if path.exists() else self._place / ORIGINALS / name

    def _load(self, name: str) -> tuple[Episode, np.ndarray]:
        """The episode, its images not read yet, and its actions (T, A) in the source's units."""
        if self._own:
            episode = read_episode(self._path(name), stream=True, checksum=False)
            return episode, episode.actions
        if self._newest and self._newest[0] == name:
            return self._newest[1:]
        if name not in self._parts:
            raise UserError(f"{self._place}: no episode is called '{name}'")
        part = self._parts[name]
        episode = self._converted(part)
        with explained(self._place):
            actions = episode.actions
            if part.actions is not None:
                actions = np.asarray(part.actions(), np.float64).reshape(-1, actions.shape[1])[: len(episode)]
        self._newest = name, episode, actions
        return episode, actions

    def _converted(self, part: Part) -> Episode:
        """With the first choices that the source needs; its reward and success are not made up, they are not shown."""
        while True:
            try:
                with explained(self._place):
                    episode = part.load(self._choices[0], Report())
                    episode.check(episode.spec)
                    return episode
            except SpecError as error:
                raise FormatError(f"{part.name}: {error}") from None
            except FormatError:
                raise
            except UserError:
                if len(self._choices) == 1:
                    raise
                del self._choices[0]


def text(value: Any, most: int = MAX_TEXT) -> str:
    """`value` of a file's meta, where it is one."""
    return " ".join(value.split())[:most] if isinstance(value, str) else ""


def _rate(episode: Episode) -> float | None:
    """Steps a second."""
    with contextlib.suppress(SpecError, TypeError, ValueError):
        rate = float(fps_of(episode.meta) or quality.meaning_of(episode.meta).control_hz or 0)
        if 0 < rate < 1000:
            return rate
    gaps = np.diff(episode.times_s)
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    return round(1 / usual, 3) if 1e-3 < usual < 60 else None


def _plot(title: str, rows: np.ndarray, stride: int, names: Any) -> dict[str, Any]:
    """rows: (T or T + 1, n)."""
    shown = np.asarray(rows[::stride, :MAX_NUMBERS], np.float64)
    if not isinstance(names, (list, tuple)) or len(names) != rows.shape[1]:
        names = []
    with np.errstate(all="ignore"):
        digits = 10.0 ** (4 - np.ceil(np.log10(np.abs(shown))))
        shown = np.where(np.isfinite(digits) & (digits > 0), np.round(shown * digits) / digits, shown)
    values = [[value if math.isfinite(value) else None for value in column] for column in shown.T.tolist()]
    return {"title": title, "names": [text(str(name), 40) for name in names[:MAX_NUMBERS]], "values": values,
            "size": rows.shape[1]}  # fmt: skip
