"""
The state of a training run between two rollouts: everything that decides how training continues, except what SB3 saves
in a model's zip.
"""

from __future__ import annotations

import os
import random
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_trmrl.common.versions import versions_of
from sb3_trmrl.resuming.callback_state import CallbackWatch, set_callback_state
from sb3_trmrl.resuming.vec_env_state import set_vec_env_state, vec_env_state

#: What a model keeps of the last step
_LAST_STEP = ("_last_obs", "_last_episode_starts", "_last_original_obs")
#: What the logger will write at the next dump
_PENDING_LOGS = ("name_to_value", "name_to_count", "name_to_excluded")


class TrainingState(NamedTuple):
    """
    The state of a training run at the beginning of a rollout.

    :param steps_before_learn: Number of steps that the model had made when ``learn`` was called
    :param platform: Versions, device and number of threads, on which the last bits of floating-point numbers depend
    :param last_step: Newest observations, and whether they begin an episode
    :param memory: What the model's ``memory_state()`` returned
    :param env: State of the training environment
    :param callbacks: State of the callbacks
    :param logs: Values that have not been written yet, and the name of TensorBoard's folder
    :param generators: States of the random generators of Python, NumPy and PyTorch
    :param log_files: Length in bytes of files that grow line by line, by path relative to the folder of the checkpoint
    """

    steps_before_learn: int
    platform: dict[str, Any]
    last_step: dict[str, Any]
    memory: dict[str, Any]
    env: dict[str, Any]
    callbacks: dict[str, Any]
    logs: dict[str, Any]
    generators: dict[str, Any]
    log_files: dict[str, int]


def take_training_state(
    model: Any, callbacks: CallbackWatch, steps_before_learn: int, threads: int, log_files: dict[str, int]
) -> TrainingState:
    """
    Take the state of a training run, without changing anything or drawing a random number.

    :param model: On-policy algorithm with ``memory_state()``, at the beginning of a rollout
    :param callbacks: Its callbacks
    :param steps_before_learn: Number of steps that the model had made when ``learn`` was called
    :param threads: Number of threads that PyTorch uses for updates
    :param log_files: Length of files that grow line by line
    :return: The state
    """
    folder = model.logger.get_dir()
    pending = {name: dict(getattr(model.logger, name)) for name in _PENDING_LOGS}
    return TrainingState(
        steps_before_learn=steps_before_learn,
        platform=platform_of(model, threads),
        last_step={name: getattr(model, name) for name in _LAST_STEP},
        memory=model.memory_state(),
        env=vec_env_state(model.env),
        callbacks=callbacks.state(),
        logs={"pending": pending, "folder": None if folder is None else os.path.basename(folder)},
        generators=_generator_states(),
        log_files=log_files,
    )


def set_training_state(model: Any, state: TrainingState, root: BaseCallback) -> None:
    """
    Restore the state of a training run.

    :param model: On-policy algorithm with ``load_memory_state(state)``, at the beginning of its first rollout, with the
        parameters of the checkpoint
    :param state: The state, with paths of log files relative to the current folder
    :param root: The callback that the model calls
    """
    for path, length in state.log_files.items():
        _cut(path, length)
    for name, values in state.logs["pending"].items():
        kept = getattr(model.logger, name)
        kept.clear()
        kept.update(values)
    set_callback_state(root, state.callbacks)
    for name, value in state.last_step.items():
        setattr(model, name, value)
    if not set_vec_env_state(model.env, state.env):
        warnings.warn(
            "the environment, or a wrapper around it, could not give its state by a method state_dict(): new episodes "
            "begin, and from here on the run differs from an uninterrupted one",
            UserWarning,
            stacklevel=2,
        )
        model._last_obs = model.env.reset()
        model._last_episode_starts = np.ones(model.env.num_envs, dtype=bool)
        normalizer = model.get_vec_normalize_env()
        model._last_original_obs = None if normalizer is None else normalizer.get_original_obs()
    _set_generator_states(state.generators)
    model.load_memory_state(state.memory)


def platform_of(model: Any, threads: int) -> dict[str, Any]:
    """
    Describe what the last bits of floating-point numbers depend on.

    :param model: Model
    :param threads: Number of threads that PyTorch uses for updates
    :return: Versions of packages, device and number of threads
    """
    packages = ("gymnasium", "mujoco", "numpy", "sb3_trmrl", "stable_baselines3", "torch")
    return {**versions_of(packages), "device": model.device.type, "threads": threads}


def _generator_states() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": th.get_rng_state().numpy(),
        "cuda": [state.numpy() for state in th.cuda.get_rng_state_all()] if th.cuda.is_available() else [],
    }


def _set_generator_states(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    th.set_rng_state(th.as_tensor(states["torch"]))
    if states["cuda"] and th.cuda.device_count() == len(states["cuda"]):
        th.cuda.set_rng_state_all([th.as_tensor(state) for state in states["cuda"]])


def _cut(path: str, length: int) -> None:
    """Remove what the interrupted run wrote to a log after the checkpoint: the resumed run writes it again."""
    try:
        with open(path, "r+b") as file:
            file.seek(0, 2)
            if file.tell() > length:
                file.truncate(length)
    except FileNotFoundError:
        warnings.warn(f"the log {path} of the interrupted run no longer exists", UserWarning, stacklevel=2)
