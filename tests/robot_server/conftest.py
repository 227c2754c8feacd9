import collections
import time

import gymnasium
import numpy as np
import pytest
from link_data import NETWORK, SPEC, steps_of

from agent.env_record import EnvRecord
from agent.mailbox.mailbox import Mailbox
from agent.spec import Episode, UserError
from robot_server import link as link_module
from robot_server.link import Link


class Bench:
    """Both ends of a link in one process; what is made here is closed at the end of the test."""

    def __init__(self, folder):
        self.spool = folder / "spool"
        self.mailboxes, self.links = [], []
        self.episodes = []  # drained, in order
        self.taken = collections.defaultdict(list)  # the same, by the mailbox that they came to
        self.acknowledge = True  # at once

    def mailbox(self, address="tcp://127.0.0.1:0", spec=SPEC, network=NETWORK, **options):
        """The learner of the one run, unless another `run` or `secret` is given.

        An address of before may be taken for a moment: by the socket that is being closed, or an outgoing connection.
        """
        options = {"run": "run-1", "secret": "s1", **options}
        end_s = time.monotonic() + 10.0
        while True:
            try:
                self.mailboxes.append(Mailbox(address, spec, network, **options))
                return self.mailboxes[-1]
            except UserError as error:
                if "in use" not in str(error) or time.monotonic() > end_s:
                    raise
                time.sleep(0.05)

    def link(self, mailbox, name="robot", spool=None, spec=SPEC, **options):
        address = mailbox if isinstance(mailbox, str) else mailbox.address
        env = EnvRecord("fake", {"size": 8})
        self.links.append(Link(address, spec, name, env, spool or self.spool, **options))
        return self.links[-1]

    def spooled(self, folders=""):
        """What is in the spool, but for the files that wait for the next journals."""
        return list(self.spool.glob(f"{folders}[!.]*"))

    def pair(self, **options):
        mailbox = self.mailbox(**options)
        link = self.link(mailbox)
        self.turn(lambda: link.network is not None)
        return mailbox, link

    def turn(self, condition, seconds=30.0):
        """Let every open end work until the condition holds."""
        deadline_s = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline_s, "too late"
            self.work()
            time.sleep(0.001)

    def work(self):
        for mailbox in self.mailboxes:
            for episode in mailbox.drain():
                self.episodes.append(episode)
                self.taken[mailbox].append(episode)
                if self.acknowledge:
                    mailbox.acknowledge(episode)
        for link in self.links:
            link.pump()

    @staticmethod
    def play(link, steps, meta=None):
        link.begin({"seed": 1, **(meta or {})})
        for transition in steps:
            link.send(transition)

    @staticmethod
    def identities(episodes):
        return [(e.meta["robot"], e.meta["boot"], e.meta["number"]) for e in episodes]

    @staticmethod
    def same(episode, steps):
        """Bit-equal contents."""
        return episode.equals(Episode.from_transitions(steps, episode.meta))

    def close(self, *ends):
        for end in ends:
            for held in (self.mailboxes, self.links):
                if end in held:
                    held.remove(end)
            end.close(*([0.0] if isinstance(end, Link) else []))

    def restart(self, mailbox, **options):
        """A new learner at the same address, which knows what the old one had acknowledged."""
        stored = dict(zip(self.identities(self.episodes), map(len, self.episodes), strict=True))
        stored = stored if self.acknowledge else {}
        self.close(mailbox)
        return self.mailbox(mailbox.address, stored=stored, **options)


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.close(*bench.links, *bench.mailboxes)


@pytest.fixture
def quick(monkeypatch):
    """Losses are noticed in hundredths of a second instead of seconds."""
    monkeypatch.setattr(link_module, "PULL_EVERY_S", 0.03)
    monkeypatch.setattr("agent.mailbox.delivery.ASK_AGAIN_S", 0.02)


@pytest.fixture
def empty(bench):
    """Whether a link has delivered everything: nothing is left for the spool."""
    return lambda link: not link.outbox


class TinyEnv(gymnasium.Env):
    """Ends after `length` steps; its state counts them. Reuses its buffers, as real environments do."""

    observation_space = gymnasium.spaces.Dict(
        {
            "front": gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8),
            "state": gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64),
        }
    )
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, length=5):
        self.length = length
        self.seeds, self.actions = [], []
        self.on_step = lambda step: None
        self.info = {}
        self._buffers = {"front": np.zeros((8, 8, 3), np.uint8), "state": np.zeros(3)}

    def see(self):
        self._buffers["front"][:] = self.made
        self._buffers["state"][:] = [self.made, self.seeds[-1], 0.5]
        return self._buffers

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        self.made = 0
        return self.see(), {}

    def step(self, action):
        self.actions.append(action)
        self.on_step(self.made)
        self.made += 1
        done = self.made == self.length
        return self.see(), float(done), done, False, {"success": done, **self.info}

    def close(self):
        pass


class TinyPolicy:
    """Acts with its weight, and remembers when which weights came."""

    def __init__(self):
        self.weight = 0.0
        self.acted, self.loaded = 0, []

    def act(self, observation, deterministic=False):
        assert observation["state"].dtype == np.float32
        self.acted += 1
        return np.full(2, self.weight, np.float32)

    def load_weights(self, weights):
        if set(weights) != {"w"}:
            raise ValueError(f"weights have other names: {sorted(weights)}")
        self.weight = float(weights["w"])
        self.loaded.append((self.acted, self.weight))


@pytest.fixture
def tiny_env():
    return TinyEnv()


@pytest.fixture
def tiny_policy():
    return TinyPolicy()


@pytest.fixture
def episode_steps():
    return steps_of
