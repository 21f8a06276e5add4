"""Runs of several ranks continue from a checkpoint, also with another number of ranks."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl import TrainingCheckpoint, TransformerPPO
from sb3_trmrl.distributed import collectives
from tests.helpers.ranks import run_ranks
from tests.helpers.resuming import checkpoint_steps, make_env, new_model

#: Two environments on two ranks, or on one
N_ENVS, N_STEPS = 4, 32
ROLLOUT = N_ENVS * N_STEPS


def train(folder: str, memory: str, n_rollouts: int) -> dict[str, Any]:
    env = VecNormalize(make_env(n_envs=collectives.share("n_envs", N_ENVS)))
    model = new_model(env, n_steps=N_STEPS, policy_kwargs=dict(d_model=8, n_heads=2, memory=memory))
    model.learn(n_rollouts * ROLLOUT, callback=TrainingCheckpoint(folder, save_freq=ROLLOUT, keep=9))
    return summary(model)


def resume(folder: str, n_rollouts: int) -> dict[str, Any]:
    env = VecNormalize(make_env(n_envs=collectives.share("n_envs", N_ENVS), seed=7))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = TransformerPPO.resume(folder, env, device="cpu")
        model.learn(n_rollouts * ROLLOUT)
    return {**summary(model), "warnings": [str(each.message) for each in caught]}


def summary(model: TransformerPPO) -> dict[str, Any]:
    normalizer = model.get_vec_normalize_env()
    assert normalizer is not None and isinstance(normalizer.obs_rms, dict)
    return {
        "weights": {name: weight.clone() for name, weight in model.policy.state_dict().items()},
        "num_timesteps": model.num_timesteps,
        "last_obs": model._last_obs,
        "actions": model.rollout_buffer.actions,
        "count": normalizer.obs_rms["observation"].count,
        "statistics": [each.mean for each in normalizer.obs_rms.values()],
    }


@pytest.mark.parametrize("memory", ["window", "full"])
def test_the_resumed_run_is_that_without_interruption(memory: str, tmp_path: Path) -> None:
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    expected = run_ranks(train, str(whole), memory, 4)
    run_ranks(train, str(interrupted), memory, 2)
    assert checkpoint_steps(interrupted) == [0, ROLLOUT]
    for actual, of_rank in zip(run_ranks(resume, str(interrupted), 4), expected, strict=True):
        assert not [each for each in actual.pop("warnings") if "rank" in each or "episodes begin" in each]
        th.testing.assert_close(actual, of_rank, rtol=0.0, atol=0.0)


def test_another_number_of_ranks_begins_new_trials(tmp_path: Path) -> None:
    run_ranks(train, str(tmp_path), "full", 3)
    (alone,) = run_ranks(resume, str(tmp_path), 4, n_ranks=1)
    four = run_ranks(resume, str(tmp_path), 4, n_ranks=4)
    for n_ranks, results in ((1, [alone]), (4, four)):
        for result in results:
            assert f"the interrupted run had 2 ranks, this one has {n_ranks}" in " ".join(result["warnings"])
            assert result["num_timesteps"] == 4 * ROLLOUT
            # All observations of the run, and the first ones of the new trials: N_ENVS in one process, 1 on each rank
            assert result["count"] == pytest.approx(4 * ROLLOUT + N_ENVS + N_ENVS // n_ranks)
            th.testing.assert_close(result["weights"], results[0]["weights"], rtol=0.0, atol=0.0)
    actions = [result["actions"] for result in four]
    assert all((actions[0] != other).any() for other in actions[1:])
