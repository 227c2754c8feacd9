"""One process of a data-parallel run, without a link: `torchrun ... rank_worker.py OFFLINE.pt FOLDER UPDATES`."""

import sys
from pathlib import Path

import torch

from agent.calql.algorithm import Weights
from agent.data.episode_file import episode_paths, read_episode
from agent.run import checkpoint
from agent.run.distributed import Ranks
from agent.run.trainer import Trainer
from agent.wire.messages import episode_key


def make_updates(trainer: Trainer, folder: Path, updates: int) -> None:
    """An episode of the folder before each of the first updates, then more updates."""
    paths = episode_paths([folder / "episodes"])
    for k in range(updates):
        if k < len(paths):
            episode = read_episode(paths[k])
            trainer.add(episode)
            trainer.ranks.tell(episode_key(episode.meta), paths[k])
        trainer.update(Weights(1.0 / (k + 1), 0.5), update_actor=k % 2 == 0)
    trainer.ranks.order(None)


if __name__ == "__main__":
    offline, folder, updates = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    start = checkpoint.load(offline)
    ranks = Ranks()
    trainer = Trainer(start, start.run_config(), folder, ranks)
    if ranks.leads:
        make_updates(trainer, folder, updates)
    else:
        trainer.follow()
    state = {"agent": trainer.agent.state_dict(), "generators": trainer.generators, "steps": len(trainer.replay)}
    torch.save(state, folder / f"rank{ranks.rank}.pt")
    ranks.close()
