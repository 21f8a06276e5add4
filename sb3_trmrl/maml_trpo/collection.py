"""Collection of the data of MAML: each copy of the environment plays one task, before and after adaptation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.algorithms.finite import check_finite_step
from sb3_trmrl.algorithms.given_tasks import give_tasks, tasks_given_back
from sb3_trmrl.maml_trpo.inner import Samples, adapt, finite_outputs, flat_parameters, padded
from sb3_trmrl.maml_trpo.outer import TaskSamples

if TYPE_CHECKING:
    from sb3_trmrl.maml_trpo.maml_trpo import MAMLTRPO


class Stopped(Exception):
    """A callback has ended training."""


class _Step(NamedTuple):
    """One step of E copies: tensors (E, S), (E, A) and (E, K), arrays (E,)."""

    states: th.Tensor
    actions: th.Tensor
    numbers: th.Tensor
    rewards: np.ndarray
    ends: np.ndarray


class TaskCollector:
    """
    Plays tasks in the copies of the training environment, one task in each.

    :param model: Algorithm
    :param env: Its environment
    :param callback: Called after each step
    """

    def __init__(self, model: MAMLTRPO, env: VecEnv, callback: BaseCallback) -> None:
        self.model, self.env, self.callback = model, env, callback

    def collect(self) -> TaskSamples:
        """
        Sample a task for each copy, and play it with the initial parameters, after each inner step, and adapted.

        :return: Data of E tasks
        :raises Stopped: if the callback ends training
        """
        policy, learning_rate = self.model.policy, self.model.inner_learning_rate
        with tasks_given_back(self.env):
            for index in range(self.env.num_envs):
                tasks = tuple(self.env.env_method("sample_tasks", 1, indices=index)[0])
                give_tasks(self.env, index, tasks)
            flat = flat_parameters(policy).expand(self.env.num_envs, -1)
            inner: list[Samples] = []
            for number in range(self.model.n_inner_steps):
                inner.append(self._play(flat, "before" if number == 0 else None, rewards_of_tokens=True))
                with th.no_grad():
                    flat = adapt(policy, flat, inner[-1:], learning_rate)
            return TaskSamples(tuple(inner), self._play(flat, "after", rewards_of_tokens=False))

    def _play(self, flat: th.Tensor, name: str | None, rewards_of_tokens: bool) -> Samples:
        """Play ``n_inner_episodes`` episodes in each copy, with its own parameters, (E, P)."""
        self.model._last_obs = self.env.reset()  # type: ignore[assignment]
        check_finite_step(self.model._vec_normalize_env, self.model._last_obs)
        n_episodes = np.zeros(self.env.num_envs, dtype=int)
        lengths = np.zeros(self.env.num_envs, dtype=int)
        steps: list[_Step] = []
        while (n_episodes < self.model.n_inner_episodes).any():
            is_playing = n_episodes < self.model.n_inner_episodes
            step, infos = self._step(flat, rewards_of_tokens)
            steps.append(step)
            lengths += is_playing
            n_episodes += step.ends
            for index in np.flatnonzero(step.ends & is_playing):
                if name is not None and "episode_returns" in infos[index]:
                    self.model.episode_returns[name].append(infos[index]["episode_returns"][-1])
        return padded([self._of_copy(steps[:length], index) for index, length in enumerate(lengths)])

    def _step(self, flat: th.Tensor, rewards_of_tokens: bool) -> tuple[_Step, list[dict[str, Any]]]:
        """Step all copies."""
        model = self.model
        policy = model.policy
        with th.no_grad():
            observations: Any = obs_as_tensor(model._last_obs, model.device)  # type: ignore[arg-type]
            states = policy.reader(observations).state
            numbers = finite_outputs(policy, flat, states)
            actions = policy.distribution(numbers).sample()
        new_obs, rewards, dones, infos = self.env.step(policy.env_actions(actions.cpu().numpy()))
        assert isinstance(new_obs, dict)
        check_finite_step(model._vec_normalize_env, new_obs, rewards, infos)
        model.num_timesteps += self.env.num_envs
        self.callback.update_locals({**locals(), "self": model, "collector": self})  # `self` as in SB3
        if not self.callback.on_step():
            raise Stopped
        model._update_info_buffer(infos, dones)
        model._last_obs, model._last_episode_starts = new_obs, dones
        ends = dones | np.array([info.get("new_episode", False) for info in infos])
        if rewards_of_tokens:  # as in `predict`, also if VecNormalize changes them
            rewards = new_obs["prev_reward"][:, 0].copy()
            for index in np.flatnonzero(dones):
                rewards[index] = infos[index]["terminal_observation"]["prev_reward"][0]
        return _Step(states, actions.reshape(self.env.num_envs, -1).float(), numbers, rewards, ends), infos

    def _of_copy(self, steps: list[_Step], index: int) -> tuple[th.Tensor, ...]:
        """Return states, actions, advantages and numbers of one copy."""
        states, actions, numbers = (th.stack([step[part][index] for step in steps]) for part in range(3))
        rewards, ends = (np.array([step[part][index] for step in steps]) for part in (3, 4))
        return states, actions, self.model.advantages(states, rewards, ends), numbers
