"""Callbacks that report the episodes of a trial one by one; for SB3's own callbacks a trial is one episode."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_trmrl.common.atomic_file import atomic_file
from sb3_trmrl.common.checks import check_instance, check_int, check_keywords, check_option, check_positive_int
from sb3_trmrl.trials.agent import with_action_masks
from sb3_trmrl.trials.held_out import N_HELD_OUT_TASKS, evaluation_seed, has_splits, n_tasks_in_turn, share_tasks

#: File with the returns of each episode in all evaluations, next to SB3's evaluations.npz
HISTORY = "adaptation.npz"


class InnerEpisodeCallback(BaseCallback):
    """
    Logs the mean return of the first and the last episode of training trials as ``rollout/first_episode_rew_mean`` and
    ``rollout/last_episode_rew_mean``. SB3's ``rollout/ep_rew_mean`` is the sum over a trial.

    :param window: Number of most recent trials to average over, like SB3's ``stats_window_size``
    :param verbose: Verbosity level
    :raises TypeError: if ``window`` is not an integer
    :raises ValueError: if it is below 1
    """

    def __init__(self, window: int = 100, verbose: int = 0) -> None:
        super().__init__(verbose)
        check_positive_int("window", window)
        self._first: deque[float] = deque(maxlen=window)
        self._last: deque[float] = deque(maxlen=window)

    def _on_step(self) -> bool:
        if "infos" not in self.locals:  # ARS calls the callback at the end of a population
            return True
        for info, done in zip(self.locals["infos"], self.locals["dones"], strict=True):
            if done and info.get("episode_returns"):
                self._first.append(info["episode_returns"][0])
                self._last.append(info["episode_returns"][-1])
        return True

    def _on_rollout_end(self) -> None:
        if self._first:
            self.logger.record("rollout/first_episode_rew_mean", float(np.mean(self._first)))
            self.logger.record("rollout/last_episode_rew_mean", float(np.mean(self._last)))


class _Stopwatch:
    """
    Counts seconds of this process's processor time, which other load does not change. It is pickled with the present
    time, so that a resumed run counts on from its checkpoint.
    """

    def __init__(self, seconds: float = 0.0, runs: bool = False) -> None:
        self._before = seconds
        self._since = time.process_time() if runs else None

    @property
    def seconds(self) -> float:
        """Seconds that the watch has been running"""
        return self._before + (0.0 if self._since is None else time.process_time() - self._since)

    def start(self) -> None:
        """Run from now on."""
        self._since = time.process_time()

    def stop(self) -> None:
        """Keep the time as it is."""
        self._before, self._since = self.seconds, None

    def __getstate__(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "runs": self._since is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


class MaskedEvalCallback(EvalCallback):
    """``EvalCallback`` that passes the action masks of the evaluation environment, if it has any, to the agent."""

    def _on_step(self) -> bool:
        model = self.model
        if self.eval_freq > 0 and self.n_calls % self.eval_freq == 0:
            self.model = with_action_masks(model, self.eval_env)
        try:
            return super()._on_step()
        finally:
            self.model = model


class AdaptationEvalCallback(MaskedEvalCallback):
    """
    SB3's ``EvalCallback`` for trials, which also logs the mean return of each episode of a trial as
    ``eval/episode_1_mean_reward``, ..., and ``eval/episode_1_success_rate``, ... if the environment reports success.
    The best model is the one with the highest mean return of a whole trial, or with the highest success rate.

    The results of K evaluations of n trials are saved to ``adaptation.npz`` next to ``evaluations.npz``:
    ``timesteps``, (K,), ``returns`` and, if there are any, ``successes``, (K, n, episodes). Trials are in the order in
    which they ended; ``tasks``, (K, n), are indices into ``task_names``, the ``repr`` of each task. ``seconds``,
    (K,), is the processor time of training up to each evaluation, and ``evaluation_seconds``, (K,), that of the
    evaluations, both without what a resumed run repeats.

    :param eval_env: Evaluation environment, or a registered id. With an id, the agent is evaluated on the validation
        tasks, each in its own copy of the environment. Observations are normalised if those of the training environment
        are
    :param n_eval_episodes: Number of trials, by default one for each validation task with an id, otherwise 20
    :param env_kwargs: Arguments of the environment with an id, in addition to ``split="validation"``
    :param seed: Seed of the environment with an id
    :param best_by: What the best model is best at: ``"mean_reward"``, or ``"success_rate"``: the share of successful
        episodes, and the mean return among models with the same share. It is the same as ``"mean_reward"`` if the
        environment does not report success
    :param kwargs: Further arguments of ``EvalCallback``
    :raises TypeError: if an argument has the wrong type or a name that ``EvalCallback`` does not take
    :raises ValueError: if a number is out of range, ``best_by`` is unknown, or ``env_kwargs`` is given without an id
    """

    def __init__(
        self,
        eval_env: str | gym.Env | VecEnv,
        *,
        n_eval_episodes: int | None = None,
        env_kwargs: dict[str, Any] | None = None,
        seed: int = 0,
        best_by: str = "mean_reward",
        **kwargs: Any,
    ) -> None:
        kinds = (str, gym.Env, VecEnv)
        check_instance("eval_env", eval_env, kinds, "a Gymnasium environment, a VecEnv or a registered id")
        if n_eval_episodes is not None:
            check_positive_int("n_eval_episodes", n_eval_episodes)
        check_keywords("env_kwargs", env_kwargs)
        if env_kwargs and not isinstance(eval_env, str):
            raise ValueError(f"`env_kwargs` must be None unless `eval_env` is a registered id, got {env_kwargs!r}")
        check_keywords("kwargs", kwargs, EvalCallback, passed=("eval_env", "n_eval_episodes"))
        check_int("seed", seed)
        self.best_by = check_option("best_by", best_by, ("mean_reward", "success_rate"))
        self._best_score = -np.inf, -np.inf  # success rate and mean return of the best model
        self._is_own_env = isinstance(eval_env, str)
        if isinstance(eval_env, str):
            arguments = {**({"split": "validation"} if has_splits(eval_env) else {}), **(env_kwargs or {})}
            n_tasks = n_tasks_in_turn(eval_env, arguments)
            n_eval_episodes = n_tasks if n_eval_episodes is None else n_eval_episodes
            split_seed = evaluation_seed(seed, "validation")
            eval_env = make_vec_env(eval_env, min(n_eval_episodes, n_tasks), seed=split_seed, env_kwargs=arguments)
            if arguments.get("split", "train") != "train":
                eval_env = share_tasks(eval_env)
        super().__init__(
            eval_env, n_eval_episodes=N_HELD_OUT_TASKS if n_eval_episodes is None else n_eval_episodes, **kwargs
        )
        self._episode_returns: list[tuple[float, ...]] = []
        self._episode_successes: list[tuple[bool, ...]] = []
        self._tasks: list[int] = []
        self._n_done = 0  # trials of this evaluation
        self._says_success = False  # whether any trial so far had `is_success`
        self._task_indices: dict[str, int] = {}
        self._history: dict[str, list[Any]] = {"timesteps": [], "returns": [], "successes": [], "tasks": []}
        self._training, self._evaluating = _Stopwatch(), _Stopwatch()
        self._seconds: list[tuple[float, float]] = []  # of training and of evaluations

    def _init_callback(self) -> None:
        statistics = self.model.get_vec_normalize_env()
        if self._is_own_env and statistics is not None and not isinstance(self.eval_env, VecNormalize):
            self.eval_env = VecNormalize(
                self.eval_env,
                training=False,
                norm_obs=statistics.norm_obs,
                norm_obs_keys=statistics.norm_obs_keys,
                norm_reward=False,
                clip_obs=statistics.clip_obs,
                epsilon=statistics.epsilon,
            )
        super()._init_callback()

    def _log_success_callback(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        # Called at every step of the evaluation; SB3 writes the values that are recorded last
        super()._log_success_callback(locals_, globals_)
        info = locals_["info"]
        if not locals_["done"]:
            return
        self._n_done += 1
        self._count_failures(info)
        if not info.get("episode_returns"):
            return
        self._tasks.append(self._task_indices.setdefault(repr(info["task"]), len(self._task_indices)))
        self._episode_returns.append(info["episode_returns"])
        self._record("mean_reward", np.array(self._episode_returns, dtype=np.float64))
        self._episode_successes.append(info.get("episode_successes", (False,) * len(info["episode_returns"])))
        if self._says_success:
            self._record("success_rate", np.array(self._episode_successes, dtype=np.float64))

    def _count_failures(self, info: dict[str, Any]) -> None:
        """Count trials without ``is_success`` as failures if others have it: some environments write it only then."""
        says_success = info.get("is_success") is not None
        self._says_success |= says_success
        if not self._says_success:
            return
        failures = [False] * (self._n_done - len(self._is_success_buffer))
        if says_success:  # the others came before
            self._is_success_buffer[:0] = failures
        else:
            self._is_success_buffer += failures
        # In earlier evaluations, no trial had it
        n_without = len(self.evaluations_timesteps) - len(self.evaluations_successes)
        self.evaluations_successes[:0] = [[False] * len(each) for each in self.evaluations_results[:n_without]]

    def _record(self, name: str, values: np.ndarray) -> None:
        for index, mean in enumerate(values.mean(axis=0)):
            self.logger.record(f"eval/episode_{index + 1}_{name}", float(mean))

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._training.start()

    def _on_training_end(self) -> None:
        self._training.stop()
        super()._on_training_end()

    def _on_step(self) -> bool:
        if self.eval_freq <= 0 or self.n_calls % self.eval_freq:
            return super()._on_step()
        self._training.stop()
        self._evaluating.start()
        self._episode_returns, self._episode_successes, self._tasks, self._n_done = [], [], [], 0
        continue_training = self._evaluate_by_success() if self.best_by == "success_rate" else super()._on_step()
        if self.log_path is not None:
            evaluation = (self.num_timesteps, self._episode_returns, self._episode_successes, self._tasks)
            for values, each in zip(self._history.values(), evaluation, strict=True):
                values.append(each)
            arrays: dict[str, Any] = {
                key: np.array(values)
                for key, values in self._history.items()
                if values[0] != [] and (key != "successes" or self._says_success)
            }
            arrays["task_names"] = np.array(list(self._task_indices), dtype=np.str_)
            self._seconds.append((self._training.seconds, self._evaluating.seconds))
            if len(self._seconds) == len(arrays["timesteps"]):  # not after resuming a checkpoint without times
                arrays["seconds"], arrays["evaluation_seconds"] = np.array(self._seconds).T
            # A process that dies while it writes would otherwise lose all evaluations so far
            with atomic_file(Path(os.path.dirname(self.log_path), HISTORY)) as file:
                np.savez(file, **arrays)
        self._evaluating.stop()
        self._training.start()
        return continue_training

    def _evaluate_by_success(self) -> bool:
        """Evaluate as SB3 does, and select the model by its success rate."""
        # SB3 selects by the return within its evaluation: not at all if that is never better
        after_each, best_return = self.callback, self.best_mean_reward
        self.callback, self.best_mean_reward = None, np.inf
        try:
            continue_training = super()._on_step()
        finally:
            self.callback, self.best_mean_reward = after_each, best_return
        successes = self._episode_successes or self._is_success_buffer
        score = float(np.mean(successes)) if successes else 0.0, self.last_mean_reward
        if score > self._best_score:
            self._best_score, self.best_mean_reward = score, self.last_mean_reward
            if self.best_model_save_path is not None:
                self.model.save(os.path.join(self.best_model_save_path, "best_model"))
            if self.callback_on_new_best is not None:
                continue_training = self.callback_on_new_best.on_step() and continue_training
        if self.callback is not None:
            continue_training = continue_training and self._on_event()
        return continue_training
