"""What a model reads in an evaluation is what its own VecEnv, with all wrappers, returns."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize, VecTransposeImage

from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.evaluation.model_input import ModelInput
from sb3_trmrl.trials.held_out import evaluation_seed
from tests.helpers.agents import IMAGE_LAST, VECTOR, SampledEnv, Space, tiny_model

PARTS = spaces.Dict({"a": VECTOR, "b": spaces.Box(-5, 5, (2,), np.int32)})
WRAPPERS: dict[str, tuple[Space, Callable[[VecEnv], VecEnv]]] = {
    "nothing": (VECTOR, lambda env: env),
    "normalised": (VECTOR, VecNormalize),
    "stacked": (VECTOR, lambda env: VecFrameStack(env, 3)),
    "stacked over normalised": (VECTOR, lambda env: VecFrameStack(VecNormalize(env), 3)),
    "normalised over stacked": (VECTOR, lambda env: VecNormalize(VecFrameStack(env, 3))),
    "dict": (PARTS, lambda env: VecFrameStack(VecNormalize(env), 2)),
    "transposed images": (IMAGE_LAST, lambda env: VecFrameStack(VecTransposeImage(env), 2)),
    "images": (IMAGE_LAST, lambda env: VecFrameStack(env, 2)),
}


def _copies(space: Space, n_envs: int) -> VecEnv:
    return DummyVecEnv([lambda: SampledEnv(space) for _ in range(n_envs)])


def _flat(observation: Any) -> list[np.ndarray]:
    return [each.copy() for each in observation.values()] if isinstance(observation, dict) else [observation.copy()]


@pytest.mark.parametrize("name", WRAPPERS)
def test_observations_are_those_of_the_wrappers(name: str) -> None:
    space, wrap = WRAPPERS[name]
    training = wrap(_copies(space, 2))
    training.reset()
    for _ in range(5):  # statistics
        training.step(np.array([0, 1]))
    model: Any = SimpleNamespace(get_env=lambda: training, predict=None)
    statistics, layer = None, training
    while hasattr(layer, "venv"):
        statistics = layer if isinstance(layer, VecNormalize) else statistics
        layer = layer.venv

    expected, raw = wrap(_copies(space, 3)), _copies(space, 3)
    layer = expected
    while hasattr(layer, "venv"):
        if isinstance(layer, VecNormalize):
            assert statistics is not None
            layer.training, layer.obs_rms = False, statistics.obs_rms
        layer = layer.venv
    for env in (expected, raw):
        env.seed(7)
    model_input = ModelInput(model, statistics)
    pairs = [(expected.reset(), model_input.reset(raw.reset(), 3))]
    n_ends = 0
    for step in range(20):
        actions = np.array([step % 2, 1, 0])
        observation, _, dones, _ = raw.step(actions)
        pairs.append((expected.step(actions)[0], model_input.update(observation, dones)))
        n_ends += int(dones.sum())
        for ours, theirs in zip(_flat(pairs[-1][1]), _flat(pairs[-1][0]), strict=True):
            assert np.array_equal(ours, theirs) and ours.dtype == theirs.dtype
    assert all(np.array_equal(a, b) for a, b in zip(_flat(pairs[0][0]), _flat(pairs[0][1]), strict=True))
    assert n_ends > 3


@pytest.mark.parametrize("memory", ["window", "full"])
def test_evaluation_of_stacked_and_normalised_observations(memory: str) -> None:
    """As SB3's ``evaluate_policy`` in the same wrappers. The environment has no tasks."""
    training = VecFrameStack(VecNormalize(_copies(VECTOR, 2)), 3)
    model = tiny_model(training, {"memory": memory}).learn(64)
    result = evaluate_adaptation(model, lambda: SampledEnv(VECTOR), n_eval_tasks=4, n_eval_episodes=1)
    venv = VecNormalize(_copies(VECTOR, 4), training=False, norm_reward=False)
    venv.obs_rms = model.get_vec_normalize_env().obs_rms
    venv.seed(evaluation_seed(0, "test"))
    returns, lengths = evaluate_policy(
        model, VecFrameStack(venv, 3), 4, deterministic=True, return_episode_rewards=True, warn=False
    )
    assert sorted(result.returns[:, 0]) == sorted(returns)
    assert sorted(result.lengths[:, 0]) == sorted(lengths)
