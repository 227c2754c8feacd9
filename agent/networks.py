"""Encoder, tanh-Gaussian actor and a batched critic ensemble. Images are uint8 until they reach the encoder."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent import channel_norm
from agent.config import NetworkConfig
from agent.spec import Spec, UserError
from agent.torch_file import read_weights

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class SpatialSoftmax(nn.Module):
    """Expected (x, y) of each channel (Levine et al. 2016): (B, C, H, W) -> (B, 2C) in [-1, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        _, _, height, width = maps.shape
        y = torch.linspace(-1, 1, height, device=maps.device, dtype=maps.dtype)
        x = torch.linspace(-1, 1, width, device=maps.device, dtype=maps.dtype)
        share = (maps.flatten(2) * self.log_scale.exp()[:, None]).softmax(-1).unflatten(2, (height, width))
        return torch.cat([share.sum(2) @ x, share.sum(3) @ y], -1)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each position, and ReLU; (B, C, H, W), in channels_last memory without a copy.

    Where no gradient is needed it may overwrite its input, the output of a convolution.
    """

    def forward(self, maps: Tensor) -> Tensor:
        rows = maps.permute(0, 2, 3, 1)
        if channel_norm.usable(rows, self.weight):
            rows = channel_norm.norm_relu(rows, self.weight, self.bias, self.eps)
        else:
            rows = super().forward(rows).relu_()  # in place: before it is a view
        return rows.permute(0, 3, 1, 2)


def small_cnn(config: NetworkConfig) -> tuple[nn.Module, int]:
    """3x3 convolutions with LayerNorm and ReLU; returns the module and its output channels."""
    if len(config.channels) != len(config.strides) or not config.channels:
        raise UserError(f"network.channels {config.channels} and network.strides {config.strides} differ in length")
    layers: list[nn.Module] = []
    inputs = 3
    for outputs, stride in zip(config.channels, config.strides, strict=True):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, padding=1), ChannelNorm(outputs)]
        layers.append(nn.Identity())  # keeps the numbers in the weights' names
        inputs = outputs
    return nn.Sequential(*layers).to(memory_format=torch.channels_last), inputs


def resnet(config: NetworkConfig) -> tuple[nn.Module, int]:
    """torchvision's ResNet-18 or -34 without its pooling and classifier; returns the module and its output channels.

    Raises UserError when the weights asked for can't be had.
    """
    import torchvision

    make = getattr(torchvision.models, config.encoder)
    wanted = config.encoder_weights
    if wanted in ("", "none"):
        network = make(weights=None)
    elif wanted == "imagenet":
        try:
            network = make(weights="IMAGENET1K_V1")
        except OSError as error:
            raise UserError(
                f"ImageNet weights of {config.encoder} could not be downloaded ({error}); download them elsewhere and "
                "give the file as --network.encoder_weights FILE, or leave it empty for random weights"
            ) from None
    else:
        if not Path(wanted).is_file():
            raise UserError(f"network.encoder_weights: {wanted}: no such file")
        network = make(weights=None)
        try:
            network.load_state_dict(read_weights(wanted))
        except Exception as error:  # a foreign file fails in many ways; each is the user's file
            raise UserError(f"{wanted}: not weights of torchvision's {config.encoder}: {str(error)[:120]}") from None
    return nn.Sequential(*list(network.children())[:-2]), 512


class ImageEncoder(nn.Module):
    """One camera: uint8 (B, H, W, 3) -> (B, features)."""

    mean: Tensor
    std: Tensor
    minus_one: Tensor

    def __init__(self, shape: tuple[int, int, int], config: NetworkConfig) -> None:
        super().__init__()
        self.pretrained = config.encoder != "cnn"
        self.net, channels = resnet(config) if self.pretrained else small_cnn(config)
        self.net.requires_grad_(not config.freeze_encoder)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("minus_one", torch.tensor(-1.0), persistent=False)
        with torch.no_grad():
            self.net.eval()
            maps = self.net(torch.zeros(1, 3, *shape[:2]))
        if config.head == "spatial_softmax":
            self.pool: nn.Module = SpatialSoftmax(channels)
            width = 2 * channels
        else:
            self.pool = nn.Flatten()
            width = maps[0].numel()
        self.out = nn.Sequential(nn.Linear(width, config.features), nn.LayerNorm(config.features), nn.Tanh())

    def train(self, mode: bool = True) -> ImageEncoder:
        super().train(mode)
        if self.pretrained:  # batch statistics of a replay batch are noise: BatchNorm keeps its own
            self.net.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2)  # NHWC memory seen as NCHW: already channels_last
        if self.pretrained:
            x = (x.to(self.std.dtype) - self.mean).div_(self.std)
        else:
            x = torch.add(self.minus_one, x, alpha=1 / 127.5)  # [-1, 1]
        features: Tensor = self.out(self.pool(self.net(x)))
        return features


class Encoder(nn.Module):
    """A whole observation -> (B, F): an ImageEncoder per camera; states, through one layer or none."""

    state_mean: Tensor
    state_std: Tensor

    def __init__(self, spec: Spec, config: NetworkConfig) -> None:
        super().__init__()
        self.cameras = nn.ModuleDict({_module_name(k): ImageEncoder(v, config) for k, v in spec.cameras.items()})
        self.camera_keys, self.state_keys = list(spec.cameras), list(spec.states)
        width = sum(spec.states.values())
        self.register_buffer("state_mean", torch.zeros(width))
        self.register_buffer("state_std", torch.ones(width))
        self.dim = len(spec.cameras) * config.features
        if width:
            size = config.state_features
            self.state = nn.Sequential(*([nn.Linear(width, size), nn.LayerNorm(size), nn.Tanh()] if size else []))
            self.dim += size or width

    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """Set what states are centred on and divided by, each (sum of state lengths,)."""
        self.state_mean.copy_(mean)
        self.state_std.copy_(std)

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        parts = [self.cameras[_module_name(key)](observation[key]) for key in self.camera_keys]
        if self.state_keys:
            states = torch.cat([observation[key] for key in self.state_keys], -1)
            parts.append(self.state((states - self.state_mean) / self.state_std))
        return torch.cat(parts, -1)


def _module_name(key: str) -> str:
    return "of " + key.replace(".", "/")  # torch refuses dots in module names, and those of its own methods


def initialise(layer: Tensor, config: NetworkConfig, last: bool = False) -> None:
    """Draw the weights of one layer, (inputs, outputs) or its transpose, for network.init orthogonal and xavier."""
    if config.init == "orthogonal":
        nn.init.orthogonal_(layer, config.last_gain if last else math.sqrt(2))
    else:
        nn.init.xavier_uniform_(layer)


class Actor(nn.Module):
    """Features (B, F) -> a tanh of a diagonal Gaussian over actions.

    network.log_std scaled: log std = multiplier x output + offset, as in the authors' code (Nakamoto et al. 2023).
    """

    def __init__(self, features: int, action_dim: int, config: NetworkConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = features
        for size in config.actor_hidden:
            layers += [nn.Linear(width, size), *([nn.LayerNorm(size)] if config.actor_layer_norm else []), nn.ReLU()]
            width = size
        self.trunk = nn.Sequential(*layers)
        self.mean, self.log_std = nn.Linear(width, action_dim), nn.Linear(width, action_dim)
        for out in (self.mean, self.log_std):
            nn.init.orthogonal_(out.weight, gain=0.01)
            nn.init.zeros_(out.bias)
        if config.init != "torch":
            self._initialise(config)
        self.scaled = config.log_std == "scaled"
        if self.scaled:
            self.log_std_multiplier, self.log_std_offset = nn.Parameter(torch.ones(1)), nn.Parameter(-torch.ones(1))

    def forward(self, features: Tensor) -> TanhNormal:
        hidden = self.trunk(features)
        log_std = self.log_std(hidden)
        if self.scaled:
            log_std = self.log_std_multiplier * log_std + self.log_std_offset
        return TanhNormal(self.mean(hidden), log_std.clamp(LOG_STD_MIN, LOG_STD_MAX))

    @torch.no_grad()
    def _initialise(self, config: NetworkConfig) -> None:
        for layer in self.trunk:
            if isinstance(layer, nn.Linear):
                initialise(layer.weight, config)
                layer.bias.zero_()
        if config.init == "orthogonal":  # one matrix for both outputs
            both = torch.cat([self.mean.weight, self.log_std.weight])
            initialise(both, config, last=True)
            self.mean.weight.copy_(both[: len(both) // 2])
            self.log_std.weight.copy_(both[len(both) // 2 :])
        else:
            initialise(self.mean.weight, config)
            initialise(self.log_std.weight, config)


class TanhNormal:
    """tanh(Normal(mean, exp(log_std))), both (B, A)."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std

    @property
    def mode(self) -> Tensor:
        return self.mean.tanh()

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reparametrised actions (B, n, A) and their log-densities (B, n), from standard normals (B, n, A)."""
        mean, log_std = self.mean[:, None], self.log_std[:, None]
        before = mean + log_std.exp() * noise
        # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), which does not lose its digits where tanh saturates
        squash = 2 * (math.log(2) - before - F.softplus(-2 * before))
        log_prob = (-0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi) - squash).sum(-1)
        return before.tanh(), log_prob
