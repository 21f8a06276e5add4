"""How a model continues an interrupted training run."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, TypeVar

import gymnasium as gym
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm, maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.common.checks import check_instance
from sb3_trmrl.resuming.checkpoint_files import find_checkpoint, read_training_state
from sb3_trmrl.resuming.training_state import platform_of, set_training_state
from sb3_trmrl.resuming.vec_env_state import check_same_layers

Algorithm = TypeVar("Algorithm", bound=BaseAlgorithm)


class Resumption:
    """
    The point from which the next ``learn`` of a model continues an interrupted one.

    :param checkpoint: An intact checkpoint
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.state = read_training_state(checkpoint)
        self._has_set_logger = False

    def begin_learning(self, model: Any, total_timesteps: int) -> int:
        """
        Prepare a call of ``learn``: log where the interrupted run did, and warn if the platform is another one.

        :param model: The model, made from the checkpoint
        :param total_timesteps: Steps of the interrupted ``learn`` and of this one together
        :return: Steps that are left
        """
        saved, now = self.state.platform, platform_of(model, th.get_num_threads())
        different = [f"{name} {saved.get(name)} instead of {now[name]}" for name in now if saved.get(name) != now[name]]
        if different:
            warnings.warn(
                f"the interrupted run had {', '.join(different)}: the resumed run continues it, but not bit for bit",
                UserWarning,
                stacklevel=3,
            )
        folder = self.state.logs["folder"]
        if folder is not None and model.tensorboard_log is not None and not model._custom_logger:
            # SB3 would log to the newest of TensorBoard's folders, which may belong to another run
            outputs = ["stdout", "tensorboard"] if model.verbose else ["tensorboard"]
            model.set_logger(configure(os.path.join(model.tensorboard_log, folder), outputs))
            self._has_set_logger = True
        return total_timesteps + self.state.steps_before_learn - int(model.num_timesteps)

    def begin_rollout(self, model: Any, callback: BaseCallback) -> None:
        """
        Restore the training state. Called when the first rollout begins.

        :param model: The model
        :param callback: The callback that the model calls
        """
        if self._has_set_logger:
            model._custom_logger = False  # later calls of `learn` have folders of their own
        set_training_state(model, self.state, callback)


def resume_training(algorithm: type[Algorithm], path: str | Path, env: GymEnv | str, **kwargs: Any) -> Algorithm:
    """
    Load a model that continues training from a checkpoint.

    :param algorithm: Class of the model, with an attribute ``start_from``
    :param path: The checkpoint, or a folder of checkpoints, of which the newest intact one is taken
    :param env: The environment, made in the same way as for the interrupted run
    :param kwargs: Further arguments of ``load``
    :return: The model; its ``start_from`` is a :class:`Resumption`
    :raises FileNotFoundError: if there is no checkpoint
    :raises ValueError: if the file is damaged or not a checkpoint, or if ``env`` has other wrappers, another number of
        environments or other spaces
    """
    check_instance("env", env, (str, gym.Env, VecEnv), "an environment or its registered id")
    resumption = Resumption(find_checkpoint(path))
    # As an open file: `load` would compare the checksums again
    with resumption.checkpoint.open("rb") as file:
        model = algorithm.load(file, env=maybe_make_env(env, verbose=0), **kwargs)
    assert model.env is not None
    check_same_layers(model.env, resumption.state.env)
    model.start_from = resumption  # type: ignore[attr-defined]
    return model
