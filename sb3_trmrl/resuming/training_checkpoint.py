"""A callback that writes checkpoints, from which training continues exactly."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_trmrl.algorithms.resumable import Resumable
from sb3_trmrl.common.atomic_file import remove_unfinished
from sb3_trmrl.common.checks import check_instance, check_path, check_positive_int
from sb3_trmrl.distributed.collectives import is_main
from sb3_trmrl.resuming.callback_state import CallbackWatch
from sb3_trmrl.resuming.checkpoint_files import checkpoint_path, checkpoints_in, steps_of, write_checkpoint
from sb3_trmrl.resuming.training_state import take_training_state


class TrainingCheckpoint(BaseCallback):
    """
    Write checkpoints from which ``resume`` of an algorithm of this package continues training. On the same machine,
    with the same number of threads, the resumed run is bit-identical to an uninterrupted one.

    A checkpoint is a zip that SB3's ``load`` accepts. Beside the model it contains the training state: the environment
    (task, position in the trial, physics), VecNormalize, memory, replay buffer, callbacks, values to be logged and all
    random generators. The file gets its name, ``checkpoint_<steps>_steps.zip``, only once it is complete and flushed to
    disk. Writing a checkpoint draws no random number, so training does not depend on when checkpoints are written.

    The state of environments is saved and restored with their methods ``state_dict()`` and ``load_state_dict(state)``,
    which all environments of this package have. If an environment cannot provide its state, the resumed run begins new
    episodes (trials). The attributes of other callbacks are restored, except constructor arguments that did not change.

    If several ranks train the model, rank 0 writes the state of all of them.

    Example:
        >>> import os
        >>> from sb3_trmrl import TrainingCheckpoint, TransformerPPO
        >>> model = TransformerPPO("TrMRLPolicy", "BernoulliBandit-v0", n_steps=64, seed=0)
        >>> model = model.learn(256, callback=TrainingCheckpoint("checkpoints", save_freq=128))
        >>> sorted(os.listdir("checkpoints"))
        ['checkpoint_0_steps.zip', 'checkpoint_128_steps.zip']
        >>> model = TransformerPPO.resume("checkpoints", env=model.get_env())
        >>> model = model.learn(256)  # makes the remaining 128 steps

    :param folder: Folder of the checkpoints, which is created if it does not exist
    :param save_freq: Number of steps, over all environments, between two checkpoints, rounded up to whole rollouts; the
        first one is written when training begins
    :param keep: Number of checkpoints to keep, the newest ones
    :param log_files: Patterns (``logs/*.monitor.csv``) of files that grow line by line. A resumed run removes the lines
        that were written after the checkpoint
    :param verbose: Verbosity level: 0 for no output, 1 to print the name of each checkpoint
    :raises TypeError: if a number is not an integer
    :raises ValueError: if a number is below 1 or the folder cannot be written to
    """

    #: Rank 0 writes the state of all ranks
    on_every_rank = True

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
        if is_main():
            self._prepare_folder()
        self._steps_at_last: int | None = None

    def _prepare_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise ValueError(f"`folder` {str(self.folder)!r} cannot be written to: {error}") from error
        remove_unfinished(self.folder, "checkpoint_*_steps.zip")

    def _on_training_start(self) -> None:
        model: Any = self.model
        if not isinstance(model, Resumable):
            raise TypeError(f"TrainingCheckpoint is for the algorithms of sb3_trmrl, got {type(model).__name__}")
        resumption: Any = model.start_from
        existing = checkpoints_in(self.folder) if is_main() else []
        if resumption is None and existing and steps_of(existing[-1]) > model.num_timesteps:
            raise ValueError(
                f"`folder` already holds {existing[-1]} of another run: continue that run with "
                f"{type(model).__name__}.resume, remove the file, or use another folder"
            )
        # Off-policy algorithms log every so many episodes, whose number is saved
        counts_rollouts = isinstance(model, OnPolicyAlgorithm)
        self._log_interval: int | None = self.locals["log_interval"] if counts_rollouts else None
        self._rollouts = 0
        self._watch = CallbackWatch(self.locals["callback"], observer=self)
        self._threads = th.get_num_threads()  # not later: with worker processes, one thread is used while collecting
        self._steps_before_learn = model.num_timesteps
        if resumption is not None:
            self._steps_before_learn = resumption.state.steps_before_learn
            self._steps_at_last = model.num_timesteps

    def _on_step(self) -> bool:
        return True  # checkpoints are written between rollouts

    def on_rollout_boundary(self) -> None:
        """Write a checkpoint if one is due. Called by the model between two rollouts, before ``on_rollout_start``."""
        steps = self.model.num_timesteps
        # A resumed `learn` counts the rollouts between two rows of the log from 0 again
        is_aligned = not self._log_interval or self._rollouts % self._log_interval == 0
        is_due = self._steps_at_last is None or not self._steps_at_last <= steps < self._steps_at_last + self.save_freq
        if is_aligned and is_due:
            self._steps_at_last = steps
            self.write()
        self._rollouts += 1

    def write(self) -> Path:
        """
        Write a checkpoint. Must be called by all ranks, at the beginning of a rollout.

        :return: The file
        :raises OSError: if it cannot be written; older checkpoints are left unchanged
        """
        logs = [path for pattern in self.log_files for path in sorted(glob.glob(pattern))]
        log_files = {os.path.relpath(path, self.folder): os.path.getsize(path) for path in logs}
        state = take_training_state(self.model, self._watch, self._steps_before_learn, self._threads, log_files)
        path = checkpoint_path(self.folder, self.model)
        if is_main():
            write_checkpoint(path, self.model, state)
            if self.verbose:
                print(f"Checkpoint: {path}")
            self._remove_old()
        return path

    def _remove_old(self) -> None:
        """Keep the newest checkpoints up to now. Later ones were written before the run was resumed."""
        checkpoints = checkpoints_in(self.folder)
        past = [path for path in checkpoints if steps_of(path) <= self.model.num_timesteps]
        for path in {*checkpoints} - {*past[-self.keep :]}:
            path.unlink(missing_ok=True)
