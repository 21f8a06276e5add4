"""Algorithms whose training continues from a checkpoint. :mod:`sb3_trmrl.resuming` implements it."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from pkgutil import resolve_name
from typing import Any, TypeVar

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback

from sb3_trmrl.common.callback_tree import callbacks_of
from sb3_trmrl.common.methods import IMPLEMENTATIONS

SelfResumable = TypeVar("SelfResumable", bound="Resumable")


class Resumable(BaseAlgorithm):
    """``resume``, and what checkpoints need of an algorithm, which has it as its first base class."""

    #: Point at which the next ``learn`` continues an interrupted run, an object of :mod:`sb3_trmrl.resuming`
    start_from: Any = None
    # Callbacks that write checkpoints. Off-policy rollouts may have a single step: the tree is not searched in each
    _checkpoint_callbacks: Sequence[Any] = ()

    @classmethod
    def resume(cls: type[SelfResumable], path: str | pathlib.Path, env: GymEnv | str, **kwargs: Any) -> SelfResumable:
        """
        Continue training from a checkpoint that :class:`~sb3_trmrl.TrainingCheckpoint` wrote. Call ``learn`` on the
        returned model with the arguments of the interrupted call: ``total_timesteps`` are the steps of both calls
        together, and matching callbacks continue from their saved state.

        Loading unpickles: only resume from files that you trust.

        :param path: The checkpoint, or a folder of checkpoints, of which the newest complete one is taken
        :param env: The environment, created as before. Its current state does not matter
        :param kwargs: Further arguments of ``load``, for example ``device``
        :return: The model
        :raises FileNotFoundError: if there is no checkpoint
        :raises ValueError: if the file is damaged or is not a checkpoint, or ``env`` has other wrappers, another number
            of environments or other spaces
        """
        model: SelfResumable = resolve_name(IMPLEMENTATIONS["resume"])(cls, path, env, **kwargs)
        return model

    def learn(
        self: SelfResumable,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfResumable:
        """
        Learn as in SB3. After :meth:`resume`, pass the arguments of the interrupted call to continue it.

        :param total_timesteps: Total number of steps over all environments
        :param callback: As in SB3
        :param log_interval: As in SB3
        :param tb_log_name: Name of the run in TensorBoard's folder, by default that of the class
        :param reset_num_timesteps: As in SB3
        :param progress_bar: As in SB3
        :return: The model
        """
        total_timesteps, reset_num_timesteps = self._steps_to_learn(total_timesteps, reset_num_timesteps)
        callback = self._prepare_learning(callback, total_timesteps)
        name = tb_log_name or type(self).__name__
        super().learn(total_timesteps, callback, log_interval, name, reset_num_timesteps, progress_bar)  # type: ignore[safe-super]
        return self

    def _prepare_learning(self, callback: MaybeCallback, total_timesteps: int) -> MaybeCallback:
        """Prepare the model for ``total_timesteps`` steps. Return the callbacks that SB3's ``learn`` gets."""
        return callback

    def memory_state(self) -> dict[str, Any]:
        """
        :return: What the model keeps from one rollout to the next beside what its zip contains: buffers, and what it
            remembers of its training environments. It can be pickled
        """
        raise NotImplementedError

    def load_memory_state(self, state: dict[str, Any]) -> None:
        """
        :param state: What :meth:`memory_state` returned
        """
        raise NotImplementedError

    def _steps_to_learn(self, total_timesteps: int, reset_num_timesteps: bool) -> tuple[int, bool]:
        """Return the arguments for SB3's ``learn``, which differ if it continues an interrupted run."""
        if self.start_from is None:
            return total_timesteps, reset_num_timesteps
        steps: int = self.start_from.begin_learning(self, total_timesteps)
        return steps, False

    def _restore_run(self, callback: BaseCallback) -> bool:
        """Restore an interrupted run at the beginning of its first rollout. Return whether there is one."""
        if self.start_from is None:
            return False
        self.start_from.begin_rollout(self, callback)
        self.start_from = None
        return True

    def _at_rollout_boundary(self) -> None:
        """Tell callbacks that write checkpoints that the model is between two rollouts."""
        for each in self._checkpoint_callbacks:
            each.on_rollout_boundary()

    def _init_callback(self, *args: Any, **kwargs: Any) -> BaseCallback:
        callback = super()._init_callback(*args, **kwargs)
        found = callbacks_of(callback).values()
        self._checkpoint_callbacks = [each for each in found if hasattr(each, "on_rollout_boundary")]
        return callback

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "start_from", "_checkpoint_callbacks"]
