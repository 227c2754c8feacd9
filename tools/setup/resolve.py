"""Whether every extra can be installed from wheels: for both machines and each Python. Needs uv and the network.

  .venv/bin/python tools/setup/resolve.py [EXTRA ...]

Prints a line for each that cannot be, with uv's reason; exit code 1 if there is one.
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MACHINES = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


def extras() -> list[str]:
    section = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1].split("\n[")[0]
    return re.findall(r"^(\w+) = \[", section, re.M)


def refusal(extra: str, machine: str, python: str) -> str:
    """uv's reason why `extra` ('base': none) cannot be installed there; empty if it can."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    words = [uv, "pip", "compile", "-q", "pyproject.toml", "--only-binary", ":all:", "--python-version", python]
    words += ["--python-platform", machine, *(["--extra", extra] if extra != "base" else [])]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    return " ".join(done.stderr.split()) if done.returncode else ""


def main() -> int:
    wanted, failed = sys.argv[1:] or ["base", *extras()], 0
    for extra, machine, python in itertools.product(wanted, MACHINES, PYTHONS):
        if reason := refusal(extra, machine, python):
            failed += 1
            print(f"[{extra}] on {machine}, Python {python}: {reason}", flush=True)
    checked = len(wanted) * len(MACHINES) * len(PYTHONS)
    print(f"{checked - failed} of {checked} resolve: {', '.join(wanted)}; {', '.join(PYTHONS)}; {', '.join(MACHINES)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
