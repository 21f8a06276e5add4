"""Acting: the posterior grows with each transition, and the latent changes with each episode."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_trmrl import PEARL, evaluate_adaptation
from sb3_trmrl.analysis.online import online_adaptation
from sb3_trmrl.pearl import Adaptation
from tests.helpers.environments import noisy_reach
from tests.helpers.pearl import Step, copies, recorded, tiny_pearl

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> PEARL:
    model = tiny_pearl(gradient_steps=50, learning_rate=3e-3)
    return model.learn(1)


def stacked(observation: dict[str, Any]) -> dict[str, np.ndarray]:
    return {key: value[None] for key, value in observation.items()}


@pytest.mark.parametrize("across_episodes", ["keep", "zero"])
def test_the_posterior_is_the_encoders_of_all_transitions(model: PEARL, across_episodes: str) -> None:
    steps: list[Step] = []
    env = recorded(steps)
    env.across_episodes = across_episodes  # type: ignore[attr-defined]
    observation, _ = env.reset(seed=3)
    state, done, latents = None, False, []
    while not done:
        action, state = model.predict(observation, state)
        assert isinstance(state, Adaptation)
        if across_episodes == "zero":  # the wrapper hides the last transition of an episode
            seen = [step for step, later in itertools.pairwise(steps) if step.episode == later.episode]
            seen += steps[-1:] if not observation["prev_done"][0] else []
        else:
            seen = steps
        rows = [[*step.state, *model.policy.scale_action(step.action), step.reward] for step in seen]
        posterior = model.encoder(th.tensor(np.reshape(rows, (-1, 6)), dtype=th.float32))
        np.testing.assert_allclose(state.precision[0], posterior.precision.detach(), rtol=1e-4)
        np.testing.assert_allclose(state.weighted_mean[0], posterior.weighted_mean.detach(), rtol=1e-3, atol=1e-4)
        latents.append((int(observation["prev_done"][0]), state.latent[0].tolist()))
        observation, _, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
    assert len({tuple(latent) for _, latent in latents}) == 2, "one latent for each of two episodes"
    changes = [i for i in range(1, len(latents)) if latents[i][1] != latents[i - 1][1]]
    assert changes == [i for i in range(len(latents)) if latents[i][0]]


def test_the_first_latent_is_drawn_from_the_prior_and_later_ones_from_the_posterior(model: PEARL) -> None:
    n = 4000
    observation = {key: np.zeros((n, *space.shape), np.float32) for key, space in model.observation_space.items()}  # type: ignore[attr-defined]
    th.manual_seed(0)
    _, state = model.predict(observation, deterministic=True)
    assert isinstance(state, Adaptation)
    assert np.abs(state.latent.mean(axis=0)).max() < 0.06 and np.abs(state.latent.std(axis=0) - 1).max() < 0.06
    for _ in range(5):
        _, state = model.predict(observation, state)
    assert isinstance(state, Adaptation)
    observation["prev_done"][:] = 1
    observation["prev_reward"][:] = -1
    _, state = model.predict(observation, state)
    assert isinstance(state, Adaptation)
    mean, std = state.weighted_mean / state.precision, state.precision**-0.5
    assert np.abs(((state.latent - mean) / std).mean(axis=0)).max() < 0.06
    assert np.abs(((state.latent - mean) / std).std(axis=0) - 1).max() < 0.06
    assert std.max() < 0.9


def test_rows_are_independent_of_each_other(model: PEARL) -> None:
    env = copies(3)
    observation, state, starts = env.reset(), None, np.ones(3, dtype=bool)
    singles: list[Any] = [None] * 3
    for _ in range(20):
        actions, state = model.predict(observation, state, starts, deterministic=True)  # type: ignore[arg-type]
        assert isinstance(state, Adaptation)
        for i in range(3):
            own = {key: value[i] for key, value in observation.items()}  # type: ignore[union-attr]
            _, single = model.predict(own, singles[i], starts[i : i + 1], deterministic=True)
            assert isinstance(single, Adaptation)
            single = single._replace(latent=state.latent[i : i + 1])  # drawn for all rows at once
            singles[i] = single
            for one, batch in zip(single, state, strict=True):
                np.testing.assert_allclose(one[0], batch[i], rtol=1e-4, atol=1e-5)
        observation, _, starts, _ = env.step(actions)
        assert env.action_space.contains(actions[0])


def test_a_trial_that_begins_forgets_the_one_before(model: PEARL) -> None:
    env = copies(2)
    observation = env.reset()
    _, state = model.predict(observation)  # type: ignore[arg-type]
    for _ in range(3):
        actions, state = model.predict(observation, state)  # type: ignore[arg-type]
        observation, *_ = env.step(actions)
    _, later = model.predict(observation, state, np.array([True, False]))  # type: ignore[arg-type]
    assert isinstance(later, Adaptation)
    assert (later.precision[0] == 1).all() and (later.weighted_mean[0] == 0).all()
    assert (later.precision[1] > 1).all()


def test_evaluation_and_analysis(model: PEARL) -> None:
    env = copies(2)
    th.manual_seed(0)
    returns, lengths = evaluate_policy(model, env, 4, return_episode_rewards=True, warn=False)
    assert len(returns) == 4 and max(lengths) <= 12
    th.manual_seed(0)
    assert evaluate_policy(model, copies(2), 4, return_episode_rewards=True, warn=False) == (returns, lengths)
    results = [evaluate_adaptation(model, noisy_reach, 3, 4, seed=seed).rewards for seed in (0, 0, 1)]
    assert results[0].shape == (3, 4, 6)
    np.testing.assert_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2], equal_nan=True)
    assert len(online_adaptation(evaluate_adaptation(model, noisy_reach, 2, 1)).to_frame()) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(state=5), "`state` must be what the last call of predict returned.* got 5"),
        (dict(state=(np.zeros((1, 2)),)), "`state` must be what"),
        (dict(episode_start=np.ones(3)), r"`episode_start` must have one boolean for each of 1 observation"),
        (dict(episode_start=["a"]), r"`episode_start` must have one boolean"),
    ],
)
def test_wrong_arguments(model: PEARL, arguments: dict[str, Any], message: str) -> None:
    env = noisy_reach()
    observation, _ = env.reset(seed=0)
    _, state = model.predict(observation)
    with pytest.raises(ValueError, match=message):
        model.predict(observation, **{"state": state, **arguments})


def test_the_observation_must_be_a_dictionary(model: PEARL) -> None:
    with pytest.raises(TypeError, match="`observation` must be a dictionary"):
        model.predict(np.zeros(3))
    observation, _ = noisy_reach().reset(seed=0)
    with pytest.raises(ValueError, match=r"`observation` must be a dictionary with the keys .*, got one with"):
        model.predict({**observation, "x": 1.0})
    with pytest.raises(ValueError, match="non-finite observation"):
        model.predict({**observation, "prev_reward": np.array([np.nan], np.float32)})
    with pytest.raises(TypeError, match="`deterministic`"):
        model.predict(observation, deterministic="yes")  # type: ignore[arg-type]
