"""What a learner tells its robots of its run, and the check of it: the operator's page beside a robot shows it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from agent.wire.bad_messages import shown
from agent.wire.untrusted import WireError, kind_of

STAGES = ("warmup", "online", "finished")
FIGURES = (  # of a record of updates (agent.run.update_report); those that a run has
    "td_loss",
    "cql_difference",
    "actor_loss",
    "bc_loss",
    "q_data",
    "q_policy",
    "return_to_go",
    "entropy",
    "alpha",
    "updates_per_s",
    "env_steps_per_s",
)
MAX_WARNINGS = 5
CURVES = ("recorded_action", "policy_action", "return_to_go")  # along an episode: agent.calql.values
MAX_POINTS = 100  # of such a curve


def read_progress(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a PROGRESS, with printable text of 500 characters at most. Raises WireError.

    figures: {} before the first record, else "updates", of which they are, and those of FIGURES that are finite.
    newest_episode: of the robot that is told, {} before; see _check_episode.
    """
    if fields["stage"] not in STAGES:
        raise WireError(f"PROGRESS: stage is {kind_of(fields['stage'])}")
    for name in ("seconds_left", "checkpoint_age_s"):
        if not math.isfinite(fields[name]):
            raise WireError(f"PROGRESS: '{name}' is {fields[name]}")
    figures = fields["figures"]
    if figures and (type(figures.get("updates")) is not int or figures["updates"] < 0):
        raise WireError(f"PROGRESS: figures of {kind_of(figures.get('updates'))} updates")
    known = {name: figures[name] for name in FIGURES if type(figures.get(name)) is float}
    finite = {name: value for name, value in known.items() if math.isfinite(value)}
    warnings = [shown(line) for line in fields["warnings"][:MAX_WARNINGS]]
    if fields["newest_episode"]:
        _check_episode(fields["newest_episode"])
    return {**fields, "figures": {"updates": figures["updates"], **finite} if figures else {}, "warnings": warnings}


def _check_episode(told: Mapping[str, Any]) -> None:
    """Raise WireError unless it is {"number", "updates", "success", "steps", one list for each of CURVES}.

    steps: some of the episode's, in ascending order, MAX_POINTS at most; the lists have a finite number for each.
    updates: of the critics when they were asked.
    """
    if told.keys() != {"number", "updates", "success", "steps", *CURVES}:
        raise WireError("PROGRESS: newest_episode has other fields")
    counts = (told["number"], told["updates"], *told["steps"]) if type(told["steps"]) is list else (None,)
    if not all(type(count) is int and count >= 0 for count in counts) or type(told["success"]) is not bool:
        raise WireError("PROGRESS: newest_episode has no number, steps, updates or success")
    steps = told["steps"]
    if len(steps) > MAX_POINTS or any(later <= earlier for earlier, later in itertools.pairwise(steps)):
        raise WireError(f"PROGRESS: newest_episode has steps that do not ascend, or more than {MAX_POINTS}")
    for name in CURVES:
        values = told[name]
        if type(values) is not list or len(values) != len(steps):
            raise WireError(f"PROGRESS: newest_episode has {kind_of(values)} as '{name}' of {len(steps)} steps")
        if not all(type(value) is float and math.isfinite(value) for value in values):
            raise WireError(f"PROGRESS: newest_episode has a '{name}' that is no finite number")
