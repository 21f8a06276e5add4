"""Training on copies that are stepped together gives what training on single copies gives."""

from pathlib import Path

import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trmrl import TransformerPPO
from sb3_trmrl.envs.batched_vec_env import BatchedVecEnv
from sb3_trmrl.zoo import registration
from tests.helpers.resuming import assert_same, assert_same_files
from tests.helpers.zoo import NORMALIZE, TINY, train

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = ("-n", "160", "--eval-freq", "80", "--eval-episodes", "3", "--n-eval-envs", "3", "--verbose", "0")


@pytest.mark.parametrize("env_id", ["GridNavi-v0", "TabularMDP-v0"])
def test_the_command_trains_the_same_agent(env_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, used = [], []
    real = TransformerPPO.learn

    def learn(model: TransformerPPO, *args: object, **kwargs: object) -> TransformerPPO:
        assert isinstance(model.env, VecNormalize)
        used.append(type(model.env.unwrapped))
        return real(model, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(TransformerPPO, "learn", learn)
    for folder in ("together", "alone"):
        if folder == "alone":
            monkeypatch.setattr(registration, "batched_if_possible", DummyVecEnv)
        kwargs = ["env_kwargs:dict(horizon=5)"]
        runs.append(train(tmp_path / folder, *OPTIONS, env=env_id, params=[*TINY, NORMALIZE, *kwargs]))
    assert used == [BatchedVecEnv, DummyVecEnv]
    models = [TransformerPPO.load(run / f"{env_id}.zip") for run in runs]
    assert_same(*(dict(model.policy.state_dict()) for model in models))
    assert_same_files(*runs)
