"""
Meta-testing (paper, section 5.1): an agent with frozen weights meets new tasks and plays several episodes of each.

Everything goes through ``predict(observation, state, episode_start, deterministic)``, so any SB3 model will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trmrl.common.adaptation_result import AdaptationResult
from sb3_trmrl.common.checks import check_option, check_positive_int
from sb3_trmrl.common.held_out import evaluation_seed, has_splits
from sb3_trmrl.common.wrappers import MultiEpisodeTrial, trials_of

SPLITS = ("train", "validation", "test")


class Agent(Protocol):
    """What is evaluated: an SB3 model, one of its policies, or anything else that acts like them."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """As in Stable-Baselines3"""


def evaluate_adaptation(
    model: Agent,
    env: str | Callable[..., gym.Env],
    n_eval_tasks: int = 20,
    n_eval_episodes: int = 6,
    deterministic: bool = True,
    seed: int = 0,
    env_kwargs: dict[str, Any] | None = None,
    split: str = "test",
    vec_normalize: VecNormalize | None = None,
    info_keys: Sequence[str] = (),
    n_envs: int | None = None,
    after_task: Callable[[int], None] | None = None,
) -> AdaptationResult:
    """
    Play a trial of several episodes on each of some tasks, and keep every reward.

    Tasks are those that the environment holds out for ``split`` (``held_out_tasks(split, n)``, as all of ours have it:
    always the same ones), else drawn with ``sample_tasks(n)`` from a stream of random numbers of this split. Weights
    and PyTorch's random generators are left as they are.

    :param model: Agent; its ``predict`` gets the observations of all tasks at once
    :param env: Registered id of a family of tasks, or what makes one environment when called with ``env_kwargs``; it
        contains a ``MultiEpisodeTrial``
    :param n_eval_tasks: Number of tasks T
    :param n_eval_episodes: Episodes of each trial, whatever the environment was made with
    :param deterministic: Whether actions are the likeliest ones or sampled
    :param seed: Seed of initial states and sampled actions, and of tasks where none are held out
    :param env_kwargs: Arguments of the environment, for example another task range
    :param split: ``"test"``, ``"validation"`` or ``"train"``
    :param vec_normalize: Statistics to normalise observations with, by default those of the model's own environment,
        if it has them
    :param info_keys: Numbers of ``info`` to keep for each step, for example ``"x_velocity"``
    :param n_envs: Tasks at a time, by default all
    :param after_task: Called with the number of finished tasks, for a progress bar
    :return: Rewards and what else was asked for
    :raises TypeError: if the environment is no family of tasks in trials
    :raises ValueError: if a number is below 1, an option is unknown, or the model has other observations
    """
    n_eval_tasks = check_positive_int("n_eval_tasks", n_eval_tasks)
    n_eval_episodes = check_positive_int("n_eval_episodes", n_eval_episodes)
    n_envs = n_eval_tasks if n_envs is None else check_positive_int("n_envs", n_envs)
    env_kwargs = dict(env_kwargs or {})
    split = check_option("split", env_kwargs.get("split", split), SPLITS)
    if isinstance(env, str) and has_splits(env):
        env_kwargs["split"] = split
    if vec_normalize is None and hasattr(model, "get_vec_normalize_env"):
        vec_normalize = model.get_vec_normalize_env()

    def make() -> gym.Env:
        made = gym.make(env, **env_kwargs) if isinstance(env, str) else env(**env_kwargs)
        trials = trials_of(made)
        if trials is None:
            raise TypeError(f"`env` must contain a MultiEpisodeTrial around a family of tasks, got {made}")
        trials.episodes_per_trial = n_eval_episodes
        return made

    seed_of_split = evaluation_seed(seed, split)
    first = make()
    tasks, held_out = _tasks(first, split, n_eval_tasks, seed_of_split)
    _check_observations(model, first.observation_space)
    first.close()

    recorder = _Recorder(n_eval_tasks, n_eval_episodes, info_keys)
    with _seeded(seed_of_split):
        for start in range(0, n_eval_tasks, n_envs):
            some = tasks[start : start + n_envs]
            venv = DummyVecEnv([make for _ in some])
            try:
                for index, task in enumerate(some):
                    trials = trials_of(venv.envs[index])
                    assert isinstance(trials, MultiEpisodeTrial)
                    trials.tasks = (task,)
                venv.seed(seed_of_split + start)
                _play(model, venv, vec_normalize, deterministic, recorder, start)
            finally:
                venv.close()
            if after_task is not None:
                after_task(start + len(some))
    return AdaptationResult(
        env_id=env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__),
        tasks=tasks,
        rewards=recorder.table(recorder.rewards),
        successes=recorder.successes(),
        infos={key: recorder.table(values) for key, values in recorder.infos.items()},
        split=split,
        held_out=held_out,
        deterministic=deterministic,
        seed=seed,
    )


def _tasks(env: gym.Env, split: str, n: int, seed: int) -> tuple[list[Any], bool | None]:
    """
    :param env: Family of tasks
    :param split: Name of the split
    :param n: Number of tasks
    :param seed: Seed to draw with, where none are held out
    :return: The tasks, and whether training never meets them (None: unknown)
    """
    if split != "train" and env.has_wrapper_attr("held_out_tasks"):
        tasks = env.get_wrapper_attr("held_out_tasks")(split, n)
        known = env.has_wrapper_attr("holds_tasks_out")
        return list(tasks), env.get_wrapper_attr("holds_tasks_out") if known else None
    env.reset(seed=seed)
    return list(env.get_wrapper_attr("sample_tasks")(n)), False if split == "train" else None


def _check_observations(model: Agent, space: spaces.Space) -> None:
    """
    :param model: Agent
    :param space: Observations of the environment
    :raises ValueError: if the agent was trained with other keys or sizes
    """
    own = getattr(model, "observation_space", None)
    if not (isinstance(own, spaces.Dict) and isinstance(space, spaces.Dict)):
        return  # SB3 turns images round, and says itself what does not fit
    sizes, needed = ({key: part.shape for key, part in both.spaces.items()} for both in (space, own))
    if sizes.keys() != needed.keys() or any(sizes[key] != needed[key] for key in needed if len(sizes[key] or ()) == 1):
        raise ValueError(f"`env` has the observations {sizes}, the model was trained with {needed}: look at env_kwargs")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """
    :param seed: Seed of sampled actions
    """
    with th.random.fork_rng():
        th.manual_seed(seed)
        yield


class _Recorder:
    """
    Numbers by task, episode and step.

    :param n_tasks: Number of tasks
    :param n_episodes: Number of episodes
    :param info_keys: Numbers of ``info`` to keep
    """

    def __init__(self, n_tasks: int, n_episodes: int, info_keys: Sequence[str]) -> None:
        def empty() -> list[list[list[float]]]:
            return [[[] for _ in range(n_episodes)] for _ in range(n_tasks)]

        self.rewards = empty()
        self.infos = {key: empty() for key in info_keys}
        self._successes: list[list[bool | None]] = [[None] * n_episodes for _ in range(n_tasks)]

    def add(self, task: int, episode: int, reward: float, info: dict[str, Any]) -> None:
        """
        :param task: Index of the task
        :param episode: Episode in which the step was made
        :param reward: Its reward
        :param info: Its info
        """
        self.rewards[task][episode].append(float(reward))
        for key, values in self.infos.items():
            if key not in info:
                raise ValueError(f"`info_keys` has {key!r}, which is not among {sorted(info)}")
            values[task][episode].append(float(info[key]))
        if "is_success" in info:
            self._successes[task][episode] = bool(self._successes[task][episode]) or bool(info["is_success"])

    @staticmethod
    def table(values: list[list[list[float]]]) -> np.ndarray:
        """
        :param values: Numbers of each step
        :return: (tasks, episodes, horizon), NaN after an early end
        """
        horizon = max(len(steps) for episodes in values for steps in episodes)
        padded = [[steps + [np.nan] * (horizon - len(steps)) for steps in episodes] for episodes in values]
        return np.array(padded)

    def successes(self) -> np.ndarray | None:
        """
        :return: Whether an episode had success at any step, (tasks, episodes), if the environment says so
        """
        known = self._successes[0][0] is not None
        return np.array(self._successes, dtype=bool) if known else None


def _play(
    model: Agent,
    venv: DummyVecEnv,
    vec_normalize: VecNormalize | None,
    deterministic: bool,
    recorder: _Recorder,
    offset: int,
) -> None:
    """
    One trial in each environment.

    :param model: Agent
    :param venv: Environments
    :param vec_normalize: Statistics for observations
    :param deterministic: See :func:`evaluate_adaptation`
    :param recorder: Where the steps go
    :param offset: Index of the first environment's task
    """
    observation: Any = venv.reset()
    state, starts = None, np.ones(venv.num_envs, dtype=bool)
    episode = np.zeros(venv.num_envs, dtype=int)
    running = np.ones(venv.num_envs, dtype=bool)
    while running.any():
        if vec_normalize is not None:
            observation = vec_normalize.normalize_obs(observation)
        actions, state = model.predict(observation, state=state, episode_start=starts, deterministic=deterministic)
        observation, rewards, starts, infos = venv.step(actions)
        for index in np.flatnonzero(running):
            recorder.add(offset + index, episode[index], rewards[index], infos[index])
            episode[index] += infos[index]["new_episode"]
        running &= ~starts
