"""For `make TORCH=cpu`: requirements.lock without CUDA, and PyTorch's versions for its own CPU index.

python3 tools/setup/cpu_lock.py FOLDER          writes FOLDER/cpu.lock (with hashes) and FOLDER/torch.txt (without)
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LOCK = Path(__file__).parents[2] / "requirements.lock"
CUDA = re.compile(r"(nvidia|cuda|triton)\b")
TORCH = re.compile(r"(torch|torchvision)==")


def split(lock: str) -> tuple[str, str]:
    """(the other packages with their hashes, lines such as `torch==2.9.0 ; python_version < '3.11'`)."""
    entries = [entry for entry in re.split(r"^(?=\w)", lock, flags=re.M) if entry]
    rest = [entry for entry in entries if not CUDA.match(entry) and not TORCH.match(entry)]
    torch = [entry.splitlines()[0].rstrip("\\ ") + "\n" for entry in entries if TORCH.match(entry)]
    return "".join(rest), "".join(torch)


def main() -> None:
    rest, torch = split(LOCK.read_text())
    folder = Path(sys.argv[1])
    (folder / "cpu.lock").write_text(rest)
    (folder / "torch.txt").write_text(torch)


if __name__ == "__main__":
    main()
