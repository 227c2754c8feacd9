"""An episode as its source has it (Raw) -> an Episode of ours, by the person's choices."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from agent.action_meaning import ActionMeaning
from agent.data.frames import Frames, span
from agent.spec import ACTION_LIMIT, STEP_COLUMNS, Episode, UserError
from tools.formats.common.actions import sentence, with_meaning
from tools.formats.common.foreign import Choices, FormatError, Raw, Report
from tools.formats.common.pictures import resized

SIMPLE = [  # what a source need not have
    "policy_versions",
    "interventions",
    "times_s",
    "observation_ages_s",
    "action_latencies_s",
]


def to_episode(raw: Raw, choices: Choices, report: Report) -> Episode:
    """`raw` as an Episode. Raises UserError where the source leaves open what the person has not decided."""
    actions = _actions(raw, choices, report)
    observations = _observations(raw, choices, report)
    columns = dict(raw.columns)
    steps = len(actions)
    if any(len(rows) not in (steps, steps + 1) for rows in observations.values()):
        raise FormatError(f"{raw.name}: {steps} actions, but observations of other lengths")
    if any(len(rows) == steps for rows in observations.values()):
        if choices.final == "drop":
            report.say("final observation: not in the source, so the last action of each episode was left out")
            steps -= 1
            actions, columns = actions[:steps], _head(columns, steps)
        else:
            report.say("final observation: not in the source; the one before the last action stands in its place")
    if steps < 1:
        raise FormatError(f"{raw.name}: no steps")
    observations = {key: rows if len(rows) > steps else _repeated(rows) for key, rows in observations.items()}
    if raw.dones is not None and (early := np.count_nonzero(raw.dones[: steps - 1])):
        report.count("ends inside an episode: {} steps say 'done' before the last; ignored", int(early), steps)
    rewards = _rewards(raw.name, columns, steps, choices, report)
    success = _success(raw.name, columns, rewards, choices, report)
    if choices.reward == "success":
        rewards = success.astype(np.float32)
        report.say("rewards: 1 where there is a success, else 0, as requested (the source's own are not used)")
    if "terminated" in columns and "truncated" in columns:
        terminated, truncated = (np.array(columns[name], np.bool_) for name in ("terminated", "truncated"))
        truncated[-1] |= not terminated[-1]
    else:  # ends: by success, or by a clock or a person
        terminated, truncated = np.zeros(steps, np.bool_), np.zeros(steps, np.bool_)
        terminated[-1] = success[-1]
        truncated[-1] = not success[-1]
    if choices.end != "source" and success.any():
        which, found = ("first", 0) if choices.end == "success" else ("last", -1)
        kept = int(np.flatnonzero(success)[found]) + 1
        report.count(f"cut: {{}} steps, after the {which} success", steps - kept, steps)
        steps, observations = kept, {key: span(rows, 0, kept + 1) for key, rows in observations.items()}
        actions, rewards, success = actions[:steps], rewards[:steps], success[:steps]
        terminated, truncated, columns = np.arange(steps) == steps - 1, np.zeros(steps, np.bool_), _head(columns, steps)
    meta = raw.meta if raw.meta is not None else _meta(raw, choices)
    source = raw.meaning if raw.meta is None else ActionMeaning()
    scaled = choices.action_range if choices.actions == "scale" else None
    meta, meaning = with_meaning(meta, source, actions.shape[1], scaled, choices.action_kind)
    report.say(sentence(meaning))
    others = {name: np.asarray(columns.get(name, np.zeros(steps)), STEP_COLUMNS[name]) for name in SIMPLE}
    return Episode(
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
        success=success,
        meta=meta,
        **others,
    )


def at_successes(episode: Episode) -> list[Episode]:
    """An episode that ends in a success, as one for each success in it: every such step is terminal.

    Its steps, ends and returns are those of the authors' Adroit demonstrations (Nakamoto et al. 2023, code), which have
    terminal steps inside an episode.
    """
    ends = np.flatnonzero(episode.success) + 1
    columns = [field.name for field in dataclasses.fields(Episode) if field.name not in ("observations", "meta")]
    pieces = []
    for first, end in zip([0, *ends], ends, strict=False):
        observations = {key: span(rows, first, end + 1) for key, rows in episode.observations.items()}
        arrays = {name: getattr(episode, name)[first:end] for name in columns}
        arrays["terminated"] = np.arange(first, end) == end - 1
        pieces.append(dataclasses.replace(episode, observations=observations, **arrays))
    return pieces or [episode]


def _repeated(rows: Any) -> Any:
    return rows.followed_by() if isinstance(rows, Frames) else np.concatenate([rows, rows[-1:]])


def _head(columns: Mapping[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
    return {name: rows[:steps] for name, rows in columns.items()}


def _meta(raw: Raw, choices: Choices) -> dict[str, Any]:
    meta = dict(raw.origin)
    if choices.env is not None:
        meta["env"] = choices.env.to_dict()
    if choices.actions == "scale" and choices.action_range is not None:
        meta["action_range"] = np.asarray(choices.action_range, np.float64).tolist()
    return meta


def _actions(raw: Raw, choices: Choices, report: Report) -> np.ndarray:
    actions = np.asarray(raw.actions)
    if actions.dtype.kind not in "fiu" or not len(actions):
        what = f"actions are {actions.dtype}; numbers are needed" if len(actions) else "no steps"
        raise FormatError(f"{raw.name}: {what}")
    if actions.dtype.kind in "iu":
        report.say(f"actions: {actions.dtype} in the source, taken as continuous numbers")
        actions = actions.astype(np.float64)
    actions = actions.reshape(len(actions), -1)
    if not np.isfinite(actions).all():
        raise FormatError(f"{raw.name}: actions that are not finite")
    if choices.actions == "scale" and choices.action_range is not None:
        low, high = choices.action_range
        span = np.where(high > low, high - low, 1)
        centred = np.where(high > low, 2 * (actions - low) / span - 1, 0)
        outside = int((np.abs(centred) > ACTION_LIMIT).sum())
        report.count("actions: {} values lay outside the range and were clipped", outside, actions.size)
        return np.clip(centred, -1, 1).astype(np.float32)
    beyond = np.abs(actions) > ACTION_LIMIT
    if beyond.any() and choices.actions != "clip":
        reach = np.abs(actions).max()
        raise UserError(
            f"{raw.name}: actions reach {reach:.3g}; --actions clip or --actions scale brings them to [-1, 1]"
        )
    if choices.actions == "clip":
        report.count("actions: {} values lay outside [-1, 1] and were clipped", int(beyond.sum()), actions.size)
        actions = np.clip(actions, -1, 1)
    return actions.astype(np.float32)


def _observations(raw: Raw, choices: Choices, report: Report) -> dict[str, np.ndarray]:
    kept: dict[str, np.ndarray] = {}
    for source, rows in raw.observations.items():
        name = choices.rename.get(source, source)
        if source in choices.drop:
            report.list("dropped, as requested", source)
            continue
        if rows.dtype == np.uint8 and rows.ndim == 4 and rows.shape[3] == 3:
            rows = resized(rows, choices.resize)
        elif rows.dtype.kind in "fiub" and rows.ndim <= 2 and rows.dtype != np.uint8:
            if rows.dtype != np.float32:
                report.list(f"rounded from {rows.dtype} to float32", source)
            rows = rows.reshape(len(rows), -1).astype(np.float32)
        else:
            report.list("dropped, neither an RGB image nor a vector", f"{source} ({rows.dtype} {list(rows.shape[1:])})")
            continue
        if name in kept:
            raise UserError(f"{raw.name}: two observations would be called '{name}'")
        if name != source:
            report.list("renamed", f"{source} is {name}")
        kept[name] = rows
    if not kept:
        raise UserError(f"{raw.name}: no observation is left")
    return kept


def _rewards(name: str, columns: Mapping[str, np.ndarray], steps: int, choices: Choices, report: Report) -> np.ndarray:
    if "rewards" in columns and choices.reward in (None, "success"):
        return np.asarray(columns["rewards"], np.float32)
    if choices.reward == "success":
        return np.zeros(steps, np.float32)
    if choices.reward is None:
        raise UserError(
            f"{name}: no rewards in it; --reward sparse-at-end (1 at the last step, a success), --reward success (1 "
            "where there is a success) or --reward zero says what they were"
        )
    was = " (the source's own are not used)" if "rewards" in columns else ""
    said = "1 at the last step of each episode" if choices.reward == "sparse-at-end" else "0 at every step"
    report.say(f"rewards: {said}, as requested{was}")
    rewards = np.zeros(steps, np.float32)
    rewards[-1] = choices.reward == "sparse-at-end"
    return rewards


def _success(
    name: str, columns: Mapping[str, np.ndarray], rewards: np.ndarray, choices: Choices, report: Report
) -> np.ndarray:
    asked = choices.success or ("end" if choices.reward == "sparse-at-end" else None)
    if asked is None and "success" in columns:
        return np.asarray(columns["success"], np.bool_)
    if asked is None:
        raise UserError(
            f"{name}: it does not say which episodes succeeded; --success end (all, at their last step), never, or a "
            "number (where the reward reaches it) does"
        )
    success = np.zeros(len(rewards), np.bool_)
    if asked == "end":
        success[-1] = True
        report.say("success: at the last step of each episode, as requested")
    elif asked == "never":
        report.say("success: never, as requested")
    else:
        success = rewards >= float(asked)
        report.say(f"success: where the reward is {float(asked):g} or more, as requested")
    return success


def renamed(episode: Episode, choices: Choices, report: Report) -> Episode:
    """An episode of ours on its way out, under the names that were asked for."""
    observations = _observations(Raw("episode", episode.observations, episode.actions), choices, report)
    return dataclasses.replace(episode, observations=observations)
