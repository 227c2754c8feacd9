"""The files in configs/: each is read by the commands, and says what it promises."""

import dataclasses
import math
from pathlib import Path

import pytest
import yaml

import envs
from agent import cli
from agent.config import OTHER_SECTIONS, SECTIONS, RunConfig
from tools.learning import suite as learning_suite

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
SUITES = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "tools/learning/suites").glob("*.yaml"))
}
FILES = {path.name: path for path in CONFIGS.rglob("*.yaml")}
NAMES = sorted(name for name in FILES if FILES[name].parent.name != "hardware" or name in ("gpu.yaml", "cpu_bf16.yaml"))


def settings(*names):
    """section -> its values, after these files in this order."""
    files = [word for name in names for word in ("--config", str(FILES.get(name, name)))]
    names = [*SECTIONS, *OTHER_SECTIONS]
    arguments = cli.parse(files, "", names, env_options=envs.options)
    sections = {name: arguments.section(name) for name in names}
    RunConfig(**{name: sections[name] for name in SECTIONS}).checked()
    return {name: dataclasses.asdict(section) for name, section in sections.items()} | {"env": arguments.env()}


def flat(found):
    """'section.field' -> its value, and the same of the environment's name and options."""
    name, options = found["env"]
    sections = {**found, "env": {"name": name, **options}}
    return {f"{section}.{field}": value for section, fields in sections.items() for field, value in fields.items()}


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


