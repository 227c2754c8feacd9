"""What every benchmark prints and writes: figures beside their targets, under a description of the machine."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

from agent.commands import retyped


class Missing(Exception):
    """A peer can't be run here; the text says how to get it."""


@dataclass
class Figure:
    """met: whether `value` is on the right side of `target`; None without a target."""

    name: str
    value: float
    unit: str
    target: float | None = None
    met: bool | None = None


def machine() -> dict[str, Any]:
    """The processor, the cores that this process may use, the threads that libraries are told to use and those that
    torch uses (where the benchmark does use it), the GPU if there is one, versions, the commit if there is one (of a
    working tree that has changes: -dirty), and the date.
    """
    torch_threads = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        flags = "amx" if "amx_tile" in info.read_text() else "avx512" if "avx512f" in info.read_text() else "avx2"
        cpu = f"{models[0] if models else cpu} ({flags})"
    gpu = None
    try:
        import torch

        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    except ImportError:
        pass
    about = {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "torch threads": torch_threads,
        "gpu": gpu,
    }
    for package in ("torch", "mujoco"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            about[package] = importlib.metadata.version(package)
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        _git("ls-files", "--error-unmatch", Path(__file__).name)  # this repository's, not one that we are installed in
        about["commit"] = _git("describe", "--always", "--dirty", "--abbrev=12")
    return {**about, "python": platform.python_version(), "date": str(date.today())}


def _git(*words: str) -> str:
    command = ["git", "--no-optional-locks", *words]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@dataclass
class Report:
    title: str
    figures: list[Figure] = field(default_factory=list)

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        target: float | None = None,
        better: Literal["lower", "higher"] = "lower",
    ) -> None:
        met = None if target is None else bool(value <= target if better == "lower" else value >= target)
        self.figures.append(Figure(name, round(float(value), 4), unit, target, met))

    def add_times(self, name: str, seconds: Sequence[float], target_ms: float | None = None) -> float:
        """Median, 10th and 90th percentile in ms; the target is for the median, which is returned in seconds."""
        tenths = statistics.quantiles(seconds, n=10)
        median = statistics.median(seconds)
        self.add(name, median * 1e3, "ms", target_ms)
        self.add(f"{name}, 10th percentile", tenths[0] * 1e3, "ms")
        self.add(f"{name}, 90th percentile", tenths[-1] * 1e3, "ms")
        return median

    def finish(self, json_path: str | None) -> None:
        """Print the table; with a path, also write {"title": ..., "machine": ..., "results": [...]} there."""
        about = machine()
        print(f"{self.title}\n" + ", ".join(f"{key} {value}" for key, value in about.items() if value))
        width = max(len(figure.name) for figure in self.figures)
        for figure in self.figures:
            verdict = "" if figure.met is None else f"   target {figure.target:g}: {'met' if figure.met else 'NOT met'}"
            print(f"  {figure.name:{width}}  {figure.value:10.3f} {figure.unit}{verdict}")
        if json_path:
            results = [asdict(figure) for figure in self.figures]
            written = {"title": self.title, "machine": about, "results": results}
            Path(json_path).write_text(json.dumps(written, indent=2) + "\n")


def parser(description: str) -> argparse.ArgumentParser:
    spec = sys.modules["__main__"].__spec__
    made = argparse.ArgumentParser(
        prog=retyped(f"python -m {spec.name}") if spec else None,
        description=retyped(description),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--json", metavar="FILE", help="also write the figures to FILE")
    return made
