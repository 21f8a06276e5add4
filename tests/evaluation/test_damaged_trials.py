"""Rewards that are not finite, and episodes that were not played, do not pass for returns."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sb3_trmrl import MultiEpisodeTrial, evaluate_adaptation
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from tests.helpers.agents import Still
from tests.helpers.environments import EarlyEnd


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rewards_that_are_not_finite_are_refused(value: float) -> None:
    class Broken(gym.RewardWrapper):
        def reward(self, reward: Any) -> float:
            return value

    with pytest.raises(ValueError, match="non-finite reward from environment 0 at step 0"):
        evaluate_adaptation(Still(), lambda **_: MultiEpisodeTrial(Broken(EarlyEnd()), 2), 2, 2)


@pytest.mark.parametrize(("limit", "episode"), [(7, 1), (20, 2), (59, 4)])
def test_trials_that_are_cut_are_refused(limit: int, episode: int) -> None:
    """GridNavi has 15 steps in each of 4 episodes."""
    with pytest.raises(ValueError, match=rf"ended after {limit} steps, in episode {episode} of 4.*max_episode_steps"):
        evaluate_adaptation(Still(), "GridNavi-v0", 2, 4, env_kwargs={"max_episode_steps": limit})
    result = evaluate_adaptation(Still(), "GridNavi-v0", 2, 4, env_kwargs={"max_episode_steps": 60})
    assert (result.lengths == 15).all()


def test_episodes_that_were_not_played_have_no_return() -> None:
    rewards = np.array([[[1.0, 2.0], [np.nan, np.nan]]])
    result = AdaptationResult("env", [0], rewards)
    np.testing.assert_array_equal(result.returns, [[3.0, np.nan]])
    np.testing.assert_array_equal(result.lengths, [[2, 0]])
