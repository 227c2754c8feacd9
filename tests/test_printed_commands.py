"""Commands printed in README.md and docs/: all are understood, and those of the walkthrough run as they stand there."""

import argparse
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from agent import cli
from agent.spec import UserError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(text):
    """Command lines of the fenced blocks without a language, in their order, without comments."""
    for block in re.findall(r"^```\n(.*?)^```", text, re.S | re.M):
        for line in block.splitlines():
            if line.startswith("python -m "):
                yield shlex.split(line, comments=True)[2:]


PRINTED = [(page.relative_to(ROOT), words) for page in PAGES for words in commands(page.read_text())]


class Understood(Exception):
    pass


@pytest.fixture
def only_parsed(tmp_path, monkeypatch):
    """Commands end once their flags are read; files that earlier commands of a page write are there."""
    parse, parse_args = cli.parse, argparse.ArgumentParser.parse_args

    def parsed(argv, description, sections, add_flags=lambda parser: None, env_options=None, prog=None, recorded=None):
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
