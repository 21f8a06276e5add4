"""The two wrappers on a small environment that shows everything it does."""

import doctest
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation, RecordEpisodeStatistics, TimeLimit
from stable_baselines3.common.monitor import Monitor

from sb3_trmrl import MultiEpisodeTrial, PreviousTransitionObservation
from sb3_trmrl.trials import multi_episode_trial, previous_transition

PREVIOUS_KEYS = ("prev_action", "prev_reward", "prev_done")
ACTION_SPACES = {
    "box": spaces.Box(-2.0, 3.0, shape=(2, 2), dtype=np.float32),
    "discrete": spaces.Discrete(4),
    "discrete_start": spaces.Discrete(3, start=-1),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(3),
}


class Diary(gym.Env):
    """Random episode lengths, rewards, states and ends; the observation is [task, state, step in the episode]."""

    def __init__(self, action_space: spaces.Space = ACTION_SPACES["discrete"]) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, shape=(3,), dtype=np.float64)
        self.action_space = action_space
        self.task = -1.0
        self.options: list = []

    def sample_tasks(self, n):
        return self.np_random.uniform(size=n).tolist()

    def set_task(self, task):
        if not isinstance(task, float):
            raise TypeError(f"the task must be a float, got {task!r}")
        self.task = task

    def get_task(self):
        return self.task

    def _observation(self):
        return np.array([self.task, self.np_random.normal(), self.t])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.options.append(options)
        self.t = 0
        return self._observation(), {}

    def step(self, action):
        self.t += 1
        end = self.np_random.choice(["go on", "go on", "terminated", "truncated"])
        return self._observation(), self.np_random.normal(), end == "terminated", end == "truncated", {"own": self.t}


@pytest.mark.parametrize("name", sorted(ACTION_SPACES))
def test_encoded_actions_lie_in_their_space_and_are_told_apart(name):
    space = ACTION_SPACES[name]
    env = PreviousTransitionObservation(Diary(space))
    env.reset(seed=0)
    seen = {}
    for _ in range(100):
        action = space.sample()
        observation, *_ = env.step(action)
        assert env.observation_space.contains(observation)
        assert observation["prev_action"].dtype == np.float32
        seen[observation["prev_action"].tobytes()] = np.asarray(action).tobytes()
    assert len(set(seen.values())) == len(seen)
    assert len(seen) == {"box": 100, "discrete": 4, "discrete_start": 3, "multi_discrete": 6, "multi_binary": 8}[name]


def test_the_action_is_copied():
    env = PreviousTransitionObservation(Diary(ACTION_SPACES["box"]))
    env.reset(seed=0)
    action = np.ones((2, 2), dtype=np.float32)
    observation, *_ = env.step(action)
    action[:] = 2.0
    np.testing.assert_array_equal(observation["prev_action"], np.ones(4))


def test_box_bounds_are_those_of_the_action_and_the_observation_keeps_its_space():
    env = PreviousTransitionObservation(Diary(ACTION_SPACES["box"]))
    assert env.observation_space["prev_action"] == spaces.Box(-2.0, 3.0, shape=(4,), dtype=np.float32)
    assert env.observation_space["observation"] == Diary().observation_space
    assert env.observation_space["prev_reward"].shape == env.observation_space["prev_done"].shape == (1,)


def test_works_without_trials_and_flattens_to_one_box():
    env = FlattenObservation(PreviousTransitionObservation(gym.make("CartPole-v1")))
    observation, _ = env.reset(seed=1)
    assert env.observation_space.shape == observation.shape == (4 + 2 + 1 + 1,)
    assert env.observation_space.contains(observation)
    terminated = False
    while not terminated:
        observation, _, terminated, _, _ = env.step(1)
        assert env.observation_space.contains(observation)
    # Action 1 of two, and reward and done in either order.
    assert observation[4:].tolist() == [0.0, 1.0, 1.0, 1.0]


def test_stepping_before_reset_and_after_the_end():
    env = MultiEpisodeTrial(Diary(), episodes_per_trial=2)
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        env.step(0)
    env.reset(seed=0)
    play_trial(env)
    with pytest.raises(gym.error.ResetNeeded, match="end of a trial"):
        env.step(0)
    env.reset()
    env.step(0)


def play_trial(env):
    infos, ended = [], False
    while not ended:
        _, _, terminated, truncated, info = env.step(env.action_space.sample())
        infos.append(info)
        ended = terminated or truncated
    return infos


def test_a_task_of_the_wrong_type_is_an_error_and_leaves_the_trial_closed():
    env = MultiEpisodeTrial(Diary())
    env.reset(seed=0)
    with pytest.raises(TypeError, match="must be a float"):
        env.reset(options={"task": "fast"})
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)


