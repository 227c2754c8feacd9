"""What a simulator step costs, and where it goes.

  python -m tools.bench.sim [--json FILE] [--steps 40]

Lift, two cameras, 10 Hz control, fast and stock look measured in turn in the same run; of it physics and drawing.
"""

from __future__ import annotations

import time

import numpy as np

import envs
from tools.bench.report import Report, parser

ROUNDS = 4


def step_times(env, count: int, seed: int) -> list[float]:
    """Seconds of each of `count` steps."""
    rng, times = np.random.default_rng(seed), []
    env.reset(seed=seed)
    for _ in range(count):
        action = rng.uniform(-0.5, 0.5, env.action_space.shape).astype(np.float32)
        began = time.perf_counter()
        env.step(action)
        times.append(time.perf_counter() - began)
    return times


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--steps", type=int, default=40, help="steps of each kind (40)")
    flags = arguments.parse_args()
    common = {"task": "Lift", "control_hz": 10.0, "horizon": 10_000}
    kinds = {
        "Lift, two 84x84 cameras, fast": envs.make("sim", **common),
        "Lift, two 84x84 cameras, stock": envs.make("sim", render="stock", **common),
        "Lift, two 64x64 cameras, fast": envs.make("sim", image_size=64, **common),
        "Lift, no cameras (physics and controller)": envs.make("sim", cameras=[], **common),
    }
    for env in kinds.values():
        step_times(env, 3, seed=0)  # warm-up
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for round_ in range(ROUNDS):
        for name, env in kinds.items():
            times[name] += step_times(env, max(1, flags.steps // ROUNDS), seed=round_)
    report = Report("simulator step")
    medians = {}
    for name, values in times.items():
        medians[name] = report.add_times(name, values, 40.0 if name.endswith("84x84 cameras, fast") else None)
    fast, stock, _, physics = medians.values()
    report.add("stock / fast", stock / fast, "x")
    report.add("drawing, two 84x84, fast (difference of medians)", (fast - physics) * 1e3, "ms")
    for env in kinds.values():
        env.close()
    for task in ("Can", "Square", "Door", "Stack", "Wipe"):
        env = envs.make("sim", **{**common, "task": task})
        step_times(env, 3, seed=0)
        report.add_times(f"{task}, two 84x84 cameras, fast", step_times(env, max(10, flags.steps // 2), seed=1))
        env.close()
    report.finish(flags.json)


if __name__ == "__main__":
    main()
