"""Settings of recording, and of driving by hand: the section `collect`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from agent.options import option


@dataclass
class CollectConfig:
    episodes: int = option(30, "episodes to add", low=0)
    noise: float = option(0.0, "scripted: standard deviation of the action noise, in action units", low=0)
    failure_rate: float = option(0.0, "scripted: share of deliberate failures", low=0, high=1)
    retry_rate: float = option(0.0, "scripted: share of the others that miss once, then try again", low=0, high=1)
    seed: int = option(0, "seed of the first episode; each next one adds 1", low=0, high=2**31)
    leader: dict[str, Any] = option(
        {}, "device lerobot:<type>: options of that teleoperator, such as {port: /dev/ttyACM1}"
    )
    hz: float = option(0.0, "by hand: steps a second; 0: the environment's own rate, else 20", low=0)
    speed: float = option(
        0.5, "by hand: the hand's speed at full deflection, as a share of what an action can ask", low=0.01, high=1
    )
    rotation_speed: float = option(0.3, "by hand: the same of rotations", low=0, high=1)
    dead_band: float = option(
        0.1, "gamepad, spacemouse: dead zone: share of the deflection that counts as zero", low=0, high=0.9
    )
    smoothing_s: float = option(
        0.05, "by hand: time constant of the motion's rise; a release stops at once", low=0, high=10
    )
    enable_key: bool = option(
        False, "by hand: the arm moves only while the device's enable key is held (keyboard: is on)"
    )
    listen: str = option("127.0.0.1:8080", "browser: where the page is; see tools.panel")
    confirm: bool = option(True, "by hand: an episode that the environment ends waits for your key")
    idle_steps: bool = option(False, "by hand: also make and record the steps before the first motion")
    view: Literal["line", "terminal", "window"] = option(
        "line", "by hand: a status line; with the cameras above it, in the terminal (24-bit colour); or in a window"
    )
