"""What a person asks of the arm: the same from a keyboard, a gamepad, a SpaceMouse or a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.spec import Observation, UserError
from envs.base import action_meaning, paced_env

if TYPE_CHECKING:
    import gymnasium

EVENTS = ("success", "failure", "discard", "end", "pause", "resume", "stop", "release")
LATCHES = {"resume": "pause", "release": "stop"}  # what lifts a latch -> what set it; neither lifts the other's
ENDINGS = ("success", "failure", "discard", "end", "stop")  # those that end an episode

GRIPPER = 6
# For each size of action: which of a command's motions (0..5: x y z, then about x y z) and its gripper it takes.
LAYOUTS = {7: range(7), 6: range(6), 4: (0, 1, 2, GRIPPER), 3: range(3), 2: range(2)}
# The same by the names of an action's numbers, where they are a hand's.
NUMBERS = {"x": 0, "y": 1, "z": 2, "rx": 3, "roll": 3, "ry": 4, "pitch": 4, "rz": 5, "gripper": GRIPPER}
WORDS = ("away and back", "left and right", "up and down", "roll", "pitch", "turn left and right", "the gripper")

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
    step_s: the period of the loop that reads it. layout: `layout` of the actions that it drives; () if unknown.
    """

    keys = ""
    latches = False
    step_s = 0.05
    layout: tuple[int, ...] = ()

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


def layout(env: gymnasium.Env) -> tuple[int, ...]:
    """For each number of an action of `env` (a gymnasium.Env), which of a command's motions it takes, 6 the gripper.

    Raises UserError for actions that these devices cannot drive.
    """
    (size,) = env.action_space.shape or (0,)
    names = action_meaning(env).get("names", ())
    if len(names) == size and all(name in NUMBERS for name in names):
        return tuple(NUMBERS[name] for name in names)
    if size not in LAYOUTS:
        raise UserError(f"devices move a hand: actions have {', '.join(map(str, sorted(LAYOUTS)))} numbers, not {size}")
    return tuple(LAYOUTS[size])


def layout_if_any(env: gymnasium.Env) -> tuple[int, ...]:
    """`layout`; () for actions that these devices cannot drive."""
    try:
        return layout(env)
    except UserError:
        return ()


def idle_keys(layout: Sequence[int]) -> str:
    """What of a device moves nothing with such actions: one line, or empty."""
    words = [word for number, word in enumerate(WORDS) if number not in layout]
    return f"not in this robot's actions: {', '.join(words)}" if words else ""


def gripper_of(action: Sequence[float] | np.ndarray | None, layout: Sequence[int]) -> float | None:
    """-1 or 1: what `action` asks of the gripper; None of an action without one, or that is none."""
    size = 0 if action is None else len(action)
    layout = layout if len(layout) == size else LAYOUTS.get(size, ())
    return None if action is None or GRIPPER not in layout else float(np.sign(action[layout.index(GRIPPER)]))


def action_of(command: Command, env: gymnasium.Env) -> np.ndarray:
    """float32 (A,) in [-1, 1] for `env` (a gymnasium.Env). Raises UserError for an env that cannot be driven so."""
    if command.place is not None:
        arm = paced_env(env)
        if arm is None:
            raise UserError("a leader arm drives an arm of its own kind: --env real, lerobot:<type> or mock")
        return arm.towards(command.place).astype(np.float32)
    found = layout(env) if command.moves else layout_if_any(env)
    if not found:  # of a leader, that the arm is to stand
        return np.zeros(env.action_space.shape or (0,), np.float32)
    numbers = np.append(command.motion, command.gripper).astype(np.float32)
    return np.clip(numbers[list(found)], -1, 1)
