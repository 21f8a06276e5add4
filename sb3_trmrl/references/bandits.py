"""
Agents for ``BernoulliBandit-v0`` that know how such bandits are made: the Bayes-optimal one and the rules that RL^2
(Duan et al. 2016, section 3.1) compares with.

They read ``prev_action`` and ``prev_reward`` and count each arm's wins and losses over a trial, all of its episodes.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from sb3_trmrl.common.checks import check_bool, check_int, check_non_negative, check_positive_int
from sb3_trmrl.references.bandit_values import BernoulliValues, gittins_indices
from sb3_trmrl.references.scripted import ScriptedAgent
from sb3_trmrl.trials.agent import Agent, check_agent


def _generator(seed: int | None) -> np.random.Generator:
    """
    :param seed: Seed; None: another one each time
    :return: Generator that shares no numbers with an environment of the same seed, which would tell the agent its task
    """
    entropy = None if seed is None else check_int("seed", seed)
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(1,)))


class _BanditAgent(ScriptedAgent):
    keys = ("prev_action", "prev_reward")

    @staticmethod
    def _check(rows: dict[str, np.ndarray]) -> None:
        """
        :param rows: One-hot last arms, (E, k), and last rewards, (E, 1)
        :raises ValueError: if they are normalised, or no bandit's
        """
        for key, values in rows.items():
            if not ((values == 0) | (values == 1)).all():
                raise ValueError(f"{key!r} of `observation` must be zeros and ones, not normalised, got {values}")


class _CountingAgent(_BanditAgent):
    """
    Gives each arm a score for its wins and losses and pulls the one with the highest, the first of equals.

    Its state is the wins and losses of each arm, (E, k, 2).
    """

    def _empty_memory(self, rows: dict[str, np.ndarray]) -> np.ndarray:
        return np.zeros((*rows["prev_action"].shape, 2), dtype=np.int64)

    def _act(self, rows: dict[str, np.ndarray], memory: np.ndarray) -> np.ndarray:
        self._check(rows)
        pulled, won = (rows[key].astype(np.int64) for key in self.keys)
        memory[..., 0] += pulled * won
        memory[..., 1] += pulled * (1 - won)
        actions: np.ndarray = np.argmax(self._scores(memory[..., 0], memory[..., 1]), axis=1)
        return actions

    @abstractmethod
    def _scores(self, wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
        """
        :param wins: Wins of each arm, (E, k)
        :param losses: Losses of each arm, (E, k)
        :return: Score of each arm, (E, k)
        """


class _CountdownAgent(_CountingAgent):
    """
    :param n_pulls: Pulls of a whole trial
    """

    def __init__(self, n_pulls: int) -> None:
        self.n_pulls = check_positive_int("n_pulls", n_pulls)

    def _pulls_left(self, wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
        left: np.ndarray = self.n_pulls - (wins + losses).sum(axis=1)
        if (left < 1).any():
            raise ValueError(
                f"{type(self).__name__} was made for trials of {self.n_pulls} pulls and is asked for another one: "
                "`n_pulls` counts all episodes of a trial"
            )
        return left


class BayesOptimal(_CountdownAgent):
    """
    The best that can be done without knowing the task: what it is worth to learn about an arm is part of each choice.

    :param n_arms: Number of arms
    :param n_pulls: Pulls of a whole trial
    :raises ValueError: if there are too many states for a table, see ``bayes_optimal_value``
    """

    def __init__(self, n_arms: int = 5, n_pulls: int = 10) -> None:
        super().__init__(n_pulls)
        self.values = BernoulliValues(n_arms, n_pulls)

    def _scores(self, wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
        if wins.shape[1] != self.values.n_arms:
            raise ValueError(
                f"`observation` must be of {self.values.n_arms} arms, as `n_arms` was, got {wins.shape[1]}"
            )
        left = self._pulls_left(wins, losses)
        scores = np.empty(wins.shape)
        for number in np.unique(left):
            rows = left == number
            scores[rows] = self.values.of_pulls(wins[rows], losses[rows])
        return scores


class GittinsIndex(_CountdownAgent):
    """
    Pulls the arm with the highest Gittins index for the pulls that are left: close to the optimum, also where that
    cannot be computed.

    :param n_pulls: Pulls of a whole trial, at most 200
    """

    def __init__(self, n_pulls: int = 10) -> None:
        super().__init__(n_pulls)
        self._indices = gittins_indices(n_pulls)

    def _scores(self, wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
        indices: np.ndarray = self._indices[self._pulls_left(wins, losses)[:, None], wins, losses]
        return indices


class PosteriorMeanGreedy(_CountingAgent):
    """
    Pulls the arm that is most likely to pay now, (wins + 1) / (pulls + 2), any of them where several are.

    :param seed: Seed of the choice between equals; None: another one each time
    """

    def __init__(self, seed: int | None = None) -> None:
        self._rng = _generator(seed)

    def _scores(self, wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
        means = (wins + 1) / (wins + losses + 2)
        return np.where(means == means.max(axis=1, keepdims=True), self._rng.uniform(size=means.shape), -1.0)


class UCB1(_CountingAgent):
    """
    Each arm once, then the highest mean + sqrt(c ln t / pulls) after t pulls (Auer et al. 2002).

    :param exploration: The constant c: 2 as published; short problems want less
    """

    def __init__(self, exploration: float = 2.0) -> None:
        self.exploration = check_non_negative("exploration", exploration)

    def _scores(self, wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
        pulls = wins + losses
        n_pulls = np.maximum(pulls.sum(axis=1, keepdims=True), 1)
        once = np.maximum(pulls, 1)
        return np.where(pulls == 0, np.inf, wins / once + np.sqrt(self.exploration * np.log(n_pulls) / once))


class ThompsonSampling(_CountingAgent):
    """
    Draws a probability for each arm from what is known of it, and pulls the arm with the highest.

    :param seed: Seed of the draws; None: another one each time
    """

    def __init__(self, seed: int | None = None) -> None:
        self._rng = _generator(seed)

    def _scores(self, wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
        return self._rng.beta(wins + 1, losses + 1)


class RandomArm(_BanditAgent):
    """
    Pulls any arm.

    :param seed: Seed of the draws; None: another one each time
    """

    def __init__(self, seed: int | None = None) -> None:
        self._rng = _generator(seed)

    def _act(self, rows: dict[str, np.ndarray], memory: np.ndarray) -> np.ndarray:
        return self._rng.integers(rows["prev_action"].shape[1], size=len(memory))


class StayOrNext(_BanditAgent):
    """Stays with an arm that has just paid, else pulls the next one: no memory beyond the last transition."""

    def _act(self, rows: dict[str, np.ndarray], memory: np.ndarray) -> np.ndarray:
        self._check(rows)
        pulled, won = rows["prev_action"], rows["prev_reward"][:, 0]
        following = (pulled.argmax(axis=1) + (won == 0)) % pulled.shape[1]
        return np.where(pulled.any(axis=1), following, 0)


def simulate_bandits(
    agent: Agent, n_tasks: int = 20_000, n_arms: int = 5, n_pulls: int = 10, deterministic: bool = True, seed: int = 0
) -> np.ndarray:
    """
    ``BernoulliBandit-v0`` for many tasks at once, as their returns differ much (at 10 pulls by 2.4, so that 20,000
    tasks give the mean to 0.02). The same seed gives every agent the same tasks.

    :param agent: One of this module, an SB3 model or one of its policies, trained with this number of arms
    :param n_tasks: Number of tasks
    :param n_arms: Number of arms
    :param n_pulls: Number of pulls
    :param deterministic: Whether an SB3 model's actions are the likeliest ones or sampled
    :param seed: Seed of tasks and rewards
    :return: Sum of rewards of each task, (n_tasks,)
    :raises TypeError: if an argument has the wrong type
    :raises ValueError: if a number is out of range
    """
    sizes = {"n_tasks": n_tasks, "n_arms": n_arms, "n_pulls": n_pulls}
    n_tasks, n_arms, n_pulls = (check_positive_int(name, size) for name, size in sizes.items())
    check_agent(agent, "agent")
    check_bool("deterministic", deterministic)
    rng = np.random.default_rng(check_int("seed", seed))
    means = rng.uniform(size=(n_tasks, n_arms))
    rows = np.arange(n_tasks)
    totals = np.zeros(n_tasks)
    state, starts = None, np.ones(n_tasks, dtype=bool)
    observation = {
        "observation": np.zeros((n_tasks, 1), dtype=np.float32),
        "prev_action": np.zeros((n_tasks, n_arms), dtype=np.float32),
        "prev_reward": np.zeros((n_tasks, 1), dtype=np.float32),
        "prev_done": np.zeros((n_tasks, 1), dtype=np.float32),
    }
    for _ in range(n_pulls):
        arms, state = agent.predict(observation, state=state, episode_start=starts, deterministic=deterministic)
        rewards = rng.uniform(size=n_tasks) < means[rows, arms]
        totals += rewards
        starts = np.zeros(n_tasks, dtype=bool)
        observation["prev_action"] = np.eye(n_arms, dtype=np.float32)[arms]
        observation["prev_reward"] = rewards[:, None].astype(np.float32)
    return totals
