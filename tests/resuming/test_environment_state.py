"""An environment that continues from the state of another one behaves in exactly the same way."""

import pickle
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces, wrappers
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack, VecNormalize

from sb3_trmrl import MultiEpisodeTrial, PreviousTransitionObservation
from sb3_trmrl.envs.bandit import BernoulliBanditEnv
from sb3_trmrl.resuming.vec_env_state import set_vec_env_state, vec_env_state
from tests.helpers.environments import EarlyEnd, early_end
from tests.helpers.resuming import ENV, assert_same, make_env

SHORT = {"HalfCheetahVel-v0": 30, "HalfCheetahDir-v0": 30, "AntDir-v0": 30, "MetaWorldML10-v0": 30}
OTHERS = ("BernoulliBandit-v0", "TabularMDP-v0", "GridNavi-v0", "DarkKeyToDoor-v0", "SparsePointRobot-v0")


def play(env: Any, actions: list[Any]) -> list[str]:
    """Return everything that an environment returns, beginning a new trial where one ends."""
    said = []
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        said.append([observation, reward, terminated, truncated, {k: v for k, v in info.items() if k != "episode"}])
        if terminated or truncated:
            said.append(list(env.reset()))
    return [repr(each) for each in said]


def draw(env: Any, n: int, seed: int) -> list[Any]:
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(n)]


def sent(state: Any) -> Any:
    """A state as another process receives it."""
    return pickle.loads(pickle.dumps(state))


def assert_continues(make: Callable[[], gym.Env], before: int, after: int) -> None:
    """Play, load the state into another environment with a different past, and compare what follows."""
    first, second = make(), make()
    first.reset(seed=3)
    play(first, draw(first, before, seed=1))
    state = sent(first.get_wrapper_attr("state_dict")())
    second.reset(seed=99)
    play(second, draw(second, 3, seed=2))
    second.get_wrapper_attr("load_state_dict")(state)
    actions = draw(first, after, seed=4)
    assert play(first, actions) == play(second, actions)


@pytest.mark.filterwarnings("ignore:several copies of an environment visit the same tasks")
@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("env_id", [*SHORT, *OTHERS])
def test_every_environment_continues_bit_for_bit(env_id: str, split: str, few_goals: None) -> None:
    kwargs: dict[str, Any] = {"split": split, **({"horizon": SHORT[env_id]} if env_id in SHORT else {})}
    assert_continues(partial(gym.make, env_id, **kwargs), before=47, after=150)  # beyond the end of a trial


def test_a_state_is_a_copy() -> None:
    env = gym.make("SparsePointRobot-v0")
    env.reset(seed=0)
    state = env.get_wrapper_attr("state_dict")()
    actions = draw(env, 30, seed=0)
    before = play(env, actions)
    env.get_wrapper_attr("load_state_dict")(state)
    again = play(env, actions)
    env.get_wrapper_attr("load_state_dict")(state)
    assert before == again == play(env, actions)


class Counting(EarlyEnd):
    """EarlyEnd, with the two methods that a user would write."""

    def state_dict(self) -> dict[str, Any]:
        return {"task": self.task, "ones": self.ones, "time": self.time, "generator": self.np_random}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.task, self.ones, self.time = state["task"], state["ones"], state["time"]
        self.np_random = state["generator"]


def test_a_users_environment_with_the_two_methods_inside_a_time_limit() -> None:
    def make() -> gym.Env:
        trials = MultiEpisodeTrial(wrappers.TimeLimit(Counting(), 7), episodes_per_trial=3)
        return PreviousTransitionObservation(trials)

    assert_continues(make, before=11, after=60)


def test_trials_of_an_environment_without_the_methods_have_no_state() -> None:
    env = early_end()
    env.reset(seed=0)
    assert env.get_wrapper_attr("state_dict")() is None


