"""Faster updates with equal results: torch.compile, CUDA graphs, bf16. The eager path stays what it is without them."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import time

import torch
from torch import Tensor

from agent.calql.algorithm import CalQL, Weights
from agent.config import FELL_BACK, LearnerConfig
from agent.data.replay_buffer import Batch
from agent.spec import UserError

BF16_SLOW = 1.5  # a bf16_cost above this is no noise: without units for it a CPU is 10 to 80 times slower
WARM_UP = 3  # updates of each kind that run before it is captured


def compilers(cuda: bool) -> tuple[str, ...]:
    """Those that torch.compile takes, the first that is there: a C++ one for the CPU, a C one (triton's) for CUDA."""
    named = os.environ.get("CC" if cuda else "CXX")
    if named:
        return (named.split()[0],)  # without its options
    return ("gcc", "clang") if cuda else ("clang++" if sys.platform == "darwin" else "g++",)


Kind = tuple[int, bool, bool]  # of an update: its batch's size, weights.conservative, update_actor


def has_compiler(cuda: bool = False) -> bool:
    return any(map(shutil.which, compilers(cuda)))


@functools.cache
def bf16_cost() -> float:
    """How many times as long this CPU takes for a product in bfloat16 as in float32: the fastest of three of each.

    Takes 0.1 s where bfloat16 is slow, less elsewhere; measured once a process, with its threads.
    """
    operands = [torch.ones(256, 256, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]  # no random numbers
    times: list[list[float]] = [[], []]
    for _ in range(4):
        for operand, taken in zip(operands, times, strict=True):
            began = time.perf_counter()
            torch.mm(operand, operand)
            taken.append(time.perf_counter() - began)
    fp32, bf16 = (min(taken[1:]) for taken in times)  # the first ones start threads
    return bf16 / fp32


def slow_bf16(cost: float) -> str:
    """What is wrong with bfloat16 on a CPU with that bf16_cost; empty if nothing is."""
    if cost <= BF16_SLOW:
        return ""
    return f"this CPU takes {cost:.2g} times as long for a product in bfloat16 as in float32"


def accelerate(agent: CalQL, config: LearnerConfig) -> str:
    """Put `agent` into the mode that the config asks for. Raises UserError when this machine can't.

    On a CPU that is slower in bf16 (measured) updates stay in float32, since a config file for another machine would
    make products take 10 to 80 times as long. Returns a line that says so, for the run's log; empty otherwise.
    """
    cuda = agent.device.type == "cuda"
    agent.bf16, warning = config.bf16, ""
    if config.bf16 != "off" and agent.device.type == "cpu" and (reason := slow_bf16(bf16_cost())):
        warning = f"learner.bf16 is '{config.bf16}', but {reason}: {FELL_BACK}"
        agent.bf16 = "off"
    if config.mode == "graph" and not cuda:
        raise UserError(f"learner.mode 'graph' needs a CUDA device, and this run is on {agent.device}")
    if config.mode != "eager":
        if not has_compiler(cuda):
            kind, variable = ("C", "CC") if cuda else ("C++", "CXX")
            missing = f"{' or '.join(compilers(cuda))} is not here; ${variable} may name another"
            raise UserError(f"learner.mode '{config.mode}' needs a {kind} compiler ({missing}); 'eager' needs none")
        agent.losses = torch.compile(agent.losses, dynamic=False)
    if config.mode == "graph":
        agent.learn = Graphs(agent).learn  # type: ignore[method-assign]
    return warning


class Graphs:
    """Each kind of update (batch size, conservative or not, with the actor or not) captured once, then replayed.

    A replay is one launch for all kernels of an update, augmentation, optimisers and targets included; only the mean of
    the policy's weights follows it, since its rate is a number of the host's. What else changes goes in through fixed
    memory: the batch, the weights, the state of the agent's generator.
    """

    def __init__(self, agent: CalQL) -> None:
        self.agent = agent
        self._plain = agent.learn
        self._done: dict[Kind, int] = {}
        self._captured: dict[Kind, tuple[torch.cuda.CUDAGraph, Batch, dict[str, Tensor]]] = {}

    def learn(self, batch: Batch, weights: Weights, update_actor: bool = True) -> dict[str, Tensor]:
        """As CalQL.learn. The metrics are overwritten by the next update of the same kind."""
        kind = (len(batch.actions), weights.conservative, update_actor)
        if kind not in self._captured:
            self._done[kind] = self._done.get(kind, 0) + 1
            if self._done[kind] <= WARM_UP:
                return self._plain(batch, weights, update_actor)
            self._captured[kind] = self._capture(batch, weights, update_actor)
        graph, place, metrics = self._captured[kind]
        for to, source in zip(place.tensors(), batch.tensors(), strict=True):
            to.copy_(source, non_blocking=True)
        self.agent.set_weights(weights)
        graph.replay()
        self.agent.average_policy()
        return metrics

    def _capture(
        self, batch: Batch, weights: Weights, update_actor: bool
    ) -> tuple[torch.cuda.CUDAGraph, Batch, dict[str, Tensor]]:
        """Records an update without making it."""
        agent, place = self.agent, batch.map(torch.clone)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(agent.generator)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            shifted = place.augmented(agent.config.augment_pad, agent.generator, agent.shard)
            metrics = agent.step(shifted, weights.conservative, update_actor)
        return graph, place, metrics
