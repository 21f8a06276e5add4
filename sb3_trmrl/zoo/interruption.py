"""Ctrl-C and SIGTERM during training: rl-zoo3 saves the model, and the command that resumes the run is printed."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_trmrl.distributed.collectives import world_size
from sb3_trmrl.resuming.checkpoint_files import checkpoints_in, steps_of
from sb3_trmrl.zoo.runs import CHECKPOINTS, Run

#: Exit status of a process that ends because of SIGTERM
TERMINATED = 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """The process got SIGTERM. rl-zoo3 saves the model after a ``KeyboardInterrupt``."""


class InterruptibleModel:
    """Model whose ``learn`` remembers what interrupted it, and takes further keyword arguments from the constructor."""

    def __init__(self, model: BaseAlgorithm, **kwargs: Any) -> None:
        self.model = model
        self.kwargs = kwargs
        self.interruption: KeyboardInterrupt | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def learn(self, total_timesteps: int, **kwargs: Any) -> None:
        """Train. Ctrl-C and SIGTERM raise ``KeyboardInterrupt``."""
        try:
            with sigterm_interrupts():
                self.model.learn(total_timesteps, **self.kwargs, **kwargs)
        except KeyboardInterrupt as error:
            self.interruption = error
            raise


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM raise :class:`Terminated`, a ``KeyboardInterrupt``."""

    def interrupt(*_: Any) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # signals are for the main thread
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def how_to_resume(folder: str | Path, n_steps: int) -> str:
    """Return the command that resumes the run in this folder, which was interrupted after ``n_steps``."""
    run = Run(folder)
    checkpoints = checkpoints_in(run.folder / CHECKPOINTS) if (run.folder / CHECKPOINTS).is_dir() else []
    if checkpoints:
        start, command = steps_of(checkpoints[-1]), ["--resume", str(run.folder)]
    else:
        start, command = n_steps, ["--algo", run.algo, "--env", run.env_id, "-i", str(run.last_model)]
    launcher = "trmrl train"
    if world_size() > 1:
        one_machine = os.environ.get("LOCAL_WORLD_SIZE") == str(world_size())
        options = f"--standalone --nproc-per-node={world_size()}" if one_machine else "(the same options)"
        launcher = f"torchrun {options} -m sb3_trmrl train"
    return f"Interrupted after {n_steps:,} steps. Resume from step {start:,} with\n  {launcher} {shlex.join(command)}"
