"""The trials that the variational autoencoder learns from: recording, storage and batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl.algorithms.transitions import Token, TokenReader

Observation = dict[str, np.ndarray]


class Trial(NamedTuple):
    """
    A trial of T steps.

    :param observations: Observations before and after each step, without normalisation, (T + 1, ...) for each key
    :param actions: Actions of each step, (T, \\*action)
    :param rewards: Rewards of the environment, (T,)
    """

    observations: Observation
    actions: np.ndarray
    rewards: np.ndarray


class Batch(NamedTuple):
    """
    B trials of at most T steps, padded at the end.

    :param tokens: Tokens before and after each step, (B, T + 1, ...), as the policy reads them
    :param actions: Encoded actions of each step, (B, T, A)
    :param rewards: Rewards of the environment, (B, T, 1)
    :param new_episode: Whether the next token is the first of an episode, (B, T), also at the end of the trial
    :param lengths: Number of steps of each trial, (B,)
    """

    tokens: Token
    actions: th.Tensor
    rewards: th.Tensor
    new_episode: th.Tensor
    lengths: th.Tensor

    def next_tokens(self) -> Token:
        """Return the tokens after each step, which contain its transition, (B, T, ...)."""
        return Token(*(part[:, 1:] for part in self.tokens))

    @property
    def steps(self) -> th.Tensor:
        """Mask of the steps of each trial, without padding, (B, T)"""
        return th.arange(self.actions.shape[1], device=self.lengths.device) < self.lengths.unsqueeze(1)

    @property
    def has_next_state(self) -> th.Tensor:
        """
        Mask of the steps after which the next token has the next state, (B, T). After the last step of an inner
        episode, it has the first state of the next episode instead.
        """
        is_last = th.arange(1, self.actions.shape[1] + 1, device=self.lengths.device) == self.lengths.unsqueeze(1)
        return self.steps & (~self.new_episode | is_last)


class TrialRecorder:
    """
    Records the trials of environments step by step.

    :param normalizer: VecNormalize of the environments. Its statistics change, so what it observed is recorded
    """

    def __init__(self, normalizer: VecNormalize | None) -> None:
        self._normalizer = normalizer
        #: Trials that have ended since they were last taken
        self.finished: list[Trial] = []
        self._observations: list[list[Observation]] = []
        self._actions: list[list[np.ndarray]] = []
        self._rewards: list[list[float]] = []

    def begin(self, observations: Observation) -> None:
        """Begin a trial in each environment, with these observations, (n_envs, ...)."""
        raw = self._without_normalization(observations)
        n_envs = len(raw["prev_done"])
        self._observations = [[_entry(raw, env)] for env in range(n_envs)]
        self._actions = [[] for _ in range(n_envs)]
        self._rewards = [[] for _ in range(n_envs)]

    def add(
        self,
        observations: Observation,
        actions: np.ndarray,
        rewards: np.ndarray,
        dones: np.ndarray,
        infos: Sequence[dict[str, Any]],
    ) -> None:
        """
        Add a step of all environments. A trial that has ended is finished, and the next one begins.

        :param observations: Next observations, (n_envs, ...)
        :param actions: Actions, (n_envs, \\*action)
        :param rewards: Rewards of the environment, (n_envs,)
        :param dones: Mask of environments whose trial has ended, (n_envs,)
        :param infos: Infos, with the last observation of trials that have ended
        """
        raw = self._without_normalization(observations)
        if self._normalizer is not None:  # not undone, which cannot restore what was clipped
            original: Any = self._normalizer.get_original_obs()
            raw |= {key: original[key] for key in self._normalizer.norm_obs_keys or ()}
        for env, done in enumerate(dones):
            self._actions[env].append(np.array(actions[env]))
            self._rewards[env].append(float(rewards[env]))
            after = _entry(raw, env)
            if not done:
                self._observations[env].append(after)
                continue
            last = self._without_normalization(infos[env]["terminal_observation"])
            last["prev_reward"] = np.full_like(last["prev_reward"], rewards[env])
            self._observations[env].append({key: np.array(value) for key, value in last.items()})
            self.finished.append(self.current(env))
            self._observations[env], self._actions[env], self._rewards[env] = [after], [], []

    def running(self) -> list[Trial]:
        """Return the trials up to now, one of each environment."""
        return [self.current(env) for env in range(len(self._observations))]

    def load(self, trials: Sequence[Trial]) -> None:
        """Continue trials that :meth:`running` returned."""
        self._observations = [
            [{key: value[step] for key, value in trial.observations.items()} for step in range(len(trial.rewards) + 1)]
            for trial in trials
        ]
        self._actions = [list(trial.actions) for trial in trials]
        self._rewards = [trial.rewards.tolist() for trial in trials]

    def current(self, env: int) -> Trial:
        """Return the trial of an environment up to now."""
        entries = self._observations[env]
        observations = {key: np.stack([entry[key] for entry in entries]) for key in entries[0]}
        return Trial(observations, np.array(self._actions[env]), np.array(self._rewards[env], dtype=np.float32))

    def _without_normalization(self, observations: Observation) -> Observation:
        if self._normalizer is None:
            return observations
        raw: Observation = self._normalizer.unnormalize_obs(observations)  # type: ignore[assignment]
        # VecNormalize clips rare flags, but keeps their sign, as their mean lies between 0 and 1
        raw["prev_done"] = observations["prev_done"] > 0
        return {key: np.asarray(value, np.asarray(observations[key]).dtype) for key, value in raw.items()}


def _entry(observations: Observation, env: int) -> Observation:
    return {key: np.array(value[env]) for key, value in observations.items()}


class TrialBuffer:
    """
    The newest trials.

    :param size: Largest number of trials
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._trials: list[Trial] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._trials)

    def add(self, trial: Trial) -> None:
        """Add a trial, which replaces the oldest one of a full buffer."""
        if len(self._trials) < self.size:
            self._trials.append(trial)
        else:
            self._trials[self._next] = trial
        self._next = (self._next + 1) % self.size

    def resized(self, size: int) -> TrialBuffer:
        """Return a buffer of another size with the newest of these trials, or this one."""
        if size == self.size:
            return self
        resized = TrialBuffer(size)
        start = self._next % max(len(self), 1)  # the oldest trial, as soon as the buffer is full
        for trial in (*self._trials[start:], *self._trials[:start]):
            resized.add(trial)
        return resized

    def sample(self, n: int) -> list[Trial]:
        """Return ``n`` different trials, or all of them if there are fewer, drawn with NumPy's global generator."""
        drawn = np.random.choice(len(self), min(n, len(self)), replace=False)
        return [self._trials[index] for index in drawn]


