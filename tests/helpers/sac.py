"""A tiny TransformerSAC."""

from typing import Any

import gymnasium as gym
import torch as th
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl import TransformerSAC
from tests.helpers.agents import BOX_ACTION, VECTOR, SampledEnv, Space
from tests.helpers.agents import TINY as TRANSFORMER

TINY: dict[str, Any] = dict(buffer_size=400, learning_starts=10, batch_size=8, seed=0, device="cpu")
POLICY: dict[str, Any] = dict(TRANSFORMER, context_length=3, net_arch=[8])


def tiny_sac(
    env: gym.Env | VecEnv | None = None,
    space: Space = VECTOR,
    policy_kwargs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> TransformerSAC:
    """Return an untrained agent, by default of a :class:`SampledEnv`."""
    return TransformerSAC(
        "TrMRLPolicy",
        SampledEnv(space, BOX_ACTION) if env is None else env,
        **{**TINY, **kwargs},
        policy_kwargs={**POLICY, **(policy_kwargs or {})},
    )


def weights(model: TransformerSAC) -> list[th.Tensor]:
    """Return copies of all weights, those of the targets included."""
    return [each.detach().clone() for each in model.policy.parameters()]


def same(a: list[th.Tensor], b: list[th.Tensor]) -> bool:
    return all(th.equal(x, y) for x, y in zip(a, b, strict=True))