def test_no_state_holds_an_environment() -> None:
    """States are sent to other processes."""
    env = gym.make("GridNavi-v0")
    env.reset(seed=0)

    def walk(value: Any) -> None:
        assert not isinstance(value, (gym.Env, spaces.Space))
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
            walk(each)

    walk(env.get_wrapper_attr("state_dict")())


class Simulated(BernoulliBanditEnv):
    """A family around a simulator, without methods of its own for its state."""

    def __init__(self) -> None:
        super().__init__()
        self.simulator = gym.make("Pendulum-v1")


def test_a_family_around_a_simulator_has_no_state_without_its_own_methods() -> None:
    assert Simulated().state_dict() is None
    trials = MultiEpisodeTrial(Simulated())
    assert trials.state_dict() is not None  # before it begins there is nothing to keep
    trials.reset(seed=0)
    assert trials.state_dict() is None


# -- Outer layers ------------------------------------------------------------------------------------------------------


class Opaque(gym.Wrapper):
    """A user's wrapper with a state that cannot be read."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.noise = Random(0)


class Forwarding(gym.Wrapper):
    """A user's wrapper with a state, which passes on all attributes of the layers inside."""

    count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def step(self, action: Any) -> Any:
        observation, reward, *rest = self.env.step(action)
        self.count += 1
        return observation, float(reward) + self.count, *rest


def inside(layer: Callable[[gym.Env], gym.Env]) -> gym.Env:
    return layer(gym.make(ENV, previous_transition=False))


def functions(env: gym.Env) -> gym.Env:
    observed = wrappers.TransformObservation(env, lambda obs: np.clip(obs, -9, 9), spaces.Box(-9, 9, (2,)))
    observed = wrappers.FlattenObservation(wrappers.RescaleObservation(observed, np.float32(0), np.float32(1)))
    observed = wrappers.ReshapeObservation(wrappers.DtypeObservation(observed, np.dtype(np.float64)), (1, 2))
    acting = wrappers.ClipAction(wrappers.RescaleAction(observed, np.float32(-2), np.float32(2)))
    return wrappers.TransformReward(wrappers.ClipReward(acting, -0.5, 0.5), lambda reward: 2 * reward)


OUTER_LAYERS: dict[str, Callable[[gym.Env], gym.Env]] = {
    "no wrapper at all": lambda env: env.unwrapped,
    "frames of frames": lambda env: wrappers.FrameStackObservation(wrappers.FrameStackObservation(env, 3), 2),
    "statistics": lambda env: wrappers.NormalizeReward(
        wrappers.NormalizeObservation(wrappers.RecordEpisodeStatistics(wrappers.TimeLimit(env, 30)))
    ),
    "delay": lambda env: wrappers.DelayObservation(env, 2),
    "functions": functions,
    "forwarding": Forwarding,
    "keys": lambda env: wrappers.FilterObservation(PreviousTransitionObservation(env.unwrapped), ["prev_action"]),
}


OUTER_LAYERS_IN_WORKERS = ("no wrapper at all", "frames of frames")
LAYERS = [*((name, DummyVecEnv) for name in OUTER_LAYERS), *((name, SubprocVecEnv) for name in OUTER_LAYERS_IN_WORKERS)]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # by Gymnasium's DtypeObservation
@pytest.mark.parametrize(("name", "kind"), LAYERS)
def test_outer_layers_continue(name: str, kind: Any) -> None:
    first, second = (kind([partial(inside, OUTER_LAYERS[name])] * 2) for _ in range(2))
    assert_continues_vectorised(first, second)
    first.close(), second.close()


@pytest.mark.parametrize("kind", [DummyVecEnv, SubprocVecEnv])
def test_outer_layer_with_a_state_that_cannot_be_read(kind: Any) -> None:
    env = kind([partial(inside, Opaque)])
    env.reset()
    assert vec_env_state(env)["environments"] is None
    env.close()


