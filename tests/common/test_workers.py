"""A worker process that dies ends training soon, names itself, and leaves no process behind."""

from typing import Any

import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

from sb3_trmrl.common.workers import watched_workers
from tests.helpers.agents import SampledEnv, tiny_model
from tests.helpers.resuming import kill_worker


class KillOne(BaseCallback):
    """Kills the second worker at the third step."""

    def _on_step(self) -> bool:
        if self.n_calls == 3:
            kill_worker(self.training_env, 1)
        return True


@pytest.mark.parametrize("start_method", ["fork", "forkserver"])
@pytest.mark.parametrize("normalized", [False, True])
def test_a_killed_worker_ends_training(start_method: str, normalized: bool) -> None:
    """With "fork", the other workers hold the pipe of the dead one open."""
    workers = SubprocVecEnv([SampledEnv] * 3, start_method=start_method)
    env: Any = VecNormalize(workers) if normalized else workers
    kill = KillOne()
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
