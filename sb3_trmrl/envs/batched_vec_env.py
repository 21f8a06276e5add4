"""SB3's vectorised environment for the small problems, which steps all copies together in NumPy arrays."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn
from stable_baselines3.common.vec_env.util import dict_to_obs

from sb3_trmrl.envs.small_problem import SmallProblem
from sb3_trmrl.envs.tasks import TaskObservation
from sb3_trmrl.trials.multi_episode_trial import MultiEpisodeTrial, layers_of
from sb3_trmrl.trials.previous_transition import PreviousTransitionObservation

#: Layers that may be around a MultiEpisodeTrial, each at most once
_OUTER_LAYERS = {Monitor, OrderEnforcing, PassiveEnvChecker, TaskObservation, PreviousTransitionObservation}


class BatchedVecEnv(DummyVecEnv):
    """
    ``DummyVecEnv`` for many copies of a small problem, with the same trajectories and about ten times the speed.

    It takes the registered environments BernoulliBandit, TabularMDP, GridNavi, DarkKeyToDoor and SparsePointRobot with
    any arguments, also in SB3's ``Monitor``.

    All copies are stepped together in NumPy arrays. ``envs``, ``get_attr``, ``env_method`` and so on bring the copies
    up to date before they access them, and later steps continue from what was changed in them. Do not keep ``envs``
    from one step to the next.

    Example:
        >>> from stable_baselines3.common.env_util import make_vec_env
        >>> env = make_vec_env("sb3_trmrl:GridNavi-v0", n_envs=100, seed=0, vec_env_cls=BatchedVecEnv)
        >>> env.reset()["observation"].shape
        (100, 10)

    :param env_fns: Functions that each make one copy, with the same arguments
    :raises ValueError: if an environment is of another kind, prints its steps (``render_mode="human"``), has other
        wrappers, or differs from the first one
    """

    #: Whether the arrays are ahead of the copies
    _in_arrays: bool

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]]) -> None:
        super().__init__(list(env_fns))
        reason = _why_not(self._envs)
        if reason is not None:
            raise ValueError(f"`env_fns` must make environments that can be stepped together: {reason}")
        layers = [layers_of(env) for env in self._envs]
        self._problems: list[Any] = [found[-1] for found in layers]
        self._trials: list[Any] = [found[-2] for found in layers]
        self._monitors = [each for found in layers for each in found if isinstance(each, Monitor)]
        self._batch = self._problems[0].batch_class(self._problems)
        # One for each copy, or none at all
        self._previous = [each for found in layers for each in found if isinstance(each, PreviousTransitionObservation)]
        self._n_to_check = 2
        # Steps since a copy was loaded or its episode began, and those from then to the end of its episode
        self._n_done, self._n_steps = np.zeros((2, self.num_envs), dtype=np.int64)
        self._returns = np.zeros(self.num_envs)
        self._monitored: list[list[float]] = [[] for _ in self._monitors]
        self._infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        self._features = self.buf_obs.get("task")
        self._one_hot = np.eye(getattr(self.action_space, "n", 0), dtype=np.float32)

    @property
    def envs(self) -> list[gym.Env]:
        """The copies, up to date."""
        if self._in_arrays:
            self._settle(np.arange(self.num_envs))
            for copy in range(self.num_envs):
                self._batch.store(copy)
            self._in_arrays = False
        return self._envs

    @envs.setter
    def envs(self, envs: list[gym.Env]) -> None:
        self._envs = envs
        self._in_arrays = False

    def step_wait(self) -> VecEnvStepReturn:
        actions = np.asarray(self.actions)
        if self._n_to_check or not (self._batch.accepts(actions) and self._is_loaded()):
            # Gymnasium checks the first two steps of a copy, and the copies say what is wrong with the actions
            returned = super().step_wait()
            self._n_to_check = max(self._n_to_check - 1, 0)
            return returned

        rewards = self._batch.act(actions)
        self._n_done += 1
        self._returns += rewards
        for values, reward in zip(self._monitored, rewards.tolist(), strict=False):  # none without monitors
            values.append(reward)
        observations = self._observe(actions, rewards)
        dones = np.zeros(self.num_envs, dtype=bool)
        infos = list(map(dict.copy, self._infos))
        ended = np.flatnonzero(self._n_done == self._n_steps)
        if len(ended):
            self._end_episodes(ended, observations, dones, infos)
        in_order = OrderedDict((key, observations[key or "observation"]) for key in self.keys)
        return dict_to_obs(self.observation_space, in_order), rewards.astype(np.float32), dones, infos

    def _is_loaded(self) -> bool:
        """Read the state of all copies into the arrays, unless it is there or a copy has to be reset."""
        if not self._in_arrays and not (
            any(each._needs_reset for each in self._trials) or any(each.needs_reset for each in self._monitors)
        ):
            self._load(np.arange(self.num_envs))
            self._zeroes = np.array([each.across_episodes == "zero" for each in self._previous])
            self._in_arrays = True
        return self._in_arrays

    def _observe(self, actions: np.ndarray, rewards: np.ndarray) -> dict[str, np.ndarray]:
        """Return new arrays of observations inside an episode."""
        observations = {"observation": self._batch.observe()}
        if self._previous:
            is_discrete = isinstance(self.action_space, spaces.Discrete)
            observations["prev_action"] = self._one_hot[actions] if is_discrete else actions.astype(np.float32)
            observations["prev_reward"] = rewards.astype(np.float32)[:, None]
            observations["prev_done"] = np.zeros((self.num_envs, 1), dtype=np.float32)
        if self._features is not None:
            observations["task"] = self._features.copy()
        return observations

    def _end_episodes(
        self, copies: np.ndarray, observations: dict[str, np.ndarray], dones: np.ndarray, infos: list[dict[str, Any]]
    ) -> None:
        """End the episode of copies as their wrappers do, and begin another one of the same trial or of the next."""
        self._settle(copies)
        self._returns[copies] = 0.0
        for copy in copies.tolist():
            trials, problem, info = self._trials[copy], self._problems[copy], infos[copy]
            trials._record_episode(info, not problem.is_truncated)
            index = len(trials._episode_returns)
            is_over = index >= trials.episodes_per_trial
            info["episode_index"], info["new_episode"] = index - is_over, not is_over
            info["TimeLimit.truncated"] = is_over and _is_truncated(trials, problem)
            self._infos[copy]["episode_index"] = index
            problem._steps_left = problem.horizon
            dones[copy] = is_over
        self._n_steps[copies] = [self._problems[copy].horizon for copy in copies]
        over, again = copies[dones[copies]], copies[~dones[copies]]
        if self._previous:
            observations["prev_done"][again] = 1.0
            observations["prev_done"][over, 0] = [not infos[copy]["TimeLimit.truncated"] for copy in over]
            zeroed = again[self._zeroes[again]]
            observations["prev_action"][zeroed] = observations["prev_reward"][zeroed] = 0.0
        if len(over):
            self._begin_trials(over, observations, infos)
        self._batch.start(again)
        observations["observation"][copies] = self._batch.observe()[copies]

    def _begin_trials(
        self, copies: np.ndarray, observations: dict[str, np.ndarray], infos: list[dict[str, Any]]
    ) -> None:
        """Save the last observations of trials and record these, and begin the next ones."""
        last = zip(*(values[copies] for values in observations.values()), strict=True)
        is_dict = isinstance(self.observation_space, spaces.Dict)
        for copy, parts in zip(copies.tolist(), last, strict=True):
            info = infos[copy]
            if self._monitors:
                _, self.reset_infos[copy] = _monitor(self._monitors[copy], self._trials[copy], info)
            else:
                _, self.reset_infos[copy] = self._trials[copy].reset()
            info["terminal_observation"] = dict(zip(observations, parts, strict=True)) if is_dict else parts[0]
        self._load(copies)
        for values in observations.values():
            values[copies] = 0
        if self._features is not None:
            observations["task"][copies] = self._features[copies]

    def _load(self, copies: np.ndarray) -> None:
        """Read the state of copies into the arrays."""
        for copy in copies.tolist():
            problem, trials = self._problems[copy], self._trials[copy]
            self._n_steps[copy] = problem._steps_left
            self._returns[copy] = trials._episode_return
            index = len(trials._episode_returns)
            self._infos[copy] = {"episode_index": index, "new_episode": False, "TimeLimit.truncated": False}
            if self._monitors:
                self._monitored[copy] = self._monitors[copy].rewards
            if self._features is not None:
                self._features[copy] = problem.task_features(problem.get_task())
            self._batch.load(copy)

    def _settle(self, copies: np.ndarray) -> None:
        """Write the counts and the returns of copies back to their layers."""
        counts, returns = self._n_done[copies], self._returns[copies]
        for copy, n_done, episode_return in zip(copies.tolist(), counts.tolist(), returns.tolist(), strict=True):
            trials = self._trials[copy]
            self._problems[copy]._steps_left -= n_done
            trials._episode_length += n_done
            trials._episode_return = episode_return
            if self._monitors:
                self._monitors[copy].total_steps += n_done
        self._n_steps[copies] -= counts
        self._n_done[copies] = 0


def _is_truncated(trials: MultiEpisodeTrial, problem: SmallProblem) -> bool:
    """Return whether the last step of a trial truncates it."""
    return problem.is_truncated if trials.trial_end is None else trials.trial_end == "truncated"


def _monitor(monitor: Monitor, trials: MultiEpisodeTrial, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Let a monitor, which knows the rewards and the number of steps, record the end of a trial; begin the next one."""
    env = monitor.env
    monitor.total_steps -= 1
    monitor.env = _LastStep(trials, monitor.rewards.pop(), info)  # type: ignore[assignment]
    try:
        monitor.step(None)
        return monitor.reset()
    finally:
        monitor.env = env


