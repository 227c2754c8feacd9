"""Scripted experts that look at the simulator's state: for demonstrations, with noise and deliberate failures."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple, Protocol

import numpy as np

from envs.base import Observation, paced_env

OPEN, CLOSE = -1.0, 1.0
STILL_M = 5e-4  # fingers that move less than this in a step have closed
OPENING_STEPS = 8  # robosuite opens a gripper by a tenth of its range each step
DROP_M = 0.008  # how high Lift's cube gets before it is let go: below the 2 cm that count as success
ROBOTS = {  # those with which the expert was seen to succeed
    "Lift": ("Panda", "IIWA", "XArm7"),
    "Can": ("Panda",),
    "Stack": ("Panda",),
    "Square": ("Panda",),
    "Door": ("Panda",),
}
GRASP_M = {"IIWA": -0.012, "XArm7": -0.012}  # how far above the object's centre the hand closes, where that isn't 0
HELD_M = 0.05  # an object farther than this from the hand is not in it
FAILURES = ("beside", "short", "drop")  # grasps beside the object, closes above it, lets it go on the way


class Expert(Protocol):
    failing: bool

    def reset(self) -> None: ...

    def act(self, observation: Observation) -> np.ndarray: ...


def make(env: Any, noise: float = 0.0, failure_rate: float = 0.0, seed: int = 0, retry_rate: float = 0.0) -> Expert:
    """An expert for `env`. noise: standard deviation added to its actions; failure_rate: share of deliberate failures;
    retry_rate: of the others, share whose first grasp misses deliberately, before a second attempt.

    Raises ValueError when there is none for this environment or its robot, or when it makes no second attempts.
    """
    inner = env.unwrapped
    task = getattr(inner, "task_name", None) or type(inner).__name__
    kind = _arm_expert(inner) if paced_env(env) else _expert(task)
    if kind is None:
        tasks = ", ".join(ROBOTS)
        raise ValueError(f"there is no scripted expert for '{task}', only for sim's {tasks}, and for fake")
    if task in ROBOTS and not paced_env(env) and inner.options.robot not in ROBOTS[task]:
        robots = ", ".join(ROBOTS[task])
        raise ValueError(f"there is no scripted expert for '{task}' with robot '{inner.options.robot}'; with {robots}")
    if retry_rate and not kind.misses:
        raise ValueError(f"the expert for '{task}' makes no second attempt: retry_rate must be 0")
    return kind(inner, noise, failure_rate, retry_rate, np.random.default_rng(seed))


def _expert(task: str) -> type[Scripted] | None:
    if module := {"Stack": "assembly", "Square": "assembly", "Door": "door"}.get(task):
        kind: type[Scripted] = getattr(importlib.import_module(f"envs.scripted_{module}"), f"{task}Expert")
        return kind
    return {"Lift": LiftExpert, "Can": CanExpert, "reach": ReachExpert}.get(task)


def _arm_expert(real: Any) -> type[Scripted]:
    """For an envs.real.env.RealEnv. Those that need more than the arm's state are in modules of their own."""
    if real.options.arm != "mock:so101":
        return MockLiftExpert
    kind: type[Scripted] = importlib.import_module("envs.real.so101_expert").SO101LiftExpert
    return kind


class Scripted:
    """Adds noise to `plan`, and decides at reset whether, and how, the episode fails."""

    misses: tuple[str, ...] = ()  # the failures that a second attempt can follow

    def __init__(
        self, env: Any, noise: float, failure_rate: float, retry_rate: float, rng: np.random.Generator
    ) -> None:
        self.env, self.noise, self.failure_rate, self.retry_rate, self.rng = env, noise, failure_rate, retry_rate, rng
        self.failing, self.failure = False, ""

    def reset(self) -> None:
        """Call after each env.reset."""
        self.failing = bool(self.rng.random() < self.failure_rate)
        self.failure = str(self.rng.choice(FAILURES)) if self.failing else ""
        if self.retry_rate and self.misses and not self.failing and self.rng.random() < self.retry_rate:
            self.failure = str(self.rng.choice(self.misses))
        self.begin()

    def begin(self) -> None: ...

    def plan(self) -> np.ndarray:
        raise AssertionError("each expert has its own")

    def act(self, observation: Observation) -> np.ndarray:
        """float32 (A,) in [-1, 1]; looks at the simulator, not at the observation."""
        action = self.plan()
        noise = self.noise * self.rng.standard_normal(len(action)) * self.noisy(len(action))
        return np.asarray(np.clip(action + noise, -1, 1), np.float32)

    def noisy(self, size: int) -> np.ndarray:
        """Which actions get noise: all but the gripper, whose flicker would drop things at random."""
        return np.ones(size)


