"""What a person asks of the arm: the same from a keyboard, a gamepad, a SpaceMouse or a browser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.spec import Observation, UserError
from envs.base import paced_env

if TYPE_CHECKING:
    import gymnasium

EVENTS = ("success", "failure", "discard", "end", "pause", "resume", "stop", "release")
LATCHES = {"resume": "pause", "release": "stop"}  # what lifts a latch -> what set it; neither lifts the other's
ENDINGS = ("success", "failure", "discard", "end", "stop")  # those that end an episode

# For each size of action: which of a command's motions (0..5: x y z, then about x y z) and its gripper (6) it takes.
LAYOUTS = {7: range(7), 6: range(6), 4: (0, 1, 2, 6), 3: range(3), 2: range(2)}
WITH_GRIPPER = [size for size, layout in LAYOUTS.items() if 6 in layout]


STILL = np.zeros(6, np.float32)
STILL.flags.writeable = False


@dataclass(frozen=True)
class Command:
    """One moment. motion: float32 (6,) in [-1, 1], x y z of the robot's base and the rotations about them, the hand's
    displacement; the env scales it. gripper: -1 open, 1 closed. enabled: the person drives, instead of the policy.
    events: of EVENTS, since the last command, in order. place: of a leader arm instead of motion and gripper, the arm's
    axes by name and where they are to go.
    """

    motion: np.ndarray = field(default_factory=lambda: STILL)
    gripper: float = -1.0
    enabled: bool = False
    events: tuple[str, ...] = ()
    place: Mapping[str, float] | None = None

    @property
    def moves(self) -> bool:
        return self.place is not None or bool(self.motion.any())


class Device:
    """A device that is open.

    keys: its key map, for a terminal of 80 columns. latches: it keeps a stop and a pause itself, see `hold_reason`.
    step_s: the period of the loop that reads it.
    """

    keys = ""
    latches = False
    step_s = 0.05

    @property
    def hold_reason(self) -> str:
        """Why there are to be no steps now; empty: there may be."""
        return ""

    def read(self) -> Command:
        """The newest command; never blocks. Raises UserError when the device has gone."""
        raise NotImplementedError

    def drop_events(self) -> None:
        """Drop what was pressed so far."""
        self.read()

    def reset(self, gripper: float = -1.0) -> None:
        """A new episode begins, or the person takes over, with the gripper as it is."""

    def show(self, observation: Observation, status: Mapping[str, Any]) -> None:
        """What is seen and done now: after each step, and while the device is waited for."""

    def close(self) -> None:
        """Let the device go."""


def action_of(command: Command, env: gymnasium.Env) -> np.ndarray:
    """float32 (A,) in [-1, 1] for `env` (a gymnasium.Env). Raises UserError for an env that cannot be driven so."""
    (size,) = env.action_space.shape or (0,)
    if command.place is None and size not in LAYOUTS and not command.moves:
        return np.zeros(size, np.float32)  # of a leader, that the arm is to stand
    if command.place is None:
        return to_action(command, size)
    arm = paced_env(env)
    if arm is None:
        raise UserError("a leader arm drives an arm of its own kind: --env real, lerobot:<type> or mock")
    return arm.towards(command.place).astype(np.float32)


def to_action(command: Command, size: int) -> np.ndarray:
    """float32 (size,) in [-1, 1]. Raises UserError for an action space that these devices cannot drive."""
    if size not in LAYOUTS:
        raise UserError(f"devices move a hand: actions have {', '.join(map(str, sorted(LAYOUTS)))} numbers, not {size}")
    numbers = np.append(command.motion, command.gripper).astype(np.float32)
    return np.clip(numbers[list(LAYOUTS[size])], -1, 1)
