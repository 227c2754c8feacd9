"""Film two checkpoints from the same start states, one above the other, as an animated WebP.

  python -m tools.docs.before_after runs/demo/offline.pt runs/demo/online/latest.pt --out docs/before_after.webp

The episodes are those of tools.evaluate, from its first seed on, none left out. Both policies act with their mean. A
green frame is a success, a red one a failure. The task has to be a simulated one.
"""

from __future__ import annotations

import agent.installed

import argparse
import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

import agent.run.checkpoint
from agent import cli
from agent.files import appearing
from agent.spec import UserError
from envs.rendering import Cameras
from tools.common.attempts import Plan, Stage
from tools.common.rollout import rollout
from tools.common.seeds import EVALUATION_SEED
from tools.common.video import GREEN, RED, with_text

LABELS = ("before fine-tuning", "after fine-tuning")
HOLD_S = 1.5  # the last frame stays
BORDER = 5  # pixels


def episodes(ckpt: str, seeds: range, camera: str, size: int) -> tuple[list[list[np.ndarray]], int]:
    """The frames of each episode, uint8 (size, size, 3) after each step, framed at its end; and how many succeed."""
    record = agent.run.checkpoint.load(ckpt).env
    if record.name != "sim":
        raise UserError(f"{ckpt}: trained in environment '{record.name}'; only those of 'sim' can be filmed")
    stage = Stage(Plan(ckpt, ckpt, record.name, dict(record.options)))
    films, successes = [], 0
    with contextlib.closing(stage.env):
        sim: Any = stage.env.unwrapped
        cameras = Cameras(sim.model, [camera], size, "stock")
        try:
            for seed in seeds:
                frames, success = [], False
                for transition in rollout(stage.env, stage.act, seed):
                    frames.append(cameras.images(sim.data)[camera].copy())
                    success = success or transition.success
                successes += success
                frames.append(framed(frames[-1], success))
                films.append(frames)
        finally:
            cameras.close()
    return films, successes


def framed(image: np.ndarray, success: bool) -> np.ndarray:
    image = image.copy()
    corner = (image.shape[1] - 1, image.shape[0] - 1)
    cv2.rectangle(image, (0, 0), corner, GREEN if success else RED, BORDER)
    return image


def grids(films: list[list[np.ndarray]], columns: int, title: str) -> Iterator[np.ndarray]:
    """Frame by frame, all episodes under a title; one that has ended keeps its last frame. Without end."""
    blank = [np.zeros_like(films[0][0])]
    films = films + [blank] * (-len(films) % columns)
    for step in itertools.count():
        now = [film[min(step, len(film) - 1)] for film in films]
        rows = [np.concatenate(now[at : at + columns], axis=1) for at in range(0, len(now), columns)]
        yield with_text(np.concatenate(rows), title)


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", metavar="BEFORE.pt", help="the checkpoint of the upper row")
    parser.add_argument("after", metavar="AFTER.pt", help="the checkpoint of the lower row")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.webp", help="where the film goes")
    parser.add_argument("--episodes", type=int, default=12, metavar="N", help="of each policy (12)")
    parser.add_argument("--columns", type=int, default=6, metavar="N", help="episodes side by side (6)")
    parser.add_argument("--camera", default="agentview", help="a camera of robosuite's (agentview)")
    parser.add_argument("--size", type=int, default=132, metavar="PIXELS", help="of each episode (132)")
    parser.add_argument("--fps", type=float, default=15.0, help="frames per second (15)")
    parser.add_argument("--quality", type=int, default=60, help="of WebP, 0 to 100 (60)")


def main(argv: list[str] | None = None) -> None:
    flags = cli.parse(argv, __doc__, [], add_flags, prog="python -m tools.docs.before_after").flags
    seeds = range(EVALUATION_SEED, EVALUATION_SEED + flags.episodes)
    parts, length = [], 0
    for ckpt, label in zip((flags.before, flags.after), LABELS):
        films, successes = episodes(ckpt, seeds, flags.camera, flags.size)
        length = max(length, *map(len, films))
        parts.append(grids(films, flags.columns, f"{label}: {successes} of {flags.episodes} succeed"))
    pictures = [Image.fromarray(np.concatenate(pair)) for pair, _ in zip(zip(*parts), range(length))]
    durations = [round(1000 / flags.fps)] * (length - 1) + [round(1000 * HOLD_S)]
    with appearing(flags.out) as aside:
        options = {"duration": durations, "loop": 0, "quality": flags.quality, "method": 6}
        pictures[0].save(aside, "WEBP", save_all=True, append_images=pictures[1:], **options)
    print(f"{flags.out}: {length} frames, {flags.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    cli.run(main)
