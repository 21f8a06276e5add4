"""Trials and results of evaluations against a loop over tasks, episodes and steps, one environment at a time."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_trmrl import MultiEpisodeTrial, PreviousTransitionObservation
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.evaluation.trials import Trials
from sb3_trmrl.trials.held_out import evaluation_seed
from tests.helpers.environments import ToyFamily


class Errands(ToyFamily):
    """
    Each step does one piece of work or, with action 1, two. The episode terminates when the task's pieces are done, and
    is truncated after seven steps. The reward depends on the task, the action and a random number of the reset.
    ``info`` has ``is_success`` from episode ``says_success`` on, counted from 1; None: never.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Discrete(2)

    def __init__(self, says_success: int | None) -> None:
        self.says_success, self.n_episodes = says_success, 0

    def sample_tasks(self, n: int) -> list[int]:
        return self.np_random.integers(1, 12, size=n).tolist()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.work, self.time, self.noise = 0, 0, self.np_random.normal()
        self.n_episodes += 1
        return np.array([self.work, self.noise]), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        self.work += 1 + int(action)
        reward = self.task - 0.5 * int(action) + self.noise
        info: dict[str, Any] = {"work": self.work}
        if self.says_success is not None and self.n_episodes >= self.says_success:
            info["is_success"] = self.work % 3 == 0
        return np.array([self.work, self.noise]), reward, self.work >= self.task, self.time == 7, info


class HeldOutErrands(Errands):
    """Has tasks for validation and tests."""

    holds_tasks_out = True

    def held_out_tasks(self, split: str, n: int) -> list[int]:
        return [(3 if split == "test" else 5) + index for index in range(n)]


def errands(family: type[Errands], says_success: int | None, episodes_per_trial: int = 1) -> gym.Env:
    return PreviousTransitionObservation(MultiEpisodeTrial(family(says_success), episodes_per_trial))


