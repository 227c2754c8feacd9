"""What a source's actions mean, and what they mean once they are converted."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agent.action_meaning import KINDS, ActionMeaning
from agent.data.episode_file import episode_paths, read_head
from agent.env_record import EnvRecord
from agent.spec import SpecError, UserError

HAND = {"x", "y", "z", "roll", "pitch", "yaw", "rx", "ry", "rz", "gripper", "grip"}


def listed_names(names: Any) -> list[Any] | None:
    """Of a LeRobotDataset's feature, as in meta/info.json: a list, a list in a list or {"motors": [..]}; else None."""
    if isinstance(names, Mapping):
        names = next((value for value in names.values() if isinstance(value, list)), None)
    if isinstance(names, list) and len(names) == 1 and isinstance(names[0], list):
        names = names[0]
    return names if isinstance(names, list) else None


def of_names(names: Any, size: int, robot: str | None, fps: float) -> ActionMeaning:
    """Of a LeRobotDataset's feature "action": absolute joint targets, unless the names of its numbers say otherwise.

    names: see listed_names, or None.
    """
    names = listed_names(names)
    if names is None or len(names) != size or not all(isinstance(name, str) for name in names):
        names = []
    plain = [name.removesuffix(".pos") for name in names]
    kind, quantity = "absolute", "joint position"
    if any(name.startswith(("delta", "d_")) for name in plain):
        kind = "delta"
    elif any(name.endswith(".vel") or "velocity" in name for name in plain):
        kind, quantity = "velocity", "joint velocity"
    if names and {name.removeprefix("delta_").removeprefix("d_") for name in plain} <= HAND:
        quantity = "end-effector pose"
    return ActionMeaning(
        kind, quantity, names=tuple(plain), control_hz=fps, robot=(robot or "").removesuffix("_follower")
    )


def of_robosuite(arguments: Any) -> ActionMeaning:
    """Of a robomimic file's env_args, where they have robosuite's OSC_POSE; unknown for anything else."""
    given = arguments.get("env_kwargs") if isinstance(arguments, Mapping) else None
    if not isinstance(given, Mapping):
        return ActionMeaning()
    rate, robots = given.get("control_freq"), given.get("robots")
    robot = robots[0] if isinstance(robots, list) and len(robots) == 1 else robots
    known = ActionMeaning(
        control_hz=float(rate) if isinstance(rate, (int, float)) and 0 < rate < 1e5 else 0.0,
        robot=robot if isinstance(robot, str) else "",
    )
    arm = given.get("controller_configs")
    if isinstance(arm, Mapping) and isinstance(arm.get("body_parts"), Mapping):
        parts = arm["body_parts"]
        arm = parts.get("right") or (parts.get("arms") or {}).get("right")
    if not isinstance(arm, Mapping) or arm.get("type") != "OSC_POSE":
        return known
    delta = arm.get("control_delta", arm.get("input_type", "delta") == "delta")
    reach = arm.get("output_max")
    if not (isinstance(reach, list) and len(reach) == 6 and all(isinstance(value, (int, float)) for value in reach)):
        reach = []
    ends = {"low": [-float(v) for v in reach] + [-1.0], "high": [float(v) for v in reach] + [1.0]} if reach else {}
    more = {"kind": "delta" if delta else "absolute", "quantity": "end-effector pose", "units": "m and rad"}
    return ActionMeaning.from_dict({**known.to_dict(), **more, **ends})


def converted(
    meaning: ActionMeaning, size: int, action_range: np.ndarray | None, kind: str | None, env: EnvRecord
) -> ActionMeaning:
    """`meaning` of the source's numbers, once `action_range` (2, A) of them has become [-1, 1].

    kind, env: as the person says (--action-kind, --env). The numbers of a `gym:` environment are its own.
    """
    if kind is None and env.name.startswith("gym:"):
        kind = "normalized"
    if kind is not None and kind != meaning.kind:
        meaning = ActionMeaning(kind, names=meaning.names, control_hz=meaning.control_hz, robot=meaning.robot)
    if not meaning.kind:
        if action_range is None:
            return meaning
        meaning = dataclasses.replace(meaning, kind="normalized")
    if len(meaning.low) == size:
        low, high = np.array(meaning.low), np.array(meaning.high)
    else:  # the source's numbers are in its own units
        low, high = -np.ones(size), np.ones(size)
    if action_range is not None:
        low, high = (low + (ends + 1) / 2 * (high - low) for ends in np.asarray(action_range, np.float64))
    return dataclasses.replace(meaning, low=tuple(map(float, low)), high=tuple(map(float, high)))


def with_meaning(
    meta: Mapping[str, Any], source: ActionMeaning, size: int, action_range: np.ndarray | None, kind: str | None
) -> tuple[dict[str, Any], ActionMeaning]:
    """`meta` of a converted episode with what its actions mean, and that. meta: ours, where we wrote the source."""
    env, known = EnvRecord(), ActionMeaning()
    with contextlib.suppress(SpecError):
        env = EnvRecord.of_episode(meta)
        known = env.meaning
    if known.kind and action_range is None and kind is None:
        return dict(meta), known
    meaning = converted(known if known.kind else source, size, action_range, kind, env)
    stated = meaning.to_dict()
    stating = dataclasses.replace(env, actions=stated).to_dict()
    return ({**meta, "env": stating} if stated else dict(meta)), meaning


def sentence(meaning: ActionMeaning) -> str:
    """What the numbers will be taken for, in one line."""
    if not meaning.kind:
        return "actions: taken as the robot's own; the source does not say what they mean (--action-kind does)"
    return f"actions: {meaning}: only a robot whose actions mean the same takes a policy trained on them"


def read_range(text: str) -> np.ndarray:
    """(2, A) or (2, 1) of --action-range: LOW:HIGH, LOW,LOW,..:HIGH,HIGH,.., or a folder that has been scaled."""
    low, colon, high = text.rpartition(":")
    if colon and not Path(text).exists():
        try:
            found = np.array([[float(number) for number in ends.split(",")] for ends in (low, high)])
            if not np.isfinite(found).all() or (found[0] >= found[1]).any():
                raise ValueError
        except ValueError:
            raise UserError(
                f"--action-range {text}: expected LOW:HIGH, one number or as many as an action has"
            ) from None
        return found
    meta = read_head(episode_paths([text])[0])[1]
    ends = meta.get("action_range")
    if not ends:
        raise UserError(f"--action-range {text}: its episodes were not converted with --actions scale")
    return np.asarray(ends, np.float64)


def check_kind(kind: str | None) -> None:
    if kind is not None and kind not in KINDS:
        raise UserError(f"--action-kind {kind}: {', '.join(KINDS)}")


def fitting(action_range: np.ndarray, size: int) -> np.ndarray:
    """(2, size) of a range of one number or of `size`. Raises UserError for another count."""
    if action_range.shape[1] not in (1, size):
        raise UserError(f"--action-range has {action_range.shape[1]} numbers, an action of the source {size}")
    return np.array(np.broadcast_to(action_range, (2, size)))
