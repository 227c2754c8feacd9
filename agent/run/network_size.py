"""How large the networks are that a checkpoint's config declares, by arithmetic: before they are built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from agent.config import NetworkConfig
from agent.memory import available_bytes
from agent.spec import Spec

RESNETS = {"resnet18": 11_000_000, "resnet34": 21_000_000}  # parameters at least
FLOAT_BYTES, HALF_BYTES = 4, 2


def check_sizes(spec: Spec, config: NetworkConfig, state: dict[str, Any]) -> None:
    """Raise ValueError when `config` declares more parameters than the tensors of `state` (CalQL.state_dict()) hold.

    A config of a few bytes could ask for more memory than there is. Also for images that are too large.
    """
    for name, (height, width, _) in spec.cameras.items():
        largest = max(rows * columns * channels for rows, columns, channels in feature_maps(height, width, config))
        if 2 * FLOAT_BYTES * largest > available_bytes():
            raise ValueError(f"camera '{name}' of {width}x{height} needs more memory than there is")
    needed, average = policy_parameters(spec, config), state.get("average", {})
    layers = len(config.actor_hidden) + len(config.channels)
    if set(state) - {"average"}:
        inputs = _features(spec, config) + spec.action_dim
        needed += config.critics * _weights([inputs, *config.critic_hidden, 1])
        layers += len(config.critic_hidden)
    stored, tensors = _stored(state)
    if needed > stored or layers > tensors or policy_parameters(spec, config) > _stored(average)[0]:
        raise ValueError(f"section network declares {needed:,} parameters or more, and {stored:,} are in the file")


def feature_maps(height: int, width: int, config: NetworkConfig) -> list[tuple[int, int, int]]:
    """(rows, columns, channels) of an image and of each layer's output."""
    if config.encoder != "cnn":
        return [(height, width, 3), (height // 2, width // 2, 64), (-(-height // 32), -(-width // 32), 512)]
    maps = [(height, width, 3)]
    for channels, stride in zip(config.channels, config.strides, strict=False):
        maps.append((-(-maps[-1][0] // stride), -(-maps[-1][1] // stride), channels))
    return maps


def policy_parameters(spec: Spec, config: NetworkConfig) -> int:
    """Weights of encoder and actor; biases and norms are not counted."""
    total = sum(spec.states.values()) * config.state_features
    for height, width, _ in spec.cameras.values():
        maps = feature_maps(height, width, config)
        rows, columns, channels = maps[-1]
        pooled = 2 * channels if config.head == "spatial_softmax" else rows * columns * channels
        total += RESNETS.get(config.encoder) or 9 * _weights([depth for _, _, depth in maps])
        total += pooled * config.features
    return total + _weights([_features(spec, config), *config.actor_hidden, 2 * spec.action_dim])


def _features(spec: Spec, config: NetworkConfig) -> int:
    """Length of the encoder's output."""
    return len(spec.cameras) * config.features + (config.state_features or sum(spec.states.values())) * bool(
        spec.states
    )


def _weights(sizes: Sequence[int]) -> int:
    return sum(inputs * outputs for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True))


def _stored(state: Any) -> tuple[int, int]:
    """How many numbers the tensors in nested dicts and lists hold, shared ones counted once; and how many tensors."""
    storages, tensors, rest = {}, 0, [state]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            rest += value.values()
        elif isinstance(value, (list, tuple)):
            rest += value
        elif isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            tensors += 1
    return sum(storages.values()) // HALF_BYTES, tensors
