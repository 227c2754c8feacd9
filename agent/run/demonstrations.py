"""Loading the demonstrations that a run learns from."""

from __future__ import annotations

import dataclasses
import logging

from agent.config import OfflineConfig, RewardConfig
from agent.data.episode_file import episode_paths, read_episodes, read_head
from agent.data.replay_buffer import Replay
from agent.data.replay_memory import check_room, needed_bytes
from agent.data.storage import HOST, NoSpace, Storage
from agent.env_record import EnvRecord, agreed
from agent.spec import Episode, UserError

log = logging.getLogger(__name__)


def load_demonstrations(
    config: OfflineConfig,
    reward: RewardConfig,
    gamma: float,
    seed: int,
    storage: Storage = HOST,
    room: int = 0,
    beside_bytes: int = 0,
    n_step: int = 1,
) -> tuple[Replay, list[Episode]]:
    """A replay that holds all demonstrations and `room` rows more, and the episodes' heads (without frames).

    beside_bytes: of what will be loaded after them. Raises UserError naming the file that is missing, damaged or
    different from the others, when none is left, or, before anything is loaded, when they do not fit into the memory;
    NoSpace when they do not fit into other storage.
    """
    paths = episode_paths(config.data)
    heads_of = {path: read_head(path) for path in paths}
    rows = sum(steps + 1 for steps, _ in heads_of.values())
    for line in agreed((str(path), meta) for path, (_, meta) in heads_of.items())[1]:
        log.warning("%s", line)
    if storage.kind == "host":
        needed = needed_bytes(paths, config.successes_only) + beside_bytes
        check_room(needed, storage, ", ".join(config.data))
    replay, heads = None, []
    for path, episode in zip(paths, read_episodes(config.data), strict=True):  # one at a time: they may fill the memory
        if replay is None:
            replay = Replay(episode.spec, rows + room, reward, gamma, seed, storage, n_step)
            if not config.successes_only:
                replay.reserve(rows)
        if config.successes_only and not episode.succeeded:
            continue
        try:
            replay.add(episode)
        except NoSpace:
            raise  # not the file's fault
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        heads.append(dataclasses.replace(episode, observations={}))
    if replay is None or not heads:
        raise UserError(f"{', '.join(config.data)}: no successful episode, and offline.successes_only is on")
    return replay, heads


def environment(episodes: list[Episode]) -> EnvRecord:
    """The environment of the data: the first episode's, with what the actions of all mean."""
    meaning, _ = agreed(("", episode.meta) for episode in episodes)
    return dataclasses.replace(EnvRecord.of_episode(episodes[0].meta), actions=meaning.to_dict())
