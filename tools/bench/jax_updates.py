"""Updates of WSRL's and hil-serl's agents in an environment of theirs, one whenever a line comes in.

tools.bench.jax_peers starts it and sends the job. That environment has JAX, flax and what the peers import, and nothing
of ours. Agents, losses, networks and random crops are the peers' own. Ours are the random batch and the image encoder,
which has the layers of agent.networks and takes the place of their ResNet-10.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import flax
import flax.linen as nn
import flax.training.checkpoints  # before the stubs: it asks for TensorFlow
import jax
import jax.numpy as jnp
import numpy as np

# What their packages import for robots, logs and data, and no update uses.
NOT_FOR_UPDATES = (
    "gym",
    "gymnasium",
    "imageio",
    "matplotlib",
    "matplotlib.pyplot",
    "requests",
    "tensorflow",
    "tqdm",
    "wandb",
)
POLICY = {"tanh_squash_distribution": True, "std_parameterization": "exp", "std_min": 1e-5, "std_max": 5}


class SmallCNN(nn.Module):
    """agent.networks.ImageEncoder's small CNN with a spatial softmax: uint8 (B, H, W, 3) -> (B, features)."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    features: int

    @nn.compact
    def __call__(self, images: Any, train: bool = False, encode: bool = True) -> Any:
        maps = images.astype(jnp.float32) / 127.5 - 1
        for channels, stride in zip(self.channels, self.strides):
            maps = nn.Conv(channels, (3, 3), (stride, stride), padding=1)(maps)
            maps = nn.relu(nn.LayerNorm(epsilon=1e-5)(maps))
        _, height, width, channels = maps.shape
        scale = jnp.exp(self.param("log_scale", nn.initializers.zeros, (channels,)))
        share = nn.softmax(maps.reshape(-1, height * width, channels) * scale, axis=1)
        share = share.reshape(-1, height, width, channels)
        x = jnp.einsum("bhwc,w->bc", share, jnp.linspace(-1, 1, width))
        y = jnp.einsum("bhwc,h->bc", share, jnp.linspace(-1, 1, height))
        vector = nn.Dense(self.features)(jnp.concatenate([x, y], -1))
        return nn.tanh(nn.LayerNorm(epsilon=1e-5)(vector))


def random_batch(job: dict[str, Any]) -> Any:
    """What tools.bench.random_data.random_batch draws, in the peers' format: one observation of history."""
    rng, count = np.random.default_rng(0), job["batch"]

    def observations() -> dict[str, Any]:
        images = {
            key: rng.integers(0, 256, (count, 1, *shape), dtype=np.uint8) for key, shape in job["cameras"].items()
        }
        return {**images, "state": rng.normal(size=(count, 1, job["states"])).astype(np.float32)}

    numbers = {
        "actions": rng.uniform(-1, 1, (count, job["actions"])),
        "rewards": np.full(count, -5.0),
        "masks": np.ones(count),
        "mc_returns": rng.normal(size=count) - 300,
    }
    return flax.core.freeze(
        {
            "observations": observations(),
            "next_observations": observations(),
            **{name: value.astype(np.float32) for name, value in numbers.items()},
        }
    )


def imported(job: dict[str, Any]) -> Any:
    """The class of the peer's agent, from its folder."""
    source = Path(job["source"])
    sys.path[:0] = [str(source / "serl_launcher"), str(source / "examples")]
    stubs = [name for name in NOT_FOR_UPDATES if importlib.util.find_spec(name.split(".")[0]) is None]
    sys.modules.update({name: MagicMock() for name in stubs})
    try:
        if job["peer"] == "WSRL":
            from serl_launcher.agents.continuous.calql import CalQLAgent as Agent
        else:
            from serl_launcher.agents.continuous.sac import SACAgent as Agent
    finally:
        for name in stubs:
            del sys.modules[name]  # einops would ask them for types
    return Agent


def augmentation(job: dict[str, Any]) -> Callable[[Any, Any], Any]:
    """Their random crop of the images of both observations, each by a shift of its own."""
    from serl_launcher.vision.data_augmentations import batched_random_crop

    def augmented(batch: Any, rng: Any) -> Any:
        changed = {}
        for name, key in zip(("observations", "next_observations"), jax.random.split(rng)):
            cropped = {
                camera: batched_random_crop(batch[name][camera], key, padding=job["pad"], num_batch_dims=2)
                for camera in job["cameras"]
            }
            changed[name] = batch[name].copy(add_or_replace=cropped)
        return batch.copy(add_or_replace=changed)

    return augmented


def made(job: dict[str, Any], batch: Any) -> tuple[Any, dict[str, Any]]:
    """The peer's agent, and the options of its `update`."""
    agent = imported(job)
    from serl_launcher.vision import resnet_v1

    layers = {"channels": tuple(job["channels"]), "strides": tuple(job["strides"]), "features": job["features"]}
    resnet_v1.resnetv1_configs["resnetv1-10"] = lambda name, **_: SmallCNN(**layers, name=name)
    mlp = {"activations": nn.relu, "use_layer_norm": True, "activate_final": True}
    options = {
        "encoder_type": "resnet",
        "use_proprio": True,
        "image_keys": tuple(job["cameras"]),
        "policy_kwargs": POLICY,
        "critic_network_kwargs": {**mlp, "hidden_dims": job["critic_hidden"]},
        "policy_network_kwargs": {**mlp, "hidden_dims": job["actor_hidden"]},
        "critic_ensemble_size": job["critics"],
        "critic_subsample_size": None,
        "augmentation_function": augmentation(job),
    }
    one = jax.tree_util.tree_map(lambda value: value[:1], batch)
    arguments = jax.random.PRNGKey(0), one["observations"], one["actions"]
    if job["peer"] == "hil-serl":
        return agent.create_pixels(*arguments, **options), {
            "networks_to_update": frozenset({"critic", "actor", "temperature"})
        }
    from experiments.configs.cql_config import get_config

    options |= {"reward_scale": 1.0, "reward_bias": 0.0, "target_entropy": 0.0}
    options |= {"cql_n_actions": job["cql_actions"], "cql_max_target_backup": job["max_target_backup"]}
    return agent.create(*arguments, **{**get_config().to_dict(), **options}), {}


def serve() -> None:
    """Reads a job, then makes an update and writes a line for every line that comes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the peers print goes where their warnings go
    job = json.loads(sys.stdin.readline())
    batch = random_batch(job)
    agent, options = made(job, batch)
    batch = jax.device_put(batch)
    about = {"jax": jax.__version__, "flax": flax.__version__, "device": jax.devices()[0].device_kind}
    print(json.dumps(about), file=answers, flush=True)
    for _ in sys.stdin:
        agent, _metrics = agent.update(batch, **options)
        jax.block_until_ready(agent.state.params)
        print("done", file=answers, flush=True)
