"""Collecting rollouts with a live memory, from the first step or from where an interrupted run stood."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.common.callback_tree import callbacks_of
from sb3_trmrl.common.checks import check_finite
from sb3_trmrl.common.threads import one_thread_beside_workers
from sb3_trmrl.memory.buffers import MemoryRolloutBuffer, SequenceRolloutBuffer
from sb3_trmrl.memory.full_memory import FullMemory
from sb3_trmrl.transformer_ppo.policies import Memory, TrMRLPolicy


class MemoryRollouts(PPO):
    """
    PPO that acts with a memory of its training environments; what it learns from is a ``MemoryRolloutBuffer``.

    Parameters are those of :class:`~sb3_trmrl.TransformerPPO`, which says how it is made.
    """

    policy: TrMRLPolicy
    rollout_buffer: MemoryRolloutBuffer
    # Memory of the training environments before `_last_obs` is written to it
    _last_memory: Memory
    #: Where the next `learn` continues an interrupted one, made by `sb3_trmrl.resuming`
    start_from: Any = None

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """
        Collect experiences using the current policy and its memory, and fill a ``MemoryRolloutBuffer``.

        :param env: The training environment
        :param callback: Callback that will be called at each step
            (and at the beginning and end of the rollout)
        :param rollout_buffer: Buffer to fill with rollouts
        :param n_rollout_steps: Number of experiences to collect per environment
        :return: True if function returned with at least `n_rollout_steps`
            collected, False if callback terminated rollout prematurely.
        :raises ValueError: if an observation or a reward is not finite
        """
        with one_thread_beside_workers(env):
            return self._collect(env, callback, rollout_buffer, n_rollout_steps)

    def _collect(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        assert self._last_obs is not None, "No previous observation was provided"
        assert isinstance(rollout_buffer, MemoryRolloutBuffer), f"{rollout_buffer} has no memory"
        self._check_finite(self._last_obs)
        # Switch to eval mode (this affects batch norm / dropout)
        self.policy.set_training_mode(False)

        n_steps = 0
        self._begin_rollout(rollout_buffer, callback)
        callback.on_rollout_start()

        # Sample new weights for the state dependent exploration, from the random numbers that a checkpoint knows
        if self.use_sde:
            self.policy.reset_noise(env.num_envs)

        while n_steps < n_rollout_steps:
            if self.use_sde and self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0:
                # Sample a new noise matrix
                self.policy.reset_noise(env.num_envs)

            with th.no_grad():
                # Convert to pytorch tensor or to TensorDict
                obs_tensor = obs_as_tensor(self._last_obs, self.device)  # type: ignore[arg-type]
                memory = self.policy.remember(self._last_memory, obs_tensor, self._last_episode_starts)  # type: ignore[arg-type]
                actions, values, log_probs = self.policy(memory)
            actions = actions.cpu().numpy()

            # Rescale and perform action
            clipped_actions = actions

            if isinstance(self.action_space, spaces.Box):
                if self.policy.squash_output:
                    clipped_actions = self.policy.unscale_action(clipped_actions)
                else:
                    clipped_actions = np.clip(actions, self.action_space.low, self.action_space.high)

            new_obs, rewards, dones, infos = env.step(clipped_actions)
            rewards = rewards.astype(np.float32, copy=False)  # integers would cut the bootstrapped value
            self._check_finite(new_obs, rewards)

            self.num_timesteps += env.num_envs

            # Give access to local variables
            callback.update_locals(locals())
            if not callback.on_step():
                return False

            self._update_info_buffer(infos, dones)
            n_steps += 1

            self._bootstrap_truncated(rewards, dones, infos, memory)
            rollout_buffer.add(
                self._last_obs,
                actions,
                rewards,
                self._last_episode_starts,  # type: ignore[arg-type]
                values,
                log_probs,
                memory.lengths,
            )
            self._last_obs = new_obs  # type: ignore[assignment]
            self._last_episode_starts = dones
            self._last_memory = memory

        with th.no_grad():
            # Compute value for the last timestep
            memory = self.policy.remember(memory, obs_as_tensor(new_obs, self.device), dones)  # type: ignore[arg-type]
            values = self.policy.predict_values(memory)

        rollout_buffer.compute_returns_and_advantage(last_values=values, dones=dones)

        callback.update_locals(locals())

        callback.on_rollout_end()

        return True

    def _begin_rollout(self, rollout_buffer: MemoryRolloutBuffer, callback: BaseCallback) -> None:
        """
        :param rollout_buffer: Buffer to fill
        :param callback: The callback that the model calls; checkpoints are written here
        """
        if self.start_from is not None:
            self.start_from.begin_rollout(self, callback)
            self.start_from = None
        rollout_buffer.reset()
        rollout_buffer.carry_over(self._last_memory)
        if isinstance(rollout_buffer, SequenceRolloutBuffer):
            # What is remembered of earlier rollouts was computed with older weights
            with th.no_grad():
                self._last_memory = self.policy.recompute(self._last_memory, *rollout_buffer.carried())  # type: ignore[arg-type]
        for each in callbacks_of(callback).values():
            if hasattr(each, "on_rollout_boundary"):
                each.on_rollout_boundary()

    def _check_finite(self, obs: Any, rewards: np.ndarray | None = None) -> None:
        """
        :param obs: Newest observations
        :param rewards: Newest rewards, (n_envs,)
        :raises ValueError: naming the environment whose numbers are not finite
        """
        normalizer = self._vec_normalize_env
        if normalizer is not None:  # whose statistics spread one environment's NaN to all
            obs = normalizer.get_original_obs()
            rewards = rewards if rewards is None else normalizer.get_original_reward()
        check_finite("observation", obs)
        if rewards is not None:
            check_finite("reward", rewards)

    def _bootstrap_truncated(
        self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]], memory: Memory
    ) -> None:
        """
        Add the discounted value of the terminal observation to the last reward of episodes cut by a time limit (see
        SB3's GitHub issue #633), in one batch: fixed horizons end together.

        :param rewards: Rewards of this step, (n_envs,), changed in place
        :param dones: Where an episode has ended, (n_envs,)
        :param infos: Infos of this step
        :param memory: Memory that the actions of this step were chosen with
        """
        truncated = [
            index
            for index, done in enumerate(dones)
            if done
            and infos[index].get("terminal_observation") is not None
            and infos[index].get("TimeLimit.truncated", False)
        ]
        if not truncated:
            return
        terminal_obs = [infos[index]["terminal_observation"] for index in truncated]
        stacked: Any = np.stack(terminal_obs)
        if isinstance(terminal_obs[0], dict):
            stacked = {key: np.stack([obs[key] for obs in terminal_obs]) for key in terminal_obs[0]}
        check_finite("terminal observation", stacked)
        with th.no_grad():
            # The memory as it was before the reset: the value is that of going on
            starts = th.zeros(len(truncated), dtype=th.bool, device=self.device)
            going_on = self.policy.write(memory.select(truncated), self.policy.obs_to_tensor(stacked)[0], starts)
            terminal_values = self.policy.predict_values(going_on)
        rewards[truncated] += self.gamma * terminal_values.cpu().numpy().flatten()

    # -- Where it stands between two rollouts ------------------------------------------------------------------------

    def memory_state(self) -> dict[str, Any]:
        """
        :return: What the model remembers of its training environments at the beginning of a rollout
        """
        memory, tokens = self._last_memory, None
        if isinstance(self.rollout_buffer, SequenceRolloutBuffer):
            assert isinstance(memory, FullMemory)
            # Keys and values are computed again from the tokens
            memory, tokens = memory._replace(caches=()), self.rollout_buffer.newest_tokens()
        return {"memory": memory.numpy(), "tokens": tokens}

    def load_memory_state(self, state: dict[str, Any]) -> None:
        """
        :param state: What ``memory_state()`` returned
        """
        memory: Memory = state["memory"]
        if isinstance(self.rollout_buffer, SequenceRolloutBuffer):
            empty = self.policy.empty_memory(self.n_envs)
            assert isinstance(memory, FullMemory) and isinstance(empty, FullMemory)
            memory = memory._replace(caches=empty.caches)
            self.rollout_buffer.set_newest_tokens(state["tokens"])
        self._last_memory = memory.to(self.device)
