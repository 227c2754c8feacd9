"""The cameras: their reference pictures made and tried, and each frame beside its reference."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from agent import files
from envs.real import view_change
from envs.real.camera_reference import Reference, References, judge, save
from envs.real.camera_set import CameraSet
from envs.real.mock_camera_faults import moved
from tools.doctor.arm import axes_of, go, jogs
from tools.doctor.lines import Line

if TYPE_CHECKING:
    from envs.real.env import RealEnv

FRAMES = 10  # of a reference
HEIGHT = 240  # of the pictures beside each other


def make_references(env: RealEnv, cameras: CameraSet) -> dict[str, Reference]:
    """With the arm at home, where it is again at the end. Raises RobotFault, ArmError, CameraError."""
    home = {name: axis.home for name, axis in axes_of(env).items()}
    at_home = look(env, cameras, FRAMES)
    elsewhere = []
    for place in jogs(axes_of(env)):
        go(env, place)
        elsewhere.append(look(env, cameras))
    go(env, home)
    references = {}
    for name, image in at_home.items():
        others = [images[name] for images in elsewhere]
        references[name] = Reference(image, view_change.still(image, view_change.corners(image), others))
    return references


def look(env: RealEnv, cameras: CameraSet, frames: int = 3) -> dict[str, np.ndarray]:
    """Camera -> uint8 (H, W, 3) RGB, while the arm is held where it stands."""
    env.hold()
    seen = cameras.look(env.measure, time.sleep, frames)
    env.clock.start()
    return seen


def write(path: Path, references: Mapping[str, Reference], lag: Mapping[str, float]) -> None:
    """Raises OSError."""
    with files.written(path) as file:
        save(file, References(dict(references), dict(lag), time.strftime("%Y-%m-%d %H:%M")))


def try_out(references: Mapping[str, Reference]) -> list[Line]:
    """Whether a picture that is moved and turned a little would be found: a line for each camera."""
    rng, lines = np.random.default_rng(0), []
    for name, reference in references.items():
        side = min(reference.image.shape[:2])
        shift = max(2.0, 0.01 * side)
        changed = {
            f"moved by {shift:.0f} px": moved(reference.image, right=shift),
            "turned by 1 deg": moved(reference.image, turned_deg=1.0),
        }
        missed = [
            what
            for what, image in changed.items()
            if judge({name: reference}, name, _noisy(image, rng)).good
            or not judge({name: reference}, name, _noisy(reference.image, rng)).good
        ]
        says = f"reference saved, {len(reference.corners)} corners that stand still"
        if missed:
            remedy = "give it something with edges to see that never moves, such as a printed pattern; save anew"
            lines.append(Line(f"camera {name}", f"{says}: not found if {' or '.join(missed)}", remedy))
        else:
            lines.append(Line(f"camera {name}", f"{says}; {' and '.join(changed)} are found"))
    return lines


def _noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def compare(references: Mapping[str, Reference], seen: Mapping[str, np.ndarray]) -> list[Line]:
    findings = {name: judge(references, name, image) for name, image in seen.items()}
    return [Line(f"camera {name}", finding.says, finding.remedy) for name, finding in findings.items()]


def draw(path: Path, references: Mapping[str, Reference], seen: Mapping[str, np.ndarray]) -> None:
    """A row for each camera: its reference, what it shows now, and where they differ. Raises OSError."""
    rows = []
    for name, image in seen.items():
        pictures = [image]
        if name in references and references[name].image.shape == image.shape:
            before = references[name].image
            pictures = [before, image, cv2.absdiff(before, image)]
        scale = HEIGHT / image.shape[0]
        small = [cv2.resize(each, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for each in pictures]
        for each, what in zip(small, ("reference", "now", "difference") if len(small) > 1 else ("now",), strict=True):
            cv2.putText(each, f"{name}: {what}", (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 0, 255), 1, cv2.LINE_AA)
        rows.append(np.hstack(small))
    width = max(row.shape[1] for row in rows)
    sheet = np.vstack([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])
    good, png = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    assert good
    with files.written(path) as file:
        file.write(png.tobytes())
