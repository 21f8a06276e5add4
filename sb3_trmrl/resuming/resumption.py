"""How a model continues an interrupted training run."""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm, maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.common.checks import check_instance
from sb3_trmrl.distributed.collectives import barrier, is_main, rank, world_size
from sb3_trmrl.distributed.start import seed_of_rank
from sb3_trmrl.resuming.callback_state import set_callback_state
from sb3_trmrl.resuming.checkpoint_files import find_checkpoint, read_training_state
from sb3_trmrl.resuming.training_state import RankState, platform_of
from sb3_trmrl.resuming.vec_env_state import check_same_layers, set_statistics, set_vec_env_state

Algorithm = TypeVar("Algorithm", bound=BaseAlgorithm)


class Resumption:
    """The point, an intact checkpoint, from which the next ``learn`` of a model continues an interrupted one."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.state = read_training_state(checkpoint)
        self._has_set_logger = False

    def begin_learning(self, model: Any, total_timesteps: int) -> int:
        """Return the steps left of ``total_timesteps``, those of the interrupted ``learn`` and of this one together."""
        # Logs where the interrupted run did, and warns if the platform is another one
        saved, now = self.state.platform, platform_of(model, th.get_num_threads())
        different = [f"{name} {saved.get(name)} instead of {now[name]}" for name in now if saved.get(name) != now[name]]
        if different:
            warnings.warn(
                f"the interrupted run had {', '.join(different)}: the resumed run will not be bit-identical",
                UserWarning,
                stacklevel=3,
            )
        folder = self.state.logs["folder"] if is_main() else None
        if folder is not None and model.tensorboard_log is not None and not model._custom_logger:
            # SB3 would log to the newest of TensorBoard's folders, which may belong to another run
            outputs = ["stdout", "tensorboard"] if model.verbose else ["tensorboard"]
            model.set_logger(configure(os.path.join(model.tensorboard_log, folder), outputs))
            self._has_set_logger = True
        return total_timesteps + self.state.steps_before_learn - int(model.num_timesteps)

    def begin_rollout(self, model: Any, callback: BaseCallback) -> None:
        """Restore the training state, at the beginning of the first rollout."""
        if self._has_set_logger:
            model._custom_logger = False  # later calls of `learn` have folders of their own
        state = self.state
        for path, length in state.log_files.items() if is_main() else ():
            _cut(path, length)
        for name, values in state.logs["pending"].items():
            kept = getattr(model.logger, name)
            kept.clear()
            kept.update(values)
        if is_main():
            set_callback_state(callback, state.callbacks)
        if state.n_ranks == world_size():
            self._continue_rank(model, state.rank_state(rank()))
        else:
            self._begin_trials(model)
        barrier()  # no rank may append to the log files before they are truncated

    @staticmethod
    def _continue_rank(model: Any, state: RankState) -> None:
        """Restore the state of this rank."""
        for name, value in state.last_step.items():
            setattr(model, name, value)
        if not set_vec_env_state(model.env, state.env):
            warnings.warn(
                "the environment, or a wrapper around it, could not provide its state with state_dict(): new "
                "episodes begin, and from here on the run differs from one without interruption",
                UserWarning,
                stacklevel=2,
            )
            _reset(model)
        _set_generator_states(state.generators)
        model.load_memory_state(state.memory)

    def _begin_trials(self, model: Any) -> None:
        """Start new episodes, because the environments are now divided differently."""
        n_ranks = self.state.n_ranks
        warnings.warn(
            f"the interrupted run had {n_ranks} rank{'s' * (n_ranks > 1)}, this one has {world_size()}: training "
            "continues with new episodes, so the result will differ from that of an uninterrupted run",
            UserWarning,
            stacklevel=3,
        )
        set_statistics(model.env, self.state.env)
        # A seed that the interrupted run did not use
        seed = seed_of_rank(int(model.num_timesteps))
        set_random_seed(seed)
        model.env.seed(seed)
        _reset(model)


def _reset(model: Any) -> None:
    """Begin new episodes in the training environment."""
    model._last_obs = model.env.reset()
    model._last_episode_starts = np.ones(model.env.num_envs, dtype=bool)
    normalizer = model.get_vec_normalize_env()
    model._last_original_obs = None if normalizer is None else normalizer.get_original_obs()


def resume_training(algorithm: type[Algorithm], path: str | Path, env: GymEnv | str, **kwargs: Any) -> Algorithm:
    """Load a model, with a :class:`Resumption` as ``start_from``, see ``resume`` of the algorithm."""
    check_instance("env", env, (str, gym.Env, VecEnv), "an environment or its registered id")
    resumption = Resumption(find_checkpoint(path))
    # As an open file: `load` would verify the checksums again
    with resumption.checkpoint.open("rb") as file:
        model = algorithm.load(file, env=maybe_make_env(env, verbose=0), **kwargs)
    assert model.env is not None
    check_same_layers(model.env, resumption.state.env, check_number=resumption.state.n_ranks == world_size())
    model.start_from = resumption  # type: ignore[attr-defined]
    return model


def _set_generator_states(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    th.set_rng_state(th.as_tensor(states["torch"]))
    if states["cuda"] and th.cuda.device_count() == len(states["cuda"]):
        th.cuda.set_rng_state_all([th.as_tensor(state) for state in states["cuda"]])


def _cut(path: str, length: int) -> None:
    """Remove what the interrupted run wrote to a log after the checkpoint: the resumed run writes it again."""
    try:
        if os.path.getsize(path) > length:
            os.truncate(path, length)
    except FileNotFoundError:
        warnings.warn(f"the log {path} of the interrupted run no longer exists", UserWarning, stacklevel=2)