class _LastStep:
    """Stands for the environment of a monitor at the end of a trial."""

    def __init__(self, trials: MultiEpisodeTrial, reward: float, info: dict[str, Any]) -> None:
        self.reset = trials.reset
        self._returned = None, reward, True, False, info

    def step(self, action: Any) -> Any:
        return self._returned


def batched_if_possible(env_fns: Sequence[Callable[[], gym.Env]]) -> DummyVecEnv:
    """
    Make a ``BatchedVecEnv`` of environments that it can step, otherwise a ``DummyVecEnv``.

    :param env_fns: Functions that each make one environment
    :return: A vectorised environment with the same trajectories either way
    """
    envs = [env_fn() for env_fn in env_fns]
    # Also of one: SB3's EvalCallback expects the same class as for the other environments of a run
    vec_env_class = BatchedVecEnv if _why_not(envs) is None else DummyVecEnv
    return vec_env_class([lambda env=env: env for env in envs])  # type: ignore[misc]


def _why_not(envs: Sequence[gym.Env]) -> str | None:
    """Return why environments cannot be stepped together, or None if they can."""
    kinds = [[type(layer) for layer in layers_of(env)] for env in envs]
    for env, layers in zip(envs, kinds, strict=True):
        *outer, trials, problem = [type(None), *layers]
        # Looked up in the class itself: subclasses may change the steps
        if "batch_class" not in vars(problem):
            return f"{problem.__name__} is not one of the small problems of this package"
        if env.render_mode == "human":
            return '`render_mode` is "human"'
        if trials is not MultiEpisodeTrial or len(set(outer)) < len(outer) or not set(outer[1:]) <= _OUTER_LAYERS:
            return f"the wrappers of {env} are not those of the registered environment"
        if layers != kinds[0] or _in_common(env) != _in_common(envs[0]):
            return f"{env} differs from the first one in its wrappers, spaces, `horizon` or `across_episodes`"
    return None


def _in_common(env: gym.Env) -> tuple[Any, ...]:
    """Return what must be the same for all copies; anything else is read from each of them."""
    attributes = [env.get_wrapper_attr(name) for name in ("horizon", "across_episodes") if env.has_wrapper_attr(name)]
    return env.observation_space, env.action_space, attributes
