"""What a walker in AntMaze sees and does: the same for all headings, so that a small network learns to walk fast.

The ant has four equal legs. Everything is seen from its body, turned by the quarter that brings the waypoint to within
45 degrees of the front; actions are turned back.
"""

from __future__ import annotations

import numpy as np

FEATURES, ACTIONS = 28, 8
ANKLES = np.array([1.0, -1, -1, 1])  # the joints' axes of the four legs, turned by quarters
CONTROL = [3, 0, 1, 2]  # the legs in the order of the actuators


def turned(vector: np.ndarray, quarter: np.ndarray) -> np.ndarray:
    """(N, 2 or 3) vectors, by so many quarters clockwise."""
    x, y = vector[:, 0], vector[:, 1]
    turns = np.stack([np.stack([x, y], 1), np.stack([y, -x], 1), np.stack([-x, -y], 1), np.stack([-y, x], 1)])
    return np.concatenate([turns[quarter, np.arange(len(x))], vector[:, 2:]], 1)


def features(state: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the policy sees.

    state: (N, 27), the `observation` of AntMaze: height, quaternion, joints, velocities. offset: (N, 2) to the
    waypoint, m. Returns (N, 28) and the quarters (N,) for `action`.
    """
    w, x, y, z = state[:, 1:5].T
    body = np.stack(  # the body's axes in the world
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], 1),
            np.stack([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)], 1),
            np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], 1),
        ],
        1,
    )
    towards = np.einsum("nij,nj->ni", body[:, :2, :2], offset)
    towards = towards / (np.linalg.norm(towards, axis=1, keepdims=True) + 1e-6)
    quarter = np.round(np.arctan2(towards[:, 1], towards[:, 0]) / (np.pi / 2)).astype(int) % 4
    speed = np.einsum("nij,nj->ni", body, state[:, 13:16])
    legs = np.arange(len(state))[:, None], (np.arange(4) + quarter[:, None]) % 4
    parts = [state[:, :1], *(turned(each, quarter) for each in (body[:, :, 2], speed, state[:, 16:19], towards))]
    for joints in (state[:, 5:13], state[:, 19:27]):
        hips, ankles = joints[:, ::2], joints[:, 1::2] * ANKLES
        parts += [hips[legs], ankles[legs]]
    return np.concatenate(parts, 1), quarter


def action(seen: np.ndarray, quarter: np.ndarray) -> np.ndarray:
    """(N, 8) of the actuators, from (N, 8) of the policy: four hips, four ankles."""
    legs = np.arange(len(seen))[:, None], (np.arange(4) - quarter[:, None]) % 4
    hips, ankles = seen[:, :4][legs], seen[:, 4:][legs] * ANKLES
    return np.stack([hips, ankles], 2)[:, CONTROL].reshape(len(seen), 8)
