"""What the critics expect along an episode, beside the return that followed: an overestimate shows at once."""

from __future__ import annotations

import numpy as np
import torch

from agent.calql.algorithm import CalQL
from agent.config import RewardConfig
from agent.data.returns import rewards_and_returns
from agent.spec import Episode

BATCH = 64


@torch.inference_mode()
def episode_values(
    agent: CalQL, reward: RewardConfig, episode: Episode, steps: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """At `steps` (N,) of an episode, or all of them, as the agent is now; each (N,) float32:

    recorded_action: mean Q over the critics for the action in the recording. policy_action: the same for the mode of
    the averaged policy, which is what robots get. return_to_go: discounted, in the reward that learning sees.

    The episode's images may be agent.data.frames.Frames. Changes nothing of `agent`, and draws no random number.
    Raises UserError when the episode contradicts `reward`.
    """
    steps = np.arange(len(episode)) if steps is None else steps
    parts = []
    for first in range(0, len(steps), BATCH):
        picked = steps[first : first + BATCH]
        low, high = int(picked.min()), int(picked.max()) + 1
        rows = {key: np.asarray(values[low:high])[picked - low] for key, values in episode.observations.items()}
        seen = {key: torch.from_numpy(values).to(agent.device) for key, values in rows.items()}
        recorded = torch.from_numpy(episode.actions[picked]).to(agent.device)
        both = torch.stack([recorded, agent.average(seen).mode], 1)  # (B, 2, A)
        parts.append(agent.critics(agent.policy.encoder(seen), both).mean(0).cpu().numpy())  # (B, 2)
    values = np.concatenate(parts)
    returns = rewards_and_returns(episode, reward, agent.config.gamma)[1]
    return {"recorded_action": values[:, 0], "policy_action": values[:, 1], "return_to_go": returns[steps]}
