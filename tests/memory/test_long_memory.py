"""Tasks that need a memory longer than a short window. They take minutes: `make test-slow`."""

from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule

import sb3_trmrl  # noqa: F401
from sb3_trmrl import TransformerPPO
from tests.helpers.environments import TMaze

pytestmark = pytest.mark.slow

MEMORIES: dict[str, dict[str, Any]] = {
    "full": dict(memory="full"),
    "full, no positions": dict(memory="full", positional_encoding="none"),
    "window": dict(context_length=5),
}


def make_model(memory: str, env: Any, sizes: dict[str, Any], **arguments: Any) -> TransformerPPO:
    shared: dict[str, Any] = dict(d_model=32, n_layers=1, share_features_extractor=True)
    policy_kwargs = {**shared, **MEMORIES[memory], **sizes}
    return TransformerPPO("TrMRLPolicy", env, policy_kwargs=policy_kwargs, seed=0, device="cpu", **arguments)


def t_maze_return(memory: str) -> float:
    """Return the mean return of 200 episodes in a T-maze of 200 steps, with deterministic actions."""
    env = make_vec_env(TMaze, 20, seed=0)
    sizes = dict(n_heads=2, dim_feedforward=64)
    settings: dict[str, Any] = dict(n_steps=512, batch_size=2048, n_epochs=4, learning_rate=2e-3, ent_coef=0.02)
    model = make_model(memory, env, sizes, **settings).learn(600_000)
    mean: Any = evaluate_policy(model, make_vec_env(TMaze, 20, seed=1_000), n_eval_episodes=200)[0]
    return float(mean)


def bandit_return(memory: str) -> float:
    """Return the mean return of 2,000 bandits of 5 arms and 100 pulls, with stochastic actions."""
    env_kwargs = dict(n_pulls=100)
    env = make_vec_env("BernoulliBandit-v0", 100, seed=0, env_kwargs=env_kwargs)
    sizes = dict(n_heads=4, dim_feedforward=128)
    settings: dict[str, Any] = dict(n_steps=100, batch_size=2000, n_epochs=8, gamma=0.9, gae_lambda=0.7, ent_coef=0.005)
    model = make_model(memory, env, sizes, learning_rate=LinearSchedule(2e-3, 4e-5, 1.0), **settings).learn(2_000_000)
    test_env = make_vec_env("BernoulliBandit-v0", 200, seed=1_000_000, env_kwargs=env_kwargs)
    mean: Any = evaluate_policy(model, test_env, n_eval_episodes=2_000, deterministic=False)[0]
    return float(mean)


def test_t_maze_of_200_steps() -> None:
    """The full memory keeps the first observation. A window of 5 cannot, and half of its choices are right."""
    full, no_positions, window = map(t_maze_return, MEMORIES)
    print(f"T-maze of 200 steps: full {full:.3f}, without positions {no_positions:.3f}, window of 5 {window:.3f}")
    assert full > 0.95 and no_positions > 0.95
    assert np.isclose(window, 0.5, atol=0.15)


def test_bandit_of_100_pulls() -> None:
    """
    An agent that remembers the last pull only has a mean return of at most 68.3. The standard error is about 0.2. A
    window of five pulls is almost as good as all pulls: its result is printed for comparison.
    """
    full, window = (bandit_return(memory) for memory in ("full, no positions", "window"))
    print(f"Bandit of 100 pulls: full {full:.2f}, window of 5 {window:.2f}")
    assert full > 72.0
