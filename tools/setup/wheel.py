"""Build the wheel, install it into an empty environment, and run the whole job there, in a folder of its own.

  .venv/bin/python tools/setup/wheel.py [--torch cpu] [--find-links FOLDER]        other words go to `uv pip install`

The job is the toy task in small: demonstrations, offline training, fine-tuning by two processes, evaluation, a plot.
The folder has packages `envs` and `tools` of its own, which must not matter. Needs uv and the network.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = "offline: {updates: 20, batch: 16}\nonline: {env_steps: 60, batch: 16}\ncollect: {episodes: 3}\n"


def call(*words: object, cwd: Path = ROOT) -> None:
    print("$", *words, flush=True)
    subprocess.run(list(map(str, words)), cwd=cwd, check=True)


def build(out: Path) -> Path:
    """The wheel, in the folder `out`."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    call(uv, "build", "-q", "--wheel", "--no-build-isolation", "--python", sys.executable, "-o", out, ".")
    for left in [ROOT / "build", *ROOT.glob("*.egg-info")]:
        shutil.rmtree(left, ignore_errors=True)
    return max(out.glob("*.whl"), key=os.path.getmtime)


def try_it(wheel: Path, options: list[str]) -> None:
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    with tempfile.TemporaryDirectory() as place:
        folder, venv = Path(place, "work"), Path(place, "venv")
        for name in ("envs", "tools"):
            (folder / name).mkdir(parents=True)
            (folder / name / "__init__.py").write_text("raise ImportError('not ours')\n")
        (folder / "small.yaml").write_text(SMALL)
        call(uv, "venv", "-q", "--python", sys.executable, venv)
        call(uv, "pip", "install", "-q", "--python", venv / "bin/python", *options, f"{wheel}[learner]", cwd=folder)
        calql = venv / "bin/calql"
        call(calql, "demo", "--config", "tasks/toy.yaml", "--config", "small.yaml", "--episodes", 3, cwd=folder)
        if not (folder / "runs/demo/summary.json").exists():
            raise SystemExit("the demo wrote no summary")
        size = sum(file.lstat().st_size for file in venv.rglob("*") if file.is_file())
        print(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB; installed with [learner]: {size / 1e9:.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", choices=["cuda", "cpu"], default="cuda", help="cpu: from PyTorch's index")
    flags, options = parser.parse_known_args()
    try_it(build(ROOT / "dist"), [*(["--torch-backend", "cpu"] if flags.torch == "cpu" else []), *options])


if __name__ == "__main__":
    main()
