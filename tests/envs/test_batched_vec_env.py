"""BatchedVecEnv returns, records and saves the same as DummyVecEnv, for every family and any arguments."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_trmrl.envs.batched_vec_env import BatchedVecEnv, batched_if_possible
from sb3_trmrl.envs.grid import GridNaviEnv
from sb3_trmrl.resuming.vec_env_state import set_vec_env_state, vec_env_state
from sb3_trmrl.trials.held_out import share_tasks
from tests.helpers.resuming import assert_same

#: Arguments of each family under which several trials end within a hundred steps
FAMILIES: dict[str, dict[str, Any]] = {
    "BernoulliBandit-v0": {"n_arms": 3, "mean_range": (0.2, 0.7), "n_pulls": 7},
    "TabularMDP-v0": {"n_states": 4, "n_actions": 3, "horizon": 6, "dirichlet_alpha": 0.1, "reward_prior": (-1.0, 3.0)},
    "GridNavi-v0": {"size": 3, "horizon": 8},
    "DarkKeyToDoor-v0": {"size": 4, "horizon": 13},
    "SparsePointRobot-v0": {"horizon": 9, "goal_radius": 0.9},
}
#: Arguments of the trials
TRIALS: tuple[dict[str, Any], ...] = (
    {},
    {"reveal_task": True, "across_episodes": "zero", "episodes_per_trial": 3, "trial_end": "truncated"},
    {"previous_transition": False, "trial_end": "terminated", "split": "validation"},
    {"previous_transition": False, "reveal_task": True, "episodes_per_trial": 1},
)


def described(value: Any) -> Any:
    """Return a value with the types of everything in it, in a form that can be compared, without times."""
    if isinstance(value, dict):
        return {key: described(each) for key, each in value.items() if key != "t"}
    if isinstance(value, (list, tuple)):
        return type(value), [described(each) for each in value]
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tolist()
    return type(value), value


def actions_of(env: VecEnv, n: int, seed: int) -> list[np.ndarray]:
    env.action_space.seed(seed)
    return [np.array([env.action_space.sample() for _ in range(env.num_envs)]) for _ in range(n)]


def assert_same_steps(first: VecEnv, second: VecEnv, actions: list[np.ndarray]) -> None:
    for action in actions:
        both = [(*env.step(action), env.reset_infos) for env in (first, second)]
        for expected, found in zip(*both, strict=True):
            assert described(expected) == described(found)


def states_of(env: VecEnv) -> Any:
    """Return the state of each copy, without times and the identity of its generator."""
    text = repr(vec_env_state(env)["environments"])
    return re.sub(r"'(t_start|episode_times)': (\[.*?\]|[^,]*)|0x\w+", "", text)


def make_both(env_id: str, n_envs: int = 3, **env_kwargs: Any) -> tuple[VecEnv, VecEnv]:
    """Return both kinds with the same seeds, after their first reset."""
    first, second = (
        make_vec_env(env_id, n_envs, seed=5, env_kwargs=env_kwargs, vec_env_cls=kind)
        for kind in (DummyVecEnv, BatchedVecEnv)
    )
    if env_kwargs.get("split", "train") != "train":
        share_tasks(first), share_tasks(second)
    assert_same(first.reset(), second.reset())
    assert_same(first.reset_infos, second.reset_infos)
    return first, second


@pytest.mark.filterwarnings("ignore:several copies of an environment visit the same tasks")  # of both kinds
@pytest.mark.parametrize("trials", TRIALS)
@pytest.mark.parametrize("env_id", FAMILIES)
def test_same_steps(env_id: str, trials: dict[str, Any]) -> None:
    first, second = make_both(env_id, **FAMILIES[env_id], **trials)
    assert_same_steps(first, second, actions_of(first, 110, seed=1))
    # Another seed, and a task that is given, begin in the middle of a trial
    for env in (first, second):
        env.seed(8)
        env.set_options([{}, {"task": env.env_method("held_out_tasks", "test", 1)[0][0]}, {}])
    assert_same(first.reset(), second.reset())
    assert_same_steps(first, second, actions_of(first, 40, seed=2))


@pytest.mark.parametrize("env_id", FAMILIES)
def test_same_steps_with_default_arguments(env_id: str) -> None:
    first, second = make_both(env_id, n_envs=2)
    assert_same_steps(first, second, actions_of(first, 230, seed=1))


@pytest.mark.parametrize("env_id", FAMILIES)
def test_copies_are_up_to_date_and_may_be_changed(env_id: str) -> None:
    first, second = make_both(env_id, **FAMILIES[env_id], episodes_per_trial=2, reveal_task=True)
    for round_ in range(24):
        assert_same_steps(first, second, actions_of(first, 1 + round_ % 3, seed=round_))
        assert states_of(first) == states_of(second)
        if round_ % 8 == 7:  # the copies get to different steps of their trials
            assert_same(first.render(mode="rgb_array"), second.render(mode="rgb_array"))
            assert_same(*(env.env_method("reset", indices=round_ // 8) for env in (first, second)))
    assert_same_steps(first, second, actions_of(first, 60, seed=9))
    for name in ("get_total_steps", "get_episode_rewards", "get_episode_lengths"):
        assert first.env_method(name) == second.env_method(name)


def test_copies_may_differ_later() -> None:
    first, second = make_both("GridNavi-v0", n_envs=3, episodes_per_trial=3)
    for env in (first, second):
        env.env_method("set_wrapper_attr", "horizon", 5, indices=1)
    assert_same_steps(first, second, actions_of(first, 20, seed=1))
    for env in (first, second):
        env.env_method("set_wrapper_attr", "across_episodes", "zero", indices=[0, 1])
    assert_same_steps(first, second, actions_of(first, 60, seed=2))


@pytest.mark.parametrize("made", [(DummyVecEnv, BatchedVecEnv), (BatchedVecEnv, DummyVecEnv)])
@pytest.mark.parametrize("env_id", FAMILIES)
def test_each_continues_from_the_state_of_the_other(env_id: str, made: tuple[Any, Any]) -> None:
    first, second = (
        make_vec_env(env_id, 3, seed=seed, env_kwargs={**FAMILIES[env_id], "reveal_task": True}, vec_env_cls=kind)
        for seed, kind in enumerate(made)
    )
    first.reset(), second.reset()
    for action in actions_of(first, 23, seed=0):
        first.step(action)
    for action in actions_of(second, 4, seed=1):
        second.step(action)
    assert set_vec_env_state(second, vec_env_state(first))
    second.reset_infos = list(first.reset_infos)  # which are not part of it
    assert_same_steps(first, second, actions_of(first, 70, seed=2))


def test_same_monitor_files(tmp_path: Path) -> None:
    written = []
    for kind in (DummyVecEnv, BatchedVecEnv):
        folder = str(tmp_path / kind.__name__)
        env = make_vec_env(
            "GridNavi-v0", 2, seed=0, start_index=3, monitor_dir=folder, vec_env_cls=kind,
            monitor_kwargs={"info_keywords": ("episode_lengths",)},
        )  # fmt: skip
        env.reset()
        for action in actions_of(env, 130, seed=0):
            env.step(action)
        env.close()
        files = sorted(Path(folder).iterdir())
        assert [file.name for file in files] == ["3.monitor.csv", "4.monitor.csv"]
        lines = [file.read_text().splitlines()[1:] for file in files]
        written.append([[line.split(",")[:2] + line.split(",")[3:] for line in each] for each in lines])
    assert written[0] == written[1]
    assert [len(lines) for lines in written[0]] == [1 + 130 // 60] * 2


def test_what_is_returned_is_never_changed_later() -> None:
    env = make_both("GridNavi-v0", **FAMILIES["GridNavi-v0"], reveal_task=True)[1]
    returned, texts = [], []
    for action in actions_of(env, 80, seed=0):
        returned.append(env.step(action))
        texts.append(repr(returned[-1]))
        for info in returned[-1][3]:
            info["mine"] = True  # as callers do
    for step, text in zip(returned, texts, strict=True):
        for info in step[3]:
            del info["mine"]
        assert repr(step) == text


@pytest.mark.parametrize("env_id", FAMILIES)
def test_same_errors(env_id: str) -> None:
    first, second = make_both(env_id)
    good = actions_of(first, 1, seed=0)[0]
    assert_same_steps(first, second, [good] * 3)
    bad: list[Any] = [good[:0], good[:, None], np.where(np.arange(3) == 1, good.T * 0 - 7, good.T).T]
    if isinstance(first.action_space, gym.spaces.Box):
        bad[-1] = good * np.nan
    for actions in bad:
        said = []
        for env in (first, second):
            with pytest.raises(Exception) as error:
                env.step(actions)
            said.append((type(error.value), str(error.value)))
        assert said[0] == said[1]
    fresh = make_vec_env(env_id, 2, vec_env_cls=BatchedVecEnv)
    with pytest.raises(RuntimeError, match="needs reset"):
        fresh.step(good[:2])


class Slippery(GridNaviEnv):
    """Other steps than those of its base class."""


UNSUITED: dict[str, Callable[[], gym.Env]] = {
    "CartPoleEnv is not one": partial(gym.make, "CartPole-v1"),
    "Slippery is not one": Slippery,
    "the wrappers of": lambda: TimeLimit(gym.make("GridNavi-v0"), 7),
    "`render_mode` is": partial(gym.make, "GridNavi-v0", render_mode="human"),
    "are not those": GridNaviEnv,
}


@pytest.mark.parametrize("reason", UNSUITED)
def test_other_environments_are_refused_or_stepped_one_by_one(reason: str) -> None:
    with pytest.raises(ValueError, match=f"`env_fns` must make environments .*{reason}"):
        BatchedVecEnv([UNSUITED[reason]] * 2)
    assert type(batched_if_possible([UNSUITED[reason]] * 2)) is DummyVecEnv


def test_copies_must_be_of_one_kind() -> None:
    different: tuple[dict[str, Any], ...] = ({"size": 6}, {"horizon": 9}, {"across_episodes": "zero"})
    first, *others = (partial(gym.make, "GridNavi-v0", **kwargs) for kwargs in ({}, *different))
    for other in (*others, lambda: Monitor(first())):
        with pytest.raises(ValueError, match="differs from the first one"):
            BatchedVecEnv([first, other])


@pytest.mark.parametrize("n_envs", [1, 2])
def test_any_number_of_copies(n_envs: int) -> None:
    assert type(batched_if_possible([partial(gym.make, "GridNavi-v0")] * n_envs)) is BatchedVecEnv
    first, second = make_both("GridNavi-v0", n_envs)
    assert_same_steps(first, second, actions_of(first, 70, seed=1))
