"""The policy: all of the agent that a robot loads. Encoder and actor, from an observation to an action."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from agent.config import NetworkConfig
from agent.critics import Critics
from agent.flow import Flow, FlowActor
from agent.networks import Actor, Encoder, TanhNormal
from agent.spec import Spec


class Policy(nn.Module):
    """critics: what chooses between the samples of a flow; None for a Gaussian."""

    def __init__(self, spec: Spec, network: NetworkConfig, with_critics: bool = True) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = Encoder(spec, network)
        size, flows = network.action_size(spec.action_dim), network.policy == "flow"
        self.actor = (FlowActor if flows else Actor)(self.encoder.dim, size, network)
        self.critics = Critics(self.encoder.dim, size, network) if flows and with_critics else None
        self.chunk, self.candidates = network.chunk, network.candidates if flows else 1

    def forward(self, observation: Mapping[str, Tensor]) -> TanhNormal | Flow:
        actions: TanhNormal | Flow = self.actor(self.encoder(dict(observation)))
        return actions

    def act(self, observation: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
        """One observation (unbatched arrays) -> one action, float32 (A,) in [-1, 1]: the first of a chunk."""
        first: np.ndarray = self.act_chunk(observation, deterministic)[0]
        return first

    @torch.inference_mode()
    def act_chunk(self, observation: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
        """One observation -> the actions that follow, float32 (chunk, A); a sample, or always the same.

        Of several candidates the one with the highest mean of all critics.
        """
        device, size = self.encoder.state_mean.device, self.chunk * self.spec.action_dim
        batch = {key: torch.from_numpy(np.array(observation[key]))[None].to(device) for key in self.spec.keys}
        features = self.encoder(batch)
        distribution: TanhNormal | Flow = self.actor(features)
        generator = torch.Generator(device).manual_seed(0) if deterministic else None
        if deterministic and self.critics is None:
            action = distribution.mode[0]
        else:
            noise = torch.randn(1, self.candidates, size, device=device, generator=generator)
            actions = distribution.sample(noise)[0]  # (1, candidates, size)
            best = self.critics(features, actions).mean(0)[0].argmax() if self.critics is not None else 0
            action = actions[0, best]
        numbers: np.ndarray = action.reshape(self.chunk, -1).cpu().numpy().astype(np.float32)
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
