"""Checkpoints that training goes on from exactly."""

from __future__ import annotations

import glob
import os
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_trmrl.common.atomic_file import remove_unfinished
from sb3_trmrl.common.checks import check_instance, check_path, check_positive_int
from sb3_trmrl.resuming.callback_state import CallbackWatch
from sb3_trmrl.resuming.checkpoint_files import checkpoints_in, steps_of, write_checkpoint
from sb3_trmrl.resuming.training_state import take_training_state
from sb3_trmrl.resuming.vec_env_state import environment_states


class TrainingCheckpoint(BaseCallback):
    """
    Writes checkpoints that :meth:`TransformerPPO.resume` goes on from: on the same machine, with the same number of
    threads, the resumed run is bit for bit the one that was not interrupted.

    A checkpoint is a zip as SB3's ``load`` takes it, with the training state beside the model: the environment (task,
    place in the trial, physics), VecNormalize, memory, callbacks, values to be logged, and all random generators. It
    takes its name, ``checkpoint_<steps>_steps.zip``, only when it is whole and on the disk. Writing one draws no random
    number: when they are written makes no difference to training.

    Environments give their state by methods ``state_dict()`` and ``load_state_dict(state)``, which all of this package
    have. Of those that cannot, a resumed run begins a new episode (trial). Attributes of other callbacks are restored,
    but for arguments of their constructors that did not change.

    Example:
        >>> import os
        >>> from sb3_trmrl import TrainingCheckpoint, TransformerPPO
        >>> model = TransformerPPO("TrMRLPolicy", "BernoulliBandit-v0", n_steps=64, seed=0)
        >>> model = model.learn(256, callback=TrainingCheckpoint("checkpoints", save_freq=128))
        >>> sorted(os.listdir("checkpoints"))
        ['checkpoint_0_steps.zip', 'checkpoint_128_steps.zip']
        >>> model = TransformerPPO.resume("checkpoints", env=model.get_env())
        >>> model = model.learn(256)  # makes the 128 steps that are left

    :param folder: Folder of the checkpoints, which is made if it is not there
    :param save_freq: Steps of all environments together between two checkpoints; the next rollout that begins
        writes one. The first is written when training begins
    :param keep: How many to keep, the newest ones
    :param log_files: Patterns (``logs/*.monitor.csv``) of files that grow line by line: resuming cuts off what was
        written after the checkpoint
    :param verbose: Verbosity level: 1 says what is written
    :raises TypeError: if a number is not an integer
    :raises ValueError: if a number is below 1 or the folder cannot be written to
    """

    def __init__(
        self,
        folder: str | Path,
        save_freq: int = 50_000,
        keep: int = 2,
        log_files: Sequence[str] = (),
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.save_freq = check_positive_int("save_freq", save_freq)
        self.keep = check_positive_int("keep", keep)
        check_instance("log_files", log_files, (list, tuple), "a list of patterns")
        self.log_files = tuple(check_instance("log_files", each, str, "a list of patterns") for each in log_files)
        self.folder = check_path("folder", folder)
        self._check_folder()
        self._steps_at_last: int | None = None
        self._rollouts = 0

    def _check_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise ValueError(f"`folder` {str(self.folder)!r} cannot be written to: {error}") from error
        remove_unfinished(self.folder, "checkpoint_*_steps.zip")

    def _on_training_start(self) -> None:
        model: Any = self.model
        if not hasattr(model, "memory_state"):
            raise TypeError(f"TrainingCheckpoint is for TransformerPPO, got {type(model).__name__}")
        begun = checkpoints_in(self.folder)
        if begun and model.start_from is None and steps_of(begun[-1]) > self.model.num_timesteps:
            raise ValueError(
                f"`folder` already holds {begun[-1]} of another run: go on from it with TransformerPPO.resume, remove "
                "it, or take another folder"
            )
        self._check_environment()
        self._log_interval: int | None = self.locals["log_interval"]
        self._rollouts = 0
        self._watch = CallbackWatch(self.locals["callback"], observer=self)
        self._threads = th.get_num_threads()  # now: one of them collects, beside workers
        if model.start_from is not None:
            self._steps_at_last = model.num_timesteps

    def _check_environment(self) -> None:
        states = environment_states(self.training_env)
        try:
            pickle.dumps(states)
        except Exception as error:  # objects refuse to be pickled in any way they like
            raise TypeError(f"state_dict() of the environment must return what can be pickled: {error}") from error

    def _on_step(self) -> bool:
        return True  # only between rollouts is there nothing half done

    def on_rollout_boundary(self) -> None:
        """
        Called by the model between two rollouts, before ``on_rollout_start``.
        """
        steps = self.model.num_timesteps
        # Where logs are about to be written every few rollouts, learn() begins to count them anew when it is resumed
        is_aligned = not self._log_interval or self._rollouts % self._log_interval == 0
        is_due = self._steps_at_last is None or not self._steps_at_last <= steps < self._steps_at_last + self.save_freq
        if is_aligned and is_due:
            self._steps_at_last = steps
            self.write()
        self._rollouts += 1

    def write(self) -> Path:
        """
        Write a checkpoint. Only at the beginning of a rollout.

        :return: The file
        :raises OSError: if it cannot be written; older ones are as they were
        """
        model: Any = self.model
        logs = [path for pattern in self.log_files for path in sorted(glob.glob(pattern))]
        log_files = {os.path.relpath(path, self.folder): os.path.getsize(path) for path in logs}
        state = take_training_state(model, model.memory_state(), self._watch, self._threads, log_files)
        path = write_checkpoint(self.folder, model, state)
        if self.verbose:
            print(f"Checkpoint: {path}")
        self._prune(model.num_timesteps)
        return path

    def _prune(self, steps: int) -> None:
        """
        :param steps: Steps of the newest one; what is beyond them is of the future of a run that was resumed before
        """
        checkpoints = checkpoints_in(self.folder)
        past = [path for path in checkpoints if steps_of(path) <= steps]
        for path in {*checkpoints} - {*past[-self.keep :]}:
            path.unlink(missing_ok=True)
