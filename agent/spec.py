"""The nouns of the project: Spec (what a robot sees and does), Transition (one step), Episode (one attempt).

Only numpy and gymnasium's vocabulary live here; no torch, so that a tool or a robot can import it for free.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Observation = dict[str, np.ndarray]
KEY = re.compile(r"\w[\w.-]*")  # a name in a file, on the wire, and in a network
ACTION_LIMIT = 1 + 1e-6  # rounding
REWARD_LIMIT = float(np.finfo(np.float32).max)  # as which it is kept


class UserError(Exception):
    """Something the person at the keyboard can put right: `main` prints its one line and exits with code 2."""


def plural(count: int, noun: str) -> str:
    """'1 robot', '2 robots': for nouns that take an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class SpecError(UserError, ValueError):
    """Data do not have the shape, dtype or names that were agreed on."""


@dataclass(frozen=True)
class Spec:
    """What an environment's observations and actions look like.

    cameras: name -> (height, width, 3), uint8.  states: name -> length, float32.  action_dim: A, actions in [-1, 1]^A.
    Raises SpecError for a name that no file could hold, and for a camera without three channels.
    """

    cameras: dict[str, tuple[int, int, int]]
    states: dict[str, int]
    action_dim: int
    _expected: dict[str, tuple[tuple[int, ...], np.dtype]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("cameras", "states"):  # in the order of their names: features are concatenated in it
            object.__setattr__(self, name, dict(sorted(getattr(self, name).items())))
        for key in self.keys:
            if not KEY.fullmatch(key):
                raise SpecError(f"observation key {key!r}: letters, digits, '_', '-' and '.', not first '.' or '-'")
        for key, shape in self.cameras.items():
            if len(shape) != 3 or shape[2] != 3:
                raise SpecError(f"camera '{key}' is {list(shape)}, expected [height, width, 3]")
        if both := set(self.cameras) & set(self.states):
            raise SpecError(f"{sorted(both)} are both cameras and states")
        object.__setattr__(self, "_expected", {key: (self.shape(key), self.dtype(key)) for key in self.keys})

    @classmethod
    def from_spaces(cls, observation_space: Any, action_space: Any) -> Spec:
        """Read a Gymnasium `Dict` of uint8 (H, W, 3) boxes and float vectors, and a `Box` [-1, 1]^A.

        Raises SpecError for any other space, naming its key.
        """
        spaces = getattr(observation_space, "spaces", None)
        if not isinstance(spaces, Mapping):
            raise SpecError(f"observation space must be a Dict, not {observation_space}")
        cameras, states = {}, {}
        for key, box in sorted(spaces.items()):
            shape = tuple(box.shape or ())
            if box.dtype == np.uint8 and len(shape) == 3 and shape[2] == 3:
                cameras[key] = shape
            elif np.issubdtype(box.dtype, np.floating) and len(shape) == 1:
                states[key] = shape[0]
            else:
                raise SpecError(f"observation '{key}' is neither a uint8 (H, W, 3) image nor a float vector: {box}")
        if len(action_space.shape or ()) != 1 or np.any(action_space.low != -1) or np.any(action_space.high != 1):
            raise SpecError(f"action space must be a Box of [-1, 1]^A, not {action_space}")
        return cls(cameras, states, int(action_space.shape[0]))

    def to_dict(self) -> dict[str, Any]:
        cameras, states = {k: list(v) for k, v in self.cameras.items()}, dict(self.states)
        return {"cameras": cameras, "states": states, "action_dim": self.action_dim}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Spec:
        """The inverse of to_dict. Raises SpecError on anything malformed (it may come from the network)."""
        try:
            cameras = {str(k): (int(h), int(w), int(c)) for k, (h, w, c) in data["cameras"].items()}
            return cls(cameras, {str(k): int(v) for k, v in data["states"].items()}, int(data["action_dim"]))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise SpecError(f"malformed spec: {error!r}") from None

    @property
    def summary(self) -> str:
        """Such as "cameras front 84x84, wrist 84x84; states proprio 11": images as width x height."""
        cameras = ", ".join(f"{name} {width}x{height}" for name, (height, width, _) in self.cameras.items())
        states = ", ".join(f"{name} {size}" for name, size in self.states.items())
        return f"{f'cameras {cameras}' if cameras else 'no cameras'}; {f'states {states}' if states else 'no states'}"

    @property
    def keys(self) -> list[str]:
        return [*self.cameras, *self.states]

    def shape(self, key: str) -> tuple[int, ...]:
        return self.cameras[key] if key in self.cameras else (self.states[key],)

    def dtype(self, key: str) -> np.dtype:
        return np.dtype(np.uint8 if key in self.cameras else np.float32)

    def differences(self, other: Spec) -> list[str]:
        """Human-readable differences, self first; empty when equal."""
        found = []
        for kind in ("cameras", "states"):
            mine, theirs = getattr(self, kind), getattr(other, kind)
            for key in sorted({*mine, *theirs}):
                if mine.get(key) != theirs.get(key):
                    found.append(f"{kind[:-1]} '{key}': {mine.get(key, 'none')} against {theirs.get(key, 'none')}")
        if self.action_dim != other.action_dim:
            found.append(f"action_dim: {self.action_dim} against {other.action_dim}")
        return found

    def check_observation(self, observation: Mapping[str, np.ndarray], lead: tuple[int, ...] = ()) -> None:
        """Raise SpecError unless every key is there with its shape (after the `lead` axes) and dtype, and no other."""
        mine, given = self._expected.keys(), observation.keys()
        if mine != given:
            raise SpecError(f"observation keys: missing {sorted(mine - given)}, unexpected {sorted(given - mine)}")
        for key, (shape, dtype) in self._expected.items():
            _check_array(key, observation[key], (*lead, *shape), dtype)


def _check_array(
    name: str, value: np.ndarray, shape: tuple[int, ...], dtype: np.dtype, limit: float | None = None
) -> None:
    if value.shape != shape or value.dtype != dtype:
        raise SpecError(f"'{name}' is {value.dtype}{list(value.shape)}, expected {dtype}{list(shape)}")
    largest = np.maximum.reduce(np.abs(value), axis=None, initial=0) if dtype.kind == "f" else 0  # nan if one is
    if not largest < np.inf:
        first = np.argwhere(~np.isfinite(value))[0].tolist()
        raise SpecError(f"'{name}' has values that are not finite: {value[tuple(first)]} at {first}")
    if limit is not None and largest > limit:
        raise SpecError(f"'{name}' has values outside [-1, 1]: {value[np.abs(value) > limit][0]:g}")


@dataclass
class Transition:
    """One step. `observation` is what was seen before `action` (float32 (A,), as executed, in [-1, 1]).

    time_s: wall clock (Unix time) at which the action was sent. observation_age_s: how old the oldest part of
    `observation` was when it was put together; action_latency_s: from then to the command that the arm was given; both
    are 0 where time stands still meanwhile.
    `final_observation` is what was seen after the last action, and is set on an episode's last transition only.
    """

    observation: Observation
    action: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    success: bool = False
    policy_version: int = 0
    intervention: bool = False
    time_s: float = 0.0
    observation_age_s: float = 0.0
    action_latency_s: float = 0.0
    final_observation: Observation | None = None

    @property
    def last(self) -> bool:
        return self.terminated or self.truncated

    def check(self, spec: Spec) -> None:
        """Raise SpecError unless this fits `spec`; the final observation must be there exactly on the last step."""
        spec.check_observation(self.observation)
        _check_array("action", self.action, (spec.action_dim,), np.dtype(np.float32), ACTION_LIMIT)
        if not abs(self.reward) <= REWARD_LIMIT:
            raise SpecError(f"reward is {self.reward}")
        if self.last != (self.final_observation is not None):
            raise SpecError("only the last transition of an episode has a final observation")
        if self.final_observation is not None:
            spec.check_observation(self.final_observation)


# Per-step columns of an episode besides observations and actions: name -> dtype, and -> the name in a Transition.
STEP_COLUMNS: dict[str, Any] = {
    "rewards": np.float32,
    "terminated": np.bool_,
    "truncated": np.bool_,
    "success": np.bool_,
    "policy_versions": np.int64,
    "interventions": np.bool_,
    "times_s": np.float64,
    "observation_ages_s": np.float32,
    "action_latencies_s": np.float32,
}
STEP_FIELDS = {
    "rewards": "reward",
    "terminated": "terminated",
    "truncated": "truncated",
    "success": "success",
    "policy_versions": "policy_version",
    "interventions": "intervention",
    "times_s": "time_s",
    "observation_ages_s": "observation_age_s",
    "action_latencies_s": "action_latency_s",
}


@dataclass
class Episode:
    """T transitions and the final observation: observations have T + 1 rows, everything else T.

    `meta` is JSON-able and says where the episode comes from: "robot", "boot", "number" (its identity on the link),
    "env" (agent.env_record), "seed" (of its reset), "policy".
    """

    observations: dict[str, np.ndarray]
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray
    policy_versions: np.ndarray
    interventions: np.ndarray
    times_s: np.ndarray
    observation_ages_s: np.ndarray
    action_latencies_s: np.ndarray
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_transitions(cls, transitions: Iterable[Transition], meta: dict[str, Any] | None = None) -> Episode:
        """Stack the transitions of one episode, the last of which carries the final observation."""
        steps = list(transitions)
        if not steps or steps[-1].final_observation is None:
            raise SpecError("an episode needs at least one transition, and a final observation on its last")
        rows = [*(step.observation for step in steps), steps[-1].final_observation]
        return cls(
            observations={key: np.stack([row[key] for row in rows]) for key in rows[0]},
            actions=np.stack([step.action for step in steps]).astype(np.float32),
            **{
                column: np.array([getattr(step, name) for step in steps], STEP_COLUMNS[column])
                for column, name in STEP_FIELDS.items()
            },
            meta=dict(meta or {}),
        )

    def transitions(self) -> list[Transition]:
        """The inverse of from_transitions."""
        last = len(self) - 1
        columns = {name: getattr(self, column).tolist() for column, name in STEP_FIELDS.items()}
        return [
            Transition(
                observation={key: rows[t] for key, rows in self.observations.items()},
                action=self.actions[t],
                final_observation={key: rows[-1] for key, rows in self.observations.items()} if t == last else None,
                **{name: values[t] for name, values in columns.items()},
            )
            for t in range(len(self))
        ]

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def succeeded(self) -> bool:
        return bool(self.success.any())

    @property
    def episode_return(self) -> float:
        """Undiscounted sum of the raw rewards."""
        return float(self.rewards.sum())

    @property
    def spec(self) -> Spec:
        cameras = {k: (v.shape[1], v.shape[2], v.shape[3]) for k, v in self.observations.items() if v.ndim == 4}
        states = {k: v.shape[1] for k, v in self.observations.items() if v.ndim == 2}
        return Spec(cameras, states, self.actions.shape[1])

    def check(self, spec: Spec) -> None:
        """Raise SpecError unless every array fits `spec` and only the last step ends the episode."""
        steps = len(self)
        if steps == 0:
            raise SpecError("the episode has no steps")
        spec.check_observation(self.observations, lead=(steps + 1,))
        _check_array("actions", self.actions, (steps, spec.action_dim), np.dtype(np.float32), ACTION_LIMIT)
        for name, dtype in STEP_COLUMNS.items():
            _check_array(name, getattr(self, name), (steps,), np.dtype(dtype))
        ends = self.terminated | self.truncated
        if ends[:-1].any() or not ends[-1]:
            raise SpecError("an episode ends (terminated or truncated) at its last step, and only there")

    def equals(self, other: Episode) -> bool:
        """Bit-equal arrays and equal meta."""
        fields = [f.name for f in dataclasses.fields(self) if f.name not in ("observations", "meta")]
        return (
            self.meta == other.meta
            and set(self.observations) == set(other.observations)
            and all(np.array_equal(v, other.observations[k]) for k, v in self.observations.items())
            and all(np.array_equal(getattr(self, name), getattr(other, name)) for name in fields)
        )
