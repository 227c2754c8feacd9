"""tools.evaluate on an arm, from what its flags say to the table."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import envs
from agent.cli import Stop
from agent.env_record import EnvRecord
from agent.files import raise_descriptor_limit, written
from agent.spec import UserError, plural
from envs.base import while_closing
from envs.reward_classifier import one_thread
from robot_server.actor import Acting
from robot_server.config import RobotConfig
from robot_server.control_address import bound
from tools.common.attempts import check_fits
from tools.trials import ledger as ledgers
from tools.trials.desk import KEYS, Desk
from tools.trials.ledger import RESULT_JSON, RESULT_TABLE, Ledger, Settings
from tools.trials.report import summary, table
from tools.trials.session import Trials

if TYPE_CHECKING:
    import gymnasium

    from agent.run.checkpoint import Checkpoint


log = logging.getLogger(__name__)


def evaluate_on_arm(
    checkpoints: Sequence[str | Path],
    env: str,
    options: Mapping[str, Any] | None,
    out: str | Path,
    *,
    episodes: int,
    seed: int,
    order_seed: int | None = None,
    verdict: str = "person",
    stochastic: bool = False,
    other_actions: bool = False,
    end: bool = False,
    robot: RobotConfig | None = None,
) -> tuple[dict[str, Any] | None, int]:
    """Evaluate `checkpoints`, `episodes` of each, blind and in random order; or continue that in the folder `out`.

    order_seed: of the order; None: drawn, or that of `out`. verdict: who judges, "person" or "signal".
    end: the evaluation ends with the episodes that it has. robot: of whose section the control socket and hz are.
    Returns what tools.trials.report.summary does, None while the evaluation has not ended; and the exit code.
    Raises UserError.
    """
    out, robot = Path(out), robot or RobotConfig()
    if not robot.control:
        raise UserError("robot.control is empty: without the operator's socket there is no STOP for this arm")
    made = [_identity(path) for path in checkpoints]
    if twice := {each["file"] for each in made if made.count(each) > 1}:
        raise UserError(f"--ckpt {', '.join(sorted(twice))}: given more than once")
    options = dict(options or {})
    record = EnvRecord(env, options).to_dict()
    drawn = int.from_bytes(os.urandom(4), "big") if order_seed is None else order_seed
    settings = Settings(made, episodes, seed, drawn, verdict, stochastic, record)
    with contextlib.closing(Ledger(out, settings, same_order=order_seed is not None)) as ledger:
        if end and not ledger.trials:
            raise UserError(f"{out}: no episode has a result yet, there is nothing to end")
        code = 0
        if ledger.remaining and not end and not (out / RESULT_JSON).exists():
            code = _run(ledger, env, options, other_actions, robot)
            if ledger.remaining:
                done = ledger.settings.total - len(ledger.remaining)
                print(
                    f"{done} of {plural(ledger.settings.total, 'episode')} done; the same command resumes",
                    file=sys.stderr,
                )
                return None, code
        result = summary(ledger.settings, ledger.trials)
        _write(out / RESULT_JSON, json.dumps(result, indent=1))
        _write(out / RESULT_TABLE, table(result))
        return result, code


def _run(ledger: Ledger, env_name: str, options: dict[str, Any], other_actions: bool, robot: RobotConfig) -> int:
    """Run what remains. Returns the exit code."""
    loaded = [_load(path) for path in ledger.settings.names]
    for path, before in zip(ledger.settings.names, ledger.settings.checkpoints):
        if _identity(path) != before:
            raise UserError(f"{path}: has just been replaced; evaluate a copy, or stop the learner that writes it")
    ledgers.drop_unfinished(ledger.folder / ledgers.VIDEOS)
    raise_descriptor_limit()
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(Stop())
        try:
            desk = stack.enter_context(contextlib.closing(Desk(bound(robot.control, robot.robot_name))))
        except UserError as error:
            raise UserError(f"no STOP for this arm: {error} (in a --config FILE, section 'robot')") from None
        try:
            env = stack.enter_context(contextlib.closing(envs.make(env_name, **options)))
        except ValueError as error:
            raise UserError(f"environment '{env_name}': {error}") from None
        stack.callback(while_closing, env, lambda: stop.at_once or bool(desk.hold_reason), desk.wait)
        stack.callback(stop.closing)
        for name, checkpoint in zip(ledger.settings.names, loaded):
            if elsewhere := check_fits(checkpoint, name, env, env_name, options, other_actions):
                log.warning("%s was trained in another environment (checkpoint first): %s", name, elsewhere)
        check_signal(ledger.settings.verdict, env, options)
        policies: list[Acting] = [checkpoint.policy() for checkpoint in loaded]
        print(KEYS, file=sys.stderr)
        ledger.start()
        with contextlib.suppress(KeyboardInterrupt), one_thread():
            Trials(env, policies, ledger, desk, stop, robot.hz).run()
        return stop.exit_code
    return 0


def check_signal(verdict: str, env: gymnasium.Env, options: Mapping[str, Any]) -> None:
    """Raise UserError where the arm has no success signal that could judge."""
    state = getattr(env.unwrapped, "state", None)
    if verdict == "signal" and not options.get("classifier") and state is not None and state.success is None:
        raise UserError("--verdict signal: this arm reports no success; give --classifier FILE, or --verdict person")


def _identity(path: str | Path) -> dict[str, str]:
    try:
        return {"file": str(path), "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def _load(path: str) -> Checkpoint:
    """Raises UserError for weights that are not finite, too: later it would tell which policy acts."""
    import torch

    from agent.run.checkpoint import load

    checkpoint = load(path)
    if not all(bool(torch.isfinite(value).all()) for value in checkpoint.agent["average"].values()):
        raise UserError(f"{path}: its weights are damaged, some are not finite")
    return checkpoint


def _write(path: Path, text: str) -> None:
    try:
        with written(path) as file:
            file.write(f"{text}\n".encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
