"""A second policy puts the scene back: two learners, one robot server, each gets the episodes of its own policy."""

from types import SimpleNamespace

import numpy as np
import pytest
from link_data import steps_of

import envs
import robot_server.session
from agent.env_record import EnvRecord
from agent.spec import Spec, UserError
from robot_server.__main__ import connect
from robot_server.config import RobotConfig
from robot_server.history import History
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
    bench.turn(lambda: not task.outbox and not reset.outbox)
    episodes = [bench.taken[mailbox] for mailbox in mailboxes]
    assert [len(some) for some in episodes] == [3, 3]
    assert all(some.success.any() for both in episodes for some in both)
    for made, back in zip(*episodes):
        ended = made.observations["proprio"][-1][:2]
        assert np.linalg.norm(ended) > 0.3
        np.testing.assert_array_equal(back.observations["proprio"][0][:2], ended)  # begins where the task ended
        assert np.linalg.norm(back.observations["proprio"][-1][:2]) < 0.12
    told = [{episode.meta["instruction"] for episode in some} for some in episodes]
    assert told == [{"move the point to the coloured target"}, {"put the scene back"}]
    assert "the reset policy put 3 of 3 scenes back" in capsys.readouterr().out


def test_the_other_learner_is_served_while_an_episode_runs(bench, fake, pair):
    _, (task, reset) = pair
    task.beside = reset
    pumped = []
    reset.pump, before = lambda: pumped.append(1), reset.pump
    task.wait(0.01)
    reset.pump = before
    assert pumped


def test_either_end_closes_before_the_other_has_delivered(bench):
    links = [bench.link(bench.mailbox(), name) for name in ("arm", "arm-again")]
    task, reset = links
    task.beside, reset.beside = reset, task
    bench.turn(lambda: all(link.network is not None for link in links))
    for link in links:
        link.begin()
        for step in steps_of(3):
            link.send(step)
    assert task.close(0.05) == 1  # nobody answers any more
    assert reset.close(0.05) == 1


def test_the_end_of_either_run_ends_both(fake, pair):
    _, (task, reset) = pair
    reset.done = True
    robot_server.session.act(fake, task, RobotConfig(episodes=3), lambda: False, None, reset)
    assert not task.outbox.episodes


@pytest.mark.parametrize("end", ["", "/"])
def test_links_of_a_robot_with_a_reset_policy(fake, tmp_path, end):
    robot = RobotConfig(reset_address="tcp://127.0.0.1:2", spool=f"{tmp_path}/spool{end}")
    links = connect(CONFIG, robot, fake, EnvRecord("fake", {"reach": 0.2}))
    try:
        assert [link.address for link in links] == ["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"]
        assert [link.env["options"] for link in links] == [{"reach": 0.2}, {"reach": 0.2, "reset_task": True}]
        assert [link.spool for link in links] == [tmp_path / "spool", tmp_path / "spool-reset"]
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
    summary = robot_server.session.Summary(1, 40, 1.0, True, 1, False)
    for _ in range(3):
        tally.count(summary)
    tally.count_reset(summary)
    for _ in range(4):
        tally.spend(30.0, 1)
    assert tally.about()["person_s"] == 120.0
    assert tally.person() == (
        "a person's time: 2.0 minutes, 66.7 for 100 episodes; 4 prompts; the reset policy put 1 of 1 scenes back"
    )


class Clock:
    """time of the modules that count."""

    now_s = 100.0

    def monotonic(self):
        return self.now_s

    def time(self):
        return self.now_s

    def sleep(self, for_s):
        self.now_s += for_s


def test_a_persons_time_counts_though_a_fault_ends_the_episode(fake, pair, monkeypatch):
    """20 s at a prompt, 10 s paused within the reset, then the arm stops: for 30 s more a person looks at it."""
    _, (task, _) = pair
    now = Clock()
    for module in (robot_server.session, robot_server.waiting):
        monkeypatch.setattr(module, "time", now)
    monkeypatch.setattr(robot_server.session, "cleared", lambda *_: now.sleep(30.0))
    task.wait = lambda timeout_s: now.sleep(10.0)
    control = SimpleNamespace(
        paused=False, hold_reason="", serve=lambda: None, about=None, running=False, history=History()
    )

    class Arm(type(fake.unwrapped)):
        paced, clock, lost_replies, motors = True, envs.clock.Clock(10.0), 0, {}

        def reset(self, **given):
            self.ask("put it back")
            for control.hold_reason in ("", "paused by a person", "paused by a person", ""):
                self.paused(10.0)
            raise envs.base.RobotFault("axis 'x' stands")

    arm = Arm(fake.unwrapped.options)

    monkeypatch.setattr(robot_server.waiting.Prompt, "_ask", lambda self, prompt: now.sleep(20.0))
    session = robot_server.session.Session(arm, task, RobotConfig(), lambda: False, control)
    assert session.episode(robot_server.session.Player(task, Towards(fake)), 0) is None
    assert (session.tally.person_s, session.tally.prompts) == (20.0 + 20.0 + 30.0, 1)