def test_a_wrapper_inside_a_trial_is_asked_too() -> None:
    stacked, opaque = (
        MultiEpisodeTrial(layer(gym.make(ENV).unwrapped))
        for layer in (partial(wrappers.FrameStackObservation, stack_size=2), Opaque)
    )
    stacked.reset(), opaque.reset()
    state = stacked.state_dict()
    assert state is not None and "obs_queue" in dict(state["layers"])["FrameStackObservation"]
    assert opaque.state_dict() is None


def test_asking_leaves_nothing_behind() -> None:
    env = make_env()
    env.reset()
    before = [set(vars(each)) for each in env.envs]  # type: ignore[attr-defined]
    vec_env_state(env)
    assert [set(vars(each)) for each in env.envs] == before  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_other_layers_are_refused() -> None:
    first, second = (DummyVecEnv([partial(inside, OUTER_LAYERS[name])]) for name in ("frames of frames", "functions"))
    first.reset()
    with pytest.raises(ValueError, match=r"must have a layer FrameStackObservation, as .*; it has TransformReward"):
        set_vec_env_state(second, vec_env_state(first))


# -- Vectorised environments -------------------------------------------------------------------------------------------


def vec_env(kind: type[VecEnv], seed: int) -> VecEnv:
    return VecFrameStack(VecNormalize(make_env(kind=kind, seed=seed), gamma=0.9), 2)


def steps(env: VecEnv, n: int, seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    said = []
    for actions in rng.uniform(-1, 1, size=(n, 2, 2)).astype(np.float32):
        observations, rewards, dones, infos = env.step(actions)
        episodes = [{key: value for key, value in info.get("episode", {}).items() if key != "t"} for info in infos]
        said.append([observations, rewards, dones, episodes])
    return said


def assert_continues_vectorised(first: VecEnv, second: VecEnv) -> None:
    first.reset()
    steps(first, 33, seed=0)
    assert set_vec_env_state(second, sent(vec_env_state(first)))
    # Over the end of a trial of 80 steps, which shows Monitor's sums of rewards
    assert_same(steps(first, 120, seed=1), steps(second, 120, seed=1))


@pytest.mark.parametrize("kind", [DummyVecEnv, SubprocVecEnv])
def test_vectorised_environment_continues_with_its_wrappers(kind: type[VecEnv]) -> None:
    first = vec_env(kind, seed=0)
    assert_continues_vectorised(first, vec_env(DummyVecEnv, seed=50))
    first.close()


def test_seeds_of_the_first_reset_are_kept() -> None:
    state = vec_env_state(vec_env(DummyVecEnv, seed=5))
    first, second = vec_env(DummyVecEnv, seed=5), vec_env(DummyVecEnv, seed=6)
    set_vec_env_state(second, state)
    assert_same(first.reset(), second.reset())
    assert_same(steps(first, 100, seed=1), steps(second, 100, seed=1))


def test_other_wrappers_and_numbers_are_refused() -> None:
    state = vec_env_state(vec_env(DummyVecEnv, seed=0))
    with pytest.raises(ValueError, match=r"`env` must have 2 environments.*it has 3"):
        set_vec_env_state(make_env(n_envs=3), state)
    with pytest.raises(ValueError, match=r"`env` must be VecFrameStack around VecNormalize.*it is DummyVecEnv"):
        set_vec_env_state(make_env(), state)


@pytest.mark.parametrize("has_begun", [True, False])
def test_environments_without_state_keep_generators_and_seeds(has_begun: bool) -> None:
    first, second = make_env("CartPole-v1", seed=5), make_env("CartPole-v1", seed=6)
    if has_begun:
        first.reset()
        first.step(np.zeros(2, dtype=int))
    state = sent(vec_env_state(first))
    assert state["environments"] is None
    assert not set_vec_env_state(second, state)
    np.testing.assert_array_equal(second.reset(), first.reset())


def test_vectorised_environment_without_access() -> None:
    class Closed(DummyVecEnv):
        def has_attr(self, attr_name: str) -> bool:
            raise NotImplementedError

    state = vec_env_state(Closed([lambda: gym.make(ENV)]))
    assert state["environments"] is None and state["generators"] == []
