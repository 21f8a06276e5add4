"""Fixtures that several test files use."""

from collections.abc import Iterator

import pytest
import torch as th

N_GOALS = 20


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let PyTorch use one thread, which is faster for tiny models."""
    threads = th.get_num_threads()
    th.set_num_threads(1)
    yield
    th.set_num_threads(threads)


@pytest.fixture(scope="module")
def few_goals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let MetaWorld draw 20 goals of each class instead of 50, and store their lists in a temporary folder."""
    metaworld = pytest.importorskip("metaworld")
    from sb3_trmrl.envs.metaworld_tasks import task_lists

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metaworld, "_N_GOALS", N_GOALS)
        patch.setenv("SB3_TRMRL_CACHE", str(tmp_path_factory.mktemp("cache")))
        task_lists.cache_clear()
        yield
        task_lists.cache_clear()
