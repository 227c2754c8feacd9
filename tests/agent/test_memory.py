"""What libc does with the memory that an update frees."""

import ctypes
import os
import subprocess
import sys

import pytest
import torch

from agent import memory
from agent.config import LearnerConfig
from agent.run import device
from agent.run.device import choose_device

on_glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="of glibc alone"
)
# Prints pages that 20 blocks of 40 MB cost, one after the other, each written and freed, when as many have been before:
# something small that comes to lie behind a block keeps the next one from its place, and now and then there is such.
PAGES = """
import resource, sys
import torch
from agent.config import LearnerConfig
from agent.run.device import choose_device
if sys.argv[1] == "learner":
    choose_device(LearnerConfig(device="cpu"))
for _ in range(20):
    torch.empty(10_000_000).fill_(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.empty(10_000_000).fill_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES_OF_ONE = 40_000_000 // os.sysconf("SC_PAGE_SIZE")


def pages(of, **environ):
    env = {**os.environ, "THP_MEM_ALLOC_ENABLE": "0", **environ}
    done = subprocess.run([sys.executable, "-c", PAGES, of], capture_output=True, text=True, env=env, check=True)
    return int(done.stdout)


@on_glibc
def test_a_learner_on_the_cpu_keeps_the_pages_of_what_it_freed(monkeypatch):
    for name in [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]:
        monkeypatch.delenv(name)
    assert pages("plain") > 15 * PAGES_OF_ONE
    assert pages("learner") < 5 * PAGES_OF_ONE


@on_glibc
def test_what_the_environment_says_about_malloc_holds():
    assert pages("learner", MALLOC_MMAP_THRESHOLD_="1000000") > 15 * PAGES_OF_ONE


@pytest.mark.parametrize("libc", ["another", "none"])
def test_another_libc_is_left_alone(monkeypatch, libc):
    for name in [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]:
        monkeypatch.delenv(name)
    if libc == "none":
        monkeypatch.setattr(memory.sys, "platform", "win32")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert not memory.keep_freed()


def test_a_learner_on_a_gpu_leaves_malloc_alone(monkeypatch):
    told = []
    monkeypatch.setattr(device, "keep_freed", lambda: told.append(True))
    monkeypatch.setattr(torch, "Generator", lambda device: torch.default_generator)
    monkeypatch.setattr(torch, "empty", lambda *size, device: torch.zeros(*size))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda precision: None)
    choose_device(LearnerConfig(device="cuda:0"))
    assert told == []
    choose_device(LearnerConfig(device="cpu"))
    assert told == [True]


@pytest.mark.parametrize(
    ("refused", "told", "kept"),
    [
        (set(), [(-3, 256 << 20), (-1, 512 << 20)], True),
        ({256 << 20}, [(-3, 256 << 20), (-3, 32 << 20), (-1, 512 << 20)], True),
        ({256 << 20, 32 << 20}, [(-3, 256 << 20), (-3, 32 << 20)], False),
    ],
    ids=["glibc of today", "before 2.35", "neither"],
)
def test_an_older_glibc_takes_less_or_is_left_alone(monkeypatch, refused, told, kept):
    """The second setting alone would take malloc's own growing threshold away, and make all larger blocks slow."""
    for name in [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]:
        monkeypatch.delenv(name)
    heard = []

    class Libc:
        gnu_get_libc_version = None

        def mallopt(self, name, value):
            heard.append((name, value))
            return int(value not in refused)

    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: Libc())
    assert memory.keep_freed() is kept and heard == told
