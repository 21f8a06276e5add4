"""The files of the sdist and the wheel."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the expected files are those in git")
def test_sdist_and_wheel_contain_the_files_in_git() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "wheel_test.py"), "--files-only"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("none missing, none unexpected") == 2
