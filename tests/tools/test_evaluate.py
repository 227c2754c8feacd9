import json
import re

import forked
import imageio.v3 as iio
import numpy as np
import pytest
import torch

from agent.config import NetworkConfig
from agent.env_record import EnvRecord
from agent.policy import Policy
from agent.run.checkpoint import Checkpoint, load
from agent.run.statistics import wilson
from agent.spec import Spec, UserError
from tools.common import attempts
from tools.common.rollout import env_record, make_env
from tools.common.success_rate import Result
from tools.evaluate import evaluate, main

TINY = {"channels": [4, 4], "strides": [2, 2], "features": 4, "state_features": 4, "actor_hidden": [8]}


@pytest.fixture(autouse=True)
def forked_workers(monkeypatch):
    """Those of evaluations in this process; a command's are spawned."""
    monkeypatch.setattr(attempts, "WORKERS", forked.SERVER)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An untrained policy for the fake environment with images that are not of the default size."""
    torch.manual_seed(0)
    options = {"image_size": 20}
    env = make_env("fake", options)
    spec = Spec.from_spaces(env.observation_space, env.action_space)
    weights = Policy(spec, NetworkConfig(**TINY)).state_dict()
    path = tmp_path_factory.mktemp("checkpoint") / "offline.pt"
    Checkpoint(spec, env_record("fake", options), {"network": TINY}, {"average": weights}).save(path)
    return path


@pytest.mark.parametrize(  # statsmodels.stats.proportion.proportion_confint(k, n, method="wilson")
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.27753), (5, 10, 0.23659, 0.76341), (10, 10, 0.72247, 1.0), (45, 50, 0.78640, 0.95652)],
)
def test_wilson_interval(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-5)


def test_the_expert_beats_chance_and_the_figures_are_means():
    scripted, chance = (evaluate(policy, "fake", episodes=8) for policy in ("scripted", "random"))
    assert scripted.success > chance.success
    assert [a.seed for a in scripted.attempts] == list(range(100_000, 100_008))
    for result in (scripted, chance):
        assert result == Result.of(result.attempts) and result.episodes == 8
        assert result.success == np.mean([a.success for a in result.attempts])
        assert result.episode_return == pytest.approx(np.mean([a.episode_return for a in result.attempts]))
        assert result.length == np.mean([a.length for a in result.attempts])


@pytest.mark.parametrize("kind", ["random", "checkpoint"])
def test_figures_do_not_depend_on_the_number_of_workers(checkpoint, kind):
    policy = str(checkpoint) if kind == "checkpoint" else kind
    alone, shared = (
        evaluate(policy, "fake", {"image_size": 20, "horizon": 200}, episodes=8, stochastic=True, workers=workers)
        for workers in (1, 2)
    )
    assert alone == shared
    assert len({attempt.length for attempt in alone.attempts}) > 1  # they could have differed


class Recorder:
    """A policy that remembers how it was asked to act."""

    def __init__(self):
        self.asked = set()

    def act(self, observation, deterministic=False):
        self.asked.add((deterministic, torch.get_num_threads()))
        return np.zeros(2, np.float32)


@pytest.mark.parametrize("stochastic", [False, True])
def test_a_policy_at_hand_acts_on_one_thread_by_its_mean_or_by_sampling(stochastic):
    policy, threads = Recorder(), torch.get_num_threads()
    result = evaluate(policy, "fake", {"horizon": 3}, episodes=2, stochastic=stochastic)
    assert policy.asked == {(not stochastic, 1)} and torch.get_num_threads() == threads
    assert [a.length for a in result.attempts] == [3, 3]


def test_json_is_one_object_and_the_environment_is_the_checkpoints(checkpoint, command):
    done = command("evaluate", "--ckpt", checkpoint, "--episodes", 3, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["env"]["name"] == "fake" and found["env"]["options"]["image_size"] == 20
    assert found["policy"] == str(checkpoint) and found["episodes"] == len(found["attempts"]) == 3
    assert found["low"] <= found["success"] <= found["high"] and {"return", "length"} <= set(found)
    assert "evaluate: 3/3 episodes" in done.stderr


def test_a_video_has_every_frame_of_its_episode(tmp_path, command):
    flags = ["--episodes", 3, "--seed", 4, "--video", tmp_path / "videos", "--video-episodes", "0,2", "--json"]
    done = command("evaluate", "--policy", "scripted", "--env", "fake", *flags)
    attempts = json.loads(done.stdout)["attempts"]
    assert [bool(a["video"]) for a in attempts] == [True, False, True]
    for attempt in (attempts[0], attempts[2]):
        frames = iio.imread(attempt["video"], plugin="pyav")
        assert len(frames) == attempt["length"] + 1 and min(frames.shape[1:3]) >= 256
        assert frames.astype(int).std() > 1
    assert len(list((tmp_path / "videos").iterdir())) == 2


def test_an_environment_that_does_not_fit_is_named_key_by_key(checkpoint):
    flags = ["--ckpt", str(checkpoint), "--env", "fake", "--image-size", "24", "--episodes", "2"]
    with pytest.raises(UserError) as shared:
        main([*flags, "--workers", "2"])
    with pytest.raises(UserError) as alone:
        main(flags)
    says = str(shared.value)
    assert says == str(alone.value) and len(says.splitlines()) == 1
    env = make_env("fake", {"image_size": 20})
    cameras = Spec.from_spaces(env.observation_space, env.action_space).cameras
    assert str(checkpoint) in says and all(f"camera '{name}'" in says for name in cameras)
    assert "(20, 20, 3) against (24, 24, 3)" in says
    assert says.index("image_size: 20 against 24") < says.index("camera '")  # the reason before what follows from it


def test_another_environment_than_the_checkpoints_is_reported_before_the_figures(checkpoint, logged):
    main(["--ckpt", str(checkpoint), "--episodes", "2", "--horizon", "3"])
    first = logged()[0]
    assert first == f"{checkpoint} was trained in another environment (checkpoint first): horizon: 20 against 3"
    main(["--ckpt", str(checkpoint), "--episodes", "1"])
    assert "another environment" not in "".join(logged())


def test_workers_log_as_the_command_does(checkpoint, command):
    flags = ["--episodes", 2, "--workers", 2, "--horizon", 3]
    done = command("evaluate", "--ckpt", checkpoint, *flags)
    assert re.search(r"^[\d-]+ [\d:]+ warning: .* was trained in another environment", done.stderr, re.M), done.stderr


def test_it_is_called_from_python_as_well(checkpoint, tmp_path, capfd):
    """The environment is the checkpoint's, given by its path or itself, and nothing is printed."""
    by_path = evaluate(checkpoint, episodes=2)
    assert by_path == evaluate(load(checkpoint), episodes=2) and by_path.episodes == 2
    short = evaluate(checkpoint, options={"horizon": 3}, episodes=2, workers=2, video=tmp_path, video_episodes=[1])
    assert [a.length for a in short.attempts] == [3, 3] and (tmp_path / "episode_000001.mp4").exists()
    assert capfd.readouterr().out == ""


