"""
The state of a training run between two rollouts: everything that determines how training continues, except what SB3
saves in a model's zip file.
"""

from __future__ import annotations

import os
import random
from typing import Any, NamedTuple

import numpy as np
import torch as th

from sb3_trmrl.common.versions import versions_of
from sb3_trmrl.distributed.collectives import all_gather
from sb3_trmrl.resuming.callback_state import CallbackWatch
from sb3_trmrl.resuming.vec_env_state import vec_env_state

#: What a model keeps of the last step
_LAST_STEP = ("_last_obs", "_last_episode_starts", "_last_original_obs")
#: What the logger will write at the next dump
_PENDING_LOGS = ("name_to_value", "name_to_count", "name_to_excluded")


class RankState(NamedTuple):
    """State that differs between ranks."""

    last_step: dict[str, Any]
    memory: dict[str, Any]
    env: dict[str, Any]
    generators: dict[str, Any]


class TrainingState(NamedTuple):
    """The state of a training run at the beginning of a rollout."""

    steps_before_learn: int  # steps that the model had made when ``learn`` was called
    platform: dict[str, Any]  # versions, device and number of threads
    last_step: dict[str, Any]  # newest observations, and whether they begin an episode
    memory: dict[str, Any]  # what the model's ``memory_state()`` returned
    env: dict[str, Any]
    callbacks: dict[str, Any]
    logs: dict[str, Any]  # values that have not been written yet, and the name of TensorBoard's folder
    generators: dict[str, Any]  # random generators of Python, NumPy and PyTorch
    log_files: dict[str, int]  # bytes of files that grow line by line, by path relative to the folder of the checkpoint
    other_ranks: tuple[RankState, ...] = ()  # states of ranks 1, 2, ...

    @property
    def n_ranks(self) -> int:
        """Number of ranks that trained the model."""
        return 1 + len(self.other_ranks)

    def rank_state(self, rank: int) -> RankState:
        """Return the state of one rank."""
        if rank:
            return self.other_ranks[rank - 1]
        return RankState(self.last_step, self.memory, self.env, self.generators)


def take_training_state(
    model: Any, callbacks: CallbackWatch, steps_before_learn: int, threads: int, log_files: dict[str, int]
) -> TrainingState:
    """Return the state of a run, without changing it or drawing random numbers. Must be called by all ranks."""
    own = RankState(
        last_step={name: getattr(model, name) for name in _LAST_STEP},
        memory=model.memory_state(),
        env=vec_env_state(model.env),
        generators=_generator_states(),
    )
    _, *others = all_gather(own)
    folder = model.logger.get_dir()
    pending = {name: dict(getattr(model.logger, name)) for name in _PENDING_LOGS}
    return TrainingState(
        steps_before_learn=steps_before_learn,
        platform=platform_of(model, threads),
        callbacks=callbacks.state(),
        logs={"pending": pending, "folder": None if folder is None else os.path.basename(folder)},
        log_files=log_files,
        other_ranks=tuple(others),
        **own._asdict(),
    )


def platform_of(model: Any, threads: int) -> dict[str, Any]:
    """Describe what the last bits of numbers depend on: versions, device, and threads of PyTorch in an update."""
    packages = ("gymnasium", "mujoco", "numpy", "sb3_trmrl", "stable_baselines3", "torch")
    return {**versions_of(packages), "device": model.device.type, "threads": threads}


def _generator_states() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": th.get_rng_state().numpy(),
        "cuda": [state.numpy() for state in th.cuda.get_rng_state_all()] if th.cuda.is_available() else [],
    }
