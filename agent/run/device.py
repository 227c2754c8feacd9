"""Where a run computes."""

from __future__ import annotations

import os

import torch

from agent.config import LearnerConfig
from agent.memory import keep_freed
from agent.spec import UserError

THREADS = torch.get_num_threads()  # torch's choice


def choose_device(config: LearnerConfig, process: int = 0, spare_core: bool = False) -> torch.device:
    """The torch device that the config asks for. Raises UserError if it is not there; sets threads, TF32 and malloc.

    process: number of this process on its machine; 'auto' and 'cuda' give each a GPU of its own. spare_core: unless
    the config or OMP_NUM_THREADS say how many threads, leave a core to another program: threads that share their core
    wait for each other, and are slower than one fewer (python -m tools.bench.beside).
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    elif spare_core and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, THREADS - 1))
    name = config.device if config.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device("cuda", process) if name == "cuda" else torch.device(name)
        torch.Generator(device).manual_seed(0)
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"learner.device: '{name}' can't be used: {str(error).splitlines()[0]}") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what names no device is for this one: graphs, pinned memory, waiting
        torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    elif device.type == "cpu":
        keep_freed()
    return device
