"""LayerNorm over channels and ReLU in one pass over memory, on a CPU: channel_norm.c, built where a C compiler is."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from agent.files import appearing

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("channel_norm.c")
COMPILERS = ("gcc", "cc", "clang")
# Sums may be reordered, NaN and infinity are kept. No library is linked: OpenMP must be the one that torch has loaded,
# so the compiler alone is told of it (-Xpreprocessor), and the linker not, which would add its own.
FLAGS = (
    "-std=gnu11 -O3 -march=native -fassociative-math -fno-signed-zeros -fno-trapping-math -fno-math-errno "
    "-Xpreprocessor -fopenmp -fPIC -shared -nodefaultlibs -pipe"
)
BUILD_TIMEOUT_S = 60
GRAIN = 32768  # numbers for each thread at least, as in torch's own operations
_POINTER, _INTEGER = ctypes.c_void_p, ctypes.c_int64
_building = threading.Lock()


def usable(rows: Tensor, weight: Tensor) -> bool:
    """Whether norm_relu takes these, and has its kernel; the first call in a process loads or builds it."""
    if torch.compiler.is_compiling() or rows.device.type != "cpu" or rows.dtype != weight.dtype:
        return False
    return rows.dtype == torch.float32 and kernel() is not None


def norm_relu(rows: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """relu(layer_norm(rows)) of rows (..., C); weight and bias (C,); for what is `usable`. No second derivatives.

    Where no gradient is asked for it is computed in the rows' own memory, if that is contiguous: new memory is slow.
    """
    rows, weight, bias = rows.contiguous(), weight.contiguous(), bias.contiguous()
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (rows, weight, bias)):
        out: Tensor = NormReLU.apply(rows, weight, bias, epsilon)
        return out
    return _forward(rows, weight, bias, epsilon, rows)


def _forward(rows: Tensor, weight: Tensor, bias: Tensor, epsilon: float, out: Tensor) -> Tensor:
    _library().norm_relu(*_pointers(rows, weight, bias, out), *_sizes(rows), epsilon, _threads(rows))
    return out


class NormReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        ctx.save_for_backward(rows, weight, bias)
        ctx.epsilon = epsilon
        return _forward(rows, weight, bias, epsilon, torch.empty_like(rows))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_out: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, bias = ctx.saved_tensors
        of_out, of_rows, threads = of_out.contiguous(), torch.empty_like(rows), _threads(rows)
        sums = torch.zeros(threads, 2, rows.shape[-1], dtype=torch.float64)
        pointers = _pointers(of_out, rows, weight, bias, of_rows, sums)
        _library().norm_relu_backward(*pointers, *_sizes(rows), ctx.epsilon, threads)
        of_weight, of_bias = sums.sum(0).float()
        return of_rows, of_weight, of_bias, None


def _pointers(*tensors: Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def _sizes(rows: Tensor) -> tuple[int, int]:
    return rows.numel() // rows.shape[-1], rows.shape[-1]


def _threads(rows: Tensor) -> int:
    return max(1, min(torch.get_num_threads(), rows.numel() // GRAIN))


def _library() -> ctypes.CDLL:
    library = kernel()
    assert library
    return library


@functools.cache
def kernel() -> ctypes.CDLL | None:
    """channel_norm.c, compiled; built unless an earlier process has. Where that fails: None, and one log line."""
    with _building:
        try:
            path = _path()
            with contextlib.suppress(OSError, AttributeError):  # missing, damaged, or written by somebody else
                return _loaded(path)
            return _built(path)
        except (OSError, AttributeError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
            log.info("the image encoder runs without its own CPU kernel, more slowly: %s", error)
            return None


def _path() -> Path:
    """In the user's cache. Its name has a digest of what it depends on: a home folder may be shared by computers."""
    source = SOURCE.read_bytes()
    digest = hashlib.sha256(b"\0".join([source, FLAGS.encode(), _processor().encode()])).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "calql" / "kernels" / f"channel_norm-{digest}.so"


def _loaded(path: Path) -> ctypes.CDLL:
    """Raises OSError, also for a file that another user owns or may write; AttributeError if it is something else.

    The file that is checked is the one that is loaded, whoever may rename files in its folder.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # stays open with the library, which is known by its number
    try:
        status = os.fstat(file)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise PermissionError(f"{path} may be another user's: it is not loaded")
        library = ctypes.CDLL(f"/proc/self/fd/{file}")
    except OSError as error:
        os.close(file)
        raise OSError(str(error).replace(f"/proc/self/fd/{file}", str(path))) from None
    library.norm_relu.argtypes = [_POINTER] * 4 + [_INTEGER, _INTEGER, ctypes.c_float, _INTEGER]
    library.norm_relu_backward.argtypes = [_POINTER] * 6 + [_INTEGER, _INTEGER, ctypes.c_float, _INTEGER]
    return library


def _built(path: Path) -> ctypes.CDLL:
    """Processes that build it at once each put a whole file there."""
    named = shlex.split(os.environ.get("CC", ""))
    compiler = named or [found for found in map(shutil.which, COMPILERS) if found][:1]
    if not compiler:
        raise RuntimeError(f"no C compiler ({', '.join(COMPILERS)})")
    began = time.perf_counter()
    with appearing(path) as aside:
        done = subprocess.run(
            [*compiler, *FLAGS.split(), str(SOURCE), "-o", str(aside)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            umask=0o077,
        )
        if done.returncode or not aside.exists():
            raise RuntimeError(f"{compiler[0]}: {(done.stderr.strip() or 'failed').splitlines()[0]}")
        library = _loaded(aside)  # what cannot be loaded is not kept
    log.info("built the image encoder's CPU kernel in %.1f s: %s", time.perf_counter() - began, path)
    return library


def _processor() -> str:
    """What -march=native depends on."""
    kinds = ("cpu family", "model", "flags", "Features", "CPU implementer", "CPU part", "isa")
    first = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    return "\n".join([platform.machine(), *(line for line in first if line.startswith(kinds))])
