"""Folders of runs without a run, for the tests of what shows them."""

import torch

from agent.calql.algorithm import CalQL
from agent.config import CalQLConfig, NetworkConfig
from agent.env_record import EnvRecord
from agent.run.checkpoint import Checkpoint
from agent.run.log import RunLog
from agent.spec import Spec

OUTCOMES = [0, 1, 0, 0, 1, 1] + 20 * [1]


def write_run(folder, outcomes, gamma=None, evaluated=(0.5, 1.0)):
    """A run's log as the learner writes it; with `gamma` its checkpoint, too."""
    log = RunLog(folder)
    rates = iter(evaluated)
    log.write("eval", 0, 0, success=next(rates), low=0.3, high=0.7, episodes=20)
    for number, success in enumerate(outcomes):
        log.write("episode", 10 * (number + 1), number, success=success, length=10, **{"return": float(success)})
        log.write("update", 10 * (number + 1), number + 1, stage="online", td_loss=1.0 / (number + 1), q=[1.0, 3.0])
    for rate in rates:
        log.write("eval", 10 * len(outcomes), len(outcomes), success=rate, low=0.8, high=1.0, episodes=20)
    log.warn("Q is far from the returns", 10, 1)
    log.close()
    if gamma:
        network = NetworkConfig(channels=[4], strides=[2], features=4, critics=2, actor_hidden=[4], critic_hidden=[4])
        spec = Spec({}, {"pos": 3}, 2)
        agent = CalQL(spec, network, CalQLConfig(gamma=gamma), torch.device("cpu"), 0)
        config = {
            "calql": {"gamma": gamma, "cql_weight": 5.0},
            "learner": {"run": "x"},
            "link": {"address": "tcp://10.0.0.7:5555"},
        }
        Checkpoint(spec, EnvRecord("fake", {"horizon": 9}), config, agent.state_dict()).save(folder / "latest.pt")
