"""tools.evaluate on an arm, as a person runs it."""

import json
import os
import random
import re
import shlex
import signal
import time
from collections import Counter
from pathlib import Path

import imageio.v3 as iio
import pytest
import torch
from forked import Program
from person import Session

from agent import cli
from agent.config import NetworkConfig
from agent.policy import Policy
from agent.run.checkpoint import Checkpoint
from agent.spec import Spec, UserError
from envs.fake import LOG
from robot_server.control_client import Operator
from tools.common.rollout import env_record, make_env
from tools.evaluate import main
from tools.trials import command as command_module
from tools.trials.ledger import EPISODES, KILLED, read_settings

ROOT = Path(__file__).parents[3]
TINY = {"channels": [4, 4], "strides": [2, 2], "features": 4, "state_features": 4, "actor_hidden": [8]}
SECRETS = ("untuned", "finetuned")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two untrained policies of the fake environment."""
    folder, env = tmp_path_factory.mktemp("checkpoints"), make_env("fake", {})
    spec = Spec.from_spaces(env.observation_space, env.action_space)
    for number, name in enumerate(SECRETS):
        torch.manual_seed(number)
        weights = Policy(spec, NetworkConfig(**TINY)).state_dict()
        Checkpoint(spec, env_record("fake", {}), {"network": TINY}, {"average": weights}).save(folder / f"{name}.pt")
    return [folder / f"{name}.pt" for name in SECRETS]


@pytest.fixture
def words(checkpoints, tmp_path):
    """words(episodes, ...): of a command line; robot.control is one that no other test has."""
    (tmp_path / "robot.yaml").write_text(f"robot: {{control: 'ipc://{tmp_path}/c.sock'}}")

    def of(episodes, *more):
        named = [word for path in checkpoints for word in ("--ckpt", path)]
        common = ["--config", tmp_path / "robot.yaml", "--env", "fake", "--out", tmp_path / "out"]
        return [str(word) for word in ("tools.evaluate", *common, *named, "--episodes", episodes, *more)]

    return of


def lines_of(folder):
    path = folder / EPISODES
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_killed_three_times_every_episode_counts_once(words, tmp_path, capsys, monkeypatch):
    """SIGKILL at moments of a seeded draw; what the environment itself logs agrees."""
    command = words(5, "--verdict", "signal", "--step-ms", "4")
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    draw = random.Random(1)
    for least in (2, 5, 8):
        process = Program("-m", *command)
        while sum("result" in line for line in lines_of(tmp_path / "out")) < least:
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert main(command[1:]) == 0
    table = capsys.readouterr().out
    found = lines_of(tmp_path / "out")
    results = [line for line in found if "result" in line]
    counted = Counter(line["episode"] for line in results if line["result"] != "void")
    assert counted == Counter(range(10))
    assert all(line["reason"] == KILLED for line in results if line["result"] == "void")
    assert [line["attempt"] for line in found if "result" not in line] == list(range(len(results)))
    logged = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    resets = [line["seed"] for line in logged if "seed" in line]
    assert len(results) - 3 <= len(resets) <= len(results) and set(resets) == set(range(100_000, 100_005))
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    order = read_settings(tmp_path / "out").order()
    assert [each["episodes"] for each in result["checkpoints"]] == [5, 5]
    for number, each in enumerate(result["checkpoints"]):
        mine = [line for line in results if line["result"] != "void" and order[line["episode"]] == number]
        assert each["successes"] == sum(line["result"] == "success" for line in mine)
    assert result["differences"][0]["pairs"] == 5
    assert main(command[1:]) == 0 and capsys.readouterr().out == table
    assert lines_of(tmp_path / "out") == found  # it has ended


def leaks(text):
    return [name for name in SECRETS if name in text]


def test_nothing_tells_the_operator_which_policy_acts_before_the_end(words, tmp_path):
    out, shown = tmp_path / "out", ""
    session, operator = Session(*words(2, "--verdict", "person")), Operator(f"ipc://{tmp_path}/c.sock")
    try:
        for episode in range(1, 5):
            shown += session.until(f"episode {episode} of 4 has ended")
            assert not leaks(str(operator.ask("frames")["state"]))
            session.press("z")  # no key of ours
            session.press("n" if episode % 2 else "y")
            shown += session.until("Enter confirms")
            names = " ".join(str(path.relative_to(out)) for path in out.rglob("*"))
            assert not leaks(names) and not leaks((out / EPISODES).read_text())
            session.press("\r")
        shown += session.until("recorded as a success") if episode == 4 else ""
        assert "untuned" not in shown and not leaks(shown)
        assert session.end() == 0
        assert leaks(session.text) == list(SECRETS)  # the table
    finally:
        session.close()
        operator.close()
    found = json.loads((out / "result.json").read_text())
    assert sum(each["successes"] for each in found["checkpoints"]) == 2
    videos = sorted((out / "videos").iterdir())
    assert [video.name for video in videos] == [f"attempt_{k:06d}.mp4" for k in range(4)]
    assert len(iio.imread(videos[0], plugin="pyav")) == 21  # 20 steps, and what was seen after the last


def test_ctrl_c_keeps_what_was_done_and_end_makes_the_table(words, tmp_path, capfd):
    session = Session(*words(3, "--verdict", "person"))
    try:
        for episode in (1, 2):
            session.until(f"episode {episode} of 6 has ended")
            session.press("y\r")
        session.until("episode 3 of 6 has ended")
        os.kill(session.process.pid, signal.SIGINT)
        assert session.end() == 130
        assert "2 of 6 episodes done; the same command resumes" in session.text and not leaks(session.text)
    finally:
        session.close()
    assert main([*words(3, "--verdict", "person", "--end", "--json")[1:]]) == 0
    found = json.loads(capfd.readouterr().out)
    assert [each["successes"] for each in found["checkpoints"]] == [1, 1] and found["differences"][0]["pairs"] == 1
    assert sum(sum(each["void"].values()) for each in found["checkpoints"]) == 1
    assert main([*words(3, "--verdict", "person")[1:]]) == 0  # it has ended: nothing more is run
    assert "| 1 of 1 |" in capfd.readouterr().out


def test_resuming_with_another_command_line_is_refused(words, tmp_path, checkpoints, capfd):
    assert main([*words(1, "--verdict", "signal")[1:]]) == 0
    before = (tmp_path / "out" / EPISODES).read_bytes()
    for more, says in (
        (["--horizon", "7"], "env option horizon: 20 against 7"),
        (["--seed", "3"], "seed: 100000 against 3"),
        (["--order-seed", "1"], "order_seed"),
        (["--stochastic"], "stochastic: False against True"),
        (["--ckpt", str(tmp_path / "third.pt")], "checkpoints: .*third.pt"),
    ):
        (tmp_path / "third.pt").write_bytes(checkpoints[0].read_bytes())
        with pytest.raises(UserError, match=says):
            main([*words(1, "--verdict", "signal", *more)[1:]])
    assert (tmp_path / "out" / EPISODES).read_bytes() == before


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--env", "mock", "--ckpt", "CKPT"], "--ckpt FILE .* and --out DIR"),
        (["--env", "fake", "--policy", "random", "--verdict", "signal", "--out", "o"], "--ckpt FILE"),
        (["--env", "fake", "--policy", "random", "--out", "o"], "--out is for an arm"),
        (["--env", "fake", "--policy", "random", "--order-seed", "0"], "--order-seed is for an arm"),
        (["--env", "fake", "--ckpt", "CKPT", "--ckpt", "CKPT"], "given 2 times; several checkpoints are for an arm"),
        (["--env", "fake", "--ckpt", "CKPT", "--ckpt", "CKPT", "--verdict", "signal", "--out", "o"], "more than once"),
        (["--env", "fake", "--ckpt", "CKPT", "--verdict", "signal", "--out", "o", "--video", "v"], "OUT/videos"),
        (["--env", "fake", "--ckpt", "CKPT", "--verdict", "signal", "--out", "o", "--episodes", "0"], "--episodes 0"),
        (["--env", "fake", "--ckpt", "CKPT", "--verdict", "signal", "--out", "o", "--end"], "nothing to end"),
        (
            [
                "--env",
                "fake",
                "--image-size",
                "20",
                "--ckpt",
                "CKPT",
                "--verdict",
                "signal",
                "--out",
                "o",
                "--config",
                "other_name.yaml",
            ],
            "does not fit",
        ),
    ],
)
def test_a_wrong_command_line_is_one_line(more, says, checkpoints, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other_name.yaml").write_text("robot: {robot_name: no-other-test-has}")
    with pytest.raises(UserError, match=says) as error:
        main([str(checkpoints[0]) if word == "CKPT" else word for word in more])
    assert "\n" not in str(error.value) and not (tmp_path / "o").exists()


def test_damaged_weights_are_refused_before_they_act(checkpoints, tmp_path):
    """While it runs, their error would tell which policy acts."""
    from agent.run.checkpoint import load

    damaged = load(checkpoints[0])
    next(iter(damaged.agent["average"].values())).fill_(float("nan"))
    damaged.save(tmp_path / "damaged.pt")
    words = ["--env", "fake", "--verdict", "signal", "--out", str(tmp_path / "o")]
    with pytest.raises(UserError, match="its weights are damaged"):
        main(["--ckpt", str(checkpoints[1]), "--ckpt", str(tmp_path / "damaged.pt"), *words])


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_refused(checkpoints, tmp_path, monkeypatch):
    """By a learner that is still running: the table would name a content that did not act."""
    path, load = tmp_path / "latest.pt", command_module._load
    path.write_bytes(checkpoints[0].read_bytes())

    def loading(name):
        found = load(name)
        path.write_bytes(checkpoints[1].read_bytes())
        return found

    monkeypatch.setattr(command_module, "_load", loading)
    with pytest.raises(UserError, match=r"latest.pt: has just been replaced"):
        main(["--ckpt", str(path), "--env", "fake", "--verdict", "signal", "--out", str(tmp_path / "o")])
    assert not (tmp_path / "o").exists()


def test_the_command_on_the_page_is_understood_as_the_page_says(monkeypatch):
    page = (ROOT / "docs" / "evaluation.md").read_text().replace("\\\n", " ")
    (command,) = re.findall(r"^python -m tools\.evaluate (.*)$", page, re.M)[:1]
    parsed = []
    monkeypatch.setattr("tools.evaluate.main_on_arm", lambda arguments, name, options: parsed.append((arguments, name)))
    monkeypatch.setattr("tools.evaluate.recorded_env", lambda flags: cli.EnvRecord())
    main(shlex.split(command, comments=True))
    ((arguments, name),) = parsed
    assert name == "mock" and arguments.flags.ckpt == ["mock.pt", "runs/mock/latest.pt"] and arguments.flags.out
