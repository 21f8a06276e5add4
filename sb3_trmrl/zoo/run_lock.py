"""One process at a time writes to the folder of a run."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout


class RunLock:
    """
    Lock of a run's folder. The system releases it when the process ends, in whatever way.

    :param folder: Folder of the run
    :raises ValueError: if another process holds the lock; names that process
    """

    def __init__(self, folder: str | Path) -> None:
        self._owner = Path(folder, "lock.owner")
        self._lock = FileLock(Path(folder, "lock"))
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            try:
                owner = self._owner.read_text()
            except FileNotFoundError:  # it is written after locking, and removed before releasing
                owner = "another process"
            raise ValueError(f"the run in {folder} is being trained by {owner}") from None
        self._owner.write_text(f"process {os.getpid()} on {socket.gethostname()}")

    def release(self) -> None:
        """Let other processes write to the folder."""
        if self._lock.is_locked:  # by this process
            self._owner.unlink(missing_ok=True)
            self._lock.release()
