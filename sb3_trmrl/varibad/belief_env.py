"""The training environment with beliefs: SB3's PPO collects and trains with it as with any other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_trmrl.algorithms.finite import check_finite_step, newest_observations
from sb3_trmrl.varibad.policies import BELIEF, VariBADPolicy
from sb3_trmrl.varibad.trials import BatchMaker, Observation, Trial, TrialRecorder


def space_with_belief(space: spaces.Space[Any], latent_dim: int) -> spaces.Dict:
    """Return the space of observations with the belief, (2 ``latent_dim``,)."""
    assert isinstance(space, spaces.Dict)
    return spaces.Dict({**space.spaces, BELIEF: spaces.Box(-np.inf, np.inf, (2 * latent_dim,), np.float32)})


class BeliefVecEnv(VecEnvWrapper):
    """
    Adds the belief to the observations, and records the trials.

    :param venv: Environments with ``PreviousTransitionObservation``
    :param policy: Policy with the encoder
    :param normalizer: VecNormalize of the environments, or None
    """

    def __init__(self, venv: VecEnv, policy: VariBADPolicy, normalizer: VecNormalize | None) -> None:
        super().__init__(venv, space_with_belief(venv.observation_space, policy.latent_dim))
        self._policy, self._normalizer = policy, normalizer
        self._make_batch = BatchMaker(policy.reader, venv.action_space, normalizer, policy.device)
        self._hidden = policy.encoder.empty(venv.num_envs)
        self._actions = np.empty(0)
        self._has_begun = False
        self.recorder = TrialRecorder(normalizer)

    def begin_rollout(self, last_obs: Any) -> Observation:
        """
        Begin trials, or infer the beliefs of the running trials with the current encoder and the current statistics of
        VecNormalize.

        :param last_obs: Newest observations; without the belief if the environments have just been reset
        :return: The same with the current beliefs
        """
        own = {key: np.array(value) for key, value in last_obs.items() if key != BELIEF}
        if BELIEF not in last_obs or not self._has_begun:
            check_finite_step(self._normalizer, own)
            self.recorder.begin(own)
            self._has_begun = True
            self._hidden = self._policy.encoder.empty(self.num_envs)
        else:
            batch = self._make_batch(self.recorder.running())
            self._hidden = self._policy.encoder.empty(self.num_envs)
            if batch.lengths.max() > 0:
                with th.no_grad():
                    hidden = self._policy.encoder.encode(batch.next_tokens())
                newest = hidden[th.arange(self.num_envs), (batch.lengths - 1).clamp(min=0)]
                self._hidden = newest.masked_fill((batch.lengths == 0).unsqueeze(1), 0.0)
        return self._with_belief(own, self._hidden)

    def running_trials(self) -> list[Trial] | None:
        """Return the trials up to now, one of each environment, or None if they have not begun."""
        return self.recorder.running() if self._has_begun else None

    def continue_trials(self, trials: list[Trial] | None) -> None:
        """Continue trials that :meth:`running_trials` returned. Their beliefs are inferred by :meth:`begin_rollout`."""
        self._has_begun = trials is not None
        self.recorder.load(trials or [])

    def reset(self) -> VecEnvObs:
        self._has_begun = False
        return self.begin_rollout(self.venv.reset())

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        obs, rewards, dones, infos = self.venv.step_wait()
        assert isinstance(obs, dict)
        own = {key: np.array(value) for key, value in obs.items()}
        rewards = np.array(rewards, dtype=np.float32)  # integers would truncate the value of a truncated trial
        raw_rewards = rewards if self._normalizer is None else self._normalizer.get_original_reward()
        check_finite_step(self._normalizer, own, raw_rewards, infos)
        self.recorder.add(own, self._actions, raw_rewards, dones, infos)

        # Where a trial ends, the last transition is in the terminal observation, and the next trial begins
        ended = np.flatnonzero(dones)
        newest = newest_observations(own, infos) if len(ended) else own
        encoder = self._policy.encoder
        with th.no_grad():
            token = self._policy.reader(obs_as_tensor(newest, self._policy.device))  # type: ignore[arg-type]
            starts = th.zeros(self.num_envs, dtype=th.bool, device=self._policy.device)
            hidden = encoder.step(token, self._hidden, starts)
            over = th.as_tensor(dones, dtype=th.bool, device=self._policy.device)
            self._hidden = hidden.masked_fill(over.unsqueeze(1), 0.0)
        if len(ended):
            beliefs = self._with_belief({}, hidden)[BELIEF]
            infos = [dict(info) for info in infos]
            for env in ended:
                infos[env]["terminal_observation"] = {**infos[env]["terminal_observation"], BELIEF: beliefs[env]}
        return self._with_belief(own, self._hidden), rewards, np.array(dones), infos

    def _with_belief(self, observations: Observation, hidden: th.Tensor) -> Observation:
        return {**observations, BELIEF: self._policy.with_belief({}, hidden)[BELIEF].cpu().numpy()}
