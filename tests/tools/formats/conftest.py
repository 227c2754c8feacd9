"""Episodes of any shape."""

import numpy as np

from agent.spec import Episode


def made(steps, cameras=(), states=(("proprio", 5),), action_dim=3, seed=0, success=True, meta=None):
    """An episode of smooth pictures (a video keeps those) and random numbers."""
    rng = np.random.default_rng(seed)
    observations = {name: rng.normal(size=(steps + 1, size)).astype(np.float32) for name, size in states}
    for name, (height, width) in cameras:
        rows = np.linspace(0, 200, height)[:, None, None] + np.linspace(0, 50, width)[None, :, None]
        shift = np.arange(steps + 1)[:, None, None, None] + 3 * seed
        observations[name] = (np.repeat(rows, 3, axis=2)[None] + shift).astype(np.uint8)
    last = np.arange(steps) == steps - 1
    return Episode(
        observations=observations,
        actions=rng.uniform(-1, 1, (steps, action_dim)).astype(np.float32),
        rewards=rng.normal(size=steps).astype(np.float32),
        terminated=last & success,
        truncated=last & (not success),
        success=last & success,
        policy_versions=rng.integers(9, size=steps),
        interventions=rng.random(steps) < 0.5,
        times_s=1.7e9 + rng.random(steps).cumsum(),
        observation_ages_s=rng.random(steps, dtype=np.float32),
        action_latencies_s=rng.random(steps, dtype=np.float32),
        meta={"seed": seed, "env": {"name": "sim", "options": {"control_hz": 10.0}}} if meta is None else meta,
    )