def test_task_methods_of_an_inner_wrapper_are_found():
    class Tasks(gym.Wrapper):
        def sample_tasks(self, n):
            return [0.5] * n

    env = MultiEpisodeTrial(TimeLimit(Tasks(Diary()), 3))
    assert env.reset(seed=0)[1]["task"] == 0.5


def test_given_task_holds_for_one_trial_and_other_options_reach_every_inner_reset():
    env = MultiEpisodeTrial(Diary(), episodes_per_trial=3)
    _, info = env.reset(seed=0, options={"task": 0.25, "start": "low"})
    assert info["task"] == 0.25
    infos = play_trial(env)
    assert infos[-1]["task"] == 0.25
    assert env.unwrapped.options == [{"start": "low"}] * 3
    assert env.reset()[1]["task"] != 0.25
    assert env.unwrapped.options[-1] is None


def test_tasks_are_visited_in_turn_from_the_first_after_a_seed():
    env = MultiEpisodeTrial(Diary(), episodes_per_trial=1, tasks=np.array([0.1, 0.2, 0.3]))
    assert [env.reset()[1]["task"] for _ in range(4)] == [0.1, 0.2, 0.3, 0.1]
    # A given task comes in between, a seed starts from the first.
    assert env.reset(options={"task": 0.9})[1]["task"] == 0.9
    assert env.reset()[1]["task"] == 0.2
    assert [env.reset(seed=7)[1]["task"], env.reset()[1]["task"]] == [0.1, 0.2]


@pytest.mark.parametrize("tasks", [None, [0.1, 0.2]])
def test_same_seed_same_run_and_different_seeds_differ(tasks):
    def run(seed, env):
        observation, info = env.reset(seed=seed)
        log = [observation.tolist(), info["task"]]
        for _ in range(30):
            observation, reward, terminated, truncated, info = env.step(0)
            log += [observation.tolist(), reward, terminated, truncated, sorted(info.items())]
            if terminated or truncated:
                observation, info = env.reset()
                log += [observation.tolist(), info["task"]]
        return log

    used = MultiEpisodeTrial(Diary(), tasks=tasks)
    used.reset(seed=99)
    play_trial(used)
    assert run(3, used) == run(3, MultiEpisodeTrial(Diary(), tasks=tasks))
    assert run(3, used) != run(4, used)


def test_task_and_initial_state_are_not_made_of_the_same_random_numbers():
    # One uniform number each: drawn twice from the start of one stream they would be equal for every seed.
    class OneNumber(Diary):
        def _observation(self):
            return np.full(3, self.np_random.uniform())

    env = MultiEpisodeTrial(OneNumber())
    pairs = []
    for seed in range(200):
        observation, info = env.reset(seed=seed)
        pairs.append((info["task"], observation[0]))
    assert abs(np.corrcoef(np.array(pairs).T)[0, 1]) < 0.25


@pytest.mark.parametrize("monitor", [Monitor, RecordEpisodeStatistics])
def test_an_inner_monitor_does_not_speak_for_the_trial(monitor):
    env = MultiEpisodeTrial(monitor(Diary()), episodes_per_trial=3)
    env.reset(seed=0)
    for _ in range(5):
        infos = play_trial(env)
        assert not any("episode" in info or "TimeLimit.truncated" in info for info in infos)
        env.reset()


def test_an_outer_monitor_sees_whole_trials():
    env = Monitor(MultiEpisodeTrial(Diary(), episodes_per_trial=3), info_keywords=("episode_returns", "task"))
    _, info = env.reset(seed=0)
    task = info["task"]
    last = play_trial(env)[-1]
    assert last["episode"]["l"] == sum(last["episode_lengths"])
    assert last["episode"]["r"] == pytest.approx(sum(last["episode_returns"]), abs=1e-5)
    assert last["episode"]["task"] == task


def test_specs_are_recorded_and_make_the_same_environment():
    gym.register("Diary-v0", entry_point=Diary)
    try:
        env = MultiEpisodeTrial(gym.make("Diary-v0"), episodes_per_trial=3, trial_end="terminated", tasks=[0.1, 0.2])
        env = PreviousTransitionObservation(env, across_episodes="zero")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = gym.make(pickle.loads(pickle.dumps(env.spec)))
        assert again.spec == env.spec
        assert again.across_episodes == "zero"
        trials = again.env
        assert (trials.episodes_per_trial, trials.trial_end, trials.tasks) == (3, "terminated", (0.1, 0.2))
    finally:
        del gym.registry["Diary-v0"]


def test_examples_in_the_docstrings_run():
    for module, n_examples in ((multi_episode_trial, 5), (previous_transition, 6)):
        failed, attempted = doctest.testmod(module)
        assert attempted == n_examples and failed == 0
