"""Fixtures for MetaWorld's environments."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def invented(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Lists with MetaWorld's classes and made-up numbers, which take no time; returns their folder, which is empty."""
    metaworld = pytest.importorskip("metaworld")
    from sb3_trmrl.envs import metaworld_tasks
    from sb3_trmrl.envs.metaworld_tasks import MetaWorldTask, TaskLists, task_lists

    def make(benchmark: str, seed: int, task_name: str | None) -> TaskLists:
        rng = np.random.default_rng(seed)
        by_split = getattr(metaworld.env_dict, f"{benchmark}_V3")

        def invent(name: str) -> MetaWorldTask:
            return MetaWorldTask(name, tuple(rng.uniform(size=3 + 3 * (name < "m")).tolist()))

        classes = [[task_name] if task_name else list(by_split[split]) for split in ("train", "test")]
        return TaskLists(*(tuple(invent(name) for name in names for _ in range(50)) for names in classes))

    monkeypatch.setattr(metaworld_tasks, "_make", make)
    monkeypatch.setenv("SB3_TRMRL_CACHE", str(tmp_path))
    task_lists.cache_clear()
    yield tmp_path
    task_lists.cache_clear()
