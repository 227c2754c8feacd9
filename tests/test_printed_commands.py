"""Commands printed in README.md and docs/: all are understood, and those of the walkthrough run as they stand there."""

import argparse
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from forked import Program

from agent import cli
from agent.spec import UserError
from tools.common.process import free_port

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(text):
    """Command lines of the fenced blocks without a language, in their order, without comments."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            if not language and line.startswith("python -m "):
                yield shlex.split(line, comments=True)[2:]


PRINTED = [(page.relative_to(ROOT), words) for page in PAGES for words in commands(page.read_text())]


class Understood(Exception):
    pass


@pytest.fixture
def only_parsed(tmp_path, monkeypatch):
    """Commands end once their flags are read; files that earlier commands of a page write are there."""
    parse, parse_args = cli.parse, argparse.ArgumentParser.parse_args

    def parsed(
        argv, description, sections, add_flags=lambda parser: None, env_options=None, prog=None, recorded=None, often=()
    ):
        raise Understood(parse(argv, description, sections, add_flags, env_options, prog))

    def parsed_args(parser, argv=None, namespace=None):
        raise Understood(parse_args(parser, argv, namespace))

    monkeypatch.setattr(cli, "parse", parsed)
    monkeypatch.setattr(cli, "run", lambda main: main(sys.argv[1:]))
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed_args)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "classifier.yaml").write_text("env: {name: sim, classifier: reward.pt}")
    guide = (ROOT / "docs" / "your_own_arm.md").read_text()
    (tmp_path / "desk_arm.yaml").write_text(re.search(r"```yaml\n(.*?)```", guide, re.S)[1])


pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # runpy, of those that tests have imported


@pytest.mark.parametrize(("page", "words"), PRINTED, ids=[f"{page}: {' '.join(words)}" for page, words in PRINTED])
def test_a_printed_command_is_understood(page, words, only_parsed, monkeypatch):
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(Understood):
        runpy.run_module(words[0], run_name="__main__")


def test_a_wrong_flag_is_found(only_parsed, monkeypatch):
    for words in ("tools.collect --horizons 3", "tools.bench.act --seconds", "robot_server --config configs/none.yaml"):
        monkeypatch.setattr(sys, "argv", words.split())
        with pytest.raises((SystemExit, UserError)):
            runpy.run_module(sys.argv[0], run_name="__main__")


SMALL = {  # in the place of configs/quickstart.yaml: the same commands, on the toy task
    "env": {"name": "fake", "horizon": 12},
    "collect": {"episodes": 6, "noise": 0.3, "failure_rate": 0.3},
    "network": {
        "channels": [8],
        "strides": [2],
        "features": 8,
        "critics": 2,
        "actor_hidden": [16],
        "critic_hidden": [16],
    },
    "offline": {"updates": 20, "batch": 16},
    "online": {"env_steps": 60, "utd": 0.5, "batch": 16},
}


FEWER = {"offline": {"updates": 30}, "online": {"env_steps": 100}}  # in configs/tasks/toy.yaml


PROCESSES = ("agent.learner", "robot_server")  # the others run in this process: each would load torch anew


@pytest.mark.timeout(600)
@pytest.mark.parametrize("title", ["One minute: a toy task", "Fifteen minutes: Lift from images"])
def test_the_walkthrough_runs_as_it_is_printed(title, tmp_path, monkeypatch):
    """Every command of the section in its order, on small configurations; the link's port is not the default one."""
    section = (ROOT / "docs" / "walkthrough.md").read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    printed = list(commands(section))
    assert len(printed) >= 8
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "configs" / "quickstart.yaml").write_text(yaml.safe_dump(SMALL))
    toy = tmp_path / "configs" / "tasks" / "toy.yaml"
    sections = yaml.safe_load(toy.read_text())
    toy.write_text(yaml.safe_dump({name: {**values, **FEWER.get(name, {})} for name, values in sections.items()}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "run", lambda main: sys.exit(main(sys.argv[1:])))
    address = f"tcp://127.0.0.1:{free_port()}"
    running = {}
    try:
        for module, *arguments in printed:
            if module in PROCESSES:
                out = tmp_path / f"{module}.out"
                running[module] = Program("-m", module, *arguments, "--address", address, out=out, folder=tmp_path)
                if len(running) == 2:
                    codes = {name: program.wait(500) for name, program in running.items()}
                    assert not any(codes.values()), [program.said() for program in running.values()]
            else:
                monkeypatch.setattr(sys, "argv", [module, *arguments])
                with pytest.raises(SystemExit) as ended:
                    runpy.run_module(module, run_name="__main__")
                assert not ended.value.code, module
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    assert len(running) == 2 and len(list(tmp_path.glob("*.png"))) == 1
