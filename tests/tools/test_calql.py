"""The command `calql`, and working directories with packages named like ours."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent import commands, installed
from envs.start import module_command
from tools import calql

ROOT = Path(__file__).parents[2]
CALQL = "import sys; sys.path[0] = sys.argv.pop(1); from tools.calql import main; main()"  # as the installed script


def run(*words, cwd=ROOT, **variables):
    environment = {**os.environ, **variables}
    return subprocess.run(map(str, words), cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def run_calql(*words, cwd=ROOT):
    return run(sys.executable, "-c", CALQL, ROOT, *words, cwd=cwd)


@pytest.fixture(params=["namespace", "package"])
def folder(tmp_path, request):
    """A user's folder with an `envs` and a `tools` of their own, and a module of theirs."""
    for name in ("envs", "tools"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ("mine.py" if request.param == "namespace" else "__init__.py")).write_text("")
    (tmp_path / "desk.py").write_text(
        "import gymnasium\nfrom envs.fake import FakeEnv, FakeOptions\n"
        "gymnasium.register('Desk-v0', lambda **options: FakeEnv(FakeOptions()))\n"
    )
    return tmp_path


COLLECT = ["--env", "fake", "--device", "scripted", "--episodes", "1", "--out", "demos"]


def test_calql_works_beside_packages_named_like_ours(folder):
    done = run_calql("collect", *COLLECT, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "recorded 1 of 1 episode" in done.stdout
    done = run_calql("evaluate", "--policy", "random", "--env", "fake", "--episodes", "2", "--workers", "2", cwd=folder)
    assert done.returncode == 0, done.stderr


def test_modules_of_the_working_directory_are_still_found(folder):
    words = ["--env", "gym:desk:Desk-v0", "--device", "keyboard", "--out", "demos"]
    done = run_calql("collect", *words, cwd=folder)
    assert "No module named" not in done.stderr and "unknown environment" not in done.stderr, done.stderr


@pytest.mark.parametrize("module", ["robot_server", "agent.pretrain", "tools.collect"])
def test_python_m_works_beside_packages_named_like_ours(module, folder):
    """Where Python finds the command itself in the folder, it never comes to us: then calql is the way."""
    if module == "tools.collect" and (folder / "tools" / "__init__.py").exists():
        pytest.skip("Python runs the user's own tools")
    flags = COLLECT if module == "tools.collect" else ["--help-config"]
    done = run(sys.executable, "-m", module, *flags, cwd=folder, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr


def test_processes_that_we_start_are_ours(folder):
    done = run(*module_command("envs.real.mock_world", "--help"), cwd=folder)
    assert done.returncode == 0 and "mock_world" in done.stdout, done.stderr


def test_every_command_is_there_and_has_help():
    for name, (module, _) in calql.COMMANDS.items():
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or path.is_dir(), name
    assert {"link", "learner", "act"} <= set(calql.benchmarks())
    assert not {"peers", "random_data", "learning"} & set(calql.benchmarks())


def test_help_names_the_command_as_it_was_typed():
    done = run_calql("keys", "--help")
    assert done.stdout.startswith("usage: calql keys"), done
    assert "python -m" not in done.stdout and "calql keys --robot arm1" in done.stdout
    done = run_calql("bench", "link", "--help")
    assert done.stdout.startswith("usage: calql bench link"), done


def test_the_version_is_that_of_the_project():
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert run_calql("--version").stdout == f"calql {version}\n"
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_usage_lists_every_command():
    done = run_calql("--help")
    assert done.returncode == 0
    assert re.findall(r"^  ([\w-]+)", done.stdout, re.M) == list(calql.COMMANDS)


@pytest.mark.parametrize(("words", "hint"), [(["colect"], "did you mean 'collect'"), (["bench", "linc"], "'link'")])
def test_an_unknown_command_is_one_line(words, hint):
    done = run_calql(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and hint in done.stderr


def test_commands_are_printed_as_they_were_typed(monkeypatch):
    assert commands.typed("agent.learner", "--resume", "my run") == "python -m agent.learner --resume 'my run'"
    monkeypatch.setitem(commands.names, "agent.learner", "learner")
    assert commands.typed("agent.learner", "--resume", "run") == "calql learner --resume run"
    text = "python -m agent.learner --ckpt a.pt, python -m tools.x"
    assert commands.retyped(text) == "calql learner --ckpt a.pt, python -m tools.x"


@pytest.mark.parametrize(("extra", "module"), [(e, m) for e, modules in installed.EXTRAS.items() for m in modules])
def test_a_missing_package_names_its_extra(extra, module, monkeypatch, capsys):
    monkeypatch.setattr(installed, "VENV", "/nowhere")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.1.0")
    error = ModuleNotFoundError("No module", name=f"{module}.part")
    installed._explain(type(error), error, None)
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and f"[{extra}]" in line


def test_the_packages_of_each_extra_are_known():
    text = (ROOT / "pyproject.toml").read_text()
    for extra, modules in installed.EXTRAS.items():
        packages = re.findall(r'"([\w-]+)[^"]*"', re.search(rf"^{extra} = \[(.*?)\]", text, re.S | re.M)[1])
        assert sum({"pysdl2-dll": 0, "ur_rtde": 2}.get(name, 1) for name in packages) == len(modules), extra


def test_the_base_brings_what_the_robot_server_imports():
    """Blocked: every package of the extras. With them goes the robot's side, a mock arm and its cameras."""
    blocked = [module for modules in installed.EXTRAS.values() for module in modules]
    source = f"import sys\nfor name in {blocked}: sys.modules[name] = None\n"
    modules = "robot_server.__main__, agent.policy, envs.real.env, envs.real.cameras, envs.real.mock_arm, envs.fake"
    more = "tools.collect, tools.inspect, tools.edit, tools.link, tools.teleop, tools.keys, tools.evaluate"
    done = run(sys.executable, "-c", f"{source}import {modules}, {more}, agent.pretrain, agent.learner")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["collect", "pretrain", "learner", "robot", "evaluate", "link", "teleop", "panel"])
def test_help_begins_with_what_people_use_most_and_has_an_example(name):
    lines = run_calql(name, "--help").stdout.split("Used most:\n")[1].splitlines()
    flags = [line for line in lines[: lines.index("")] if line.startswith("  --")]
    assert 3 <= len(flags) <= 5 and all(len(line.split()) > 2 for line in flags), flags
    assert max(map(len, lines[: lines.index("")])) <= 120
    assert any(line.startswith(f"  calql {name} ") for line in lines[lines.index("") :])
    assert name != "collect" or "line, terminal, window" in " ".join(" ".join(lines).split())
