"""
Ctrl-C and SIGTERM during training: a checkpoint is written, rl-zoo3 saves the model, and the command that resumes the
run is printed.
"""

from __future__ import annotations

import _thread
import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_trmrl.distributed.collectives import world_size
from sb3_trmrl.resuming import TrainingCheckpoint
from sb3_trmrl.resuming.checkpoint_files import checkpoints_in, steps_of
from sb3_trmrl.zoo.runs import CHECKPOINTS, Run

#: Exit status of a process that ends because of SIGTERM
TERMINATED = 128 + signal.SIGTERM
#: Seconds that SIGTERM waits for the end of the rollout. Docker kills the process after 10 s, Slurm after 30 s
_PATIENCE = 5.0
_STOPPING = b"\nStopping after this rollout and its update, to write a checkpoint. A second Ctrl-C stops at once.\n"


class Terminated(KeyboardInterrupt):
    """The process got SIGTERM. rl-zoo3 saves the model after a ``KeyboardInterrupt``."""


class InterruptionCheckpoint(TrainingCheckpoint):
    """Checkpoint callback that also writes one, and stops training, at the first rollout after an interruption."""

    #: What to raise at the beginning of the next rollout
    interruption: KeyboardInterrupt | None = None

    def on_rollout_boundary(self) -> None:
        super().on_rollout_boundary()
        if self.interruption is None:
            return
        if self._steps_at_last != self.model.num_timesteps:
            self.write()
        raise self.interruption


class InterruptibleModel:
    """Model whose ``learn`` remembers what interrupted it, and takes further keyword arguments from the constructor."""

    def __init__(self, model: BaseAlgorithm, **kwargs: Any) -> None:
        self.model = model
        self.kwargs = kwargs
        self.interruption: KeyboardInterrupt | None = None
        self.has_ended = False  # whether training came to its end, maybe with an interruption in its last rollout

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def learn(self, total_timesteps: int, **kwargs: Any) -> None:
        """Train. Ctrl-C and SIGTERM raise ``KeyboardInterrupt``, with checkpoints at the end of the rollout."""
        found = [each for each in kwargs.get("callback") or [] if isinstance(each, InterruptionCheckpoint)]
        # Ranks are not interrupted in the same rollout, and all of them must take part in a checkpoint
        checkpoint = found[0] if found and world_size() == 1 else None
        try:
            with sigterm_interrupts() if checkpoint is None else _DeferredInterrupts(checkpoint).installed():
                self.model.learn(total_timesteps, **self.kwargs, **kwargs)
                self.has_ended = True
            if checkpoint is not None and isinstance(checkpoint.interruption, Terminated):  # in the last rollout
                raise checkpoint.interruption
        except KeyboardInterrupt as error:
            self.interruption = error
            raise


class _DeferredInterrupts:
    """
    Lets Ctrl-C and SIGTERM stop training at the end of the rollout. A second Ctrl-C stops it at once, and so does the
    end of the time that SIGTERM waits.
    """

    def __init__(self, checkpoint: InterruptionCheckpoint) -> None:
        self._checkpoint = checkpoint
        self._timer: threading.Timer | None = None
        self._is_late = False
        self._has_ended = False
        self._end = threading.Lock()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle both signals."""
        with _handlers({signal.SIGINT: self._handle, signal.SIGTERM: self._handle}):
            try:
                yield
            finally:
                with self._end:
                    self._has_ended = True
                if self._timer is not None:
                    self._timer.cancel()

    def _handle(self, number: int, *_: Any) -> None:
        is_first = self._checkpoint.interruption is None
        if self._is_late or (number == signal.SIGINT and not is_first):
            raise self._checkpoint.interruption or KeyboardInterrupt
        if number == signal.SIGTERM and self._timer is None:
            self._checkpoint.interruption = Terminated()
            self._timer = threading.Timer(_PATIENCE, self._end_waiting)
            self._timer.daemon = True
            self._timer.start()
        elif is_first:
            self._checkpoint.interruption = KeyboardInterrupt()
        if is_first:
            with suppress(OSError):
                os.write(2, _STOPPING)  # print() must not be called here, in the middle of another print()

    def _end_waiting(self) -> None:
        with self._end:
            if self._has_ended:  # and the handlers with it: the signal would end the process
                return
            self._is_late = True
            if hasattr(signal, "pthread_kill"):
                # Also ends system calls, such as waiting for an environment's process
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            else:  # Windows
                _thread.interrupt_main(signal.SIGTERM)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM raise :class:`Terminated`, a ``KeyboardInterrupt``."""

    def interrupt(*_: Any) -> None:
        raise Terminated

    with _handlers({signal.SIGTERM: interrupt}):
        yield


@contextmanager
def _handlers(handlers: dict[int, Callable[..., Any]]) -> Iterator[None]:
    """Handle signals, in the main thread. Those that the process ignores, as Ctrl-C in the background, stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in handlers}
    replaced = [number for number in handlers if before[number] not in (None, signal.SIG_IGN)]
    for number in replaced:
        signal.signal(number, handlers[number])
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, before[number])


def how_to_resume(folder: str | Path, model: BaseAlgorithm) -> str:
    """Return the command that resumes the run in this folder, whose training of the model was interrupted."""
    run = Run(folder)
    n_steps = model.num_timesteps
    checkpoints = checkpoints_in(run.folder / CHECKPOINTS) if (run.folder / CHECKPOINTS).is_dir() else []
    if checkpoints:
        start, command = steps_of(checkpoints[-1]), ["--resume", str(run.folder)]
        lost = n_steps - start
        why = f", the last checkpoint: the {lost:,} steps after it are trained again" if lost > 0 else ""
    else:
        start, command, why = n_steps, ["--algo", run.algo, "--env", run.env_id, "-i", str(run.last_model)], ""
        left = model._total_timesteps - n_steps
        command += ["-n", str(left)] if left > 0 else []
    launcher = "trmrl train"
    if world_size() > 1:
        one_machine = os.environ.get("LOCAL_WORLD_SIZE") == str(world_size())
        options = f"--standalone --nproc-per-node={world_size()}" if one_machine else "(the same options)"
        launcher = f"torchrun {options} -m sb3_trmrl train"
    where = f"Resume from step {start:,}{why}, with" if why else f"Resume from step {start:,} with"
    return f"Interrupted after {n_steps:,} steps. {where}\n  {launcher} {shlex.join(command)}"
