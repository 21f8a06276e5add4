"""Two processes cannot train the same run."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sb3_trmrl.__main__ import main
from sb3_trmrl.zoo.run_lock import RunLock
from tests.helpers.zoo import train

HOLD = """
import sys, time
from sb3_trmrl.zoo.run_lock import RunLock
lock = RunLock(sys.argv[1])
print("locked", flush=True)
time.sleep(60)
"""


def test_a_lock_whose_owner_is_not_known(tmp_path: Path) -> None:
    """Another process has just locked the folder, or is about to release it."""
    lock = RunLock(tmp_path)
    (tmp_path / "lock.owner").unlink()
    with pytest.raises(ValueError, match="is being trained by another process"):
        RunLock(tmp_path)
    lock.release()
    RunLock(tmp_path).release()


@pytest.fixture
def holder(tmp_path: Path) -> Any:
    """Return a function that starts a process which locks a folder."""
    started: list[subprocess.Popen[str]] = []

    def hold(folder: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def test_resuming_a_run_that_is_being_trained(tmp_path: Path, holder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(tmp_path, "-n", "80", "--checkpoint-freq", "40", "--eval-freq", "-1")
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    process = holder(run)
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--resume", str(run)])
    assert f"{run} is being trained by process {process.pid} on" in capsys.readouterr().err
    os.kill(process.pid, signal.SIGKILL)  # the lock of a dead process does not block
    process.wait()
    assert files == {path: path.read_bytes() for path in files}
    assert main(["train", "--resume", str(run), "-n", "120"]) == 0
    RunLock(run).release()  # training has released it


def test_a_failed_run_releases_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sb3_trmrl import TransformerPPO

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(TransformerPPO, "learn", fail)
    with pytest.raises(MemoryError):
        train(tmp_path, "-n", "80")
    (run,) = (path for path in tmp_path.glob("*/*") if path.is_dir())
    RunLock(run).release()
