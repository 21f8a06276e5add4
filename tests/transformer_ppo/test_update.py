"""The update equals that of SB3's PPO bit for bit, in the weights and in what is logged."""

from copy import deepcopy
from typing import Any

import pytest
import torch as th
from stable_baselines3 import PPO

from sb3_trmrl.transformer_ppo import TransformerPPO
from sb3_trmrl.transformer_ppo.update import update
from tests.helpers.agents import BOX_ACTION, sampled_vec_env, tiny_model
from tests.helpers.resuming import record_logs


def train(model: TransformerPPO, with_sb3: bool) -> tuple[dict[str, th.Tensor], dict[str, Any]]:
    """Collect two rollouts and train on them; return the weights and the last row of the log."""
    model.train = (lambda: PPO.train(model)) if with_sb3 else (lambda: update(model))  # type: ignore[method-assign]
    logs = record_logs(model)
    model.learn(2 * model.n_steps * model.n_envs)
    model.logger.dump()
    return deepcopy(model.policy.state_dict()), logs.rows[-1][1]


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size of 10")  # the last one is smaller
@pytest.mark.parametrize("memory", ["window", "full"])
@pytest.mark.parametrize(
    "kwargs",
    [
        dict(),
        dict(clip_range_vf=0.2, ent_coef=0.01, vf_learning_rate=1e-2),
        dict(target_kl=1e-6, n_epochs=3),
        dict(normalize_advantage=False, max_grad_norm=float("inf")),
        dict(use_sde=True, n_epochs=2, batch_size=10),
        dict(batch_size=32, n_epochs=1),
    ],
    ids=lambda kwargs: "-".join(kwargs) or "defaults",
)
def test_update_equals_that_of_sb3(memory: str, kwargs: dict[str, Any]) -> None:
    settings: dict[str, Any] = dict(n_steps=16, batch_size=8, n_epochs=2, seed=1) | kwargs
    actions = BOX_ACTION if kwargs.get("use_sde") else None
    results = [
        train(
            tiny_model(sampled_vec_env(2, action_space=actions), policy_kwargs=dict(memory=memory), **settings),
            with_sb3,
        )
        for with_sb3 in (False, True)
    ]
    (weights, logged), (expected, expected_log) = results
    assert logged == expected_log
    assert "train/approx_kl" in logged and "train/explained_variance" in logged
    assert all(th.equal(weights[name], expected[name]) for name in expected)