class ReachExpert(Scripted):
    def begin(self) -> None:
        turn = self.rng.uniform(-np.pi / 2, np.pi / 2)
        back = np.arctan2(*(self.env.position - self.env.target)[::-1])  # on this side, so not through the target
        beside = 0.4 * np.array([np.cos(back + turn), np.sin(back + turn)])
        self.aim = self.env.target + (beside if self.failing else 0)

    def plan(self) -> np.ndarray:
        return np.asarray(np.clip((self.aim - self.env.position) / 0.25, -1, 1))


class PickExpert(Scripted):
    """Above the object, down, close, up: one phase after the other, each aiming at a point in space.

    Unless the episode is to fail, a hand that comes up without the object opens and begins again.
    """

    hover_m, near_m = 0.06, 0.012
    short_m = 0.045  # how far above the object's centre the grasp "short" closes
    descend_s = 1.2  # a hand that is not down by then has come down on something: to try again, it closes there
    settle_s = 0.4  # how long the fingers take

    def begin(self) -> None:
        angle, radius = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(0.035, 0.05)
        beside = radius * np.array([np.cos(angle), np.sin(angle), 0.0])
        self.offset = {"beside": beside, "short": np.array([0.0, 0.0, self.short_m])}.get(self.failure, np.zeros(3))
        self.drop_after = int(self.rng.integers(1, 4))
        self.phase, self.waited, self.opening = "above", 0, 0
        self.fingers = self.env.fingers
        self.start = self.object_position()

    def object_position(self) -> np.ndarray:
        raise AssertionError("each task has its own")

    @property
    def steps_to_settle(self) -> int:
        return max(2, round(self.settle_s * float(self.env.options.control_hz)))

    def plan(self) -> np.ndarray:
        hand = self.env.eef_position
        if self.phase in ("above", "down"):
            self.start = self.object_position() + self.offset
        target, grip = self.start + [0, 0, GRASP_M.get(self.env.options.robot, 0.0)], OPEN
        if self.phase == "above":
            off = np.linalg.norm((target - hand)[:2])
            self.opening -= 1
            if self.opening < 0 and off < 2 * self.near_m and hand[2] < target[2] + 2 * self.hover_m:
                self.phase = "down"
            else:
                target = target + [0, 0, self.hover_m]
        if self.phase == "down":
            self.waited += 1
            held_up = not self.failing and self.waited > self.descend_s * self.env.options.control_hz
            if held_up or self.close_to(target, hand):
                self.phase, self.waited = "close", 0
        if self.phase == "close":
            # When to lift can be seen, not only counted: who imitates this has no clock, but sees the fingers.
            grip, self.waited = CLOSE, self.waited + 1
            fingers, self.fingers = self.fingers, self.env.fingers
            still = np.abs(self.fingers - fingers).max(initial=0) < STILL_M
            if (self.waited > 2 and still) or self.waited > 20:
                self.phase, self.waited = "carry", 0
        if self.phase == "carry" and not self.failing and not self.holds(hand):
            self.failure = ""
            self.begin()
            self.opening = OPENING_STEPS
            return self.towards(hand + [0, 0, self.hover_m], hand, OPEN)
        if self.phase == "carry":
            self.waited += 1
            target, grip = self.carry(hand)
            if self.failure == "drop" and self.waited > self.drop_after:
                grip = OPEN
        return self.towards(target, hand, grip)

    def holds(self, hand: np.ndarray) -> bool:
        return bool(np.linalg.norm(self.object_position() - hand) < HELD_M)

    def close_to(self, target: np.ndarray, hand: np.ndarray) -> bool:
        slack = 1 + 2 * self.noise  # a noisy hand never stands still
        off = np.abs(target - hand)
        return bool(np.linalg.norm(off[:2]) < slack * self.near_m and off[2] < slack * self.near_m)

    def carry(self, hand: np.ndarray) -> tuple[np.ndarray, float]:
        raise AssertionError("each task has its own")

    def towards(self, target: np.ndarray, hand: np.ndarray, grip: float) -> np.ndarray:
        """A proportional move, in the base's axes (those of every table-top robot here are the world's)."""
        move = np.clip((target - hand) / 0.05, -1, 1)
        turn = np.zeros(3) if self.env.options.action == "pose" else np.zeros(0)
        return np.concatenate([move, turn, [grip]])

    def noisy(self, size: int) -> np.ndarray:
        mask = np.ones(size)
        mask[3:] = 0.0
        return mask


