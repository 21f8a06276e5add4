"""The two wrappers under Gymnasium's and SB3's other wrappers; `test_differential_wrappers` has what they answer."""

import doctest
import pickle
import warnings
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation, RecordEpisodeStatistics, TimeLimit
from stable_baselines3.common.monitor import Monitor

from sb3_trmrl import MultiEpisodeTrial, PreviousTransitionObservation
from sb3_trmrl.envs import tasks
from sb3_trmrl.trials import multi_episode_trial, previous_transition
from tests.helpers.agents import SampledEnv
from tests.helpers.environments import EarlyEnd

BOX = spaces.Box(-2.0, 3.0, shape=(2, 2), dtype=np.float32)


def play_trial(env: gym.Env) -> list[dict[str, Any]]:
    """Return the infos of all steps."""
    infos, ended = [], False
    while not ended:
        _, _, terminated, truncated, info = env.step(env.action_space.sample())
        infos.append(info)
        ended = terminated or truncated
    return infos


def test_the_action_is_copied() -> None:
    env = PreviousTransitionObservation(SampledEnv(action_space=BOX))
    env.reset(seed=0)
    action = np.ones((2, 2), dtype=np.float32)
    observation, *_ = env.step(action)
    action[:] = 2.0
    np.testing.assert_array_equal(observation["prev_action"], np.ones(4))
    assert observation["prev_action"].dtype == np.float32


def test_box_bounds_are_those_of_the_action_and_the_observation_keeps_its_space() -> None:
    inner = SampledEnv(action_space=BOX)
    space: Any = PreviousTransitionObservation(inner).observation_space
    assert space["prev_action"] == spaces.Box(-2.0, 3.0, shape=(4,), dtype=np.float32)
    assert space["observation"] == inner.observation_space
    assert space["prev_reward"].shape == space["prev_done"].shape == (1,)


def test_works_without_trials_and_flattens_to_one_box() -> None:
    env = FlattenObservation(PreviousTransitionObservation(gym.make("CartPole-v1")))
    observation, _ = env.reset(seed=1)
    assert env.observation_space.shape == observation.shape == (4 + 2 + 1 + 1,)
    assert env.observation_space.contains(observation)
    terminated = False
    while not terminated:
        observation, _, terminated, _, _ = env.step(1)
        assert env.observation_space.contains(observation)
    # Action 1 of two, and reward and done in either order
    assert observation[4:].tolist() == [0.0, 1.0, 1.0, 1.0]


def test_task_methods_of_an_inner_wrapper_are_found() -> None:
    class Tasks(gym.Wrapper):
        def sample_tasks(self, n: int) -> list[float]:
            return [0.5] * n

    env = MultiEpisodeTrial(TimeLimit(Tasks(EarlyEnd()), 3))
    assert env.reset(seed=0)[1]["task"] == 0.5


def test_task_and_initial_state_are_not_made_of_the_same_random_numbers() -> None:
    # One uniform number each: drawn twice from the start of one stream they would be equal for every seed
    class OneNumber(EarlyEnd):
        def _observe(self) -> np.ndarray:
            return np.full(2, self.np_random.uniform())

    env = MultiEpisodeTrial(OneNumber())
    pairs = []
    for seed in range(200):
        observation, info = env.reset(seed=seed)
        pairs.append((info["task"], observation[0]))
    assert abs(np.corrcoef(np.array(pairs).T)[0, 1]) < 0.25


def test_a_seeded_reset_forgets_the_last_task() -> None:
    """Even if the number of random draws at a reset depends on the task."""

    class FarFromTask(EarlyEnd):
        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
            result = super().reset(seed=seed, options=options)
            while abs(self.np_random.uniform() - self.get_task()) < 0.5:
                pass
            return result

    env = MultiEpisodeTrial(FarFromTask())
    for seed in range(20):
        task = env.reset(seed=seed)[1]["task"]
        env.reset(options={"task": 1.0 - task})
        assert env.reset(seed=seed)[1]["task"] == MultiEpisodeTrial(FarFromTask()).reset(seed=seed)[1]["task"] == task


def test_the_info_of_an_environment_is_its_own() -> None:
    class OneInfo(EarlyEnd):
        kept: ClassVar[dict[str, Any]] = {}

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
            return super().reset(seed=seed, options=options)[0], self.kept

        def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            return (*super().step(action)[:4], self.kept)

    env = MultiEpisodeTrial(OneInfo(), episodes_per_trial=3)
    first = env.reset(seed=0)[1]
    task, infos = first["task"], play_trial(env)
    assert not OneInfo.kept and first == {"task": task, "episode_index": 0, "new_episode": False}
    ends = [info for info in infos if "episode_returns" in info]
    assert len(ends) == 3 and all(set(info) == {"episode_index", "new_episode"} for info in infos if info not in ends)


@pytest.mark.parametrize("monitor", [Monitor, RecordEpisodeStatistics])
def test_an_inner_monitor_does_not_speak_for_the_trial(monitor: Any) -> None:
    env = MultiEpisodeTrial(monitor(EarlyEnd()), episodes_per_trial=3)
    env.reset(seed=0)
    for _ in range(5):
        infos = play_trial(env)
        assert not any("episode" in info or "TimeLimit.truncated" in info for info in infos)
        env.reset()


def test_an_outer_monitor_sees_whole_trials() -> None:
    env = Monitor(MultiEpisodeTrial(EarlyEnd(), episodes_per_trial=3), info_keywords=("episode_returns", "task"))
    _, info = env.reset(seed=0)
    task = info["task"]
    last = play_trial(env)[-1]
    assert last["episode"]["l"] == sum(last["episode_lengths"])
    assert last["episode"]["r"] == pytest.approx(sum(last["episode_returns"]), abs=1e-5)
    assert last["episode"]["task"] == task


def test_specs_are_recorded_and_make_the_same_environment() -> None:
    gym.register("EarlyEnd-v0", entry_point=EarlyEnd)
    try:
        inner = gym.make("EarlyEnd-v0")
        env: Any = MultiEpisodeTrial(inner, episodes_per_trial=3, trial_end="terminated", tasks=[0.1, 0.2])
        env = PreviousTransitionObservation(env, across_episodes="zero")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again: Any = gym.make(pickle.loads(pickle.dumps(env.spec)))
        assert again.spec == env.spec
        assert again.across_episodes == "zero"
        trials = again.env
        assert (trials.episodes_per_trial, trials.trial_end, trials.tasks) == (3, "terminated", (0.1, 0.2))
    finally:
        del gym.registry["EarlyEnd-v0"]


def test_examples_in_the_docstrings_run() -> None:
    for module, n_examples in ((multi_episode_trial, 5), (previous_transition, 6), (tasks, 4)):
        failed, attempted = doctest.testmod(module)
        assert attempted == n_examples and failed == 0
