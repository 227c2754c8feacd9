"""A disk that gets full, and a conversion that is ended: one line, and nothing that looks whole."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.data.episode_file import write_episode
from tools.convert import convert
from tools.formats.common.foreign import Choices

from .conftest import made

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The same episodes in every format that can be written, and how large each became."""
    folder = tmp_path_factory.mktemp("sources")
    for number in range(3):
        write_episode(folder / "episodes" / f"episode_{number:06d}.hdf5", made(12, (("front", (48, 48)),), seed=number))
    for kind in ("robomimic", "minari", "lerobot"):
        convert(folder / "episodes", folder / kind, Choices(), writes=kind)
    convert(folder / "minari", folder / "again", Choices(), writes="episodes")
    return folder


def command(*words):
    """Without bytecode: Python takes what a full disk has cut for a whole file, in every program after this one."""
    return [sys.executable, "-B", "-m", "tools.convert", *map(str, words)]


LARGEST = {
    "episodes": "again/*",
    "robomimic": "robomimic",
    "minari": "minari/data/*",
    "lerobot": "lerobot/*/*/*/*.mp4",
}


@pytest.mark.parametrize("part", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("kind", LARGEST)
def test_item_27_a_full_disk_is_one_line_and_exit_1(sources, tmp_path, kind, part):
    limit = int(part * max(path.stat().st_size for path in sources.glob(LARGEST[kind])))
    done = subprocess.run(
        command(sources / "minari", "--to", kind, "--out", tmp_path / "out"),
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if " read: " not in line]
    assert (done.returncode, done.stdout) == (1, ""), done
    assert len(lines) == 1 and lines[0].startswith(f"error: {tmp_path / 'out'}: "), done.stderr
    assert "nothing was written" in lines[0] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_item_27_an_ended_conversion_leaves_nothing_that_looks_whole(sources, tmp_path, sent):
    many = tmp_path / "many"
    many.mkdir()
    for number in range(300):
        os.link(sources / "episodes" / f"episode_{number % 3:06d}.hdf5", many / f"episode_{number:06d}.hdf5")
    process = subprocess.Popen(command(many, "--out", tmp_path / "out"), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.*.part/*.hdf5")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=60)
    lines = [line for line in stderr.splitlines() if " read: " not in line]
    assert (process.returncode, lines) == (128 + sent, ["stopped; nothing was written"])
    assert [path.name for path in tmp_path.iterdir()] == ["many"]
