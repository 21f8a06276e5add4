"""Atomic writes: a file is either complete or absent."""

from pathlib import Path

import pytest

from sb3_trmrl.common import atomic_file as module
from sb3_trmrl.common.atomic_file import atomic_file


def test_an_atomic_file_is_synced_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, seen = tmp_path / "file", []
    monkeypatch.setattr(module.os, "fsync", lambda handle: seen.append(target.exists()))
    with atomic_file(target) as file:
        file.write(b"new")
        assert not target.exists()
    # The content first, then the folder with the name in it
    assert seen == [False, True] and target.read_bytes() == b"new"


def test_an_atomic_file_that_fails_leaves_the_older_one(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(target) as file:
        file.write(b"new")
        raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]