class LiftExpert(PickExpert):
    misses = ("beside", "short")

    def object_position(self) -> np.ndarray:
        inner = self.env.robosuite
        return np.array(self.env.data.xpos[inner.cube_body_id])

    def carry(self, hand: np.ndarray) -> tuple[np.ndarray, float]:
        if self.failure == "drop" and self.waited <= self.drop_after + OPENING_STEPS:
            return self.start + [0, 0, DROP_M], CLOSE
        return hand + [0, 0, 0.05], CLOSE


class MockLiftExpert(LiftExpert):
    """Lift with the mock arm: slower, because that moves a hand's width behind where it was sent."""

    near_m = 0.015

    def __init__(self, env: Any, *given: Any) -> None:
        super().__init__(_MockView(env), *given)

    def object_position(self) -> np.ndarray:
        return np.array(self.env.thing)

    def towards(self, target: np.ndarray, hand: np.ndarray, grip: float) -> np.ndarray:
        return np.asarray(self.env.real.towards({**dict(zip("xyz", target)), "gripper": (grip + 1) / 2}))


class _MockView:
    """What an expert looks at, of an envs.real.env.RealEnv with the mock arm."""

    def __init__(self, real: Any) -> None:
        if real.state.thing is None:
            raise ValueError(f"there is no scripted expert for the arm '{real.options.arm}' with this task")
        self.real, self.options = real, _MockOptions(real.options.control_hz)

    @property
    def eef_position(self) -> np.ndarray:
        return np.array(self.real.state.position[:3])

    @property
    def fingers(self) -> np.ndarray:
        return np.array(self.real.state.position[3:])

    @property
    def thing(self) -> np.ndarray:
        return np.array(self.real.state.thing)


class _MockOptions(NamedTuple):
    control_hz: float
    robot: str = "Panda"
    action: str = "position"


class CanExpert(PickExpert):
    lift_m, settle_s = 0.18, 0.5
    short_m = 0.1  # its top is 4 cm above its centre, and whatever is within HELD_M counts as held
    misses = ("short",)  # beside the can a finger comes down on it, and the hand goes no further

    def begin(self) -> None:
        super().begin()
        self.lifted = self.over = False
        self.released = 0

    def object_position(self) -> np.ndarray:
        inner = self.env.robosuite
        return np.array(self.env.data.xpos[inner.obj_body_id["Can"]])

    def holds(self, hand: np.ndarray) -> bool:
        return self.released > 0 or super().holds(hand)

    def carry(self, hand: np.ndarray) -> tuple[np.ndarray, float]:
        inner = self.env.robosuite
        bin_xyz = np.array(inner.target_bin_placements[inner.object_to_id["can"]])
        height = bin_xyz[2] + self.lift_m
        self.lifted = self.lifted or hand[2] > height - 0.04
        self.over = self.over or bool(self.lifted and np.linalg.norm((bin_xyz - hand)[:2]) < 0.03)
        if not self.lifted:
            return np.array([hand[0], hand[1], height + 0.03]), CLOSE
        if not self.over:
            return np.array([bin_xyz[0], bin_xyz[1], height]), CLOSE
        low = np.array([bin_xyz[0], bin_xyz[1], bin_xyz[2] + 0.08])
        self.released += self.released > 0 or hand[2] < low[2] + 0.03
        if self.released > self.steps_to_settle:  # it counts only once the hand has gone
            return np.array([bin_xyz[0], bin_xyz[1], height]), OPEN
        return low, OPEN if self.released else CLOSE
