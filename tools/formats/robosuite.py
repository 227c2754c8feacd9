"""robosuite's own recordings (collect_human_demonstrations): simulator states and actions, no images.

The states are put into today's model of the task, not into the stored XML (meshes were renamed between versions), and
what envs.sim sees there is the observation: the result trains together with our own demonstrations and goes on online.
Rewards and success are the simulator's judgement of each state; an episode ends, as in envs.sim, at its first success.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agent.hdf5 import check_memory
from agent.progress import Progress
from agent.spec import Episode, Spec, UserError
from agent.stepping import own
from envs.sim import STEP_M, STEP_RAD, TASKS
from tools.formats.foreign import Choices, FormatError, Raw, Report, hdf5, to_episode
from tools.formats.robomimic import demos
from tools.rollout import env_record, make_env

STILL = 1e-3  # rad or m: no joint and no object moved further in a step
DEFAULT_HZ = 20.0  # robosuite's


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


def read(path: Path, choices: Choices, report: Report) -> Iterator[Episode]:
    path = next(path.glob("*.hdf5")) if path.is_dir() else path
    with hdf5(path) as file:
        found = demos(file, path)
        info = info_of(file["data"].attrs, path)
        longest = max(len(demo["actions"]) for _, demo in found)
        options = sim_options(path, info, longest, choices.sim)
        version = file["data"].attrs.get("repository_version", "unknown")
        report.say(
            f"robosuite {version}: {options['task']}, {options['robot']}, {options['control_hz']:g} Hz; its states are "
            f"shown in today's model of the task"
        )
        actions = choices.actions or "clip"  # as robosuite's controller does
        choices = dataclasses.replace(choices, actions=actions, env=env_record("sim", options))
        with contextlib.closing(make_env("sim", options)) as env, Progress(len(found), "render", "demos") as progress:
            for number, (name, demo) in enumerate(found):
                check_memory(demo)
                for unused in _unused(demo):
                    report.list("dropped", unused)
                yield to_episode(_shown(f"{path}: {name}", demo, env, choices, report), choices, report)
                progress.show(number + 1)


def _unused(demo: h5py.Group) -> list[str]:
    return [*sorted(set(demo) - {"states", "actions"}), *sorted(f"attribute {name}" for name in demo.attrs)]


def info_of(attributes: Any, path: Path) -> dict[str, Any]:
    """env_info, with the task's name in it. Files of robosuite 1.0 to 1.5 have both; older ones the name alone."""
    try:
        info = json.loads(attributes.get("env_info", "{}"))
        name = info.get("env_name") or attributes["env"]
    except (KeyError, ValueError, TypeError):
        raise FormatError(f"{path}: does not say which task it is (attributes env and env_info)") from None
    return {**info, "env_name": str(name)}


def sim_options(path: Path, info: dict[str, Any], longest: int, asked: dict[str, Any]) -> dict[str, Any]:
    """Options of envs.sim under which the recording's actions mean what they meant. Raises UserError where none do."""
    tasks = {robosuite: task for task, (robosuite, _) in TASKS.items()}
    if info["env_name"] not in tasks:
        raise UserError(f"{path}: task '{info['env_name']}' is none of {', '.join(tasks)}")
    robots = info.get("robots", "Panda")
    robots = [robots] if isinstance(robots, str) else list(robots)
    if len(robots) != 1:
        raise UserError(f"{path}: {len(robots)} robots; recordings of one arm can be shown")
    _check_controller(path, info.get("controller_configs"))
    options = {
        "task": tasks[info["env_name"]],
        "robot": robots[0],
        "action": "pose",
        "control_hz": float(info.get("control_freq", DEFAULT_HZ)),
        "horizon": longest,
    }
    for key in ("task", "robot", "action"):
        if asked.get(key, options[key]) != options[key]:
            raise UserError(f"{path}: --{key} {asked[key]}, but it was recorded with {options[key]}")
    return {**options, **asked}


def _check_controller(path: Path, config: Any) -> None:
    """Raise UserError unless an action of 1 asked for what it asks for in envs.sim."""
    if not config:
        return
    parts = config.get("body_parts", {})
    arm = parts.get("right") or parts.get("arms", {}).get("right") or config
    reach = [STEP_M] * 3 + [STEP_RAD] * 3
    delta = arm.get("control_delta", arm.get("input_type", "delta") == "delta")
    if arm.get("type") != "OSC_POSE" or not delta or not np.allclose(arm.get("output_max", reach), reach):
        kind = arm.get("type")
        raise UserError(f"{path}: its controller is {kind}, not OSC_POSE with relative steps of 5 cm and 0.5 rad")


def _shown(name: str, demo: h5py.Group, env: Any, choices: Choices, report: Report) -> Raw:
    """The demonstration as envs.sim sees it. State t was stored before action t; the one after the last was not."""
    states, actions = demo["states"][()], demo["actions"][()].astype(np.float64)
    if len(states) != len(actions) or not len(states):
        raise FormatError(f"{name}: {len(states)} states and {len(actions)} actions")
    if actions.shape[1] != env.action_space.shape[0]:
        raise FormatError(
            f"{name}: {actions.shape[1]} numbers in an action, {env.action_space.shape[0]} in today's task"
        )
    idle = no_ops(np.clip(actions, -1, 1), states, env.unwrapped.model.nq)
    report.count("no-op steps: {} ask for nothing, and nothing moves" + _kept(choices), int(idle.sum()), len(idle))
    kept = np.flatnonzero(~idle) if choices.no_ops == "drop" else np.arange(len(actions))
    kept = kept[kept < len(actions) - 1]  # its outcome was not stored
    spec = Spec.from_spaces(env.observation_space, env.action_space)
    env.reset(seed=0)
    seen, success = [], []
    for state in [*states[kept], states[-1]]:
        try:
            observation, succeeds = env.unwrapped.show(state)
        except ValueError as error:
            raise FormatError(f"{name}: {error}") from None
        seen.append(own(observation, spec))
        success.append(succeeds)
        if succeeds and len(seen) > 1:
            break
    steps = len(seen) - 1
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
    observations = {key: np.stack([row[key] for row in seen]) for key in seen[0]}
    return Raw(name, observations, actions[kept[:steps]], columns, origin=origin)


def _kept(choices: Choices) -> str:
    return "; dropped" if choices.no_ops == "drop" else "; kept (--no-ops drop leaves them out)"


def no_ops(actions: np.ndarray, states: np.ndarray, nq: int) -> np.ndarray:
    """(T,) bool: steps that ask the arm for nothing, the gripper for what it does already, and move nothing."""
    same_gripper = np.zeros(len(actions), np.bool_)
    same_gripper[1:] = (actions[1:, 6:] == actions[:-1, 6:]).all(axis=1)
    positions = states[:, 1 : 1 + nq]
    moved = np.abs(np.diff(positions, axis=0, append=positions[-1:])).max(axis=1)
    return ~actions[:, :6].any(axis=1) & same_gripper & (moved < STILL)
