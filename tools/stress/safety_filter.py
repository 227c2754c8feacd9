"""The safety filter against hostile requests: how many commands and setpoints lie outside of any limit? (0.)

  python -m tools.stress.safety_filter [--commands 1000000] [--seed 0]

Each 10,000 commands have limits of their own, five axes, drawn at random. Every second such arm gets its commands on
time; the others also at the same instant, or late. Of those the setpoints are checked too, with 50 a second, some at
wrong times and some cut off by the motors: each against the time that passed since the one before. The tests use the
same checks on fewer commands, and prove there that they see a filter which does not keep a limit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np

from envs.real.safety_filter import Filter, Limits
from envs.real.setpoints import Setpoints
from tools.common.report import Report, parser

EACH = 10_000
AXES = 5
PERIOD_S = 0.1
SETPOINT_HZ = 50.0


def limits(rng: np.random.Generator) -> Limits:
    """Of any sizes."""
    low = rng.uniform(-2, 1, AXES)
    speed = rng.uniform(0.05, 2, AXES)
    return Limits(
        low=low,
        high=low + rng.uniform(0.01, 3, AXES),
        step=speed * PERIOD_S * rng.uniform(0.3, 3, AXES),
        velocity=speed,
        acceleration=speed * rng.uniform(0.5, 40, AXES),
    )


def requests(rng: np.random.Generator, filter: Filter) -> Iterator[np.ndarray]:
    """For ever: random, far away, jumping, at the limits, NaN."""
    bounds = filter.limits
    while True:
        kind = rng.integers(8)
        if kind == 0:
            yield rng.normal(0, 10, AXES)
        elif kind == 1:
            yield rng.choice([-1e300, 1e300, -np.inf, np.inf, np.nan, 0.0], AXES)
        elif kind == 2:
            yield np.where(rng.random(AXES) < 0.5, bounds.low, bounds.high)
        elif kind == 3:
            yield filter.position + rng.choice([-1, 1], AXES) * bounds.step * rng.uniform(0.9, 1.1)
        elif kind == 4:
            yield filter.position.copy()
        elif kind == 5:
            yield filter.position + filter.velocity * PERIOD_S
        elif kind == 6:
            yield np.nextafter(np.where(rng.random(AXES) < 0.5, bounds.low, bounds.high), rng.choice([-9, 9], AXES))
        else:
            goal = rng.uniform(bounds.low, bounds.high)
            for _ in range(rng.integers(1, 30)):
                yield goal


def violations(
    filter: Filter,
    bounds: Limits,
    steps: int,
    rng: np.random.Generator,
    exact: bool = False,
    source: Iterator[np.ndarray] | None = None,
) -> int:
    """How many of `steps` commands lay outside of any of `bounds`; exact: each comes a period after the last.

    source: of the requests; None: `requests`.
    """
    time_s, found, velocity = 0.0, 0, filter.velocity.copy()
    source = source or requests(rng, filter)
    for _ in range(steps):
        elapsed_s = PERIOD_S if exact else float(rng.choice([PERIOD_S, rng.uniform(0, 3 * PERIOD_S), 0.0, 1e-6]))
        time_s += elapsed_s
        before = filter.position.copy()
        target = filter.target(next(source), time_s)
        counted_s, moved = min(elapsed_s, 1.5 * PERIOD_S), target - before
        bad = ~np.isfinite(target) | (target < bounds.low) | (target > bounds.high)
        bad |= np.abs(moved) > bounds.step * (1 + 1e-9) + 1e-12
        bad |= np.abs(moved) > bounds.velocity * counted_s * (1 + 1e-9) + 1e-12
        if counted_s:
            change, velocity = np.abs(moved / counted_s - velocity), moved / counted_s
            bad |= change > bounds.acceleration * counted_s + 1e-6 * bounds.velocity + 1e-12 / counted_s
        found += int(bad.any())
    return found


def fast_setpoints(filter: Filter, bounds: Limits, steps: int, rng: np.random.Generator) -> tuple[int, int]:
    """(setpoints, how many of them were outside of `bounds` or too fast) on the way to `steps` targets."""
    way, source = Setpoints(SETPOINT_HZ, filter.position), requests(rng, filter)
    time_s, last_s, last, count, found = 0.0, 0.0, filter.position.copy(), 0, 0
    way.rest(last, 0.0)
    for _ in range(steps):
        command_s = time_s + float(rng.choice([PERIOD_S, rng.uniform(0, 3 * PERIOD_S), 1e-6]))
        while time_s < command_s:
            time_s = min(command_s, time_s + float(rng.choice([1 / SETPOINT_HZ, rng.uniform(0, 4 / SETPOINT_HZ)])))
            if time_s == command_s:
                way.lead(filter.target(next(source), time_s), filter.elapsed_s, time_s)
            sent = way.next(time_s)
            if rng.random() < 0.02:  # the motors did not get it
                sent = way.sent
            way.confirm(sent)
            filter.position = way.goal
            moved = np.abs(sent - last)
            bad = ~np.isfinite(sent) | (sent < bounds.low - 1e-9) | (sent > bounds.high + 1e-9)
            bad |= moved > bounds.velocity * (time_s - last_s) * (1 + 1e-9) + 1e-12
            bad |= moved > bounds.step * (1 + 1e-9) + 1e-12
            last, last_s, count, found = sent, time_s, count + 1, found + int(bad.any())
    return count, found


def main() -> int:
    made = parser(__doc__ or "")
    made.add_argument("--commands", type=int, default=1_000_000)
    made.add_argument("--seed", type=int, default=0)
    flags = made.parse_args()
    rng = np.random.default_rng(flags.seed)
    outside, refused, setpoints, fast, begun_s = 0, 0, 0, 0, time.monotonic()
    for arm in range(flags.commands // EACH):
        filter = Filter(limits(rng), PERIOD_S)
        filter.rest(rng.uniform(filter.limits.low, filter.limits.high), 0.0)
        outside += violations(filter, filter.limits, EACH, rng, exact=arm % 2 == 0)
        refused += filter.refused
        if arm % 2:
            filter.rest(rng.uniform(filter.limits.low, filter.limits.high), 0.0)
            sent, wrong = fast_setpoints(filter, filter.limits, EACH, rng)
            setpoints, fast = setpoints + sent, fast + wrong
    arms = flags.commands // EACH
    report = Report(f"safety filter: {arms * EACH:,} hostile requests to {arms} arms")
    report.add("commands outside of any limit", outside, "", 0)
    report.add("setpoints, of half of the arms", setpoints, "")
    report.add("setpoints outside of any limit", fast, "", 0)
    report.add("requests that were NaN", refused, "")
    report.add("time for all, with the checks", time.monotonic() - begun_s, "s")
    report.finish(flags.json)
    return 1 if outside or fast else 0


if __name__ == "__main__":
    sys.exit(main())
