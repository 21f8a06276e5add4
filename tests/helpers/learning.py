"""Acting and training, with the checks that many tests make."""

from collections.abc import Iterator
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from tests.helpers.agents import assert_trained, parameters_of
from tests.helpers.resuming import Hooks


class Step(NamedTuple):
    """One step of :func:`play`. The actions were chosen with the memory ``state``."""

    observations: Any
    starts: np.ndarray
    actions: np.ndarray
    state: Any
    rewards: np.ndarray
    dones: np.ndarray


def play(
    actor: Any, env: VecEnv, n_steps: int, deterministic: bool = True, start_probability: float | None = None
) -> Iterator[Step]:
    """Act with a memory that is emptied where episodes begin or, given a probability, at random steps."""
    rng = np.random.default_rng(0)
    observations, state, starts = env.reset(), None, np.ones(env.num_envs, dtype=bool)
    for _ in range(n_steps):
        actions, state = actor.predict(observations, state, starts, deterministic=deterministic)
        following, rewards, dones, _ = env.step(actions)
        yield Step(observations, starts, actions, state, rewards, dones)
        observations = following
        starts = dones if start_probability is None else rng.random(env.num_envs) < start_probability


def assert_learns(model: Any, n_steps: int = 32) -> dict[str, th.Tensor]:
    """Train the model, check that encoder and heads have changed, and return the parameters before training."""
    before = parameters_of(model)
    model.learn(n_steps)
    assert_trained(model, before)
    return before


def _assert_on_policy(callback: Hooks) -> None:
    """Before the first gradient step, the update computes the probabilities and values of acting."""
    model: Any = callback.model
    random_state = np.random.get_state()
    n_transitions = 0
    for batch in copy(model.rollout_buffer).get(batch_size=17):
        is_discrete = isinstance(model.action_space, spaces.Discrete)
        actions = batch.actions.long().flatten() if is_discrete else batch.actions
        with th.no_grad():
            values, log_prob, _ = model.policy.evaluate_actions(batch.observations, actions)
        th.testing.assert_close(log_prob, batch.old_log_prob, atol=1e-5, rtol=0)
        th.testing.assert_close(values.flatten(), batch.old_values, atol=1e-5, rtol=0)
        n_transitions += len(values)
    assert n_transitions == model.n_steps * model.n_envs
    np.random.set_state(random_state)


def assert_learns_on_policy(model: Any, n_rollouts: int, **kwargs: Any) -> None:
    """Train for a number of rollouts. In each, training must see the memories that acting saw."""
    check = Hooks(end=_assert_on_policy)
    model.learn(n_rollouts * model.n_steps * model.n_envs, check, **kwargs)
    assert check.rollouts == n_rollouts
