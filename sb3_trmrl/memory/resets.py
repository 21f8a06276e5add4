"""Resets of the training environment that the algorithm has not made, which would mix two episodes in one memory."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.memory.tokens import map_tokens


class NoticesResets(BaseAlgorithm):
    """Notices resets of the training environment by others. An algorithm has it as a base class, before that of SB3."""

    # Infos of the newest reset of each environment at the last step, which every reset replaces
    _last_resets: tuple[Any, ...] | None = None

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        before = self._last_obs
        result = super()._setup_learn(*args, **kwargs)
        if self._last_obs is not before:  # the environment has been reset
            self._last_obs = map_tokens(np.array, self._last_obs)
            self._last_resets = None
        return result

    def _note_resets(self, env: VecEnv) -> None:
        """Remember the resets up to this step."""
        self._last_resets = tuple(env.unwrapped.reset_infos)

    def _is_reset_since(self, env: VecEnv) -> bool:
        """Return whether an environment has been reset since the last step."""
        if self._last_resets is None:
            return False
        return any(a is not b for a, b in zip(env.unwrapped.reset_infos, self._last_resets, strict=True))

    def _restart_if_reset(self, env: VecEnv) -> bool:
        """
        Begin new episodes if something else has used the training environment since the last rollout. Return whether
        that is so.
        """
        if not self._is_reset_since(env):
            return False
        warnings.warn(
            "the training environment was reset between two rollouts, for example by evaluate_policy: new episodes "
            "begin. Evaluate in another environment",
            UserWarning,
            stacklevel=2,
        )
        self._last_obs = map_tokens(np.array, env.reset())
        self._last_episode_starts = np.ones(env.num_envs, dtype=bool)
        self._last_resets = None
        return True

    def _refuse_reset(self, env: VecEnv) -> None:
        """Raise a ValueError if a callback has reset the training environment at this step."""
        if self._is_reset_since(env):
            raise ValueError(
                "`callback` must not reset the training environment during a rollout, as EvalCallback does if it gets "
                "the same environment: evaluate in another one"
            )

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_last_resets"]
