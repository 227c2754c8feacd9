"""What a learner tells its robots of its run, and the check of it: the operator's page beside a robot shows it."""

from __future__ import annotations

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


def read_progress(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a PROGRESS, with printable text of 500 characters at most. Raises WireError.

    figures: {} before the first record, else "updates", of which they are, and those of FIGURES that are finite.
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
    return {**fields, "figures": {"updates": figures["updates"], **finite} if figures else {}, "warnings": warnings}
