"""The main job as a user does it, with the real commands and two real processes, on the fake environment."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.data.episode_file import read_episodes, write_episode
from agent.run import checkpoint
from agent.run.records import read_log
from tools.common.process import free_port

ROOT = Path(__file__).parents[1]
TINY = """
env: {name: fake, horizon: 12}
network: {channels: [8, 8], strides: [2, 2], features: 16, state_features: 8, critics: 2,
          actor_hidden: [32], critic_hidden: [32]}
offline: {updates: 40, batch: 32}
online: {env_steps: 150, utd: 0.5, batch: 32, checkpoint_every: 60}
learner: {threads: 1, log_every: 10}
"""


def start(*words):
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # says little


def finish(*processes):
    """What each has said, when all have ended well within four minutes; else what every one of them said."""
    deadline = time.monotonic() + 240
    try:
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
    said = [process.communicate() for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(
        f"{process.args[2]}: {process.returncode}\n{out[-1000:]}{err[-1000:]}"
        for process, (out, err) in zip(processes, said)
    )
    return [out + err for out, err in said]


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    (folder / "tiny.yaml").write_text(TINY)
    config = ("--config", folder / "tiny.yaml")
    flags = ("--device", "scripted", "--episodes", "6", "--noise", "0.3", "--failure-rate", "0.3")
    finish(start("tools.collect", *config, *flags, "--out", folder / "demos"))
    pretrain = (*config, "--data", folder / "demos", "--run", folder / "pre")
    finish(start("agent.pretrain", *pretrain, "--out", folder / "offline.pt"))
    return folder


@pytest.mark.timeout(600)
@pytest.mark.parametrize("robot_first", [True, False], ids=["robot first", "learner first"])
def test_fine_tuning_by_two_processes(offline, tmp_path, robot_first):
    """In either order; both end by themselves with the run; every step is on disk once; the policy has moved.

    An episode of an older run, which the robot server finds in its spool, stays there and out of the new run.
    """
    address, run, spool = f"tcp://127.0.0.1:{free_port()}", tmp_path / "run", tmp_path / "spool"
    older = next(iter(read_episodes([offline / "demos"])))
    older.meta.update(robot="robot", boot="0123abcd", number=0, run="/another/run")
    write_episode(spool / "robot-0123abcd-000000.hdf5", older)
    robot = ("robot_server", "--config", offline / "tiny.yaml", "--address", address, "--spool", spool)
    learner = ("agent.learner", "--ckpt", offline / "offline.pt", "--run", run, "--address", address)
    processes = [start(*words) for words in ((robot, learner) if robot_first else (learner, robot))]
    said = finish(*processes)
    robot_out, learner_out = said if robot_first else reversed(said)

    assert "finished" in learner_out and "run is over" in robot_out
    episodes = list(read_episodes([run / "episodes"]))
    assert sorted(e.meta["number"] for e in episodes) == list(range(len(episodes)))  # none lost, none twice
    (boot,) = {e.meta["boot"] for e in episodes}
    assert boot != older.meta["boot"]
    end = checkpoint.load(run / "latest.pt")
    steps = sum(len(e) for e in episodes)
    assert steps >= 150 and end.counters["env_steps"] == steps and end.counters["updates"] == 75
    log = read_log(run)
    assert sum(record["length"] for record in log if record["kind"] == "episode") == steps
    updates = [record for record in log if record["kind"] == "update"]
    wanted = {"td_loss", "q_data", "return_to_go", "bound_rate_current", "alpha", "entropy", "updates_per_s"}
    assert updates and all(wanted | {"env_steps_per_s"} <= set(record) for record in updates)
    assert any("staleness" in record for record in log if record["kind"] == "episode")
    assert max(e.policy_versions.max() for e in episodes) > 1  # newer weights arrived while it ran
    before, after = (c.agent["policy"]["actor.mean.weight"] for c in (checkpoint.load(offline / "offline.pt"), end))
    assert not before.equal(after)
    assert [path.name for path in spool.glob("*.hdf5")] == ["robot-0123abcd-000000.hdf5"]

    if not robot_first:
        return
    more = start("agent.learner", "--resume", run, "--env-steps", steps + 70, "--address", address)
    assert "finished" in finish(more, start(*robot))[0]
    assert checkpoint.load(run / "latest.pt").counters["updates"] == (steps + 70) // 2
    assert sum(len(e) for e in read_episodes([run / "episodes"])) >= steps + 70
