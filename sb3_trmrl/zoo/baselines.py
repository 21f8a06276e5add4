"""PPO and RecurrentPPO (RL^2 on meta-RL environments), which write checkpoints when the zoo trains them."""

from __future__ import annotations

from typing import Any

import sb3_contrib
import stable_baselines3
import torch as th
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.algorithms.resumable import Resumable


class _Baseline(Resumable, OnPolicyAlgorithm):
    """What resuming needs of an on-policy algorithm of SB3."""

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        self._restore_run(callback)
        self._at_rollout_boundary()
        return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)

    def memory_state(self) -> dict[str, Any]:
        return {}

    def load_memory_state(self, state: dict[str, Any]) -> None:
        """There is nothing to load."""


class PPO(_Baseline, stable_baselines3.PPO):
    """SB3's PPO, whose training can be resumed."""


class RecurrentPPO(_Baseline, sb3_contrib.RecurrentPPO):
    """sb3-contrib's RecurrentPPO, whose training can be resumed."""

    _last_lstm_states: Any

    def memory_state(self) -> dict[str, Any]:
        return {"lstm_states": [[each.cpu().numpy() for each in pair] for pair in self._last_lstm_states]}

    def load_memory_state(self, state: dict[str, Any]) -> None:
        states = (tuple(th.as_tensor(each, device=self.device) for each in pair) for pair in state["lstm_states"])
        self._last_lstm_states = RNNStates(*states)
