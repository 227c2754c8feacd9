"""What the tests of both ends of the link send: a small spec, and episodes made of random steps."""

import contextlib
import dataclasses

import numpy as np
import zmq

from agent.spec import Spec, Transition

SPEC = Spec({"front": (8, 8, 3)}, {"state": 3}, 2)
NETWORK = {"features": 16, "channels": [8, 8]}

PULL = {
    **{"have": -1, "ask": 0, "outbox": [], "sent_s": 0.0, "acting": 0},
    **{"unacknowledged": 0, "spooled": 0, "reconnects": 0, "round_trip_s": 0.0},
    **{"steps_timed": 0, "deadlines_missed": 0, "late_p50_s": 0.0, "late_p99_s": 0.0},
}

NEWEST_EPISODE = {
    **{"number": 12, "updates": 120, "success": True, "steps": [0, 20, 40]},
    **{"recorded_action": [0.5, 0.625, 0.75], "policy_action": [0.5, 0.75, 1.0], "return_to_go": [0.25, 0.5, 1.0]},
}
PROGRESS = {
    **{"stage": "online", "updates": 120, "updates_due": 130, "env_steps": 500, "env_steps_wanted": 2000},
    **{"episodes": 12, "seconds_left": 90.0, "checkpoint_age_s": -1.0},
    **{"figures": {"updates": 100, "q_data": 0.4}, "warnings": ["at 40 env steps: Q is far from the returns"]},
    "newest_episode": NEWEST_EPISODE,
}


def tell_progress(mailbox, robot):
    """Have `mailbox` tell the robot of that name PROGRESS."""
    mailbox.progress = {name: value for name, value in PROGRESS.items() if name != "newest_episode"}
    mailbox.newest_episodes = {robot: NEWEST_EPISODE}


def observation(rng):
    return {
        "front": rng.integers(0, 256, (8, 8, 3), dtype=np.uint8),
        "state": rng.normal(size=3).astype(np.float32),
    }


def steps_of(count, seed=0):
    """The transitions of one episode, random but for their order."""
    rng = np.random.default_rng(seed)
    made = [
        Transition(observation(rng), rng.uniform(-1, 1, 2).astype(np.float32), t / 2, False, False, time_s=t + 0.5)
        for t in range(count)
    ]
    made[-1] = dataclasses.replace(made[-1], terminated=True, success=True, final_observation=observation(rng))
    return made


def send_if_connected(socket, frames):
    """Sends what a stranger would: after a refused handshake a socket has no connection left, and waits without end."""
    with contextlib.suppress(zmq.Again):
        socket.send_multipart(frames, zmq.NOBLOCK)
