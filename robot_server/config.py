"""Settings of a robot server: the section `robot`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agent.options import option


@dataclass
class RobotConfig:
    robot_name: str = option("robot", "this robot's name; unique among the robots of one learner")
    hz: float = option(0.0, "control rate in real time; 0: as fast as the environment goes", low=0)
    seed: int | None = option(
        None, "seed of the first episode, each next one adds 1; empty: drawn at start", low=0, high=2**31
    )
    episodes: int = option(0, "stop after this many episodes; 0: never", low=0)
    max_backlog_steps: int = option(500, "simulation: wait once this many steps could not be sent (no learner)", low=1)
    threads: int = option(1, "CPU threads for the policy", low=1)
    deterministic: bool = option(False, "act with the mean of the policy instead of a sample")
    help_after: int = option(
        0,
        "simulation: from this step of an episode on the scripted expert drives, whoever else does; 0: never",
        low=0,
    )
    spool: str = option("spool", "folder for what the learner has not acknowledged yet")
    spool_gb: float = option(20.0, "limit of the spool: at it the robot waits for the learner", low=0, infinite=True)
    while_away: Literal["act", "wait"] = option(
        "act", "while the learner is away: act with the last policy, or finish the episode and wait"
    )
    reset_address: str = option(
        "", "address of a second learner, whose policy puts the scene back after each episode; empty: none"
    )
    control: str = option(
        "auto",
        "the operator's socket (tools.panel, tools.teleop), on this computer: auto (ipc, named after the robot), "
        "ipc://<path> or tcp://127.0.0.1:<port>; empty: none",
    )
