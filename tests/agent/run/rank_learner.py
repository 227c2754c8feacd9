"""agent.learner under torchrun; a process without the link leaves what it has at the end: `... FOLDER ARGUMENTS`."""

import sys
from pathlib import Path

import torch

from agent import cli, learner
from agent.run import farewell, trainer


class Kept(trainer.Trainer):
    def follow(self) -> None:
        super().follow()
        state = {"agent": self.agent.state_dict(), "generators": self.generators, "steps": len(self.replay)}
        torch.save(state, Path(sys.argv[1]) / f"rank{self.ranks.rank}.pt")


if __name__ == "__main__":
    trainer.Trainer = Kept  # type: ignore[misc]
    farewell.COME_S = 0.0  # no robot comes
    cli.run(lambda words: learner.main(words[1:]))
