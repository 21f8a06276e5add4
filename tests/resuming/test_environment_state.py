"""An environment that goes on from another one's state does exactly what that one does."""

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack, VecNormalize

import sb3_trmrl  # noqa: F401  (registers the environments)
from sb3_trmrl import MultiEpisodeTrial, PreviousTransitionObservation
from sb3_trmrl.resuming.vec_env_state import set_vec_env_state, vec_env_state
from tests.helpers.families import EarlyEnd, early_end
from tests.helpers.resuming import assert_same

SHORT = {"HalfCheetahVel-v0": 30, "HalfCheetahDir-v0": 30, "AntDir-v0": 30, "MetaWorldML10-v0": 30}
OTHERS = ("BernoulliBandit-v0", "TabularMDP-v0", "GridNavi-v0", "DarkKeyToDoor-v0", "SparsePointRobot-v0")


def play(env: Any, actions: list[Any]) -> list[Any]:
    """What an environment says to some actions; a new trial is begun where one ends."""
    said = []
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        said.append([observation, reward, terminated, truncated, {k: v for k, v in info.items() if k != "episode"}])
        if terminated or truncated:
            said.append(list(env.reset()))
    return said


def draw(env: Any, n: int, seed: int) -> list[Any]:
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(n)]


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("env_id", [*SHORT, *OTHERS])
def test_every_environment_goes_on_to_the_last_bit(
    env_id: str, split: str, few_goals: None, recwarn: pytest.WarningsRecorder
) -> None:
    kwargs: dict[str, Any] = {"split": split, **({"horizon": SHORT[env_id]} if env_id in SHORT else {})}
    first, second = (gym.make(env_id, **kwargs) for _ in range(2))
    first.reset(seed=3)
    play(first, draw(first, 47, seed=1))
    state = pickle.loads(pickle.dumps(first.get_wrapper_attr("state_dict")()))
    second.reset(seed=99)
    play(second, draw(second, 3, seed=2))
    second.get_wrapper_attr("load_state_dict")(state)
    actions = draw(first, 150, seed=4)  # beyond the end of a trial
    assert_same([repr(each) for each in play(first, actions)], [repr(each) for each in play(second, actions)])


def test_a_state_is_a_copy() -> None:
    env = gym.make("SparsePointRobot-v0")
    env.reset(seed=0)
    state = env.get_wrapper_attr("state_dict")()
    actions = draw(env, 30, seed=0)
    before = play(env, actions)
    env.get_wrapper_attr("load_state_dict")(state)
    again = play(env, actions)
    env.get_wrapper_attr("load_state_dict")(state)
    assert repr(before) == repr(again) == repr(play(env, actions))


class Counting(EarlyEnd):
    """EarlyEnd, with the two methods that a user would write."""

    def state_dict(self) -> dict[str, Any]:
        return {"task": self.task, "ones": self.ones, "time": self.time, "generator": self.np_random}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.task, self.ones, self.time = state["task"], state["ones"], state["time"]
        self.np_random = state["generator"]


def own_environment() -> gym.Env:
    return PreviousTransitionObservation(MultiEpisodeTrial(TimeLimit(Counting(), 7), episodes_per_trial=3))


def test_a_users_environment_with_the_two_methods_inside_a_time_limit() -> None:
    first, second = own_environment(), own_environment()
    first.reset(seed=1)
    play(first, draw(first, 11, seed=1))
    state = pickle.loads(pickle.dumps(first.get_wrapper_attr("state_dict")()))
    second.reset(seed=2)
    second.get_wrapper_attr("load_state_dict")(state)
    actions = draw(first, 60, seed=3)
    assert repr(play(first, actions)) == repr(play(second, actions))


def test_without_the_methods_a_trial_says_that_it_cannot() -> None:
    env = early_end()
    env.reset(seed=0)
    assert env.get_wrapper_attr("state_dict")() is None


def vec_env(kind: type[VecEnv], seed: int) -> VecEnv:
    env = make_vec_env("sb3_trmrl:SparsePointRobot-v0", 2, seed=seed, vec_env_cls=kind)  # type: ignore[arg-type]
    return VecFrameStack(VecNormalize(env, gamma=0.9), 2)


def steps(env: VecEnv, n: int, seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    said = []
    for actions in rng.uniform(-1, 1, size=(n, 2, 2)).astype(np.float32):
        observations, rewards, dones, infos = env.step(actions)
        episodes = [{key: value for key, value in info.get("episode", {}).items() if key != "t"} for info in infos]
        said.append([observations, rewards, dones, episodes])
    return said


@pytest.mark.parametrize("kind", [DummyVecEnv, SubprocVecEnv])
def test_a_vectorised_environment_goes_on_with_its_wrappers(kind: type[VecEnv]) -> None:
    first, second = vec_env(kind, seed=0), vec_env(DummyVecEnv, seed=50)
    first.reset()
    steps(first, 33, seed=0)
    state = pickle.loads(pickle.dumps(vec_env_state(first)))
    assert set_vec_env_state(second, state)
    # Monitor's sums of rewards among it, over the end of a trial of 80 steps
    assert_same(steps(first, 120, seed=1), steps(second, 120, seed=1))
    first.close()


def test_seeds_that_wait_for_the_first_reset_are_kept() -> None:
    state = vec_env_state(vec_env(DummyVecEnv, seed=5))
    first, second = vec_env(DummyVecEnv, seed=5), vec_env(DummyVecEnv, seed=6)
    set_vec_env_state(second, state)
    assert_same(first.reset(), second.reset())
    assert_same(steps(first, 100, seed=1), steps(second, 100, seed=1))


def test_other_wrappers_and_numbers_are_refused() -> None:
    state = vec_env_state(vec_env(DummyVecEnv, seed=0))
    with pytest.raises(ValueError, match=r"`env` must have 2 environments.*it has 3"):
        set_vec_env_state(make_vec_env("SparsePointRobot-v0", 3), state)
    with pytest.raises(ValueError, match=r"`env` must be VecFrameStack around VecNormalize.*it is DummyVecEnv"):
        set_vec_env_state(make_vec_env("SparsePointRobot-v0", 2), state)


def test_environments_without_state_begin_anew_with_their_generators() -> None:
    def make(seed: int) -> VecEnv:
        return make_vec_env("CartPole-v1", 2, seed=seed)

    first, second = make(0), make(9)
    first.reset()
    first.step(np.zeros(2, dtype=int))
    state = pickle.loads(pickle.dumps(vec_env_state(first)))
    assert state["environments"] is None
    assert not set_vec_env_state(second, state)
    np.testing.assert_array_equal(second.reset(), first.reset())


def test_environments_without_state_keep_seeds_that_wait() -> None:
    state = pickle.loads(pickle.dumps(vec_env_state(make_vec_env("CartPole-v1", 2, seed=5))))
    first, second = (make_vec_env("CartPole-v1", 2, seed=seed) for seed in (5, 6))
    assert not set_vec_env_state(second, state)
    np.testing.assert_array_equal(second.reset(), first.reset())


def test_no_state_holds_an_environment() -> None:
    """States cross the borders of processes."""
    env = gym.make("GridNavi-v0")
    env.reset(seed=0)

    def walk(value: Any) -> None:
        assert not isinstance(value, (gym.Env, spaces.Space))
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
            walk(each)

    walk(env.get_wrapper_attr("state_dict")())
