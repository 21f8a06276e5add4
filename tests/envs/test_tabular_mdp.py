"""The random tabular MDP: transitions, rewards and the distribution of tasks."""

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sb3_trmrl.envs.tabular_mdp import TabularMDPTask


def test_transitions_and_rewards_of_a_tabular_mdp_follow_the_task() -> None:
    n_steps = 20_000
    env = gym.make("TabularMDP-v0", n_states=4, n_actions=2, horizon=n_steps, episodes_per_trial=1).unwrapped
    env.set_task(env.sample_tasks(1)[0])
    task, state = env.get_task(), env.reset(seed=0)[0]
    assert state == 0
    rng = np.random.default_rng(1)
    counts, rewards = np.zeros((4, 2, 4)), [[[] for _ in range(2)] for _ in range(4)]
    for action in rng.integers(2, size=n_steps):
        next_state, reward, *_ = env.step(action)
        counts[state, action, next_state] += 1
        rewards[state][action].append(reward)
        state = next_state
    visits = counts.sum(-1)
    assert visits.min() > 200
    frequencies = counts / visits[..., None]
    error = np.sqrt(task.transitions * (1 - task.transitions) / visits[..., None])
    assert (np.abs(frequencies - task.transitions) < 4.5 * error + 1e-3).all()
    for state in range(4):
        for action in range(2):
            seen = np.array(rewards[state][action])
            assert abs(seen.mean() - task.mean_rewards[state, action]) < 4.5 / np.sqrt(len(seen))
            assert seen.std() == pytest.approx(1.0, abs=4.5 / np.sqrt(2 * len(seen)))


def test_the_distribution_of_tabular_mdps() -> None:
    tasks = gym.make("TabularMDP-v0").unwrapped.draw_tasks(400, np.random.default_rng(0))
    transitions = np.array([task.transitions for task in tasks])
    means = np.array([task.mean_rewards for task in tasks])
    assert transitions.shape == (400, 10, 5, 10)
    assert np.allclose(transitions.sum(-1), 1.0)
    # Flat Dirichlet over 10 states: each probability has mean 1/10 and variance (1/10)(9/10)/11.
    assert transitions.mean((0, 1, 2)) == pytest.approx(np.full(10, 0.1), abs=0.005)
    assert transitions.var() == pytest.approx(0.09 / 11, rel=0.05)
    assert (means.mean(), means.std()) == pytest.approx((1.0, 1.0), abs=0.05)


def test_tabular_tasks_compare_by_value_and_cannot_be_changed() -> None:
    one, two = gym.make("TabularMDP-v0").unwrapped.draw_tasks(2, np.random.default_rng(0))
    again = pickle.loads(pickle.dumps(one))
    assert one == again and hash(one) == hash(again) and again is not one
    assert one != two and one != "task" and len({one, again, two}) == 2
    for task in (one, again):
        with pytest.raises(ValueError, match="read-only"):
            task.mean_rewards[0, 0] = 3.0


@pytest.mark.parametrize("number", [0.0, 1.0 / 3.0, np.nextafter(1.0, 0.0)])
def test_impossible_states_are_never_entered(number: float) -> None:
    # States 0 and 11 have probability zero; ten times 0.1 sums to less than 1, which must not open the last one.
    row = np.array([0.0] + [0.1] * 10 + [0.0])
    assert np.cumsum(row)[-1] < 1.0
    env = gym.make("TabularMDP-v0", n_states=12, n_actions=1).unwrapped
    env.set_task(TabularMDPTask(np.broadcast_to(row, (12, 1, 12)), np.zeros((12, 1))))
    env.reset(seed=0)

    class OneNumber(np.random.Generator):
        def random(self, *args: Any, **kwargs: Any) -> Any:
            return number

    env.np_random = OneNumber(np.random.PCG64(0))
    assert env.step(0)[0] == 1 + int(number * 10)
