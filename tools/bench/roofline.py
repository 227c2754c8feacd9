"""The machine's limits, measured, and what work costs when held against them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry, register_flop_formula

aten = torch.ops.aten
CONVOLUTIONS = {aten.convolution, aten._convolution, aten.convolution_backward}


@register_flop_formula([op for op in (aten.addmm_, aten.baddbmm_) if op not in flop_registry])
def product_in_place(sum_shape: Any, left: Any, right: Any, *rest: Any, **options: Any) -> int:
    """torch itself counts these only where they are not in place."""
    return int(2 * math.prod(left) * right[-1])


class Probe(NamedTuple):
    """A step that does nothing but `work` (FLOPs, or bytes), as fast as the machine can."""

    step: Callable[[], object]
    work: float


def matmul(kind: str, size: int, device: torch.device) -> Probe:
    """kind: fp32, tf32 (fp32 operands, rounded where the device is faster at that) or bf16."""
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    left, right, out = (torch.randn(size, size, device=device).to(dtype) for _ in range(3))

    def step() -> None:
        if kind != "tf32":
            torch.mm(left, right, out=out)
            return
        usual = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        torch.mm(left, right, out=out)
        torch.set_float32_matmul_precision(usual)

    return Probe(step, 2.0 * size**3)


def copy(count: int, device: torch.device) -> Probe:
    """Memory read and written."""
    source, target = (torch.zeros(count, dtype=torch.uint8, device=device) for _ in range(2))
    return Probe(lambda: target.copy_(source), 2.0 * count)


def flops(step: Callable[[], object]) -> float:
    """Floating-point operations of a step's products and convolutions, forward and backward; run it uncompiled."""
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def _bytes(value: Any) -> int:
    """What an operation reads or writes of a tensor; an expanded dimension lies in memory once."""
    if not isinstance(value, Tensor):
        return 0
    count = value.element_size()
    for length, stride in zip(value.shape, value.stride(), strict=True):
        count *= length if stride else 1
    return count


@dataclass
class Operation:
    kind: str  # of the peak that it is held against
    flops: float
    bytes: int


class Roofline(TorchDispatchMode):
    """Takes down each product and convolution, forward and backward, that runs inside `with Roofline() as roofline`."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        packet = function.overloadpacket
        if packet in flop_registry:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
            kind = "bf16" if tensors[0].element_size() == 2 else "tf32" if packet in CONVOLUTIONS else "fp32"
            count = flop_registry[packet](*args, **kwargs, out_val=out)
            self.operations.append(Operation(kind, count, sum(map(_bytes, tensors))))
        return out

    def seconds(self, peaks: dict[str, float], bandwidth: float) -> float:
        """The least time: each operation at its peak or at the memory's speed, all else fused into them, for nothing.

        peaks: FLOP/s by kind. bandwidth: bytes/s.
        """
        return sum(max(o.flops / peaks[o.kind], o.bytes / bandwidth) for o in self.operations)


def kernels(step: Callable[[], object], count: int, device: torch.device) -> list[tuple[float, float, str]]:
    """(seconds, times, name) of each of the GPU's kernels and copies in a step, or on a CPU of each operation: means of
    `count` steps, the longest first.
    """
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as trace:
        for _ in range(count):
            step()
        if on_gpu:
            torch.cuda.synchronize()
    found = []
    for event in trace.key_averages():
        if not on_gpu or (event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)):
            total = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            found.append((total / 1e6 / count, event.count / count, event.key))
    return sorted(found, reverse=True)


def kernel_seconds(step: Callable[[], object], count: int) -> float:
    """Time that the GPU's kernels and copies take in a step: mean of `count`."""
    return sum(seconds for seconds, _, _ in kernels(step, count, torch.device("cuda")))
