"""Adaptation in ``predict`` against a naive agent."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_trmrl import MAMLTRPO
from sb3_trmrl.maml_trpo.adaptation import Trial
from sb3_trmrl.maml_trpo.advantages import estimate_advantages
from sb3_trmrl.maml_trpo.inner import flat_parameters
from tests.helpers.agents import BOX_ACTION, VECTOR
from tests.helpers.environments import early_end
from tests.helpers.maml import SampledFamily, around, copies, sampled_family, tiny_maml

pytestmark = pytest.mark.usefixtures("one_thread")


def box_model(**kwargs: Any) -> MAMLTRPO:
    env = copies(1, sampled_family, observation_space=VECTOR, action_space=BOX_ACTION)
    return tiny_maml(env, **kwargs)


def make_trial(episodes: int = 4) -> gym.Env:
    return around(SampledFamily(VECTOR, BOX_ACTION, 3), episodes)


def naive_parameters(model: MAMLTRPO, episodes: list[list[tuple[Any, ...]]]) -> th.Tensor:
    """Take SGD steps on the mean of log-probability times advantage, weighted by truncated probability ratios."""
    steps = [step for episode in episodes for step in episode]
    states = th.as_tensor(np.array([step[0] for step in steps]))
    ends = np.concatenate([np.arange(len(episode)) == len(episode) - 1 for episode in episodes])
    rewards = np.array([step[3] for step in steps])
    advantages = estimate_advantages(states.numpy(), rewards, ends, model.gamma, model.gae_lambda, True)
    initial = flat_parameters(model.policy)
    optimizer = th.optim.SGD(model.policy.parameters(), lr=model.inner_learning_rate)
    for _ in range(model.n_inner_steps):
        loss = th.zeros(())
        for row, (state, action, log_prob, _) in enumerate(steps):
            numbers = model.policy(th.as_tensor(state)[None])
            mean, log_std = numbers[0].chunk(2)
            new = th.distributions.Normal(mean, log_std.exp()).log_prob(th.as_tensor(action)).sum()
            weight = min(1.0, float(th.exp(new.detach() - log_prob)))
            loss = loss - weight * advantages[row] * new / len(steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    adapted = flat_parameters(model.policy)
    th.nn.utils.vector_to_parameters(initial, model.policy.parameters())
    return adapted


@pytest.mark.parametrize("n_inner_steps", [1, 2])
def test_parameters_after_each_episode(n_inner_steps: int) -> None:
    """The initial ones, then adapted to one, two and three episodes, of which the third is the last to learn from"""
    model = box_model(n_adaptation_episodes=3, n_inner_steps=n_inner_steps, inner_learning_rate=0.3)
    env = make_trial(6)
    observation, _ = env.reset(seed=0, options={"task": 0.5})
    state, start, done = None, True, False
    episodes: list[list[tuple[Any, ...]]] = [[]]
    seen = []
    while not done:
        action, state = model.predict(observation, state, np.array([start]), deterministic=True)
        assert state is not None
        (trial,) = state
        if not episodes[-1] and len(episodes) <= 4:
            seen.append(trial.parameters)
            if len(episodes) > 1:
                expected = naive_parameters(model, episodes[:-1])
                np.testing.assert_allclose(trial.parameters, expected, rtol=1e-3, atol=1e-5)
                assert (expected - flat_parameters(model.policy)).abs().max() > 0.01
        assert trial.n_episodes == len(episodes) - 1
        choice = trial.choice
        if len(episodes) <= 3:
            np.testing.assert_allclose(action, np.clip(choice.action, BOX_ACTION.low, BOX_ACTION.high))
        else:
            assert choice is None and trial.n_steps == 0 and trial.parameters is seen[3]
            th.nn.utils.vector_to_parameters(th.as_tensor(trial.parameters).clone(), model.policy.parameters())
            mean = model.policy(th.as_tensor(observation["observation"])[None])[0, :2].detach().numpy()
            np.testing.assert_allclose(action, np.clip(mean, BOX_ACTION.low, BOX_ACTION.high), rtol=1e-5, atol=1e-6)
        next_observation, reward, terminated, truncated, info = env.step(action)
        if choice is not None:
            episodes[-1].append((choice.state, choice.action, choice.log_prob, float(reward)))
        else:
            episodes[-1].append(())
        if info["new_episode"]:
            episodes.append([])
        observation, start, done = next_observation, False, terminated or truncated
    assert len(episodes) == 6 and seen[0] is None


def play(model: MAMLTRPO, n_envs: int, n_steps: int) -> list[tuple[Any, Any, Any]]:
    """Return observations, actions and states."""
    env = copies(n_envs, episodes_per_trial=3)
    observation, state, start = env.reset(), None, np.ones(n_envs, dtype=bool)
    played = []
    for _ in range(n_steps):
        action, state = model.predict(observation, state, start)
        played.append((observation, action, state))
        observation, _, start, _ = env.step(action)
    return played


def test_trials_begin_anew() -> None:
    model = tiny_maml(n_adaptation_episodes=5)
    played = play(model, 3, 60)
    n_episodes = np.array([[trial.n_episodes for trial in state] for *_, state in played])
    assert n_episodes.max() == 2 and len(played[0][2]) == 3
    for before, after, (*_, state) in zip(n_episodes[:-1], n_episodes[1:], played[1:], strict=True):
        for row in np.flatnonzero(after < before):
            assert after[row] == 0 and state[row].parameters is None and state[row].n_steps == 0


def test_a_state_can_be_continued_twice() -> None:
    model = tiny_maml()
    played = play(model, 2, 12)
    _, _, state = played[5]
    lengths = [trial.n_steps for trial in state]
    contents = [list(trial.steps[: trial.n_steps]) for trial in state]
    first, second = (model.predict(played[6][0], state, np.zeros(2, dtype=bool))[1] for _ in range(2))
    for row in range(2):
        assert state[row].n_steps == lengths[row] and state[row].steps[: lengths[row]] == contents[row]
        assert first[row].n_steps == second[row].n_steps
        assert len(first[row].steps) >= first[row].n_steps and first[row].steps is not second[row].steps


def test_one_observation_and_none_of_the_optional_arguments() -> None:
    model = tiny_maml()
    observation, _ = early_end().reset(seed=0)
    action, state = model.predict(observation)
    assert action.shape == () and isinstance(state[0], Trial)
    again, _ = model.policy.predict(observation)
    assert again.shape == ()


def test_wrong_input() -> None:
    model = tiny_maml()
    observation, _ = early_end().reset(seed=0)
    _, state = model.predict(observation)
    two = {key: np.stack([value, value]) for key, value in observation.items()}
    wrong: list[tuple[type[Exception], str, tuple[Any, ...]]] = [
        (TypeError, "`observation` must be a dictionary", (np.zeros(2),)),
        (TypeError, "`state` must be what the last call of predict returned", (observation, 5)),
        (TypeError, "`state` must be what the last call of predict returned", (observation, (np.zeros(2),))),
        (ValueError, "`state` must be that of 2 trials, got one of 1", (two, state)),
        (
            ValueError,
            r"`episode_start` must have one boolean for each of 1 .*\[1. 1.\]",
            (observation, state, np.ones(2)),
        ),
        (ValueError, "`episode_start` must have one boolean", (observation, state, ["a"])),
        (TypeError, "`deterministic` must be", (observation, state, None, "yes")),
        (ValueError, "`observation` must be a dictionary with the keys .*got one with", (observation | {"x": 1.0},)),
        (ValueError, "`observation` must be a dictionary with the keys", ({"observation": np.zeros(2)},)),
        (ValueError, "non-finite observation", (observation | {"prev_reward": np.array([np.nan], np.float32)},)),
    ]
    for error, message, arguments in wrong:
        with pytest.raises(error, match=message):
            model.predict(*arguments)
