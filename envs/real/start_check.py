"""What is checked by itself when an arm's environment starts: the short form of tools.doctor.

The first state against the limits, and each camera against its reference picture when the arm is at home for the first
time, grippers too. That takes about a second, once a process. `camera_check` says whether the arm starts in spite of
it. An arm that stands farther outside than its `lag` may be calibrated wrongly: a person looks before it moves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np

from envs.real.arm import ArmError, State
from envs.real.camera_reference import SAVE, Finding, References, judge, load, reference_file
from envs.real.camera_set import CameraSet
from envs.real.options import Axis, RealOptions

log = logging.getLogger(__name__)


class StartCheck:
    """due: the cameras have not been compared yet. Raises ValueError, one line, where a check that refuses cannot be
    made.
    """

    def __init__(self, options: RealOptions) -> None:
        self._mode, self.due = options.camera_check, False
        self._references: References | None = None
        if self._mode == "ignore" or not options.cameras:
            return
        path = reference_file(options)
        try:
            self._references = load(path)
        except ValueError as error:
            if self._mode == "refuse":
                raise
            log.warning("%s", error)
            return
        self.due = self._references is not None
        if not self.due and self._mode == "refuse":
            raise ValueError(f"camera_check refuse: there is no {path}: {SAVE}")
        if not self.due:
            log.info("no reference pictures of the cameras, so they are not compared: %s", SAVE)

    def first_state(self, axes: Mapping[str, Axis], position: np.ndarray) -> None:
        """position: (m,) of `axes`, measured. Raises ValueError where it refuses."""
        if self._mode == "ignore":
            return
        for says, remedy in outside(axes, position):
            if self._mode == "refuse":
                raise ValueError(f"{says}; {remedy}")
            log.warning("%s; %s", says, remedy)

    def at_home(self, cameras: CameraSet, state: Callable[[], State], wait: Callable[[float], object]) -> None:
        """The arm stands at home. Raises ArmError where it refuses, CameraError for a camera that has gone."""
        assert self._references
        wrong = {
            name: finding
            for name, image in cameras.look(state, wait).items()
            if not (finding := judge(self._references.cameras, name, image)).good
        }
        for name, finding in wrong.items():
            log.warning("%s", line_of(name, finding))
        if wrong and self._mode == "refuse":
            raise ArmError(f"{line_of(*next(iter(wrong.items())))} (camera_check refuse)")
        self.due = False


def outside(axes: Mapping[str, Axis], position: np.ndarray) -> list[tuple[str, str]]:
    """(what is wrong, what to do) for each of `axes` whose measured position (m,) is not within its limits."""
    margins = {name: 0.02 * (axis.high - axis.low) for name, axis in axes.items()}  # an arm sags, measures with noise
    return [
        (
            f"axis '{name}' stands at {value:.3g}, outside of its limits {axis.low:g} to {axis.high:g}",
            "move it inside by hand, or set low and high; is it calibrated?",
        )
        for (name, axis), value in zip(axes.items(), position, strict=True)
        if not axis.low - margins[name] <= value <= axis.high + margins[name]
    ]


def far_outside(axes: Mapping[str, Axis], position: np.ndarray) -> str:
    """What is wrong where an axis is farther outside than its target may be ahead of it; else empty."""
    for (name, axis), value in zip(axes.items(), position, strict=True):
        if not axis.low - axis.leash <= value <= axis.high + axis.leash:
            ((says, _),) = outside({name: axis}, np.array([value]))
            return f"{says}: is it calibrated? Release lets it move back inside, slowly"
    return ""


def line_of(name: str, finding: Finding) -> str:
    return f"camera '{name}': {finding.says}; {finding.remedy}"
