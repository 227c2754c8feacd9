"""Other implementations of Cal-QL, as steps that the benchmarks time. None is part of the project.

Raises Missing, with how to get it, for one that is not here.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from unittest.mock import MagicMock

import torch
from torch import nn

from agent.config import CalQLConfig, NetworkConfig
from agent.data.replay_buffer import Batch
from tools.common.report import Missing

Step = Callable[[], object]
NOT_FOR_TRAINING = ("d4rl", "gym", "pyrallis", "wandb")  # what CORL's file imports, and its training class never uses


def _corl_module(path: str | None) -> ModuleType:
    """CORL's cal_ql.py, imported from where it lies, with stubs for what makes its environments and logs."""
    found = importlib.util.find_spec("cal_ql") if path is None else None
    path = found.origin if found else path
    if path is None:
        raise Missing("give algorithms/finetune/cal_ql.py of github.com/corl-team/CORL with --corl PATH")
    spec = importlib.util.spec_from_file_location("cal_ql", path)
    if spec is None or spec.loader is None:
        raise Missing(f"--corl {path}: no Python file")
    stubs = [name for name in NOT_FOR_TRAINING if name not in sys.modules and importlib.util.find_spec(name) is None]
    sys.modules.update({name: MagicMock() for name in stubs})
    module = importlib.util.module_from_spec(spec)
    sys.modules["cal_ql"] = module  # its dataclasses look themselves up here
    try:
        spec.loader.exec_module(module)
    except (OSError, ImportError, SyntaxError) as error:
        raise Missing(f"{path} can't be imported: {error}") from None
    finally:
        for name in stubs:
            del sys.modules[name]
    return module


def corl(path: str | None, network: NetworkConfig, config: CalQLConfig, batch: Batch) -> Step:
    """An update of CORL's CalQL with our sizes, on one (state) batch."""
    module = _corl_module(path)
    states, actions, depth = batch.observations["state"], batch.actions, len(network.critic_hidden)
    size, action_dim = states.shape[-1], actions.shape[-1]
    if {*network.critic_hidden, *network.actor_hidden} != {256}:
        raise Missing("its layers are 256 wide")
    actor = module.TanhGaussianPolicy(size, action_dim, max_action=1.0, orthogonal_init=True)
    actor.base_network = nn.Sequential(*actor.base_network[: 2 * len(network.actor_hidden)], actor.base_network[-1])
    critics = [module.FullyConnectedQFunction(size, action_dim, True, depth) for _ in range(2)]
    rates = [config.critic_lr, config.critic_lr, config.actor_lr]
    optimizers = [torch.optim.Adam(n.parameters(), rate) for n, rate in zip([*critics, actor], rates, strict=True)]
    learner = module.CalQL(
        critic_1=critics[0],
        critic_2=critics[1],
        actor=actor,
        critic_1_optimizer=optimizers[0],
        critic_2_optimizer=optimizers[1],
        actor_optimizer=optimizers[2],
        target_entropy=config.target_entropy * action_dim,
        discount=config.gamma,
        policy_lr=config.temperature_lr,
        qf_lr=config.lagrange_lr,
        soft_target_update_rate=config.target_rate,
        bc_steps=0,
        cql_n_actions=config.cql_actions,
        cql_importance_sample=config.importance_sampling,
        cql_lagrange=config.lagrange_threshold is not None,
        cql_target_action_gap=config.lagrange_threshold or 0.0,
        cql_alpha=config.cql_weight,
        cql_max_target_backup=config.max_target_backup,
    )
    following = batch.next_observations["state"]
    columns = [states, actions, batch.rewards[:, None], following, batch.terminated[:, None], batch.returns[:, None]]
    return lambda: learner.train(columns)


def d3rlpy(network: NetworkConfig, config: CalQLConfig, batch: Batch) -> Step:
    """An update of d3rlpy's CalQL with our sizes, on one (state) batch."""
    warnings.filterwarnings("ignore", module="gym|d3rlpy")
    try:
        from d3rlpy.algos import CalQLConfig as PeerConfig
        from d3rlpy.models.encoders import VectorEncoderFactory
        from d3rlpy.torch_utility import TorchMiniBatch
    except ImportError as error:
        raise Missing(
            f"pip install d3rlpy, into an environment of its own or a folder on the PYTHONPATH ({error})"
        ) from None
    logging.disable(logging.INFO)
    peer = PeerConfig(
        batch_size=len(batch.actions),
        gamma=config.gamma,
        tau=config.target_rate,
        actor_learning_rate=config.actor_lr,
        critic_learning_rate=config.critic_lr,
        temp_learning_rate=config.temperature_lr,
        alpha_learning_rate=config.lagrange_lr,
        actor_encoder_factory=VectorEncoderFactory(list(network.actor_hidden)),
        critic_encoder_factory=VectorEncoderFactory(list(network.critic_hidden)),
        n_critics=network.critics,
        initial_temperature=config.initial_temperature,
        alpha_threshold=config.lagrange_threshold or 0.0,
        conservative_weight=config.cql_weight,
        n_action_samples=config.cql_actions,
        max_q_backup=config.max_target_backup,
    ).create(device=False)
    states = batch.observations["state"]
    peer.create_impl(tuple(states.shape[1:]), batch.actions.shape[-1])
    columns = {
        "observations": states,
        "actions": batch.actions,
        "rewards": batch.rewards[:, None],
        "next_observations": batch.next_observations["state"],
        "next_actions": batch.actions,
        "returns_to_go": batch.returns[:, None],
        "terminals": batch.terminated[:, None],
        "intervals": torch.ones(len(states), 1),
    }
    given = {field.name for field in dataclasses.fields(TorchMiniBatch)} & set(columns)
    mini_batch = TorchMiniBatch(**{name: columns[name] for name in given}, device="cpu:0")
    updates = iter(range(1, 1 << 62))
    return lambda: peer.impl.update(mini_batch, next(updates))
