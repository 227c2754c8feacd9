"""Success and reward from camera images: a small classifier, trained by tools.train_reward, in the environment's place.

Its file says which cameras it looks at, from which probability on a frame shows a success, and that k of the last n
frames must. Needs torch, which is loaded with the file and not before.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from envs.base import Info, Observation

KIND, FORMAT = "success classifier", 1
MOST_CAMERAS = 16
CHANNELS, STRIDES, GRID, HIDDEN = (16, 32, 32, 32), (2, 2, 2, 1), 8, 64


def network(cameras: Mapping[str, tuple[int, int, int]]) -> Any:
    """An untrained torch.nn.Module: `cameras` (name -> (H, W, 3)), in the order of their names, -> one logit.

    Each camera has four convolutions, averaged over a grid of 8 x 8: where something is, is what tells. Called with a
    list of uint8 (B, H, W, 3) tensors, it answers (B,).
    """
    import torch
    from torch import Tensor, nn

    def eye() -> nn.Module:
        layers: list[nn.Module] = []
        for inputs, outputs, stride in zip((3, *CHANNELS), CHANNELS, STRIDES):
            layers += [nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.GroupNorm(4, outputs), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(GRID), nn.Flatten())

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.eyes = nn.ModuleList(eye() for _ in cameras)
            width = len(cameras) * CHANNELS[-1] * GRID**2
            self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

        def forward(self, images: list[Tensor]) -> Tensor:
            seen = [eye(x.permute(0, 3, 1, 2).float() / 127.5 - 1) for eye, x in zip(self.eyes, images, strict=True)]
            scores: Tensor = self.head(torch.cat(seen, -1)).squeeze(-1)
            return scores

    return Network()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: with more, rounding depends on their number, and for small work they wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class KofN:
    """Whether at least k of the last n values were at or above the threshold."""

    def __init__(self, threshold: float, k: int, n: int) -> None:
        if not 1 <= k <= n:
            raise ValueError(f"k is {k} and n is {n}; it must be 1 <= k <= n")
        self.threshold, self.k = threshold, k
        self._last: deque[bool] = deque(maxlen=n)

    def reset(self) -> None:
        """A new episode."""
        self._last.clear()

    def add(self, probability: float) -> bool:
        """One more frame; the word after it."""
        self._last.append(probability >= self.threshold)
        return sum(self._last) >= self.k


class SuccessClassifier:
    """A trained network and what goes with it. cameras: name -> (H, W, 3). report: JSON-able, how it was measured."""

    def __init__(
        self,
        network: Any,
        cameras: Mapping[str, tuple[int, int, int]],
        threshold: float = 0.5,
        k: int = 3,
        n: int = 3,
        report: dict[str, Any] | None = None,
        name: str = "the classifier",
    ) -> None:
        self.network, self.cameras = network.eval(), dict(sorted(cameras.items()))
        self.threshold, self.k, self.n, self.report, self.name = threshold, k, n, report or {}, name
        self.recent()

    def recent(self) -> KofN:
        """What decides from one frame to the next; raises ValueError for a k and n that make no sense."""
        return KofN(self.threshold, self.k, self.n)

    def probabilities(self, images: Mapping[str, np.ndarray]) -> np.ndarray:
        """Of success: uint8 (B, H, W, 3) for each camera -> float32 (B,)."""
        import torch

        with torch.inference_mode():
            rows = [torch.from_numpy(np.ascontiguousarray(images[name])) for name in self.cameras]
            return torch.sigmoid(self.network(rows)).numpy()

    def probability(self, observation: Mapping[str, np.ndarray]) -> float:
        """Of one observation, which may have other keys too."""
        with one_thread():
            return float(self.probabilities({name: observation[name][None] for name in self.cameras})[0])

    def check(self, space: gymnasium.Space[Any]) -> None:
        """Raise ValueError, one line naming the file and the camera, unless `space` has its cameras in their shapes."""
        boxes = getattr(space, "spaces", {})
        for name, shape in self.cameras.items():
            if name not in boxes:
                there = ", ".join(key for key, box in boxes.items() if len(box.shape or ()) == 3) or "none"
                raise ValueError(f"{self.name}: it looks at camera '{name}', which the environment has not: {there}")
            if tuple(boxes[name].shape) != shape or boxes[name].dtype != np.uint8:
                found = f"{boxes[name].dtype}{list(boxes[name].shape)}"
                raise ValueError(f"{self.name}: camera '{name}' is {found} here, uint8{list(shape)} in the file")

    def contents(self) -> dict[str, Any]:
        """What its file holds, for torch.save; see load."""
        cameras = {name: list(shape) for name, shape in self.cameras.items()}
        rule = {"threshold": self.threshold, "k": self.k, "n": self.n, "report": self.report}
        return {"kind": KIND, "format": FORMAT, "cameras": cameras, "weights": self.network.state_dict(), **rule}

    @classmethod
    def load(cls, path: str | Path) -> SuccessClassifier:
        """Raises ValueError, one line naming the file, for one that is missing, damaged or something else."""
        import torch

        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file")
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
                packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
                if packed or sum(entry.file_size for entry in entries) > Path(path).stat().st_size:
                    raise ValueError("it unpacks to more than its size")
                if broken := archive.testzip():  # torch.load does not look at the checksums
                    raise ValueError(f"{broken} is damaged")
                programs = [archive.read(entry) for entry in entries if entry.filename.endswith("data.pkl")]
                if any(b"bytearray" in program for program in programs):  # torch allows it, of any size
                    raise ValueError("'bytearray' in it")
                if any(entry.external_attr for entry in entries):  # torch.load reads zeros for what is called a folder
                    raise ValueError("its table of contents is damaged")
            data = torch.load(path, map_location="cpu", weights_only=True)
            if data.get("kind") != KIND or data.get("format") != FORMAT:
                raise ValueError("made by another program or release")
            cameras = {str(k): (int(h), int(w), int(c)) for k, (h, w, c) in data["cameras"].items()}
            if len(cameras) > MOST_CAMERAS:
                raise ValueError(f"{len(cameras)} cameras; {MOST_CAMERAS} are the most")
            made = network(cameras)
            made.load_state_dict(data["weights"])
            rule = (float(data["threshold"]), int(data["k"]), int(data["n"]))
            return cls(made, cameras, *rule, dict(data["report"]), str(path))
        except Exception as error:  # a foreign or damaged file fails in many ways; each is the file's fault
            reason = " ".join(str(error).split())[:120]
            raise ValueError(f"{path}: not a classifier of tools.train_reward, or damaged: {reason}") from None


def _horizon(env: gymnasium.Env) -> int | None:
    """The time limit of one of our own environments; those can also be stepped on after a success, others cannot."""
    return getattr(getattr(env.unwrapped, "options", None), "horizon", None)


class ClassifierReward(gymnasium.Wrapper):
    """The classifier's word is the environment's: reward 1 and the episode's end when k of the last n frames say so,
    else reward 0. What the environment itself takes for a success neither pays nor ends anything.

    info: "success", the classifier's word; "success_probability", of this frame; "true_success", the environment's own
    word, for those who measure. The time limit still truncates, an end that is no success still terminates. An
    environment that cannot go on after its own success is truncated there.
    Raises ValueError, naming file and camera, when the environment has not the cameras that the classifier looks at.
    """

    def __init__(self, env: gymnasium.Env, classifier: SuccessClassifier) -> None:
        super().__init__(env)
        classifier.check(env.observation_space)
        self._classifier, self._recent = classifier, classifier.recent()
        self._horizon, self._steps = _horizon(env), 0

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Observation, Info]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._recent.reset()
        self._steps = 0
        return observation, {**info, "true_success": bool(info.get("success", False)), "success": False}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, Info]:
        observation, reward, ended, truncated, info = self.env.step(action)
        if getattr(self.unwrapped, "resetting", False):  # another task, which this classifier knows nothing about
            return observation, float(reward), ended, truncated, info
        self._steps += 1
        true_success = bool(info.get("success", False))
        probability = self._classifier.probability(observation)
        success = self._recent.add(probability)
        terminated = success or bool(ended and not true_success)
        over = ended if self._horizon is None else self._steps >= self._horizon
        words = {"success": success, "success_probability": probability, "true_success": true_success}
        return observation, float(success), terminated, bool(not terminated and (truncated or over)), {**info, **words}


class AfterSuccess(gymnasium.Wrapper):
    """The episode goes on for `steps` after the environment's first success, and terminates then: more frames of it.

    Rewards and info["success"] are the environment's, step by step. Raises ValueError for one that cannot go on.
    """

    def __init__(self, env: gymnasium.Env, steps: int) -> None:
        super().__init__(env)
        horizon = _horizon(env)
        if horizon is None:
            raise ValueError("after_success: this environment cannot be stepped on after its success")
        if steps < 0:
            raise ValueError(f"after_success is {steps}; it must be 0 or more")
        self._after, self._horizon = steps, horizon
        self._steps, self._succeeded = 0, 0

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Observation, Info]:
        self._steps, self._succeeded = 0, 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, Info]:
        observation, reward, ended, truncated, info = self.env.step(action)
        self._steps += 1
        success = bool(info.get("success", False))
        if not self._succeeded and success:
            self._succeeded = self._steps
        late = bool(self._succeeded and self._steps - self._succeeded >= self._after)
        terminated = bool(late or (ended and not success))
        over = truncated or self._steps >= self._horizon
        return observation, float(reward), terminated, bool(over and not terminated), info