class Rememberer:
    """Its actions depend on all observations and rewards since an episode start, and on nothing else."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        assert deterministic
        seen = observation["observation"].sum(axis=1) + 3 * observation["prev_reward"][:, 0]
        before = np.zeros(len(seen)) if state is None else state
        state = 0.7 * np.where(episode_start, 0.0, before) + seen
        return (np.sin(5 * state) > 0).astype(int), state


@dataclass
class Step:
    episode: int
    reward: float
    action: int
    state: float
    info: dict[str, Any]


@dataclass
class Case:
    family: type[Errands]
    says_success: int | None
    n_tasks: int
    n_episodes: int
    n_envs: int | None
    split: str
    seed: int
    tasks: list[int] = field(init=False)
    trials: list[list[Step]] = field(init=False)

    def __post_init__(self) -> None:
        self.make = partial(errands, self.family, self.says_success)
        split_seed = evaluation_seed(self.seed, self.split)
        env = self.make()
        family: Any = env.unwrapped
        if self.split != "train" and self.family is HeldOutErrands:
            self.tasks = family.held_out_tasks(self.split, self.n_tasks)
        else:  # the tasks that a training environment samples after this seed
            env.reset(seed=split_seed)
            self.tasks = family.sample_tasks(self.n_tasks)
        self.trials = [self.play(task, split_seed + index) for index, task in enumerate(self.tasks)]

    def play(self, task: int, seed: int) -> list[Step]:
        """Return the steps of a trial that is played alone, episode by episode of the inner environment."""
        agent, env = Rememberer(), self.family(self.says_success)
        env.set_task(task)
        steps: list[Step] = []
        state, prev_reward = None, 0.0
        for episode in range(self.n_episodes):
            observation, _ = env.reset(seed=seed if episode == 0 else None)
            over = False
            while not over:
                seen = {"observation": observation[None], "prev_reward": np.array([[prev_reward]], np.float32)}
                actions, state = agent.predict(seen, state, np.array([not steps]), deterministic=True)
                observation, reward, terminated, truncated, info = env.step(actions[0])
                steps.append(Step(episode, reward, actions[0], state[0], info))
                prev_reward, over = reward, terminated or truncated
        return steps

    def table(self, name: str) -> list[list[list[float]]]:
        """Return rewards, or a number of ``info`` (0 if it is missing), by task and episode."""
        table: list[list[list[float]]] = []
        for trial in self.trials:
            table.append([[] for _ in range(self.n_episodes)])
            for step in trial:
                table[-1][step.episode].append(step.reward if name == "reward" else step.info.get(name, 0.0))
        return table


CASES = st.builds(
    Case,
    family=st.sampled_from([Errands, HeldOutErrands]),
    says_success=st.sampled_from([None, 1, 1, 2]),
    n_tasks=st.integers(1, 7),
    n_episodes=st.integers(1, 4),
    n_envs=st.one_of(st.none(), st.integers(1, 9)),
    split=st.sampled_from(["train", "validation", "test"]),
    seed=st.integers(0, 50),
)


def assert_padded(table: np.ndarray, expected: list[list[list[float]]]) -> None:
    """The numbers are equal, followed by NaN after the end of each episode."""
    horizon = max(len(episode) for episodes in expected for episode in episodes)
    assert table.shape == (len(expected), len(expected[0]), horizon)
    for task, episodes in enumerate(expected):
        for episode, numbers in enumerate(episodes):
            np.testing.assert_allclose(table[task, episode, : len(numbers)], numbers, rtol=1e-6)
            assert np.isnan(table[task, episode, len(numbers) :]).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=CASES)
def test_tables_of_an_evaluation(case: Case) -> None:
    """Rewards, further numbers and successes do not depend on the number of tasks that are played side by side."""
    finished: list[int] = []
    result = evaluate_adaptation(
        Rememberer(),
        case.make,
        case.n_tasks,
        case.n_episodes,
        seed=case.seed,
        split=case.split,
        info_keys=["work"],
        n_envs=case.n_envs,
        after_task=finished.append,
    )
    assert result.tasks == case.tasks
    rewards = case.table("reward")
    assert_padded(result.rewards, rewards)
    assert_padded(result.infos["work"], case.table("work"))
    assert result.lengths.tolist() == [[len(episode) for episode in episodes] for episodes in rewards]
    returns = [[sum(episode) for episode in episodes] for episodes in rewards]
    np.testing.assert_allclose(result.returns, returns, rtol=1e-6)
    means = [sum(task[episode] for task in returns) / case.n_tasks for episode in range(case.n_episodes)]
    np.testing.assert_allclose(result.mean_returns, means, rtol=1e-6)
    said = [step for trial in case.trials for step in trial if "is_success" in step.info]
    assert (result.successes is None) == (not said)
    if result.successes is not None:
        successes = case.table("is_success")
        assert result.successes.tolist() == [[any(episode) for episode in episodes] for episodes in successes]
    known = {"train": False}.get(case.split, True if case.family is HeldOutErrands else None)
    assert result.held_out is known
    at_a_time = case.n_envs or case.n_tasks
    assert finished == [min(first + at_a_time, case.n_tasks) for first in range(0, case.n_tasks, at_a_time)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=CASES)
def test_steps_of_trials(case: Case) -> None:
    """Each step of each trial is returned once, with its task and episode, until the trial ends."""
    trials = Trials(case.make, case.n_tasks, case.n_episodes, case.split, case.seed)
    at_a_time = case.n_envs or case.n_tasks
    first, number = 0, 0
    for step in trials.play(Rememberer(), n_envs=case.n_envs):
        if step.number == 0 and number > 0:
            assert number == max(map(len, case.trials[first : first + at_a_time]))
            first, number = first + at_a_time, 0
        group = case.trials[first : first + at_a_time]
        assert step.number == number
        running = [env for env, trial in enumerate(group) if number < len(trial)]
        assert step.envs.tolist() == running
        assert step.tasks.tolist() == [first + env for env in running]
        for env in running:
            expected = group[env][number]
            assert step.episodes[env] == expected.episode
            assert step.actions[env] == expected.action
            np.testing.assert_allclose(step.rewards[env], expected.reward, rtol=1e-6)
            np.testing.assert_allclose(step.state[env], expected.state, rtol=1e-5)
            assert step.infos[env]["work"] == expected.info["work"]
        number += 1
    assert first + at_a_time >= case.n_tasks and number == max(map(len, case.trials[first:]))
