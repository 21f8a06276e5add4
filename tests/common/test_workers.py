"""A worker process that dies ends training soon, names itself, and leaves no process behind."""

from typing import Any

import pytest
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

from sb3_trmrl.common.workers import watched_workers
from tests.helpers.agents import SampledEnv, tiny_model
from tests.helpers.resuming import kills_worker


@pytest.mark.parametrize("start_method", ["fork", "forkserver"])
@pytest.mark.parametrize("normalized", [False, True])
def test_a_killed_worker_ends_training(start_method: str, normalized: bool) -> None:
    """With "fork", the other workers hold the pipe of the dead one open."""
    workers = SubprocVecEnv([SampledEnv] * 3, start_method=start_method)
    env: Any = VecNormalize(workers) if normalized else workers
    kill = kills_worker(env, 1)
    with pytest.raises(RuntimeError, match=r"worker process .* environment 1 \(exit code -9\)"):
        tiny_model(env).learn(1_000, callback=kill)
    assert kill.n_calls == 3
    env.close()  # SB3's would wait for the other workers
    for process in workers.processes:
        process.join(timeout=120)
        assert not process.is_alive()


def test_other_errors_pass() -> None:
    env = SubprocVecEnv([SampledEnv] * 2)
    with pytest.raises(FileNotFoundError), watched_workers([env]):
        raise FileNotFoundError("not about workers")
    assert all(process.is_alive() for process in env.processes)
    env.close()
