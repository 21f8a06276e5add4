"""Optimal return of ``TabularMDP-v0`` for a known task, and posterior sampling with the known prior."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from sb3_trmrl.common.checks import check_instance, check_int, check_positive_int
from sb3_trmrl.envs.tabular_mdp import TabularMDPEnv, TabularMDPTask
from sb3_trmrl.references.scripted import ScriptedAgent, check_tasks


def tabular_mdp_optimum(tasks: Iterable[Any], horizon: int = 10) -> float:
    """
    Return the highest possible expected return of an episode in a known MDP, averaged over MDPs.

    :param tasks: MDPs of the same size, each a ``TabularMDPTask``, for example those of an evaluation
    :param horizon: Steps of an episode
    :return: Optimal mean return
    :raises TypeError: if a task is not a ``TabularMDPTask``
    :raises ValueError: if an argument is out of range, or there are no tasks
    """
    check_positive_int("horizon", horizon)
    given = list(check_instance("tasks", tasks, Iterable, "a sequence of tasks"))
    shape = given[0].mean_rewards.shape if given and isinstance(given[0], TabularMDPTask) else (1, 1)
    known = check_tasks("tasks", given, TabularMDPEnv(*shape))
    transitions = np.stack([task.transitions for task in known])
    rewards = np.stack([task.mean_rewards for task in known])
    return float(_plan(transitions, rewards, horizon)[1][:, 0].mean())


def _plan(transitions: np.ndarray, rewards: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the optimal actions with 1 to H steps left, (E, H, S), and the values with H steps left, (E, S)."""
    value = np.zeros(rewards.shape[:2])
    actions = np.zeros((len(rewards), horizon, rewards.shape[1]), dtype=np.int64)
    for left in range(horizon):
        q = rewards + (transitions @ value[:, None, :, None])[..., 0]  # (E, S, A)
        actions[:, left], value = q.argmax(axis=-1), q.max(axis=-1)
    return actions, value


class PosteriorSampling(ScriptedAgent):
    """
    Posterior sampling for reinforcement learning (PSRL; Strens 2000, Osband et al. 2013), a baseline of RL^2 (Duan et
    al. 2016, section 3.2). Before each episode it draws an MDP from the posterior, and then follows the optimal policy
    of this MDP. The prior is that of the environment with the same arguments.

    The state of each trial holds the counts of transitions, the number and the sum of the rewards, the actions of the
    current policy, the last state, and the step within the episode. The last transition of an episode is not counted,
    because the observation after it belongs to the next episode; its reward is.

    :param n_states: Number of states S
    :param n_actions: Number of actions A
    :param horizon: Steps of an episode H
    :param reward_prior: Mean and standard deviation of the normal prior of mean rewards
    :param dirichlet_alpha: Concentration of the Dirichlet prior of transitions
    :param seed: Seed of the draws; None: a different one each time
    :raises TypeError: if an argument has the wrong type
    :raises ValueError: if a number is out of range
    """

    keys = ("prev_action", "prev_reward", "prev_done", "observation")

    def __init__(
        self,
        n_states: int = 10,
        n_actions: int = 5,
        horizon: int = 10,
        reward_prior: tuple[float, float] = (1.0, 1.0),
        dirichlet_alpha: float = 1.0,
        seed: int | None = 0,
    ) -> None:
        env = TabularMDPEnv(n_states, n_actions, horizon, reward_prior, dirichlet_alpha)  # checks the arguments
        self.horizon, self.reward_prior, self.dirichlet_alpha = env.horizon, env.reward_prior, env.dirichlet_alpha
        self._shape = env.n_states, env.n_actions
        self._rng = np.random.default_rng(None if seed is None else check_int("seed", seed, low=0))

    def _empty_memory(self, rows: dict[str, np.ndarray]) -> np.ndarray:
        n_states, n_actions = self._shape
        size = n_states * n_actions * (n_states + 2) + self.horizon * n_states + 2
        return np.zeros((len(rows["prev_action"]), size))

    def _parts(self, memory: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return views of the memory: transitions, rewards, sums of rewards, policy, and last state and step."""
        n_states, n_actions = self._shape
        shapes = [(n_states, n_actions, n_states), self._shape, self._shape, (self.horizon, n_states), (2,)]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        parts = np.split(memory, ends[:-1], axis=1)
        return tuple(part.reshape(len(memory), *shape) for part, shape in zip(parts, shapes, strict=True))

    def _act(self, rows: dict[str, np.ndarray], memory: np.ndarray) -> np.ndarray:
        transitions, counts, sums, policy, place = self._parts(memory)
        state = rows["observation"].astype(np.int64).reshape(-1)
        if rows["prev_action"].shape[1] != counts.shape[2] or not (state < counts.shape[1]).all():
            raise ValueError(
                f"`observation` must be of an MDP with {counts.shape[1]} states and {counts.shape[2]} actions, got "
                f"state {state.max()} and {rows['prev_action'].shape[1]} actions"
            )
        is_new = (rows["prev_done"][:, 0] == 1) | (place[:, 1] == 0)
        played = np.flatnonzero(rows["prev_action"].any(axis=1) & (place[:, 1] > 0))
        before, action = place[played, 0].astype(np.int64), rows["prev_action"][played].argmax(axis=1)
        counts[played, before, action] += 1
        sums[played, before, action] += rows["prev_reward"][played, 0]
        known = ~is_new[played]  # the next state
        transitions[played[known], before[known], action[known], state[played[known]]] += 1
        if is_new.any():
            policy[is_new] = self._draw_policies(transitions[is_new], counts[is_new], sums[is_new])
            place[is_new, 1] = 0
        step = place[:, 1].astype(np.int64)
        if (step >= self.horizon).any():
            raise ValueError(f"`horizon` must be that of the environment, got {self.horizon}: an episode is longer")
        place[:, 0], place[:, 1] = state, step + 1
        actions: np.ndarray = policy[np.arange(len(state)), self.horizon - 1 - step, state].astype(np.int64)
        return actions

    def _draw_policies(self, transitions: np.ndarray, counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """Return the optimal actions in MDPs drawn from the posterior, (E, H, S)."""
        drawn = self._rng.standard_gamma(self.dirichlet_alpha + transitions)
        drawn /= np.maximum(drawn.sum(axis=-1, keepdims=True), np.finfo(np.float64).tiny)
        mean, deviation = self.reward_prior  # rewards have a standard deviation of 1 around their mean
        variance = deviation**2 / (1 + deviation**2 * counts)
        mean_rewards = mean + variance * (sums - counts * mean)
        rewards = self._rng.normal(mean_rewards, np.sqrt(variance))
        return _plan(drawn, rewards, self.horizon)[0]