def test_the_checkpoints_own_environment_has_its_options_also_where_it_is_named(checkpoint, caplog):
    own = evaluate(checkpoint, episodes=1)
    assert evaluate(checkpoint, "fake", episodes=1.0) == own
    shorter = evaluate(checkpoint, "fake", {"horizon": 3}, episodes=1)
    assert shorter.attempts[0].length == 3 and "horizon: " in caplog.text
    assert "image_size" not in caplog.text  # which the checkpoint was trained with


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"episodes": 0}, "episodes is 0; it must be 1 or more"),
        ({"episodes": 1.5}, "episodes is 1.5; it must be a whole number"),
        ({"seed": "7"}, "seed is '7'; it must be a whole number"),
        ({"workers": 0}, "workers is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"video": "v", "video_episodes": [2], "episodes": 2}, "the episodes are 0 to 1"),
        ({"env": ""}, "names no environment: give env"),
    ],
)
def test_wrong_arguments_from_python_are_refused(arguments, says):
    with pytest.raises(UserError, match=says):
        evaluate("random", **{"env": "fake", **arguments})


def test_files_that_are_no_checkpoint_are_named(checkpoint, tmp_path, refused):
    with pytest.raises(UserError, match=f"{tmp_path}/none.pt"):
        main(["--ckpt", f"{tmp_path}/none.pt"])
    (tmp_path / "cut.pt").write_bytes(checkpoint.read_bytes()[:1000])
    assert f"{tmp_path}/cut.pt" in refused("evaluate", "--ckpt", tmp_path / "cut.pt")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "either --ckpt FILE or --policy"),
        (["--policy", "scripted", "--ckpt", "a.pt"], "either --ckpt FILE or --policy"),
        (["--policy", "best"], "'best'"),
        (["--policy", "random", "--env", "nowhere"], "nowhere"),
        (["--policy", "random", "--env", "fake", "--episodes", "0"], "episodes is 0; it must be 1 or more"),
        (["--policy", "random", "--env", "fake", "--video", "v", "--video-episodes", "first"], "first"),
        (["--policy", "random", "--env", "fake", "--video", "v", "--video-episodes", "50"], "episodes are 0 to 49"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, says):
    with pytest.raises(UserError, match=says) as error:
        main(arguments)
    assert "\n" not in str(error.value)


def test_a_policy_whose_actions_mean_something_else_here_is_refused(checkpoint, tmp_path, refused):
    trained = load(checkpoint)
    joints = {"kind": "absolute", "quantity": "joint position", "low": [-89, -89], "high": [89, 89]}
    trained.env = EnvRecord(actions=joints)
    trained.save(tmp_path / "converted.pt")  # as from a data set that was converted: no environment
    words = ["--ckpt", tmp_path / "converted.pt", "--env", "fake", "--image-size", "20", "--episodes", "1"]
    says = refused("evaluate", *words)
    assert "actions mean different things: kind: absolute against delta" in says and "--other-actions" in says
    assert main([*map(str, words), "--other-actions"]) == 0
    assert main(["--ckpt", str(checkpoint), "--episodes", "1"]) == 0  # of an older release: it states nothing


def test_a_checkpoint_does_not_choose_code_to_run(checkpoint, tmp_path, refused):
    loaded = load(checkpoint)
    loaded.env = EnvRecord("gym:stranger:Strange-v0")
    loaded.save(tmp_path / "a.pt")
    assert "--env gym:stranger:Strange-v0" in refused("evaluate", "--ckpt", tmp_path / "a.pt", "--episodes", 1)
