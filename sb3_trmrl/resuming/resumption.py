"""Continuing an interrupted run."""

import os
from typing import Any

import gymnasium as gym
import torch as th
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.common.checks import check_instance
from sb3_trmrl.resuming.checkpoint_files import find_checkpoint, read_training_state
from sb3_trmrl.resuming.training_state import TrainingState, platform_of, set_training_state, warn_of_differences
from sb3_trmrl.resuming.vec_env_state import check_fits
from sb3_trmrl.transformer_ppo import TransformerPPO


class Resumption:
    def __init__(self, state: TrainingState) -> None:
        self.state = state
        self._has_own_logger = False

    def begin_learning(self, model: Any, total_timesteps: int) -> int:
        warn_of_differences(self.state.platform, platform_of(model, th.get_num_threads()))
        folder = self.state.logs["folder"]
        if folder is not None and model.tensorboard_log is not None and not model._custom_logger:
            outputs = ["stdout", "tensorboard"] if model.verbose else ["tensorboard"]
            model.set_logger(configure(os.path.join(model.tensorboard_log, folder), outputs))
        return int(total_timesteps + model._steps_before_learn - model.num_timesteps)

    def begin_rollout(self, model: Any, callback: BaseCallback) -> None:
        set_training_state(model, self.state, callback)
        model.load_memory_state(self.state.memory)


def resume_training(cls: Any, path: Any, env: Any, **kwargs: Any) -> Any:
    checkpoint = find_checkpoint(path)
    check_instance("env", env, (str, gym.Env, VecEnv), "an environment or its registered id")
    state = read_training_state(checkpoint)
    model = cls.load(checkpoint, env=maybe_make_env(env, verbose=0), **kwargs)
    check_fits(model.env, state.env)
    model.start_from = Resumption(state)
    return model


TransformerPPO.register_resumer(resume_training)
