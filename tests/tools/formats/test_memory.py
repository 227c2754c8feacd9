"""A conversion holds some megabytes of images, however many and however long the episodes are."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agent.data.episode_file import write_episode
from agent.data.frames import BLOCK_BYTES, Frames, blocks
from tools.convert import convert
from tools.formats.common.foreign import Choices

from .conftest import made

ROOT = Path(__file__).parents[3]
SIDE, SHORT, LONG = 256, 50, 250  # an image is 0.2 MB, the long episode 49 MB, the short one 10 MB
MARGIN_MB = 25
CHILD = """
import sys
from pathlib import Path
from tools.convert import convert
from tools.formats.common.foreign import Choices
convert(Path(sys.argv[1]), Path(sys.argv[2]), Choices(fps=10 if sys.argv[3] == "lerobot" else None), writes=sys.argv[3])
lines = Path("/proc/self/status").read_text().splitlines()  # ru_maxrss would count the parent's memory, too
print(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")))
"""


def peak_mb(source, out, kind):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(source), str(out), kind],
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def streamed(steps, seed=0):
    """An episode whose pictures are made when they are read."""
    episode = made(steps, seed=seed)

    def read(first, end):
        numbers = (np.arange(first, end) % 256).astype(np.uint8)
        return np.broadcast_to(numbers[:, None, None, None], (end - first, SIDE, SIDE, 3))

    episode.observations["front"] = Frames((steps + 1, SIDE, SIDE, 3), read)
    return episode


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """In every format: one short episode, one long one, and seven short ones."""
    folder = tmp_path_factory.mktemp("sources")
    lengths = {"short": [SHORT], "long": [LONG], "many": [SHORT] * (LONG // SHORT)}
    for name, steps in lengths.items():
        for number, length in enumerate(steps):
            write_episode(folder / name / f"episode_{number:06d}.hdf5", streamed(length, number))
        for kind in ("robomimic", "minari", "lerobot"):
            convert(folder / name, folder / f"{name}-{kind}", Choices(), writes=kind)
    return folder


@pytest.mark.parametrize(
    ("reads", "writes"),
    [("", "robomimic"), ("-robomimic", "minari"), ("-minari", "lerobot"), ("-lerobot", "episodes")],
)
def test_item_28_memory_does_not_grow_with_length_or_number(sources, tmp_path, reads, writes):
    peaks = {n: peak_mb(sources / f"{n}{reads}", tmp_path / n, writes) for n in ("short", "long", "many")}
    print(peaks)
    assert peaks["long"] < peaks["short"] + MARGIN_MB and peaks["many"] < peaks["short"] + MARGIN_MB, peaks


def test_item_28_blocks_are_bounded_and_whole():
    images = streamed(LONG).observations["front"]
    found = list(blocks(images))
    assert max(block.nbytes for _, block in found) <= BLOCK_BYTES
    assert np.concatenate([block.max(axis=(1, 2, 3)) for _, block in found]).tolist() == [
        n % 256 for n in range(LONG + 1)
    ]
    longer = images.followed_by(np.full((SIDE, SIDE, 3), 9, np.uint8)).span(0, LONG + 2)
    assert len(longer) == LONG + 2 and longer[-1].max() == 9 == longer[LONG:][1].max()
    assert images.span(0, 3).followed_by()[2:4].max(axis=(1, 2, 3)).tolist() == [2, 2]
