"""The demo's stages in their order, on the fake environment."""

import json
from pathlib import Path

import pytest

import tools.evaluate
from agent.env_record import EnvRecord
from agent.run import checkpoint
from agent.run.records import read_log
from agent.spec import UserError
from tools import demo

ROOT = Path(__file__).parents[2]
TINY = """
env: {name: fake, horizon: 12}
collect: {episodes: 6, noise: 0.3, failure_rate: 0.3}
network: {channels: [8, 8], strides: [2, 2], features: 16, state_features: 8, critics: 2,
          actor_hidden: [32], critic_hidden: [32]}
offline: {updates: 20, batch: 32}
online: {env_steps: 60, utd: 0.5, batch: 32}
"""


def test_the_demo_ends_with_its_summary_and_its_picture(tmp_path, monkeypatch, capsys, forked_commands):
    monkeypatch.setattr(demo.os, "sched_getaffinity", lambda process: {0})  # one worker for evaluations
    (tmp_path / "tiny.yaml").write_text(TINY)
    words = ["--config", tmp_path / "tiny.yaml", "--folder", tmp_path / "demo", "--episodes", "3", "--seed", "2"]
    demo.main([*map(str, words)])
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    log = read_log(tmp_path / "demo" / "online")
    before, after = [record for record in log if record["kind"] == "eval"]
    assert (before["env_steps"], before["success"]) == (0, summary["offline_success"])
    assert (after["env_steps"], after["success"]) == (summary["env_steps"], summary["online_success"])
    for stage in ("offline", "online"):  # each from its own evaluation
        found = json.loads((tmp_path / "demo" / f"evaluate_{stage}.out").read_text())
        assert found["success"] == summary[f"{stage}_success"] and len(found["attempts"]) == 3
    assert summary["env_steps"] >= 60 and summary["updates"] == 30 and summary["minutes"] > 0
    assert summary["episodes"] == sum(record["kind"] == "episode" for record in log) and summary["seed"] == 2
    assert (tmp_path / "demo" / "learning_curve.png").stat().st_size > 5000
    for ckpt in ("offline.pt", "online/latest.pt"):
        assert checkpoint.load(tmp_path / "demo" / ckpt).config["learner"]["seed"] == 2
    assert f"success before fine-tuning {summary['offline_success']:.0%}" in capsys.readouterr().out


def test_an_arm_is_evaluated_one_episode_at_a_time_by_its_own_signal(tmp_path, monkeypatch, capsys):
    class Stage:
        """tools.evaluate, up to the arm."""

        def __init__(self, folder, name, *command):
            self.command = command

        def output(self):
            assert tools.evaluate.main([*self.command[1:]]) == 0
            return json.dumps({"checkpoints": [{"success": 0.5, "low": 0.1, "high": 0.9, "episodes": 4}]})

    def on_arm(arguments, name, options):
        flags = arguments.flags
        assert (name, options["arm"], options["axes"]["gripper"]["high"]) == ("mock", "mock:so101", 60)
        assert (flags.out, flags.verdict, flags.episodes, flags.workers) == (tmp_path / "trials_x", "signal", 4, 1)
        return 0

    monkeypatch.setattr(demo, "Stage", Stage)
    monkeypatch.setattr(tools.evaluate, "main_on_arm", on_arm)
    monkeypatch.setattr(tools.evaluate, "recorded_env", lambda flags: EnvRecord("mock", {"arm": "another"}))
    configs = ["--config", str(ROOT / "configs" / "hardware" / "so101_mock.yaml")]
    result = demo.evaluate(tmp_path, "x", tmp_path / "offline.pt", 4, 2, arm=configs)
    assert (result["success"], result["return"], result["episodes"]) == (0.5, 0.5, 4)
    assert "success 50% of 4 episodes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--seed", "10"], "--seed 10: 0 to 9"),
        (["--seed", "-1"], "--seed -1: 0 to 9"),
        (["--episodes", "0"], "--episodes 0: at least one"),
        (["--folder", "demo/file/x"], "--folder demo/file/x: Not a directory"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_run_or_moved(tmp_path, monkeypatch, flags, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "file").touch()
    monkeypatch.setattr(demo, "Stage", lambda *stage: pytest.fail("a stage was run"))
    with pytest.raises(UserError, match=says):
        demo.main(["--config", str(ROOT / "configs" / "quickstart.yaml"), "--folder", "demo", *flags])
    assert sorted(map(str, Path().rglob("*"))) == ["demo", "demo/file"]
