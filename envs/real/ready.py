"""Whether the scene is ready for the next episode, as a classifier of camera images sees it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from envs.reward_classifier import SuccessClassifier

PROMPT = "put the scene back"

log = logging.getLogger(__name__)


class Ready:
    """path: of a file of tools.train_reward, trained on scenes that are ready ("success") and scenes that are not.

    Raises ValueError, one line, for a damaged file; `check` for cameras that the environment has not.
    """

    def __init__(self, path: str) -> None:
        self._classifier = SuccessClassifier.load(path)
        self._recent = self._classifier.recent()

    def check(self, space: gymnasium.Space[Any]) -> None:
        self._classifier.check(space)

    def begin(self) -> None:
        """An episode whose success is that the scene is ready."""
        self._recent.reset()

    def shown(self, observation: Mapping[str, np.ndarray]) -> bool:
        """Whether that episode is one after this observation: k of the last n frames must show it."""
        return self._recent.add(self._classifier.probability(observation))

    def ensure(
        self, observe: Callable[[], Mapping[str, np.ndarray]], ask: Callable[[str], object], prompt: str
    ) -> None:
        """Ask a person only where the scene is not ready; once more where it is still not. Then the person is right.

        observe: what is seen next, each time it is called.
        """
        for again in ("", " (the cameras still show a scene that is not ready; Resume again to go on)"):
            recent, seen = self._classifier.recent(), list[float]()
            while len(seen) < self._classifier.n:
                seen.append(self._classifier.probability(observe()))
                ready = recent.add(seen[-1])
            if ready:
                return
            what = ", ".join(f"{each:.2f}" for each in seen)
            log.info("the scene is not ready (%s, threshold %.2f)", what, self._classifier.threshold)
            ask(f"{prompt or PROMPT}{again}")
