"""From an episode's rewards to what learning sees: the one reward transform, and Monte-Carlo returns-to-go.

Both TD targets and returns use `learning_rewards`; nothing else in the project scales a reward. Returns follow the
authors' rules (Nakamoto et al. 2023, appendix and code) but for dense tasks: see `returns_to_go`.
"""

from __future__ import annotations

import numpy as np

from agent.config import RewardConfig
from agent.spec import Episode, SpecError, UserError


def learning_rewards(raw: np.ndarray, config: RewardConfig) -> np.ndarray:
    """scale * r + bias; (T,) float32 -> (T,) float32."""
    return (config.scale * raw + config.bias).astype(np.float32)


def returns_to_go(
    rewards: np.ndarray, terminated: np.ndarray, gamma: float, sparse: bool, failure_reward: float
) -> np.ndarray:
    """R_t = r_t + gamma (1 - d_t) R_{t+1} of one whole episode; rewards already transformed, (T,) -> (T,) float32.

    sparse, every reward the failure reward: R = r_neg / (1 - gamma) at every step, as if it went on for ever.
    sparse, any success: the recursion starts from nothing after the last step.
    dense, cut by a time limit: it starts from m / (1 - gamma) after the last step, where m is the mean reward of the
    last 1 / (1 - gamma) steps.

    A return must estimate the value of the policy that acted: Cal-QL does not push Q of other actions below it. The
    authors start dense returns from 0, as if the task ended there: too high where rewards are negative, too low where
    they are positive. Starting from the last reward is as noisy as one reward times 1 / (1 - gamma). The mean over the
    discount's horizon has a tenth of that deviation at gamma 0.99, and lags where rewards still change: it stays below
    the value while they rise. It depends on nothing learnt, so an episode's returns stay the same.
    """
    rewards = rewards.astype(np.float64)
    if sparse and np.all(np.isclose(rewards, failure_reward)):
        return np.full(len(rewards), failure_reward / (1 - gamma), np.float32)
    returns = np.empty_like(rewards)
    cut = not sparse and not terminated[-1]
    following = rewards[-round(1 / (1 - gamma)) :].mean() / (1 - gamma) if cut else 0.0
    for t in reversed(range(len(rewards))):
        following = rewards[t] + gamma * (1 - float(terminated[t])) * following
        returns[t] = following
    return returns.astype(np.float32)


def rewards_and_returns(episode: Episode, config: RewardConfig, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """Transformed rewards and returns-to-go of an episode, both (T,) float32.

    Raises UserError when the episode contradicts the config: a sparse task with a third reward value, or one below
    that of failure; or returns outside of what the rewards allow (NaN included).
    """
    if not 0 <= gamma < 1:
        raise UserError(f"calql.gamma is {gamma:g}; it must be at least 0 and below 1")
    rewards = learning_rewards(episode.rewards, config)
    failure = config.scale * config.failure_reward + config.bias
    if config.sparse:
        values = np.unique(episode.rewards)
        others = values[~np.isclose(values, config.failure_reward)]
        if len(others) > 1 or (others < config.failure_reward).any():
            raise UserError(
                f"reward.sparse is on with failure_reward {config.failure_reward}, but an episode has the rewards "
                f"{', '.join(f'{v:g}' for v in values[:6])}; set reward.sparse to false or correct failure_reward"
            )
    returns = returns_to_go(rewards, episode.terminated, gamma, config.sparse, failure)
    check_returns(rewards, returns, gamma)
    return rewards, returns


def return_bounds(low: float, high: float, gamma: float) -> tuple[float, float]:
    """The lowest and highest return that rewards from low to high allow: for ever, or of an episode's last step."""
    return min(low, low / (1 - gamma)), max(high, high / (1 - gamma))


def check_returns(rewards: np.ndarray, returns: np.ndarray, gamma: float) -> None:
    """Raise SpecError unless min r / (1 - gamma) <= R <= max r / (1 - gamma) (either bound relaxed to a single r)."""
    low, high = return_bounds(float(rewards.min()), float(rewards.max()), gamma)
    slack = 1e-4 * max(1.0, abs(low), abs(high))
    if not np.isfinite(returns).all() or returns.min() < low - slack or returns.max() > high + slack:
        raise SpecError(
            f"returns [{returns.min():.4g}, {returns.max():.4g}] lie outside of what the rewards allow, "
            f"[{low:.4g}, {high:.4g}]: they were not computed from the rewards that learning uses"
        )
