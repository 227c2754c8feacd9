"""How long the policy thinks on the robot's CPU: `Policy.act` from two 128x128 cameras, the default network.

  python -m tools.bench.act [--json FILE] [--calls 1000]

One observation in, one action out, frames as the cameras give them. One thread, two, and one with PyTorch's own layers
instead of agent.channel_norm's kernel take turns, a hundred calls at a time. The target is for the 99th percentile:
10 ms, a tenth of a control step at 10 Hz.
"""

from __future__ import annotations

import statistics
import time
from unittest.mock import patch

import numpy as np
import torch

from agent import channel_norm
from agent.config import NetworkConfig
from agent.policy import Policy
from agent.spec import Spec
from tools.common.report import Report, parser

SPEC = Spec({"front": (128, 128, 3), "wrist": (128, 128, 3)}, {"state": 9}, 7)
TURN, WARM_UP = 100, 20


def act_times(policy: Policy, calls: int, rng: np.random.Generator) -> list[float]:
    """Seconds of each call, after some that are not counted."""
    times = []
    for call in range(-WARM_UP, calls):
        observation = {key: rng.integers(0, 256, SPEC.shape(key), dtype=np.uint8) for key in SPEC.cameras}
        observation["state"] = rng.normal(size=9).astype(np.float32)
        began = time.perf_counter()
        policy.act(observation)
        if call >= 0:
            times.append(time.perf_counter() - began)
    return times


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--calls", type=int, default=1000, help="calls for each number of threads (1000)")
    flags = arguments.parse_args()
    torch.manual_seed(0)
    policy, rng = Policy(SPEC, NetworkConfig()).eval(), np.random.default_rng(0)
    usable = channel_norm.usable
    ways = {"1 thread": (1, usable), "2 threads": (2, usable), "1 thread, plain layers": (1, lambda *_: False)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(max(1, flags.calls // TURN)):
        for name, (threads, chosen) in ways.items():
            torch.set_num_threads(threads)
            with patch.object(channel_norm, "usable", chosen):
                times[name] += act_times(policy, TURN, rng)
    report = Report("Policy.act, two 128x128 cameras, small CNN")
    for name, taken in times.items():
        report.add_times(name, taken)
        report.add(f"{name}, 99th percentile", statistics.quantiles(taken, n=100)[98] * 1e3, "ms", 10.0)
    report.finish(flags.json)


if __name__ == "__main__":
    main()
