"""The wheel: what is in it, and that it works outside the checkout. `make wheel` also installs it with its packages."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools.setup import cpu_lock, resolve

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: the build leaves files in its folder."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("agent", "envs", "robot_server", "tools", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, out], cwd=source, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_configs_suites_and_the_page_are_in_the_wheel(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"agent/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    data = [*(ROOT / "tools/learning/suites").glob("*.yaml"), *(ROOT / "tools/panel/page").iterdir()]
    data += [*(ROOT / "envs/real/descriptions").iterdir(), ROOT / "tools/learning/ant_policy.npz"]
    assert len(configs) > 20 and len(data) > 20
    assert not {*configs, *(str(path.relative_to(ROOT)) for path in data)} - inside
    assert not [name for name in inside if name.startswith(("tests", "configs", "docs", "build"))]


def test_the_wheel_works_in_a_folder_of_the_users(wheel, tmp_path):
    site, folder = tmp_path / "site", tmp_path / "work"
    zipfile.ZipFile(wheel).extractall(site)
    (folder / "envs").mkdir(parents=True)
    (folder / "envs" / "__init__.py").write_text("raise ImportError('not ours')")
    words = ["--config", "tasks/toy.yaml", "--device", "scripted", "--episodes", "1", "--out", "demos"]
    script = f"import sys; sys.path[0] = {str(site)!r}; from tools.calql import main; main()"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script, "collect", *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 and "recorded 1 of 1 episode" in done.stdout, done.stderr


def test_the_cpu_lock_has_everything_but_cuda():
    rest, torch = cpu_lock.split(cpu_lock.LOCK.read_text())
    assert "\nnumpy==" in rest and "--hash" in rest and "--hash" not in torch
    assert not [line for line in rest.splitlines() if line.startswith(("nvidia", "cuda", "triton", "torch"))]
    assert {line.split("==")[0] for line in torch.splitlines()} == {"torch", "torchvision"}


def test_every_extra_is_resolved():
    assert {"learner", "sim", "record", "panel", "all", "dev"} < set(resolve.extras())


def test_the_dockerfile_copies_what_there_is_and_checks_the_link():
    text = (ROOT / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for word in line.split()]
    assert len(copied) > 7 and not [name for name in copied if not (ROOT / name).exists()]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert not [name for name in copied if f"!{name}" not in ignored]
    assert re.search(r"^HEALTHCHECK .*\\\n    CMD calql link ", text, re.M)
