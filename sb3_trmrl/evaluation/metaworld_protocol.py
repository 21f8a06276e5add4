"""MetaWorld's own evaluation of meta-RL (``metaworld.evaluation.metalearning_evaluation``), for any SB3 model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl.common.checks import check_instance, check_keywords, check_option, check_positive_int
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from sb3_trmrl.trials.agent import Agent
from sb3_trmrl.trials.held_out import HELD_OUT_SPLITS


@dataclass(frozen=True)
class ProtocolResult:
    """
    Result of MetaWorld's evaluation.

    :param adaptation: All episodes, including those of the adaptation
    :param n_evaluated: Number of evaluated episodes, the last ones of each trial
    """

    adaptation: AdaptationResult
    n_evaluated: int

    @property
    def success_per_class(self) -> dict[str, float]:
        """Fraction of evaluated episodes with success at any step, by name of the class"""
        assert self.adaptation.successes is not None
        return self._per_class(self.adaptation.successes)

    @property
    def return_per_class(self) -> dict[str, float]:
        """Mean return of evaluated episodes up to their first success, where MetaWorld ends them, by class"""
        succeeded = np.nan_to_num(self.adaptation.infos["success"]) > 0
        ended = np.cumsum(succeeded, axis=2) - succeeded > 0
        return self._per_class(np.nansum(np.where(ended, 0.0, self.adaptation.rewards), axis=2))

    @property
    def mean_success(self) -> float:
        """Mean of the classes' success rates"""
        return float(np.mean(list(self.success_per_class.values())))

    @property
    def mean_return(self) -> float:
        """Mean of the classes' returns"""
        return float(np.mean(list(self.return_per_class.values())))

    def _per_class(self, values: np.ndarray) -> dict[str, float]:
        """Return the mean of (tasks, episodes) values over the evaluated episodes of each class."""
        names = np.array([task[0] for task in self.adaptation.tasks])
        return {str(name): float(values[names == name, -self.n_evaluated :].mean()) for name in dict.fromkeys(names)}


def metaworld_protocol(
    model: Agent,
    env_id: str,
    n_goals: int = 10,
    n_adaptation_episodes: int = 10,
    n_evaluation_episodes: int = 3,
    deterministic: bool = True,
    seed: int = 0,
    env_kwargs: dict[str, Any] | None = None,
    split: str = "test",
    vec_normalize: VecNormalize | None = None,
    n_envs: int = 20,
    after_task: Callable[[int], None] | None = None,
) -> ProtocolResult:
    """
    Evaluate an agent on some goals of every class of a split: ten episodes for adaptation, then three that are scored.

    As in ``metaworld.evaluation``, an episode is a success if it succeeds at any step. Two details differ. Evaluated
    episodes are played to their end, because the agent's memory is trained on complete episodes. All evaluated episodes
    of every goal count, whereas MetaWorld with several environments of one class counts the episodes that end first,
    which are the successful ones.

    :param model: Agent
    :param env_id: Id of one of MetaWorld's environments, for example ``"MetaWorldML10-v0"``
    :param n_goals: Goals of each class, at most 50
    :param n_adaptation_episodes: Number of episodes to adapt
    :param n_evaluation_episodes: Number of evaluated episodes
    :param deterministic: Whether to use deterministic or stochastic actions
    :param seed: Seed of stochastic actions
    :param env_kwargs: Arguments of the environment
    :param split: ``"test"`` or ``"validation"``
    :param vec_normalize: Statistics to normalise observations with, by default those of the model's own environment
    :param n_envs: Number of tasks that are played in parallel
    :param after_task: Called with the number of finished tasks, for a progress bar
    :return: Success rates by class, their mean, and all episodes
    :raises TypeError: if an argument has the wrong type
    :raises ValueError: if a number is out of range or the environment is not one of MetaWorld's
    """
    n_goals = check_positive_int("n_goals", n_goals)
    n_adapt = check_positive_int("n_adaptation_episodes", n_adaptation_episodes)
    n_evaluated = check_positive_int("n_evaluation_episodes", n_evaluation_episodes)
    check_option("split", split, HELD_OUT_SPLITS)
    check_instance("env_id", env_id, str, "a registered id")
    env = gym.make(env_id, **check_keywords("env_kwargs", env_kwargs))
    if not env.has_wrapper_attr("split_tasks"):
        raise ValueError(f"`env_id` must be one of MetaWorld's environments, got {env_id!r}")
    n_classes = len({task.name for task in env.get_wrapper_attr("split_tasks")(split)})
    env.close()
    adaptation = evaluate_adaptation(
        model,
        env_id,
        n_eval_tasks=n_goals * n_classes,
        n_eval_episodes=n_adapt + n_evaluated,
        deterministic=deterministic,
        seed=seed,
        env_kwargs=env_kwargs,
        split=split,
        vec_normalize=vec_normalize,
        info_keys=("success",),
        n_envs=n_envs,
        after_task=after_task,
    )
    return ProtocolResult(adaptation, n_evaluated)