@pytest.mark.parametrize("path", sorted((CONFIGS / "presets").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_preset_that_replaces_the_tasks_reward_says_so(path):
    comment = path.read_text().partition("\nnetwork:")[0]
    assert ("reward" in yaml.safe_load(path.read_text())) == ("task's reward" in comment or "The reward:" in comment)
    page = (ROOT / "docs/presets.md").read_text()
    assert "task's reward (" not in comment or f"`{path.name}`" in page.partition("replace the task's reward")[0][-120:]


PAPER = {  # AntMaze
    "network.state_standardise": False, "network.init": "orthogonal", "network.last_gain": 0.01,
    "network.log_std": "scaled",
    "network.state_features": 0, "network.critics": 2, "network.actor_layer_norm": False,
    "network.critic_layer_norm": False, "network.actor_hidden": [256, 256], "network.critic_hidden": [256] * 4,
    "calql.gamma": 0.99, "calql.target_rate": 0.005, "calql.actor_lr": 1e-4, "calql.critic_lr": 3e-4,
    "calql.temperature_lr": 1e-4, "calql.lagrange_lr": 3e-4, "calql.calibrate": True, "calql.cql_actions": 10,
    "calql.cql_weight": 5.0, "calql.cql_weight_online": 5.0, "calql.cql_decay_steps": 0,
    "calql.cql_clip_low": -math.inf, "calql.cql_clip_high": math.inf, "calql.lagrange_threshold": 0.8,
    "calql.importance_sampling": True, "calql.max_target_backup": True, "calql.entropy_backup": False,
    "calql.target_subset": 0, "calql.actor_q": "min", "calql.target_entropy": -1.0, "calql.initial_temperature": 1.0,
    "calql.bc_weight": 0.0, "calql.bc_weight_online": 0.0, "calql.start_at_return": False,
    "calql.policy_average": 0.0, "calql.gradient_clip": 0.0, "calql.augment_pad": 4,
    "reward.scale": 10.0, "reward.bias": -5.0, "reward.sparse": True, "offline.batch": 256,
    "online.batch": 256, "online.utd": 1.0, "online.offline_share": 0.5, "online.warmup_steps": 0,
}  # fmt: skip
PAPER_ADROIT = PAPER | {
    "network.actor_hidden": [512] * 2, "network.critic_hidden": [512] * 3, "calql.cql_weight": 1.0,
    "calql.cql_weight_online": 1.0, "calql.lagrange_threshold": None,
}  # fmt: skip
PAPER_KITCHEN = PAPER | {
    "network.actor_hidden": [512] * 3, "network.critic_hidden": [512] * 3, "calql.importance_sampling": False,
    "calql.lagrange_threshold": None, "reward.scale": 1.0, "reward.bias": -4.0, "reward.sparse": False,
    "online.offline_share": 0.25,
}  # fmt: skip
OTHERS = {  # what RLPD and WSRL have in common
    "network.critics": 10, "network.critic_layer_norm": True, "calql.target_rate": 0.005, "calql.actor_lr": 3e-4,
    "calql.critic_lr": 3e-4, "calql.target_subset": 2, "calql.actor_q": "mean", "calql.target_entropy": -0.5,
    "calql.cql_weight_online": 0.0, "calql.bc_weight": 0.0, "calql.bc_weight_online": 0.0,
    "calql.start_at_return": False, "calql.policy_average": 0.0, "calql.gradient_clip": 0.0, "calql.augment_pad": 4,
    "online.utd": 4.0, "online.actor_every": 4, "calql.initial_temperature": 0.01, "calql.temperature_lr": 3e-4,
}  # fmt: skip
PAPER_SMALL = PAPER | {
    "network.actor_hidden": [128] * 2, "network.critic_hidden": [128] * 2, "calql.gamma": 0.95, "calql.cql_actions": 4,
    "calql.lagrange_threshold": None, "calql.target_rate": 0.02, "calql.actor_lr": 1e-3, "calql.critic_lr": 1e-3,
    "offline.batch": 128, "online.batch": 128,
}  # fmt: skip
RLPD = OTHERS | {
    "calql.cql_weight": 0.0, "calql.max_target_backup": False, "calql.entropy_backup": False,
    "offline.updates": 0, "online.offline_share": 0.5, "online.warmup_steps": 0, "reward.scale": 1.0,
    "reward.bias": 0.0,
}  # fmt: skip
RLPD_D4RL = RLPD | {
    "network.state_standardise": False, "network.init": "xavier", "network.log_std": "direct",
    "network.state_features": 0, "network.actor_hidden": [256] * 3, "network.critic_hidden": [256] * 3,
    "network.actor_layer_norm": False, "calql.gamma": 0.99, "calql.initial_temperature": 1.0,
    "offline.batch": 256, "online.batch": 256, "reward.bias": -1.0,
}  # fmt: skip
WSRL = OTHERS | {
    "network.actor_layer_norm": True, "calql.cql_weight": 5.0, "calql.calibrate": True, "calql.cql_actions": 10,
    "calql.max_target_backup": False, "calql.entropy_backup": False, "online.offline_share": 0.0,
    "online.warmup_steps": 5000,
}  # fmt: skip
WSRL_D4RL = WSRL | {
    "calql.cql_weight": 1.0,
    "network.state_standardise": False, "network.init": "orthogonal", "network.last_gain": 1.4142135,
    "network.log_std": "direct", "network.actor_hidden": [256] * 2, "network.critic_hidden": [256] * 4,
    "calql.lagrange_threshold": 0.8, "calql.max_target_backup": True, "calql.actor_q": "min",
    "calql.target_entropy": -1.0, "network.state_features": 0, "calql.gamma": 0.99, "calql.actor_lr": 1e-4,
    "calql.temperature_lr": 1e-4, "calql.initial_temperature": 1.0, "calql.importance_sampling": True,
    "reward.scale": 10.0, "reward.bias": -5.0, "offline.batch": 256, "online.batch": 256,
}  # fmt: skip
WSRL_ADROIT = WSRL_D4RL | {
    "network.actor_hidden": [512] * 2, "network.critic_hidden": [512] * 3, "calql.lagrange_threshold": None,
    "calql.max_target_backup": False,
}  # fmt: skip
WSRL_KITCHEN = WSRL_D4RL | {
    "network.actor_hidden": [512] * 3, "network.critic_hidden": [512] * 3, "calql.importance_sampling": False,
    "calql.cql_weight": 5.0, "calql.lagrange_threshold": None, "calql.max_target_backup": False, "reward.scale": 1.0,
    "reward.bias": -4.0, "reward.sparse": False,
}  # fmt: skip
D4RL = {"calql.gamma": 0.99, "offline.batch": 256, "online.batch": 256, "online.utd": 1.0}
ADROIT = D4RL | {
    "env.kwargs": {}, "env.binary": True, "env.count_tasks": False, "offline.successes_only": True,
    "offline.updates": 20_000, "online.env_steps": 100_000,
}  # fmt: skip
UMAZE = [[1, 1, 1, 1, 1], [1, "g", 0, 0, 1], [1, 1, 1, 0, 1], [1, "r", 0, 0, 1], [1, 1, 1, 1, 1]]
CHORES = ["microwave", "kettle", "light switch", "slide cabinet"]
TABLES = {
    "paper": PAPER,
    "paper paper_small": PAPER_SMALL,
    "paper paper_adroit": PAPER_ADROIT,
    "paper paper_kitchen": PAPER_KITCHEN,
    "rlpd": RLPD,
    "rlpd rlpd_d4rl": RLPD_D4RL,
    "wsrl": WSRL,
    "wsrl wsrl_d4rl": WSRL_D4RL,
    "wsrl wsrl_d4rl wsrl_adroit": WSRL_ADROIT,
    "wsrl wsrl_d4rl wsrl_kitchen": WSRL_KITCHEN,
    "bc": {"calql.cql_weight": 0.0, "calql.bc_weight": 1000.0, "calql.bc_filter": "success", "online.env_steps": 0},
    "cql": {"calql.calibrate": False},
    "adroit_door": ADROIT | {"env.name": "gym:gymnasium_robotics:AdroitHandDoor-v1", "env.max_episode_steps": 200},
    "adroit_pen": ADROIT | {"env.name": "gym:gymnasium_robotics:AdroitHandPen-v1", "env.max_episode_steps": 100},
    "adroit_relocate": ADROIT
    | {"env.name": "gym:gymnasium_robotics:AdroitHandRelocate-v1", "env.max_episode_steps": 200},
    "antmaze": D4RL
    | {"env.name": "gym:gymnasium_robotics:AntMaze_UMaze-v4", "env.kwargs": {"maze_map": UMAZE}, "env.binary": True}
    | {"env.count_tasks": False}
    | {"offline.updates": 100_000, "online.env_steps": 100_000},
    "kitchen": D4RL
    | {"env.name": "gym:gymnasium_robotics:FrankaKitchen-v1", "env.kwargs": {"tasks_to_complete": CHORES}}
    | {"env.binary": False, "env.count_tasks": True, "calql.bc_filter": "all", "reward.scale": 1.0}
    | {"reward.bias": -4.0, "reward.sparse": False}
    | {"offline.updates": 100_000, "online.env_steps": 200_000},
}


@pytest.mark.parametrize("names", TABLES)
def test_a_preset_has_its_numbers_and_changes_no_others(names):
    table, default = TABLES[names], flat(settings())
    found = flat(settings(*(f"{name}.yaml" for name in names.split())))
    assert {key: value for key, value in found.items() if key in table or value != default.get(key)} == table


def published():
    """(files, setting, published, ours, source, why not the same) of each row of the tables in docs/presets.md."""
    files, rows = "", []
    for line in (ROOT / "docs" / "presets.md").read_text().splitlines():
        if line.startswith("### "):
            files = line.split("`")[1]
        elif files and line.startswith("| `"):
            setting, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            rows.append((files, setting.strip("`"), *cells))
    return rows


def test_the_numbers_beside_the_published_ones_are_those_of_the_files():
    rows = published()
    found = {files: flat(settings(*(f"{name}.yaml" for name in files.split()))) for files, *_ in rows}
    for files, setting, theirs, ours, source, why in rows:
        assert found[files][setting] == yaml.safe_load(ours), (files, setting)
        assert source and bool(why) == (theirs != ours), (files, setting)


@pytest.mark.parametrize(
    "name",
    ["paper", "paper_adroit", "paper_kitchen", "wsrl", "wsrl_d4rl", "wsrl_adroit", "wsrl_kitchen", "rlpd", "rlpd_d4rl"],
)
def test_every_number_of_a_published_preset_is_beside_the_published_one(name):
    sections = yaml.safe_load(FILES[f"{name}.yaml"].read_text())
    numbers = {f"{section}.{field}" for section, fields in sections.items() for field in fields}
    assert numbers <= {setting for files, setting, *_ in published() if files.split()[-1] == name}


def runs(suite, preset, folder):
    """The settings of each task of a suite with one of its presets, whose written-out parts go to `folder`."""
    jobs = learning_suite.jobs(learning_suite.read(suite), folder)
    found = [job for job in jobs if job.preset == preset and job.seed == 0]
    assert len(found) == len(SUITES[suite]["tasks"])
    return [settings(*(file if Path(file).is_absolute() else Path(file).name for file in job.configs)) for job in found]


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("antmaze", {"paper": PAPER, "rlpd": RLPD_D4RL, "wsrl": WSRL_D4RL}),
        ("adroit", {"paper": PAPER_ADROIT, "rlpd": RLPD_D4RL, "wsrl": WSRL_ADROIT}),
        ("kitchen", {"paper": PAPER_KITCHEN, "rlpd": RLPD_D4RL | {"reward.bias": -4.0}, "wsrl": WSRL_KITCHEN}),
    ],
)
def test_the_suites_of_published_tasks_have_the_published_numbers(name, tables, tmp_path):
    for preset, table in tables.items():
        for found in map(flat, runs(name, preset, tmp_path)):
            assert {key: found[key] for key in table} == table, preset


