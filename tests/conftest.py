"""Fixtures of several test files."""

from collections.abc import Iterator

import pytest
import torch as th

N_GOALS = 20


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch uses one thread: tiny models are quicker so."""
    threads = th.get_num_threads()
    th.set_num_threads(1)
    yield
    th.set_num_threads(threads)


@pytest.fixture(scope="module")
def few_goals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MetaWorld makes 20 goals of each class instead of 50, and the lists go into a folder of these tests."""
    metaworld = pytest.importorskip("metaworld")
    from sb3_trmrl.envs.metaworld_tasks import task_lists

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metaworld, "_N_GOALS", N_GOALS)
        patch.setenv("SB3_TRMRL_CACHE", str(tmp_path_factory.mktemp("cache")))
        task_lists.cache_clear()
        yield
        task_lists.cache_clear()
