"""What attempts at a task came to: success rate, its interval, and what a classifier made of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from agent.run.statistics import wilson


@dataclass(frozen=True)
class Attempt:
    """One episode. success: the environment's own word. classifier_success: the classifier's, where one judges."""

    seed: int
    success: bool
    episode_return: float
    length: int
    video: str | None = None
    classifier_success: bool | None = None


@dataclass(frozen=True)
class Result:
    """Of all attempts. low, high: the 95 % interval of success. classifier_success: see Attempt; its rate."""

    attempts: list[Attempt]
    episodes: int
    success: float
    low: float
    high: float
    episode_return: float
    length: float
    classifier_success: float | None = None

    @classmethod
    def of(cls, attempts: list[Attempt]) -> Result:
        successes = sum(a.success for a in attempts)
        low, high = wilson(successes, len(attempts))
        mean_return, mean_length = fmean(a.episode_return for a in attempts), fmean(a.length for a in attempts)
        words = [a.classifier_success for a in attempts if a.classifier_success is not None]
        judged = fmean(words) if words else None
        return cls(attempts, len(attempts), successes / len(attempts), low, high, mean_return, mean_length, judged)

    def verdicts(self) -> str:
        """What the classifier made of the attempts."""
        wrong = sum(bool(a.classifier_success and not a.success) for a in self.attempts)
        missed = sum(bool(a.success and not a.classifier_success) for a in self.attempts)
        return f"classifier: {self.classifier_success:.2f}; {wrong} wrongly called a success, {missed} successes missed"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `return` is the key, as in log.jsonl."""
        values = dataclasses.asdict(self)
        attempts = [{"return" if k == "episode_return" else k: v for k, v in a.items()} for a in values.pop("attempts")]
        return {"return": values.pop("episode_return"), **values, "attempts": attempts}