@pytest.mark.parametrize("name", [name for name, suite in SUITES.items() if "cql" in suite["presets"]])
def test_in_every_suite_cql_is_its_first_preset_without_the_calibration(name, tmp_path):
    twin = next(iter(SUITES[name]["presets"]))
    for plain, cql in zip(runs(name, twin, tmp_path), runs(name, "cql", tmp_path), strict=True):
        assert plain["calql"].pop("calibrate") is True and cql["calql"].pop("calibrate") is False
        assert plain == cql


def test_cql_sac_is_cql_without_the_conservative_term_online(tmp_path):
    for cql, sac in zip(*(runs("point_maze", name, tmp_path) for name in ("cql", "cql_sac")), strict=True):
        assert cql["calql"].pop("cql_weight_online") > 0 and sac["calql"].pop("cql_weight_online") == 0
        assert cql == sac


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("robot", "Cal-QL"),
        ("cql", "CQL"),
        ("paper", "Cal-QL"),
        ("rlpd", "SAC"),
        ("bc", "SAC with behaviour cloning"),
    ],
)
def test_a_preset_without_a_conservative_term_is_not_called_cal_ql(name, algorithm):
    arguments = cli.parse(["--config", str(FILES[f"{name}.yaml"])], "", ["calql"])
    assert arguments.section("calql").algorithm == algorithm
