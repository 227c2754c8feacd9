"""robosuite's own recordings (collect_human_demonstrations): simulator states and actions, no images.

The states are put into today's model of the task, not into the stored XML (meshes were renamed between versions), and
what envs.sim sees there is the observation: the result trains together with our own demonstrations and goes on online.
Rewards and success are the simulator's judgement of each state; an episode ends, as in envs.sim, at its first success.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from agent.action_meaning import ActionMeaning
from agent.data.frames import Frames
from agent.env_record import EnvRecord
from agent.spec import Episode, Spec, UserError
from envs.sim import STEP_M, STEP_RAD, TASKS
from robot_server.stepper import own
from tools.common.rollout import env_record, make_env
from tools.formats.common.arrays import numbers
from tools.formats.common.build import to_episode
from tools.formats.common.foreign import Choices, FormatError, Raw, Report, hdf5
from tools.formats.common.source import Part
from tools.formats.robomimic import Demos, demos, selected

STILL = 1e-3  # rad or m: no joint and no object moved further in a step
TOLD = ("env_name", "robots", "control_freq", "controller_configs")  # what an action means, and where


def detects(path: Path) -> bool:
    if path.is_dir():
        found = list(path.glob("*.hdf5"))
        return len(found) == 1 and detects(found[0])
    if not h5py.is_hdf5(path):
        return False
    with hdf5(path) as file:
        data = file.get("data", {})
        first: Any = next((data[name] for name in data if name.startswith("demo_")), {})
        return "states" in first and "obs" not in first


@contextlib.contextmanager
def parts(path: Path, choices: Choices, report: Report) -> Iterator[list[Part]]:
    path = next(path.glob("*.hdf5")) if path.is_dir() else path
    with hdf5(path) as file:
        found = selected(file, path, demos(file, path), choices, report)
        info = info_of(file["data"].attrs, path)
        longest = max((len(demo["actions"]) for _, demo in found if "actions" in demo), default=0)
        options = sim_options(path, with_rate(path, info, found), longest, choices.sim)
        version = file["data"].attrs.get("repository_version", "unknown")
        report.say(
            f"robosuite {version}: {options['task']}, {options['robot']}, {options['control_hz']:g} Hz; its states are "
            f"shown in today's model of the task"
        )
        record = env_record("sim", options)
        with contextlib.closing(make_env("sim", options)) as env, tempfile.TemporaryFile() as spool:
            yield [_part(f"{path}: {name}", demo, env, record, spool) for name, demo in found]


def _part(name: str, demo: h5py.Group, env: Any, record: EnvRecord, spool: IO[bytes]) -> Part:
    def load(choices: Choices, report: Report) -> Episode:
        actions = choices.actions or "clip"  # as robosuite's controller does
        asked = dataclasses.replace(choices, actions=actions, env=record)
        for unused in _unused(demo):
            report.list("dropped", unused)
        return to_episode(_shown(name, demo, env, asked, report, spool), asked, report)

    return Part(name, load, check=lambda: _checked(name, demo, env))


def _unused(demo: h5py.Group) -> list[str]:
    return [*sorted(set(demo) - {"states", "actions"}), *sorted(f"attribute {name}" for name in demo.attrs)]


def info_of(attributes: Any, path: Path) -> dict[str, Any]:
    """env_name, robots, control_freq and controller_configs, as far as the file says them.

    robosuite's own recordings have env and env_info (controller and robots), robomimic's have env_args.
    Raises FormatError where no task is named, where the two contradict each other, and where rate or
    robots have values that cannot be.
    """
    try:
        info = json.loads(attributes.get("env_info", "{}"))
        args = json.loads(attributes.get("env_args", "{}"))
        found = {**args.get("env_kwargs", {}), "env_name": args.get("env_name")}
        name = info.get("env_name") or found["env_name"] or attributes["env"]
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise FormatError(f"{path}: does not say which task it is (attributes env, env_info and env_args)") from None
    for key, value in found.items():
        if value is not None and info.get(key) not in (None, value) and key in TOLD:
            raise FormatError(f"{path}: {key} is {info[key]!r:.60} in env_info and {value!r:.60} in env_args")
    hz, robots = (info.get(key, found.get(key)) for key in ("control_freq", "robots"))
    if hz is not None and not (isinstance(hz, (int, float)) and 0 < hz < math.inf):
        raise FormatError(f"{path}: control_freq is {hz!r:.60}; expected actions a second, above 0")
    if not all(isinstance(one, str) for one in (robots if isinstance(robots, list) else [robots or ""])):
        raise FormatError(f"{path}: robots is {robots!r:.60}; expected the names of robots")
    return {**found, **info, "env_name": name.decode(errors="replace") if isinstance(name, bytes) else str(name)}


def with_rate(path: Path, info: dict[str, Any], found: Demos) -> dict[str, Any]:
    """`info` with control_freq, which the times in the states show, too. Raises FormatError where the two disagree."""
    told, times = info.get("control_freq"), [demo["states"][:, 0] for _, demo in found if _has_times(demo)]
    apart_s = np.concatenate([np.diff(rows) for rows in times]) if times else np.zeros(0)
    measured = 1 / float(np.median(apart_s)) if len(apart_s) and np.median(apart_s) > 0 else None
    if measured is None:
        return info
    if told is None:
        return {**info, "control_freq": round(measured, 3)}
    if not np.isclose(float(told), measured, rtol=0.05):
        raise FormatError(f"{path}: control_freq is {told}, but its states are 1 / {measured:.3g} s apart")
    return info


def _has_times(demo: h5py.Group) -> bool:
    states = demo.get("states")
    return isinstance(states, h5py.Dataset) and states.ndim == 2 and len(states) > 1


def task_of(path: Path, info: dict[str, Any]) -> str:
    """The task of envs.sim. NutAssembly and PickPlace with a single object are the tasks of that object."""
    tasks = {robosuite: task for task, (robosuite, _) in TASKS.items()}
    name = info["env_name"]
    if info.get("single_object_mode") == 2:
        name += str(info.get("nut_type") or info.get("object_type") or "").capitalize()
    if name not in tasks:
        raise UserError(f"{path}: task '{name}' is none of {', '.join(tasks)}")
    return tasks[name]


def sim_options(path: Path, info: dict[str, Any], longest: int, asked: dict[str, Any]) -> dict[str, Any]:
    """Options of envs.sim under which the recording's actions mean what they meant. Raises UserError where none do.

    asked: options that the person gave; they say what the file does not, and may not contradict it.
    """
    robots = info.get("robots") or []
    robots = [robots] if isinstance(robots, str) else list(robots)
    if len(robots) > 1:
        raise UserError(f"{path}: {len(robots)} robots; recordings of one arm can be shown")
    _check_controller(path, info.get("controller_configs"), asked)
    hz = info.get("control_freq")
    options = {
        "task": task_of(path, info),
        "robot": robots[0] if robots else asked.get("robot"),
        "action": "pose",
        "control_hz": float(hz) if hz is not None else asked.get("control_hz"),
        "horizon": longest,
    }
    for key, flag in (("robot", "--robot NAME"), ("control_hz", "--control-hz N (actions a second)")):
        if options[key] is None:
            raise UserError(f"{path}: does not say its {key}; {flag} does")
    for key in ("task", "robot", "action", "control_hz"):
        if asked.get(key, options[key]) != options[key]:
            raise UserError(f"{path}: --{key.replace('_', '-')} {asked[key]}, but it was recorded with {options[key]}")
    return {**options, **asked}


def _check_controller(path: Path, config: Any, asked: dict[str, Any]) -> None:
    """Raise UserError unless an action of 1 asked for what it asks for in envs.sim."""
    if not config:
        if asked.get("action") != "pose":
            raise UserError(
                f"{path}: does not say which controller its actions were for; --action pose says that they are "
                "OSC_POSE's relative steps of 5 cm and 0.5 rad"
            )
        return
    parts = config.get("body_parts", {}) if isinstance(config, dict) else {}
    arm = parts.get("right") or parts.get("arms", {}).get("right") or config
    arm = arm if isinstance(arm, dict) else {}
    reach = [STEP_M] * 3 + [STEP_RAD] * 3
    delta = arm.get("control_delta", arm.get("input_type", "delta") == "delta")
    same = np.allclose(arm.get("output_max", reach), reach) and np.allclose(arm.get("input_max", 1), 1)
    if arm.get("type") != "OSC_POSE" or not delta or not same:
        kind = arm.get("type")
        raise UserError(f"{path}: its controller is {kind}, not OSC_POSE with relative steps of 5 cm and 0.5 rad")


def _checked(name: str, demo: h5py.Group, env: Any) -> tuple[np.ndarray, np.ndarray]:
    """States (T, S) and actions (T, A) of a demonstration that envs.sim can show. Raises FormatError."""
    states, actions = numbers(demo, "states"), numbers(demo, "actions").astype(np.float64)
    if len(states) != len(actions) or len(states) < 2:
        raise FormatError(f"{name}: {len(states)} states and {len(actions)} actions")
    if not (np.isfinite(states).all() and np.isfinite(actions).all()):
        raise FormatError(f"{name}: states or actions that are not finite")
    if actions.ndim != 2 or actions.shape[1] != env.action_space.shape[0]:
        raise FormatError(f"{name}: actions are {actions.shape[1:]}, today's task has {env.action_space.shape[0]}")
    model = env.unwrapped.model
    if states.ndim != 2 or states.shape[1] != 1 + model.nq + model.nv:
        raise FormatError(f"{name}: states are {states.shape[1:]}; today's task has {1 + model.nq + model.nv} numbers")
    return states, actions


class _Spool:
    """The images of one episode, in a file without a name: rendered once, read block by block."""

    def __init__(self, file: IO[bytes], spec: Spec) -> None:
        self._file, self._shapes, self._count = file, spec.cameras, 0
        self._size = sum(map(math.prod, spec.cameras.values()))
        file.seek(0)
        file.truncate()

    def add(self, observation: dict[str, np.ndarray]) -> None:
        self._file.seek(self._count * self._size)
        self._file.write(b"".join(observation[key].tobytes() for key in self._shapes))
        self._count += 1

    def frames(self) -> dict[str, Frames]:
        first, found = 0, {}
        for key, shape in self._shapes.items():
            found[key] = Frames((self._count, *shape), functools.partial(self._read, first, shape))
            first += math.prod(shape)
        return found

    def _read(self, offset: int, shape: tuple[int, ...], first: int, end: int) -> np.ndarray:
        images = np.empty((end - first, *shape), np.uint8)
        for number in range(first, end):
            self._file.seek(number * self._size + offset)
            images[number - first] = np.frombuffer(self._file.read(math.prod(shape)), np.uint8).reshape(shape)
        return images


def _shown(name: str, demo: h5py.Group, env: Any, choices: Choices, report: Report, spool: IO[bytes]) -> Raw:
    """The demonstration as envs.sim sees it. State t was stored before action t; the one after the last was not."""
    states, actions = _checked(name, demo, env)
    idle = no_ops(np.clip(actions, -1, 1), states, env.unwrapped.model.nq)
    report.count("no-op steps: {} ask for nothing, and nothing moves" + _kept(choices), int(idle.sum()), len(idle))
    kept = np.flatnonzero(~idle) if choices.no_ops == "drop" else np.arange(len(actions))
    kept = kept[kept < len(actions) - 1]  # its outcome was not stored
    spec = Spec.from_spaces(env.observation_space, env.action_space)
    env.reset(seed=0)
    images = _Spool(spool, spec)
    seen: dict[str, list[np.ndarray]] = {key: [] for key in spec.states}
    success = []
    for state in [*states[kept], states[-1]]:
        observation, succeeds = env.unwrapped.show(state)
        observation = own(observation, spec)
        images.add(observation)
        for key, found in seen.items():
            found.append(observation[key])
        success.append(succeeds)
        if succeeds and len(success) > 1:
            break
    steps = len(success) - 1
    if not steps:
        raise FormatError(f"{name}: no step in which anything moves")
    report.count("success: at the end of {} demonstrations, by the simulator's own check", int(success[-1]), 1)
    report.count("cut: {} steps, after the first success or without an outcome", len(kept) + 1 - steps, len(kept) + 1)
    after = np.array(success[1:])
    ended = np.arange(steps) == steps - 1
    columns = {"rewards": after.astype(np.float32), "success": after, "terminated": after, "truncated": ended & ~after}
    columns["times_s"] = states[kept[:steps], 0]
    origin = {
        "robot": env.unwrapped.options.robot,
        "policy": "person",
        "source": {"format": "robosuite", "demo": name.split(": ")[-1], "no_ops": choices.no_ops},
        "start": {"state": states[kept[0]].tolist()},
    }
    meaning = ActionMeaning.from_dict(env.unwrapped.action_meaning)
    observations = {**images.frames(), **{key: np.stack(found) for key, found in seen.items()}}
    return Raw(name, observations, actions[kept[:steps]], columns, origin=origin, meaning=meaning)


def _kept(choices: Choices) -> str:
    return "; dropped" if choices.no_ops == "drop" else "; kept (--no-ops drop leaves them out)"


def no_ops(actions: np.ndarray, states: np.ndarray, nq: int) -> np.ndarray:
    """(T,) bool: steps that ask the arm for nothing, the gripper for what it does already, and move nothing."""
    same_gripper = np.zeros(len(actions), np.bool_)
    same_gripper[1:] = (actions[1:, 6:] == actions[:-1, 6:]).all(axis=1)
    positions = states[:, 1 : 1 + nq]
    moved = np.abs(np.diff(positions, axis=0, append=positions[-1:])).max(axis=1)
    still: np.ndarray = ~actions[:, :6].any(axis=1) & same_gripper & (moved < STILL)
    return still
