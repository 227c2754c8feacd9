"""The policy: all of the agent that a robot loads. Encoder and actor, from an observation to an action."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from agent.config import NetworkConfig
from agent.networks import Actor, Encoder, TanhNormal
from agent.spec import Spec


class Policy(nn.Module):
    def __init__(self, spec: Spec, network: NetworkConfig) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = Encoder(spec, network)
        self.actor = Actor(self.encoder.dim, spec.action_dim, network)

    def forward(self, observation: Mapping[str, Tensor]) -> TanhNormal:
        actions: TanhNormal = self.actor(self.encoder(dict(observation)))
        return actions

    @torch.inference_mode()
    def act(self, observation: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
        """One observation (unbatched arrays) -> one action, float32 (A,) in [-1, 1]: a sample, or always the mode."""
        device = self.encoder.state_mean.device
        batch = {key: torch.from_numpy(np.array(observation[key]))[None].to(device) for key in self.spec.keys}
        distribution = self(batch)
        if deterministic:
            action = distribution.mode[0]
        else:
            action = distribution.sample(torch.randn(1, 1, self.spec.action_dim, device=device))[0][0, 0]
        numbers: np.ndarray = action.cpu().numpy().astype(np.float32)
        return numbers

    def warm_up(self) -> None:
        """Act once on zeros: what the first action builds or allocates is there before a control loop begins."""
        images = {name: np.zeros(shape, np.uint8) for name, shape in self.spec.cameras.items()}
        states = {name: np.zeros(size, np.float32) for name, size in self.spec.states.items()}
        self.act({**images, **states}, deterministic=True)

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of every parameter and buffer, as arrays for the wire."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.state_dict().items()}

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """The inverse of weights(). Raises ValueError, changing nothing, for other names or shapes, and for NaN."""
        mine = self.state_dict()
        if set(mine) != set(weights):
            raise ValueError(f"weights have other names: {sorted(set(mine) ^ set(weights))[:4]}")
        for name, value in mine.items():
            if tuple(value.shape) != weights[name].shape:
                raise ValueError(f"weight '{name}' is {weights[name].shape}, expected {tuple(value.shape)}")
            if not np.isfinite(weights[name]).all():
                raise ValueError(f"weight '{name}' is not finite")
        with torch.no_grad():
            for name, value in mine.items():
                value.copy_(torch.as_tensor(np.array(weights[name])))
