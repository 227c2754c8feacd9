"""A second policy puts the scene back: two learners, one robot server, each gets the episodes of its own policy."""

from types import SimpleNamespace

import numpy as np
import pytest

import envs
import robot_server.session
from agent.env_record import EnvRecord
from agent.spec import Spec, UserError
from robot_server.__main__ import connect
from robot_server.config import RobotConfig
from robot_server.tally import Tally

CONFIG = SimpleNamespace(address="tcp://127.0.0.1:1", insecure=False, keys="")


class Towards:
    """Acts as its weight says: straight to the target of its task."""

    def __init__(self, env):
        self._env = env.unwrapped

    def act(self, observation, deterministic=False):
        return np.clip((self._env.target - self._env.position) * 4, -1, 1).astype(np.float32)

    def load_weights(self, weights):
        self.weights = weights


@pytest.fixture
def fake():
    env = envs.make("fake")
    yield env
    env.close()


@pytest.fixture
def pair(bench, fake, monkeypatch):
    """Two mailboxes, a link to each, and policies that solve both tasks."""
    spec = Spec.from_spaces(fake.observation_space, fake.action_space)
    mailboxes = [bench.mailbox(spec=spec), bench.mailbox(spec=spec)]
    links = [bench.link(mailbox, name, spec=spec) for mailbox, name in zip(mailboxes, ("arm", "arm-again"))]
    monkeypatch.setattr(robot_server.session, "first_policy", lambda link, *_: Towards(fake))
    return mailboxes, links


def test_the_two_policies_take_turns_and_each_learner_gets_its_own(bench, fake, pair, capsys):
    mailboxes, (task, reset) = pair
    robot_server.session.act(fake, task, RobotConfig(episodes=3, seed=5), lambda: False, None, reset)
    episodes = [[], []]

    def arrived():
        for mailbox, some in zip(mailboxes, episodes):
            for episode in mailbox.drain():
                mailbox.acknowledge(episode)
                some.append(episode)
        return not task.outbox and not reset.outbox

    bench.turn(arrived)
    assert [len(some) for some in episodes] == [3, 3]
    assert all(some.success.any() for both in episodes for some in both)
    for made, back in zip(*episodes):
        ended = made.observations["proprio"][-1][:2]
        assert np.linalg.norm(ended) > 0.3
        np.testing.assert_array_equal(back.observations["proprio"][0][:2], ended)  # begins where the task ended
        assert np.linalg.norm(back.observations["proprio"][-1][:2]) < 0.12
    assert "the reset policy put 3 of 3 scenes back" in capsys.readouterr().out


def test_the_other_learner_is_served_while_an_episode_runs(bench, fake, pair):
    _, (task, reset) = pair
    task.beside = reset
    pumped = []
    reset.pump, before = lambda: pumped.append(1), reset.pump
    task.wait(0.01)
    reset.pump = before
    assert pumped


def test_the_end_of_either_run_ends_both(fake, pair):
    _, (task, reset) = pair
    reset.done = True
    robot_server.session.act(fake, task, RobotConfig(episodes=3), lambda: False, None, reset)
    assert not task.outbox.episodes


def test_links_of_a_robot_with_a_reset_policy(fake, tmp_path):
    robot = RobotConfig(reset_address="tcp://127.0.0.1:2", spool=str(tmp_path / "spool"))
    links = connect(CONFIG, robot, fake, EnvRecord("fake", {"reach": 0.2}))
    try:
        assert [link.address for link in links] == ["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"]
        assert [link.env["options"] for link in links] == [{"reach": 0.2}, {"reach": 0.2, "reset_task": True}]
        assert [link.spool.name for link in links] == ["spool", "spool-reset"]
    finally:
        for link in links:
            link.close(0.0)


@pytest.mark.parametrize(
    "address, env, text", [(CONFIG.address, "fake", "the learner's own"), ("tcp://h:2", "sim", "has no reset task")]
)
def test_a_reset_policy_that_cannot_be(fake, tmp_path, address, env, text):
    if env == "sim":
        fake = SimpleNamespace(
            observation_space=fake.observation_space, action_space=fake.action_space, unwrapped=object()
        )
    with pytest.raises(UserError, match=text):
        connect(CONFIG, RobotConfig(reset_address=address, spool=str(tmp_path / "s")), fake, EnvRecord(env))
    assert not (tmp_path / "s").exists()


def test_a_persons_time_is_counted(bench, pair):
    _, (task, _) = pair
    tally = Tally("arm", task)
    summary = robot_server.session.Summary(1, 40, 1.0, True, 1, False, person_s=30.0, prompts=1)
    for _ in range(3):
        tally.count(summary)
    tally.count_reset(summary)
    assert tally.about()["person_s"] == 120.0
    assert tally.person() == (
        "a person's time: 2.0 minutes, 66.7 for 100 episodes; 4 prompts; the reset policy put 1 of 1 scenes back"
    )
