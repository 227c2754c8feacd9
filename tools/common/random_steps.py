"""Episodes of random numbers, the same ones each time; without torch, for processes that are a robot's."""

from __future__ import annotations

import numpy as np

from agent.spec import Observation, Spec, Transition


def random_steps(spec: Spec, count: int, seed: int) -> list[Transition]:
    """The steps of one episode, which ends with a success."""
    rng = np.random.default_rng(seed)

    def observe() -> Observation:
        frames = {key: rng.integers(0, 256, shape, dtype=np.uint8) for key, shape in spec.cameras.items()}
        return {**frames, **{key: rng.normal(size=n).astype(np.float32) for key, n in spec.states.items()}}

    made = []
    for step in range(count):
        last = step == count - 1
        action, after = rng.uniform(-1, 1, spec.action_dim).astype(np.float32), observe() if last else None
        made.append(Transition(observe(), action, float(last), last, False, last, final_observation=after))
    return made
