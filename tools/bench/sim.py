"""What a simulator step costs, and where it goes.

  python -m tools.bench.sim [--json FILE] [--steps 60]

Lift, two cameras, 10 Hz control. The kinds take turns, step by step, so that what else the machine does hits all of
them alike. Drawing is measured by itself, on the state that the step just left; physics and controller are a step
without cameras, and once more under robosuite's own control (envs.osc). Then the other tasks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np

import envs
from envs.rendering import Cameras
from tools.common.report import Report, parser

LIFT = {"task": "Lift", "control_hz": 10.0, "horizon": 1_000_000}
NEW_EPISODE_EVERY = 20  # steps, as long as an episode that succeeds
WARM_UP = 3


def seconds(work: Callable[..., object], *arguments: Any) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def step_times(kinds: dict[str, Any], count: int, after: Callable[[], None] = lambda: None) -> dict[str, list[float]]:
    """Seconds of `count` steps of each environment, in turn, from the same seeds with the same actions."""
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for step in range(-WARM_UP, count):
        action = rng.uniform(-0.5, 0.5, 7).astype(np.float32)
        for name, env in kinds.items():
            if step % NEW_EPISODE_EVERY == 0 or step == -WARM_UP:
                env.reset(seed=step + WARM_UP)
            taken = seconds(env.step, action[: env.action_space.shape[0]])
            if step >= 0:
                times[name].append(taken)
        after()
    return times


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--steps", type=int, default=60, help="steps of each kind (60)")
    flags = arguments.parse_args()
    bare = envs.make("sim", cameras=[], **LIFT)
    kinds = {
        "fast": envs.make("sim", **LIFT),
        "stock": envs.make("sim", render="stock", **LIFT),
        "small": envs.make("sim", image_size=64, **LIFT),
        "bare": bare,
    }
    with mock.patch("envs.osc.fits", return_value=False):
        kinds["robosuite's control"] = envs.make("sim", cameras=[], **LIFT)
    names = kinds["fast"].options.cameras
    cameras = {quality: Cameras(bare.model, names, 84, quality) for quality in ("fast", "stock")}
    drawing: dict[str, list[float]] = {quality: [] for quality in cameras}

    def draw() -> None:
        for quality, eyes in cameras.items():
            drawing[quality].append(seconds(eyes.images, bare.data))

    times = step_times(kinds, flags.steps, draw)
    report = Report("simulator step")
    fast = report.add_times("Lift, two 84x84 cameras, fast", times["fast"], target_ms=40.0)
    stock = report.add_times("Lift, two 84x84 cameras, stock", times["stock"])
    report.add("stock / fast", stock / fast, "x")
    report.add_times("Lift, two 64x64 cameras, fast", times["small"])
    bare_ms = report.add_times("of a step: physics and controller", times["bare"])
    robosuites = report.add_times("of a step: physics and robosuite's controller", times["robosuite's control"])
    report.add("robosuite's controller / ours", robosuites / bare_ms, "x")
    for quality, taken in drawing.items():
        report.add_times(f"of a step: drawing two 84x84 images, {quality}", taken[WARM_UP:])
    for made in (*kinds.values(), *cameras.values()):
        made.close()
    for task in ("Can", "Square", "Door", "Stack", "Wipe"):
        env = envs.make("sim", **{**LIFT, "task": task})
        taken = step_times({task: env}, max(10, flags.steps // 2))[task]
        report.add(f"{task}, two 84x84 cameras, fast", 1 / float(np.median(taken)), "steps/s")
        env.close()
    report.finish(flags.json)


if __name__ == "__main__":
    main()
