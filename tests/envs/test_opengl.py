"""What the system lacks for a simulation is one line, and what can be done without is done without."""

import ctypes.util
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import envs

ROOT = Path(__file__).parents[2]
SIM = "import envs; envs.make('sim', image_size=8).close(); print('made')"


def collect(*words, **environment):
    command = [sys.executable, "-m", "tools.collect", "--device", "scripted", "--out", "/nonexistent", *words]
    without = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run(
        command, cwd=ROOT, env={**without, **environment}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and done.stdout == "", done
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("backend", ["egl", "osmesa", "bogus"])
def test_a_missing_opengl_is_one_line(backend):
    if backend == "osmesa" and ctypes.util.find_library("OSMesa"):
        pytest.skip("OSMesa is there")
    nowhere = {"__EGL_VENDOR_LIBRARY_DIRS": "/nonexistent"}  # libglvnd then finds no driver
    line = collect("--env", "sim", MUJOCO_GL=backend, **nowhere)
    assert f"cannot draw without OpenGL (MUJOCO_GL={backend})" in line
    assert {"egl": "libegl1", "osmesa": "libosmesa6", "bogus": "it can be egl, osmesa"}[backend] in line


def test_a_window_without_a_display_is_one_line():
    line = collect("--env", "gym:Reacher-v5", "--kwargs", "{render_mode: human}")
    assert "render_mode human opens a window, and there is no display" in line


@pytest.mark.parametrize("name", ["AdroitHandDoor-v1", "gymnasium_robotics:AdroitHandDoor-v1", "FetchReach-v4"])
def test_an_environment_of_a_package_that_is_missing_names_it(monkeypatch, name):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if "robotics" in module else find(module))
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)  # as if it were not installed
    with pytest.raises(ValueError, match=rf"gym:{name} needs gymnasium-robotics: uv pip install gymnasium-robotics"):
        envs.make(f"gym:{name}")


def test_sim_where_neither_the_package_nor_home_can_be_written(tmp_path):
    """As a service's user has it: the packages on a read-only mount, in a mount namespace of its own."""
    import robosuite

    packages, home = Path(robosuite.__file__).parents[1], "/proc/nonexistent"  # where root cannot write either
    mount = f"mount --bind {packages} {packages} && mount -o remount,ro,bind {packages}"
    spaces = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*spaces, mount], capture_output=True).returncode:
        pytest.skip("no mount namespace here")
    environment = {key: value for key, value in os.environ.items() if key not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    script = f'{mount} && exec "$0" -B -c "$1"'
    done = subprocess.run(
        [*spaces, script, sys.executable, SIM],
        cwd=ROOT, env={**environment, "HOME": home, "TMPDIR": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "made" in done.stdout, done.stderr[-2000:]
    assert list(tmp_path.glob("calql-*/numba/**/*.nbi"))
