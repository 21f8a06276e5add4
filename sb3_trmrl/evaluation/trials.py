"""
Trials that an agent with frozen weights plays on a set of tasks; evaluation and analyses are built on them.

They call only ``predict(observation, state, episode_start, deterministic)`` and work with any SB3 model. Action masks
of the environment are passed to models whose ``predict`` takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trmrl.common.checks import (
    check_bool,
    check_callable,
    check_instance,
    check_keywords,
    check_option,
    check_positive_int,
)
from sb3_trmrl.evaluation.adaptation_result import has_tasks
from sb3_trmrl.evaluation.model_input import ModelInput
from sb3_trmrl.trials.agent import Agent, check_agent, with_action_masks
from sb3_trmrl.trials.held_out import N_HELD_OUT_TASKS, SPLITS, evaluation_seed, has_splits
from sb3_trmrl.trials.multi_episode_trial import trials_of


def episodes_per_trial(env_id: str, env_kwargs: Mapping[str, Any]) -> int | None:
    """Return the number of episodes in a trial of a registered environment, None if it does not play trials."""
    env = gym.make(env_id, **env_kwargs)
    trials = trials_of(env)
    env.close()
    return trials.episodes_per_trial if trials is not None else None


#: Default number of episodes of each task in an evaluation
N_EPISODES = 6


class TrialStep(NamedTuple):
    """
    One step of B trials that are played in parallel. Finished environments are stepped but ignored.

    :param envs: Indices of the R environments whose trial is still running, (R,)
    :param tasks: Index of the task of each of those, (R,)
    :param episodes: Episode of the trial to which the step belongs, from 0, (B,)
    :param number: Number of the step in its trial, from 0
    :param state: State that ``predict`` returned
    :param actions: Actions, (B, \\*action)
    :param rewards: Rewards, (B,)
    :param infos: Info of each environment, B of them
    """

    envs: np.ndarray
    tasks: np.ndarray
    episodes: np.ndarray
    number: int
    state: Any
    actions: np.ndarray
    rewards: np.ndarray
    infos: list[dict[str, Any]]


class Trials:
    """
    A trial of several episodes on each of T tasks.

    If the environment has ``held_out_tasks(split, n)``, as all environments of this package do, the tasks of a held-out
    split are those: the same ones every time. Otherwise tasks are drawn with ``sample_tasks(n)``, with a random
    generator that is seeded for this split.

    An environment without tasks plays T independent episodes instead. All ``tasks`` are then None.

    :param env: Registered id of a family of tasks in a ``MultiEpisodeTrial``, or of an environment without tasks; or a
        function that makes one such environment when called with ``env_kwargs``
    :param n_tasks: Number of tasks T
    :param n_episodes: Episodes of each trial, which replaces the environment's own number; None for 6, or for 1 without
        tasks
    :param split: ``"test"``, ``"validation"`` or ``"train"``
    :param seed: Seed of initial states and stochastic actions, and of the tasks unless they are held out
    :param env_kwargs: Arguments of the environment, for example another range of tasks
    :raises TypeError: if the environment is a family of tasks without trials, or a number is not an integer
    :raises ValueError: if a number is below 1, the seed is negative, the split is unknown, or an environment without
        tasks is given several episodes
    """

    def __init__(
        self,
        env: str | Callable[..., gym.Env],
        n_tasks: int = N_HELD_OUT_TASKS,
        n_episodes: int | None = 1,
        split: str = "test",
        seed: int = 0,
        env_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.n_episodes = 1 if n_episodes is None else check_positive_int("n_episodes", n_episodes)
        if not isinstance(env, str):
            check_callable("env", env, "a registered id, or a function that makes an environment")
        kwargs = check_keywords("env_kwargs", env_kwargs)
        self.split = check_option("split", kwargs.get("split", split), SPLITS)
        if isinstance(env, str) and has_splits(env):
            kwargs["split"] = self.split
        self._make_env = partial(gym.make, env, **kwargs) if isinstance(env, str) else partial(env, **kwargs)
        self.env_id: str = env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__)
        self.seed = seed
        self.seed_of_split = evaluation_seed(seed, self.split)
        first = self.make()
        if n_episodes is None and trials_of(first) is not None:
            self.n_episodes = N_EPISODES
        self.observation_space = first.observation_space
        self.action_space = first.action_space
        #: Unit of tasks that are numbers, if the family has one
        self.task_unit: str = first.get_wrapper_attr("task_unit") if first.has_wrapper_attr("task_unit") else ""
        #: The tasks, and whether training never uses them; None if that is unknown
        self.tasks, self.held_out = _choose_tasks(
            first, self.split, check_positive_int("n_tasks", n_tasks), self.seed_of_split
        )
        first.close()

    def make(self, task: int | None = None) -> gym.Env:
        """
        Make one environment.

        :param task: Index of the task of its trials, by default those of the environment
        :return: An environment whose trials have ``n_episodes`` episodes, or one without tasks
        """
        env = self._make_env()
        layer = trials_of(env)
        if layer is None:
            _check_no_tasks(env, self.n_episodes)
            return env
        layer.episodes_per_trial = self.n_episodes
        if task is not None:
            layer.tasks = (self.tasks[task],)
        return env

    def play(
        self,
        model: Agent,
        deterministic: bool = True,
        vec_normalize: VecNormalize | None = None,
        n_envs: int | None = None,
        after_task: Callable[[int], None] | None = None,
    ) -> Iterator[TrialStep]:
        """
        Play all trials. Afterwards PyTorch's random generators are in the same state as before.

        :param model: Agent; its ``predict`` gets the observations of ``n_envs`` tasks at once
        :param deterministic: Whether to use deterministic or stochastic actions
        :param vec_normalize: Statistics to normalise observations with, by default those of the model's own
            environment, if it has any. Frames are stacked as in that environment
        :param n_envs: Number of tasks that are played in parallel, by default all
        :param after_task: Called with the number of finished tasks, for a progress bar
        :return: The steps in order
        :raises TypeError: if an argument has the wrong type
        :raises ValueError: if ``n_envs`` is below 1, the observations do not fit the model, or ``vec_normalize`` is
            given although the model normalises observations itself
        """
        check_agent(model)
        check_bool("deterministic", deterministic)
        check_instance("vec_normalize", vec_normalize, (VecNormalize, type(None)), "a VecNormalize or None")
        if after_task is not None:
            check_callable("after_task", after_task, "a function of the number of finished tasks, or None")
        n_envs = len(self.tasks) if n_envs is None else check_positive_int("n_envs", n_envs)
        if vec_normalize is None and hasattr(model, "get_vec_normalize_env"):
            vec_normalize = model.get_vec_normalize_env()
        if vec_normalize is not None and getattr(model, "observation_statistics", None) is not None:
            raise ValueError("`vec_normalize` must be None for an exported agent, which normalises observations itself")
        if not ModelInput(model, vec_normalize).stacks_frames:
            _check_observations(model, self.observation_space)
        with th.random.fork_rng():
            th.manual_seed(self.seed_of_split)
            for start in range(0, len(self.tasks), n_envs):
                tasks = np.arange(start, min(start + n_envs, len(self.tasks)))
                venv = DummyVecEnv([partial(self.make, int(task)) for task in tasks])
                venv.seed(self.seed_of_split + start)
                try:
                    n_episodes = self.n_episodes if has_tasks(self.tasks) else None
                    yield from play_trials(model, venv, tasks, deterministic, vec_normalize, n_episodes)
                finally:
                    venv.close()
                if after_task is not None:
                    after_task(start + len(tasks))


def _check_no_tasks(env: gym.Env, n_episodes: int) -> None:
    """Check an environment without a ``MultiEpisodeTrial``."""
    if any(env.has_wrapper_attr(name) for name in ("sample_tasks", "set_task")):
        raise TypeError(f"`env` must contain a MultiEpisodeTrial around a family of tasks, got {env}")
    if n_episodes != 1:
        raise ValueError(
            f"the number of episodes (`n_eval_episodes`, `n_episodes`) must be 1, got {n_episodes}: `env` {env} has no "
            "tasks, and its episodes are independent"
        )


def _choose_tasks(env: gym.Env, split: str, n: int, seed: int) -> tuple[list[Any], bool | None]:
    """Return n tasks of a split, and whether training never uses them (None: unknown)."""
    if trials_of(env) is None:
        return [None] * n, None
    if split != "train" and env.has_wrapper_attr("held_out_tasks"):
        tasks = env.get_wrapper_attr("held_out_tasks")(split, n)
        known = env.has_wrapper_attr("holds_tasks_out")
        return list(tasks), env.get_wrapper_attr("holds_tasks_out") if known else None
    env.reset(seed=seed)
    return list(env.get_wrapper_attr("sample_tasks")(n)), False if split == "train" else None


def _check_observations(model: Agent, space: spaces.Space[Any]) -> None:
    """Raise ``ValueError`` if the agent was trained with other keys or sizes, or if only one of the two is a Dict."""
    own = getattr(model, "observation_space", None)
    if own is None or not (isinstance(own, spaces.Dict) or isinstance(space, spaces.Dict)):
        return  # SB3 transposes images, and reports other differences itself
    if not (isinstance(own, spaces.Dict) and isinstance(space, spaces.Dict)):
        raise ValueError(f"`env` has the observations {space}, but the model was trained with {own}: check env_kwargs")
    sizes, needed = ({key: part.shape for key, part in both.spaces.items()} for both in (space, own))
    if sizes.keys() != needed.keys() or any(sizes[key] != needed[key] for key in needed if len(sizes[key] or ()) == 1):
        raise ValueError(
            f"`env` has the observations {sizes}, but the model was trained with {needed}: check env_kwargs"
        )


def play_trials(
    model: Agent,
    venv: DummyVecEnv,
    tasks: np.ndarray,
    deterministic: bool,
    vec_normalize: VecNormalize | None,
    n_episodes: int | None = None,
) -> Iterator[TrialStep]:
    """Play one trial in each environment, or one episode where there are no trials; ``tasks`` are indices."""
    model_input = ModelInput(model, vec_normalize)
    observation = model_input.reset(venv.reset(), venv.num_envs)
    model = with_action_masks(model, venv)
    state, starts = None, np.ones(venv.num_envs, dtype=bool)
    episodes = np.zeros(venv.num_envs, dtype=int)
    running = np.ones(venv.num_envs, dtype=bool)
    number = 0
    while running.any():
        actions, state = model.predict(observation, state=state, episode_start=starts, deterministic=deterministic)
        raw, rewards, starts, infos = venv.step(actions)
        observation = model_input.update(raw, starts)
        envs = np.flatnonzero(running)
        for env in envs[~np.isfinite(rewards[envs])]:
            raise ValueError(f"non-finite reward from environment {env} at step {number} of its trial: {rewards[env]}")
        for env in envs[starts[envs]]:
            if n_episodes is not None and len(infos[env].get("episode_returns", ())) < n_episodes:
                raise ValueError(
                    f"the trial in environment {env} ended after {number + 1} steps, in episode {episodes[env] + 1} of "
                    f"{n_episodes}: look for a time limit outside the trial, such as `max_episode_steps` of gym.make"
                )
        yield TrialStep(envs, tasks[envs], episodes.copy(), number, state, actions, rewards, infos)
        episodes += [info.get("new_episode", False) for info in infos]
        running &= ~starts
        number += 1
