"""All that decides how training goes on at the border between two rollouts, besides what a model's zip holds."""

from __future__ import annotations

import os
import random
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_trmrl.common.versions import versions_of
from sb3_trmrl.resuming.callback_state import CallbackWatch, set_callback_state
from sb3_trmrl.resuming.vec_env_state import set_vec_env_state, vec_env_state

#: What the model holds of the last step
_LAST_STEP = ("_last_obs", "_last_episode_starts", "_last_original_obs")
#: What the logger will write at the next dump
_PENDING_LOGS = ("name_to_value", "name_to_count", "name_to_excluded")


class TrainingState(NamedTuple):
    """
    The state of a training run at the beginning of a rollout.

    :param platform: Versions and threads, on which the last bits of numbers depend
    :param last_step: Newest observations, and where episodes begin with them
    :param memory: What the model says of its memory, see ``TransformerPPO.memory_state``
    :param env: State of the training environment
    :param callbacks: State of the callbacks
    :param logs: Values not written yet, and the name of TensorBoard's folder
    :param generators: The states of the random generators of Python, NumPy and PyTorch
    :param log_files: Length in bytes of files that grow line by line, by their paths from the checkpoint's folder
    """

    platform: dict[str, Any]
    last_step: dict[str, Any]
    memory: dict[str, Any]
    env: dict[str, Any]
    callbacks: dict[str, Any]
    logs: dict[str, Any]
    generators: dict[str, Any]
    log_files: dict[str, int]


def take_training_state(
    model: OnPolicyAlgorithm,
    memory: dict[str, Any],
    callbacks: CallbackWatch,
    threads: int,
    log_files: dict[str, int],
) -> TrainingState:
    """
    :param model: Model, at the beginning of a rollout
    :param memory: State of its memory
    :param callbacks: Its callbacks
    :param threads: Threads that PyTorch computes with when it updates
    :param log_files: Length of files that grow line by line
    :return: The state; nothing is changed and no random number drawn
    """
    assert model.env is not None
    pending = {name: dict(getattr(model.logger, name)) for name in _PENDING_LOGS}
    folder = model.logger.get_dir()
    return TrainingState(
        platform=platform_of(model, threads),
        last_step={name: getattr(model, name) for name in _LAST_STEP},
        memory=memory,
        env=vec_env_state(model.env),
        callbacks=callbacks.state(),
        logs={"pending": pending, "folder": None if folder is None else os.path.basename(folder)},
        generators=_generators(),
        log_files=log_files,
    )


def set_training_state(model: OnPolicyAlgorithm, state: TrainingState, root: BaseCallback) -> None:
    """
    :param model: Model at the beginning of its first rollout, with the parameters of the state; its memory is set by
        the model
    :param state: The state, with paths of log files as they are from here
    :param root: The callback that it calls
    """
    for path, length in state.log_files.items():
        _cut(path, length)
    for name, values in state.logs["pending"].items():
        kept = getattr(model.logger, name)
        kept.clear()
        kept.update(values)
    set_callback_state(root, state.callbacks)
    assert model.env is not None
    for name, value in state.last_step.items():
        setattr(model, name, value)
    if not set_vec_env_state(model.env, state.env):
        warnings.warn(
            "the environment, or a wrapper around it, could not give its state by a method state_dict(): new episodes "
            "begin, and the run differs from here on from one that was not interrupted",
            UserWarning,
            stacklevel=2,
        )
        model._last_obs = model.env.reset()  # type: ignore[assignment]
        model._last_episode_starts = np.ones(model.env.num_envs, dtype=bool)
        normalizer = model.get_vec_normalize_env()
        model._last_original_obs = None if normalizer is None else normalizer.get_original_obs()
    _set_generators(state.generators)


def platform_of(model: OnPolicyAlgorithm, threads: int) -> dict[str, Any]:
    """
    :param model: Model
    :param threads: Threads that PyTorch computes with when it updates
    :return: On what the last bits of numbers depend
    """
    packages = ("gymnasium", "mujoco", "numpy", "sb3_trmrl", "stable_baselines3", "torch")
    return {**versions_of(packages), "device": model.device.type, "threads": threads}


def warn_of_differences(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """
    :param saved: Platform of the interrupted run
    :param now: Platform of the resumed one
    """
    different = [f"{name} {saved.get(name)} instead of {now[name]}" for name in now if saved.get(name) != now[name]]
    if different:
        warnings.warn(
            f"the interrupted run had {', '.join(different)}: the resumed one goes on, but not to the last bit",
            UserWarning,
            stacklevel=2,
        )


def _generators() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": th.get_rng_state().numpy(),
        "cuda": [state.numpy() for state in th.cuda.get_rng_state_all()] if th.cuda.is_available() else [],
    }


def _set_generators(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    th.set_rng_state(th.as_tensor(states["torch"]))
    if states["cuda"] and th.cuda.device_count() == len(states["cuda"]):
        th.cuda.set_rng_state_all([th.as_tensor(state) for state in states["cuda"]])


def _cut(path: str, length: int) -> None:
    """
    Cut off what the interrupted run wrote to a log after the checkpoint: the resumed one will write it again.

    :param path: File
    :param length: Its length at the checkpoint, in bytes
    """
    try:
        with open(path, "r+b") as file:
            file.seek(0, 2)
            if file.tell() > length:
                file.truncate(length)
    except FileNotFoundError:
        warnings.warn(f"the log {path} of the interrupted run is gone", UserWarning, stacklevel=2)
