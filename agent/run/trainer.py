"""What every process of an online run has: the agent, the demonstrations and the replay, and how an update is made."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from agent.calql.acceleration import accelerate
from agent.calql.algorithm import CalQL, Weights
from agent.config import RunConfig
from agent.data.episode_file import SUFFIX, read_episode
from agent.data.prefetch import Prefetch
from agent.data.replay_buffer import Replay
from agent.data.replay_memory import check_room, needed_bytes, row_bytes, warn_of_growth
from agent.data.storage import Storage
from agent.env_record import compare
from agent.run.checkpoint import Checkpoint
from agent.run.demonstrations import environment, load_demonstrations
from agent.run.device import choose_device
from agent.run.distributed import Ranks
from agent.spec import Episode, UserError
from agent.wire.messages import EpisodeKey, episode_key


class Trainer:
    """Starts from `start`; folder: the run's, for frames kept in a file.

    config: as given, but that the networks' weights come from `start`.
    Raises UserError when checkpoint, config and data do not fit.
    """

    def __init__(self, start: Checkpoint, config: RunConfig, folder: Path, ranks: Ranks) -> None:
        self.config = config = dataclasses.replace(config, network=config.network.from_checkpoint())
        self.online, self.ranks = config.online, ranks
        seed, gamma = config.learner.seed, config.calql.gamma
        n_step = config.calql.n_step
        self.device = choose_device(config.learner, ranks.local, spare_core=True)  # for a robot server, or a simulator
        storage = Storage(config.learner.storage, folder, self.device)
        stored = sorted((folder / "episodes").glob(f"[!.]*{SUFFIX}"))  # of a run that goes on
        stored_bytes = needed_bytes(stored, most_rows=self.online.capacity_steps) if storage.kind == "host" else 0
        self.offline = None
        if self.online.offline_share != 0:
            if not config.offline.data:
                raise UserError("the checkpoint remembers no demonstrations; give --offline.data or --offline-share 0")
            room = self.online.capacity_steps if self.online.interventions_offline else 0
            self.offline, episodes = load_demonstrations(
                config.offline, config.reward, gamma, seed, storage, room, stored_bytes, n_step
            )
            if differences := start.spec.differences(self.offline.spec):
                raise UserError(f"the checkpoint and {config.offline.data[0]} differ: {'; '.join(differences)}")
            compare(("the checkpoint", start.env), (config.offline.data[0], environment(episodes)))
        start.check_sizes()
        self.agent = CalQL(start.spec, config.network, config.calql, self.device, seed)
        start.restore(self.agent)
        ranks.join(self.agent, self.online.batch)
        self.warning = accelerate(self.agent, config.learner)
        self.replay = Replay(start.spec, self.online.capacity_steps, config.reward, gamma, seed + 1, storage, n_step)
        self._tickets: dict[EpisodeKey, list[tuple[Replay, int]]] = {}  # of each episode, where it is
        if self.offline is None:
            check_room(stored_bytes, storage, f"{folder}/episodes")
        rows = min(self.online.capacity_steps, self.online.env_steps)
        warn_of_growth(rows * row_bytes(start.spec), storage)
        share, shard = self.online.offline_share, self.agent.shard
        self.batches = Prefetch(self.offline, self.replay, self.online.batch, share, self.device, shard)

    @property
    def generators(self) -> dict[str, torch.Tensor]:
        """Random state of what samples."""
        return self.batches.generators()

    @property
    def reward_range(self) -> tuple[float, float]:
        """The lowest and highest reward that there was, as learning sees it."""
        ranges = [replay.reward_range for replay in (self.offline, self.replay) if replay is not None]
        return min(low for low, _ in ranges), max(high for _, high in ranges)

    def restore(self, generators: dict[str, torch.Tensor]) -> None:
        for name, replay in (("offline", self.offline), ("online", self.replay)):
            if replay is not None and name in generators:
                replay.generator.set_state(generators[name])

    def add(self, episode: Episode) -> None:
        """Into the replay and, with online.interventions_offline, to the demonstrations if a person took part.

        Raises UserError, and adds nothing, when it does not fit; NoSpace.
        """
        tickets = [(self.replay, self.replay.add(episode))]
        wanted = episode.succeeded or not self.config.offline.successes_only
        if self.offline is not None and self.online.interventions_offline and episode.interventions.any() and wanted:
            tickets.append((self.offline, self.offline.add(episode)))
        self._tickets[episode_key(episode.meta)] = tickets

    def drop(self, key: EpisodeKey) -> None:
        """Take an episode out again, from wherever `add` has put it."""
        for replay, ticket in self._tickets.pop(key, []):
            replay.remove(ticket)

    def update(self, weights: Weights, update_actor: bool) -> dict[str, Tensor]:
        """One update on a mixed batch, with the other processes, if there are some; its metrics, on the device."""
        if self.ranks.leads:
            self.ranks.order(weights, update_actor)
        metrics = self.agent.learn(self.batches.next(), weights, update_actor)
        self.batches.draw_ahead()
        return metrics

    def follow(self) -> None:
        """All that a process without the link does: what the leader orders, until the run is over."""
        for order in self.ranks.orders():
            for key, path in order.episodes:
                self.drop(key)
                if path and Path(path).exists():  # otherwise it is dropped before the next update
                    self.add(read_episode(Path(path)))
            self.update(order.weights, order.update_actor)
