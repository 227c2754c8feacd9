"""agentlace (github.com/youliangtan/agentlace) beside the link, used as its own example does. Not part of the project.

Its server listens on every interface and unpickles what comes: run it on a machine that strangers do not reach.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from agent.spec import Transition
from tools.common.process import free_port
from tools.common.report import Missing

SENT, RECEIVED = 2000, 300  # transitions in an actor's store (as in SERL), in the learner's for each robot
UPDATE_EVERY = 30  # steps between two `update`s, as in its example


def _load(folder: str) -> tuple[Any, Any]:
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        from agentlace import trainer
        from agentlace.data import data_store
    except ImportError as error:
        raise Missing(f"--agentlace {folder}, a clone of github.com/youliangtan/agentlace: {error}") from None
    return trainer, data_store


def _config(trainer: Any, port: int, broadcast_port: int) -> Any:
    return trainer.TrainerConfig(port_number=port, broadcast_port=broadcast_port, request_types=[])


class Learner:
    """A TrainerServer in a thread, with a queue for each robot. Raises Missing."""

    def __init__(self, folder: str, robots: list[str]) -> None:
        trainer, data_store = _load(folder)
        self.address = folder, free_port(), free_port()
        self._server = trainer.TrainerServer(_config(trainer, *self.address[1:]), log_level=logging.WARNING)
        self._stores = {name: data_store.QueuedDataStore(RECEIVED) for name in robots}
        for name, store in self._stores.items():
            self._server.register_data_store(name, store)
        self._server.start(threaded=True)

    @property
    def steps(self) -> int:
        """Received so far."""
        return sum(store.latest_data_id() + 1 for store in self._stores.values())

    def publish(self, weights: Mapping[str, np.ndarray]) -> None:
        self._server.publish_network(dict(weights))

    def close(self) -> None:
        self._server.req_rep_server.is_kill = True  # its thread ends at the next timeout
        self._server.thread.join(5.0)


class Actor:
    """A TrainerClient and its queue. The weights come in a thread of its own."""

    def __init__(self, name: str, folder: str, port: int, broadcast_port: int) -> None:
        trainer, data_store = _load(folder)
        self._store = data_store.QueuedDataStore(SENT)
        config = _config(trainer, port, broadcast_port)
        self._client = trainer.TrainerClient(
            name, "127.0.0.1", config, self._store, log_level=logging.WARNING, wait_for_server=True, timeout_ms=20_000
        )
        self._came_s = 0.0
        self._client.recv_network_callback(self._on_weights)

    def episode(self, steps: list[Transition], after: Callable[[], object] = lambda: None) -> None:
        """Insert and send `steps`; an observation and the next one are the same object, as in its example."""
        for number, step in enumerate(steps):
            following = step.final_observation or steps[number + 1].observation
            self._store.insert(
                {
                    "observations": step.observation,
                    "actions": step.action,
                    "next_observations": following,
                    "rewards": step.reward,
                    "masks": 1.0 - step.terminated,
                }
            )
            if (number + 1) % UPDATE_EVERY == 0:
                self._client.update()
            after()
        self._client.update()

    def _on_weights(self, _: Any) -> None:
        self._came_s = time.monotonic()

    def weights_at(self) -> float:
        """When the next weights were there."""
        asked = time.monotonic()
        while self._came_s < asked:
            time.sleep(0.0001)
        return self._came_s

    def close(self) -> None:
        self._client.stop()
