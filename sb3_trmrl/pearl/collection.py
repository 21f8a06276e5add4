"""Collection of the data of PEARL: several copies of an environment play one training task each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.algorithms.finite import check_finite_step, newest_observations
from sb3_trmrl.algorithms.given_tasks import give_tasks
from sb3_trmrl.algorithms.transitions import Token
from sb3_trmrl.pearl.encoder import Posterior, prior

if TYPE_CHECKING:
    from sb3_trmrl.pearl.pearl import PEARL


def draw_train_tasks(env: VecEnv, n: int) -> list[Any]:
    """Draw n different tasks with the generator of the first copy, which has been seeded."""
    tasks: dict[str, Any] = {}
    n_draws = 0
    while len(tasks) < n and n_draws < 20 * n + 100:
        for task in env.env_method("sample_tasks", n, indices=0)[0]:
            if len(tasks) < n:
                tasks.setdefault(repr(task), task)
        n_draws += n
    if len(tasks) < n:
        raise ValueError(
            f"`n_train_tasks` must be at most the number of different tasks of `env`, got {n}: {n_draws} draws gave "
            f"{len(tasks)}"
        )
    return list(tasks.values())


class TaskCollector:
    """
    Plays one training task in each copy of the environment, and stores its transitions.

    Latents are drawn at the beginning of each episode: from the prior until ``prior_steps`` steps have been taken,
    afterwards from the posterior of transitions of the context.

    :param model: Algorithm
    :param env: Its environment
    :param tasks: Indices of different training tasks, one for each copy, (E,)
    :param prior_steps: Steps after which episodes begin with a latent from the posterior
    """

    def __init__(self, model: PEARL, env: VecEnv, tasks: np.ndarray, prior_steps: int) -> None:
        self.model = model
        self.env = env
        self.tasks = tasks
        self.prior_steps = prior_steps
        assert model.train_tasks is not None
        self._contexts_before = model.replay_buffer.contexts()
        for index, task in enumerate(tasks):
            model.replay_buffer.begin_task(task)
            give_tasks(env, index, (model.train_tasks[task],))
        model._last_obs = env.reset()  # type: ignore[assignment]
        check_finite_step(None, model._last_obs)
        self._token = self._read(model._last_obs)
        self._is_prior = np.ones(len(tasks), dtype=bool)
        self._latents = prior(len(tasks), model.policy.latent_dim, device=model.device).sample()

    def collect(self, n_steps: int, callback: BaseCallback) -> bool:
        """
        :param n_steps: Steps of each task
        :param callback: Called after each step
        :return: Whether training continues
        """
        for step in range(1, n_steps + 1):
            with th.no_grad():
                scaled = self.model.policy.act(self._token.state, self._latents).cpu().numpy()
            new_obs, rewards, dones, infos = self.env.step(self.model.policy.env_actions(scaled))
            check_finite_step(None, new_obs, rewards, infos)
            self.model.num_timesteps += self.env.num_envs
            callback.update_locals({**locals(), "self": self.model, "collector": self})  # `self` as in SB3
            if not callback.on_step():
                # Not those of a few steps
                self.model.replay_buffer.set_contexts(self.tasks, self._contexts_before)
                return False
            self.model._update_info_buffer(infos, dones)
            self.model._episode_num += int(dones.sum())
            # An iteration may take more steps than are left, and schedules are not made for less than nothing
            n_steps_done = min(self.model.num_timesteps, self.model._total_timesteps)
            self.model._update_current_progress_remaining(n_steps_done, self.model._total_timesteps)
            token = self._read(new_obs)
            newest = self._read(newest_observations(new_obs, infos)) if dones.any() else token
            self._store(scaled, newest.state, rewards, infos)
            new_episode = dones | np.array([info["new_episode"] for info in infos])
            self._record_returns(infos, new_episode)
            self.model._last_obs, self.model._last_episode_starts = new_obs, dones  # type: ignore[assignment]
            self._token = token
            if new_episode.any():
                self._draw_latents(new_episode, step >= self.prior_steps)
        return True

    def _read(self, observations: Any) -> Token:
        return self.model.policy.reader(obs_as_tensor(observations, self.model.device))  # type: ignore[arg-type]

    def _store(self, scaled: np.ndarray, newest: th.Tensor, rewards: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """Store a transition of each copy, except those whose next state is unknown."""
        states, next_states = self._token.state.cpu().numpy(), newest.cpu().numpy()
        for index, (task, info) in enumerate(zip(self.tasks, infos, strict=True)):
            terminated = info.get("episode_terminated", False)
            if info["new_episode"] and not terminated:
                continue  # a truncated episode needs the value of its last state, which the trial does not return
            self.model.replay_buffer.add(
                task,
                states[index],
                scaled[index],
                rewards[index],
                next_states[index],
                terminated,
                is_context=bool(self._is_prior[index]),
            )

    def _record_returns(self, infos: list[dict[str, Any]], new_episode: np.ndarray) -> None:
        for index in np.flatnonzero(new_episode):
            kind = "prior" if self._is_prior[index] else "posterior"
            if "episode_terminated" in infos[index]:  # not if a wrapper outside the trial has ended it
                self.model.episode_returns[kind].append(infos[index]["episode_returns"][-1])

    def _draw_latents(self, new_episode: np.ndarray, from_posterior: bool) -> None:
        """Draw latents where an episode begins."""
        envs = np.flatnonzero(new_episode)
        if from_posterior:
            envs = envs[self.model.replay_buffer.context_sizes()[self.tasks[envs]] > 0]
            if not len(envs):
                return
            with th.no_grad():
                context = self.model.replay_buffer.sample_context(self.tasks[envs], self.model.context_batch_size)
                posterior: Posterior = self.model.encoder(context)
        else:
            posterior = prior(len(envs), self.model.policy.latent_dim, device=self.model.device)
        self._is_prior[envs] = not from_posterior
        self._latents[th.as_tensor(envs, device=self.model.device)] = posterior.sample()
