"""The files in configs/: each is read by the commands, and says what it promises."""

import dataclasses
from pathlib import Path

import pytest

import envs
from agent import cli
from agent.config import SECTIONS, check

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.name for path in CONFIGS.glob("*.yaml"))


def settings(*names):
    """section -> its values, after these files in this order."""
    files = [word for name in names for word in ("--config", str(CONFIGS / name))]
    arguments = cli.parse(files, "", list(SECTIONS), env_options=envs.options)
    sections = {name: arguments.section(name) for name in SECTIONS}
    check(sections)
    return {name: dataclasses.asdict(section) for name, section in sections.items()} | {"env": arguments.env()}


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_read_alone_and_after_a_task(name):
    settings(name)
    settings("lift.yaml", name)


def test_robot_yaml_is_the_default():
    assert settings("robot.yaml") == settings()
    assert settings("paper.yaml", "robot.yaml")["calql"] == settings()["calql"]


def test_cql_yaml_changes_one_switch():
    plain, cql = settings("quickstart.yaml"), settings("quickstart.yaml", "cql.yaml")
    assert plain["calql"].pop("calibrate") is True and cql["calql"].pop("calibrate") is False
    assert plain == cql


def test_paper_yaml_has_the_published_numbers():
    found = settings("paper.yaml")
    calql, network = found["calql"], found["network"]
    assert (calql["gamma"], calql["target_rate"], calql["actor_lr"], calql["critic_lr"]) == (0.99, 0.005, 1e-4, 3e-4)
    assert (calql["cql_actions"], calql["cql_weight"], calql["lagrange_threshold"]) == (10, 5.0, 0.8)
    assert calql["calibrate"] and calql["max_target_backup"] and not calql["entropy_backup"]
    assert (calql["bc_weight"], calql["bc_weight_online"], calql["policy_average"]) == (0, 0, 0)
    assert network["critics"] == 2 and not network["critic_layer_norm"] and network["critic_hidden"] == [256] * 4
    assert (found["reward"]["scale"], found["reward"]["bias"]) == (10.0, -5.0)
    assert (found["offline"]["batch"], found["online"]["batch"], found["online"]["offline_share"]) == (256, 256, 0.5)


def test_presets_without_a_conservative_term_are_sac_online():
    for name, warmup, share in (("rlpd.yaml", 0, 0.5), ("wsrl.yaml", 5000, 0.0)):
        found = settings(name)
        assert found["calql"]["cql_weight_online"] == 0 and found["calql"]["bc_weight_online"] == 0
        assert (found["online"]["warmup_steps"], found["online"]["offline_share"]) == (warmup, share)
        assert found["online"]["utd"] == 4
