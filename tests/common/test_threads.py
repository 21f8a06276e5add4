"""PyTorch's threads beside worker processes."""

from typing import Any

import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_trmrl import TransformerPPO
from sb3_trmrl.common.threads import one_thread_beside_workers


@pytest.fixture(autouse=True)
def _three_threads() -> Any:
    threads = th.get_num_threads()
    th.set_num_threads(3)
    yield
    th.set_num_threads(threads)


class Threads(BaseCallback):
    """How many there are while collecting and while updating"""

    def __init__(self) -> None:
        super().__init__()
        self.collecting: set[int] = set()
        self.updating: list[int] = []

    def _on_step(self) -> bool:
        self.collecting.add(th.get_num_threads())
        return self.num_timesteps < 48

    def _on_training_start(self) -> None:
        train = self.model.train
        self.model.train = lambda: (self.updating.append(th.get_num_threads()), train())  # type: ignore[method-assign]


@pytest.mark.parametrize(("vec_env_cls", "while_collecting"), [(DummyVecEnv, 3), (SubprocVecEnv, 1)])
def test_one_thread_while_workers_step_and_all_of_them_for_the_update(vec_env_cls: Any, while_collecting: int) -> None:
    env = VecNormalize(make_vec_env("CartPole-v1", 2, vec_env_cls=vec_env_cls))
    model = TransformerPPO("TrMRLPolicy", env, n_steps=8, batch_size=16, n_epochs=1, device="cpu")
    callback = Threads()
    model.learn(64, callback)  # a callback ends it within a rollout
    assert callback.collecting == {while_collecting}
    assert callback.updating == [3, 3]
    assert th.get_num_threads() == 3
    env.close()


def test_threads_come_back_after_an_error() -> None:
    env = make_vec_env("CartPole-v1", 1, vec_env_cls=SubprocVecEnv)
    with pytest.raises(RuntimeError, match="stop"), one_thread_beside_workers(env):
        assert th.get_num_threads() == 1
        raise RuntimeError("stop")
    assert th.get_num_threads() == 3
    env.close()