class BatchMaker:
    """
    Makes batches of trials.

    :param reader: Reader of the tokens
    :param action_space: Action space
    :param normalizer: VecNormalize, whose current statistics normalise the observations, or None
    :param device: Device of the batches
    """

    def __init__(
        self,
        reader: TokenReader,
        action_space: spaces.Space[Any],
        normalizer: VecNormalize | None,
        device: th.device,
    ) -> None:
        self._reader, self._action_space = reader, action_space
        self._normalizer, self._device = normalizer, device

    def __call__(self, trials: Sequence[Trial]) -> Batch:
        """
        :param trials: B trials
        :return: The same, padded to the length of the longest
        """
        n, longest = len(trials), max(len(trial.rewards) for trial in trials)
        keys = trials[0].observations
        padded = {key: _padded([trial.observations[key] for trial in trials], longest + 1) for key in keys}
        new_episode = th.as_tensor(padded["prev_done"][:, 1:, 0] > 0, device=self._device)
        flat = {key: value.reshape(-1, *value.shape[2:]) for key, value in padded.items()}
        if self._normalizer is not None:
            flat = self._normalizer.normalize_obs(flat)  # type: ignore[assignment]
        token = self._reader({key: th.as_tensor(value, device=self._device) for key, value in flat.items()})
        tokens = Token(*(part.reshape(n, longest + 1, -1) for part in token))
        lengths = th.tensor([len(trial.rewards) for trial in trials], device=self._device)
        if longest == 0:  # trials that have only begun
            empty = tokens.prev_reward.new_zeros(n, 0, 1)
            return Batch(tokens, empty.expand(n, 0, self._reader.action_dim), empty, new_episode, lengths)
        actions = th.as_tensor(_padded([trial.actions for trial in trials], longest), device=self._device)
        encoded = preprocess_obs(actions.flatten(0, 1), self._action_space, normalize_images=False)
        assert isinstance(encoded, th.Tensor)
        rewards = th.as_tensor(_padded([trial.rewards for trial in trials], longest), device=self._device)
        return Batch(tokens, encoded.float().reshape(n, longest, -1), rewards.unsqueeze(-1), new_episode, lengths)


def _padded(arrays: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Stack arrays, (T, ...), with zeros after the shorter ones."""
    longest = max(arrays, key=len)
    padded = np.zeros((len(arrays), length, *longest.shape[1:]), dtype=longest.dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array.reshape(-1, *longest.shape[1:])
    return padded
