"""The two wrappers against nested loops over a script of episodes, tasks and resets."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_trmrl import MultiEpisodeTrial, PreviousTransitionObservation
from tests.helpers.environments import ToyFamily

ACTION_SPACES: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-2.0, 3.0, (2, 2), np.float32),
    "box-float64": spaces.Box(np.array([-1.0, 0.0]), np.array([0.5, 7.0]), dtype=np.float64),
    "box-int": spaces.Box(-3, 9, (3,), np.int32),
    "discrete": spaces.Discrete(4),
    "discrete-start": spaces.Discrete(3, start=-1),
    "multi-discrete": spaces.MultiDiscrete([2, 3, 1]),
    "multi-discrete-matrix": spaces.MultiDiscrete(np.array([[2, 3], [4, 2]]), start=np.array([[0, -1], [5, 0]])),
    "multi-binary": spaces.MultiBinary(3),
    "multi-binary-matrix": spaces.MultiBinary((2, 2)),
}


@dataclass(frozen=True)
class Episode:
    """Rewards of all steps, the end (one of both at least), and ``is_success`` at each step; None: not written."""

    rewards: tuple[float, ...]
    terminated: bool
    truncated: bool
    successes: tuple[bool | None, ...]


def episodes(successes: list[bool | None]) -> st.SearchStrategy[Episode]:
    """Episodes of one to four steps, whose successes are among the given ones."""

    def make(steps: list[tuple[float, bool | None]], ends: tuple[bool, bool]) -> Episode:
        rewards, successes = zip(*steps, strict=True)
        return Episode(rewards, *ends, successes)

    step = st.tuples(st.sampled_from([0.0, 1.0, -2.5, 0.125]), st.sampled_from(successes))
    ends = st.sampled_from([(True, False), (False, True), (True, True)])
    return st.builds(make, st.lists(step, min_size=1, max_size=4), ends)


class Scripted(ToyFamily):
    """
    Each reset starts the next episode of the script, and the first one after the last. All observations differ: they
    contain a running number and the task. Tasks are consecutive numbers from a thousand times the last seed.
    """

    def __init__(self, script: list[Episode], action_space: spaces.Space[Any], dict_observation: bool = False) -> None:
        number = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.is_dict = dict_observation
        self.observation_space = spaces.Dict(a=number, b=spaces.Discrete(10_000)) if dict_observation else number
        self.action_space = action_space
        self.script, self.n_resets, self.n_observations, self.next_task = script, 0, 0, 0
        self.task: Any = -1  # can be reset before a task is set
        #: All calls in order
        self.calls: list[tuple[str, Any, Any]] = []

    def sample_tasks(self, n: int) -> list[int]:
        self.calls.append(("sample", n, None))
        self.next_task += n
        return list(range(self.next_task - n, self.next_task))

    def set_task(self, task: int) -> None:
        self.calls.append(("set", task, None))
        super().set_task(task)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.calls.append(("reset", seed, options))
        if seed is not None:
            self.next_task = 1_000 * seed
        self.episode, self.time = self.script[self.n_resets % len(self.script)], 0
        self.n_resets += 1
        return self._observe(), {"begins": self.n_resets}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.time += 1
        episode, is_last = self.episode, self.time == len(self.episode.rewards)
        observation, reward = self._observe(), episode.rewards[self.time - 1]
        info: dict[str, Any] = {"own": self.n_observations}
        if episode.successes[self.time - 1] is not None:
            info["is_success"] = episode.successes[self.time - 1]
        if is_last:  # what wrappers around the inner environment write
            info.update({"episode": {"r": 0.0}, "TimeLimit.truncated": True, "terminal_observation": observation})
        return observation, reward, is_last and episode.terminated, is_last and episode.truncated, info

    def _observe(self) -> Any:
        self.n_observations += 1
        return numbered(self.n_observations, self.task, self.is_dict)


def numbered(number: int, task: Any, is_dict: bool) -> Any:
    """Return the observation with this number."""
    vector = np.array([number, -1.0 if task is None else task])
    return {"a": vector, "b": np.int64(number)} if is_dict else vector


@dataclass
class Reset:
    """Arguments of a reset, and the number of steps until the next one, unless the trial ends before."""

    seed: int | None
    options: dict[str, Any] | None
    n_steps: int


RESETS = st.builds(
    Reset,
    seed=st.one_of(st.none(), st.integers(0, 5)),
    options=st.sampled_from([None, {}, {"start": "low"}, {"task": 77}, {"task": 78, "start": "low"}]),
    n_steps=st.sampled_from([0, 1, 3, 99, 99, 99]),
)
#: Successes are never written, at each step, now and then
SCRIPTS = st.sampled_from([[None], [False, True], [None, None, False, True]]).flatmap(
    lambda successes: st.lists(episodes(successes), min_size=1, max_size=6)
)


def encode(space: Any, action: Any) -> list[float]:
    """Return a Box or MultiBinary action number by number, each number of a Discrete or MultiDiscrete one one-hot."""
    if isinstance(space, spaces.Discrete):
        return [float(action == space.start + value) for value in range(space.n)]
    code = []
    for place, number in np.ndenumerate(action):
        if isinstance(space, spaces.MultiDiscrete):
            code += [float(number == space.start[place] + value) for value in range(space.nvec[place])]
        else:
            code.append(float(number))
    return code


class Naive:
    """Expected answers of both wrappers for a script of episodes, one trial at a time, and their expected calls."""

    def __init__(
        self,
        script: list[Episode],
        space: Any,
        n_episodes: int,
        trial_end: str | None,
        tasks: list[int] | None,
        across: str,
        is_dict: bool,
    ) -> None:
        self.script, self.space, self.n_episodes, self.trial_end = script, space, n_episodes, trial_end
        self.tasks, self.across, self.is_dict = tasks, across, is_dict
        self.nothing = [0.0] * len(encode(space, space.sample()))
        self.calls: list[tuple[str, Any, Any]] = []
        self.n_resets = self.n_observations = self.turn = self.next_task = 0
        self.says_success = False

    def inner_reset(self, seed: int | None, options: dict[str, Any] | None) -> Episode:
        self.calls.append(("reset", seed, options))
        self.n_resets += 1
        self.n_observations += 1
        return self.script[(self.n_resets - 1) % len(self.script)]

    def observation(self, task: Any, action: list[float], reward: float, done: float) -> dict[str, Any]:
        own = numbered(self.n_observations, task, self.is_dict)
        own = own if self.is_dict else {"observation": own}
        return {**own, "prev_action": action, "prev_reward": [reward], "prev_done": [done]}

    def begin(self, reset: Reset) -> tuple[Any, int | None, dict[str, Any] | None]:
        """Return the task of a trial, the seed left for its first inner reset, and the options of all inner resets."""
        given, seed = dict(reset.options or {}), reset.seed
        options = {key: value for key, value in given.items() if key != "task"} or None
        if seed is not None:
            self.turn, self.next_task = 0, 1_000 * seed
        if "task" in given:
            return given["task"], seed, options
        if self.tasks is not None:
            self.turn += 1
            return self.tasks[(self.turn - 1) % len(self.tasks)], seed, options
        if seed is not None:
            self.calls.append(("set", -1, None))  # the initial task, whatever the last trial's was
            self.inner_reset(seed, options)
        self.calls.append(("sample", 1, None))
        self.next_task += 1
        return self.next_task - 1, None, options

    def play(self, reset: Reset, actions: list[Any]) -> list[Any]:
        """Return the results of ``reset`` and of each ``step``, until the trial or the list of actions ends."""
        task, seed, options = self.begin(reset)
        self.calls.append(("set", task, None))
        nothing = self.nothing
        action, reward, info = nothing, 0.0, dict[str, Any]()
        answers: list[Any] = []
        returns: list[float] = []
        lengths: list[int] = []
        successes: list[bool] = []
        for index in range(self.n_episodes):
            episode = self.inner_reset(seed if index == 0 else None, options)
            if index == 0:
                info = {"begins": self.n_resets, "task": task, "episode_index": 0, "new_episode": False}
                answers.append((self.observation(task, nothing, 0.0, 0.0), info))
            else:  # the step that ended the previous episode returns this first observation
                keep = self.across == "keep"
                first = self.observation(task, action if keep else nothing, reward if keep else 0.0, 1.0)
                info.update(episode_index=index, new_episode=True)
                answers.append((first, reward, False, False, info))
            returns.append(0.0)
            for time, reward in enumerate(episode.rewards):
                if len(answers) > len(actions):
                    return answers
                action = encode(self.space, actions[len(answers) - 1])
                self.n_observations += 1
                returns[-1] += reward
                info = {"own": self.n_observations, "episode_index": index, "new_episode": False}
                if episode.successes[time] is not None:
                    info["is_success"], self.says_success = episode.successes[time], True
                if time + 1 < len(episode.rewards):
                    answers.append((self.observation(task, action, reward, 0.0), reward, False, False, info))
            lengths.append(len(episode.rewards))
            info.update(task=task, episode_returns=tuple(returns), episode_lengths=tuple(lengths))
            info["episode_terminated"] = episode.terminated
            successes.append(True in episode.successes)
            if self.says_success:
                info.update(episode_successes=tuple(successes), is_success=successes[-1])
        terminated, truncated = episode.terminated, episode.truncated
        if self.trial_end is not None:
            terminated, truncated = self.trial_end == "terminated", self.trial_end == "truncated"
        answers.append((self.observation(task, action, reward, float(terminated)), reward, terminated, truncated, info))
        return answers


def assert_answer(answer: Any, expected: Any, space: spaces.Space) -> None:
    """The observation is the expected one and in its space; the rest is equal."""
    observation, *rest = answer
    expected_observation, *expected_rest = expected
    assert observation.keys() == expected_observation.keys()
    for key, value in expected_observation.items():
        np.testing.assert_array_equal(observation[key], np.asarray(value, observation[key].dtype))
    assert space.contains(observation)
    assert rest == expected_rest


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    script=SCRIPTS,
    resets=st.lists(RESETS, min_size=2, max_size=6),
    n_episodes=st.integers(1, 4),
    trial_end=st.sampled_from([None, "terminated", "truncated"]),
    tasks=st.sampled_from([None, [4], (4, 5), np.array([4, 5, 6])]),
    across=st.sampled_from(["keep", "zero"]),
    action_space=st.sampled_from(sorted(ACTION_SPACES)),
    is_dict=st.booleans(),
    seed=st.integers(0, 100),
)
def test_trials_of_a_script(
    script: list[Episode],
    resets: list[Reset],
    n_episodes: int,
    trial_end: str | None,
    tasks: list[int] | None,
    across: str,
    action_space: str,
    is_dict: bool,
    seed: int,
) -> None:
    """Complete and interrupted trials; given tasks, tasks in turn and sampled tasks; with and without seeds."""
    space = ACTION_SPACES[action_space]
    space.seed(seed)
    inner = Scripted(script, space, is_dict)
    env = PreviousTransitionObservation(MultiEpisodeTrial(inner, n_episodes, trial_end, tasks), across)
    naive = Naive(script, space, n_episodes, trial_end, tasks, across, is_dict)
    for reset in resets:
        actions = [space.sample() for _ in range(1 + 4 * n_episodes)]
        expected = naive.play(reset, actions[: reset.n_steps])
        assert_answer(env.reset(seed=reset.seed, options=reset.options), expected[0], env.observation_space)
        for action, answer in zip(actions, expected[1:], strict=False):
            assert_answer(env.step(action), answer, env.observation_space)
        assert inner.calls == naive.calls


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    script=SCRIPTS,
    across=st.sampled_from(["keep", "zero"]),
    action_space=st.sampled_from(sorted(ACTION_SPACES)),
    is_dict=st.booleans(),
)
def test_previous_transition_without_trials(
    script: list[Episode], across: str, action_space: str, is_dict: bool
) -> None:
    """The environment's own results, with the previous step in the observation."""
    space: Any = ACTION_SPACES[action_space]
    env, twin = (
        PreviousTransitionObservation(Scripted(script, space, is_dict), across),
        Scripted(script, space, is_dict),
    )
    naive = Naive(script, space, 1, None, None, across, is_dict)
    for episode in script:
        naive.n_observations += 1
        _, info = twin.reset(seed=3)
        first = naive.observation(None, naive.nothing, 0.0, 0.0)
        assert_answer(env.reset(seed=3), (first, info), env.observation_space)
        for reward in episode.rewards:
            action = space.sample()
            naive.n_observations += 1
            answer, (_, *rest) = env.step(action), twin.step(action)
            expected = naive.observation(None, encode(space, action), reward, float(rest[1]))
            for own in (answer[-1], rest[-1]):
                own.pop("terminal_observation", None)  # arrays do not compare
            assert_answer(answer, (expected, *rest), env.observation_space)
