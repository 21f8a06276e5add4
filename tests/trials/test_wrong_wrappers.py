"""Wrong uses of the wrappers."""

from typing import Any

import gymnasium as gym
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation, TimeLimit

from sb3_trmrl import MultiEpisodeTrial, PreviousTransitionObservation
from sb3_trmrl.envs.tasks import TaskObservation
from tests.helpers import wrong_use as w
from tests.helpers.agents import SampledEnv
from tests.helpers.environments import EarlyEnd


def test_action_of_another_space_reaches_no_observation() -> None:
    env = PreviousTransitionObservation(SampledEnv(action_space=spaces.Discrete(4)))
    env.reset(seed=0)
    for value in (-1, 4, [0, 1], 1.5, "up", None):
        w.Wrong("action", value, ValueError, "Discrete(4)").check(env.step)


def test_a_family_without_actions_that_can_be_told() -> None:
    env = SampledEnv(action_space=spaces.Tuple([spaces.Discrete(2)]))
    w.Wrong("env", env, TypeError, "MultiDiscrete", quoted="Tuple").check(PreviousTransitionObservation)


class Incomplete(EarlyEnd):
    """A family without one of the methods."""

    set_task = None  # type: ignore[assignment]


def two_tasks(n: int) -> list[float]:
    return [0.5, 0.5]


NO_ENVIRONMENT = w.rows("env", (5, "GridNavi-v0", None, EarlyEnd), TypeError, "a Gymnasium environment")
TRIAL = [
    *NO_ENVIRONMENT,
    w.Wrong("env", gym.make("CartPole-v1"), TypeError, "lacks sample_tasks, set_task, get_task", quoted="CartPole-v1"),
    w.Wrong("env", Incomplete(), TypeError, "lacks set_task", quoted="Incomplete"),
    *(
        w.Wrong("env", env, ValueError, "PreviousTransitionObservation(MultiEpisodeTrial(env))", quoted=quoted)
        for env, quoted in (
            (PreviousTransitionObservation(EarlyEnd()), "already contains PreviousTransitionObservation"),
            (
                TimeLimit(FlattenObservation(PreviousTransitionObservation(EarlyEnd())), 9),
                "already contains PreviousTransitionObservation",
            ),
            (MultiEpisodeTrial(EarlyEnd()), "already contains MultiEpisodeTrial"),
            (gym.make("GridNavi-v0"), "registers contain both"),
        )
    ),
    *w.wrong_integer("episodes_per_trial"),
    *w.wrong_option("trial_end", "terminated", or_none=True),
    *w.rows("tasks", (3, "abc", b"abc"), TypeError, "a sequence of tasks"),
    w.Wrong("tasks", [], ValueError, "at least one task", quoted="()"),
]
PREVIOUS_KEYS = ("prev_action", "prev_reward", "prev_done")
PREVIOUS = [
    *NO_ENVIRONMENT,
    *(
        w.Wrong("env", env, ValueError, "none of the new keys", quoted=repr(key))
        for env, key in (
            (PreviousTransitionObservation(EarlyEnd()), "prev_action"),
            *((SampledEnv(spaces.Dict({key: spaces.Discrete(2)})), key) for key in PREVIOUS_KEYS),
        )
    ),
    *w.wrong_option("across_episodes", "zero"),
]
TASK_OBSERVATION = [
    *NO_ENVIRONMENT,
    w.Wrong("env", gym.make("CartPole-v1"), TypeError, "a TaskEnv", quoted="CartPoleEnv"),
]


WRAPPERS = [
    w.Table(wrapper, {"env": EarlyEnd()}, table)
    for wrapper, table in (
        (MultiEpisodeTrial, TRIAL),
        (PreviousTransitionObservation, PREVIOUS),
        (TaskObservation, TASK_OBSERVATION),
    )
]


@w.each_row(WRAPPERS)
def test_wrapper(function: type[gym.Wrapper], right: dict[str, Any], row: w.Wrong) -> None:
    row.check(function, right)


def test_every_argument_of_the_wrappers_is_in_the_table() -> None:
    w.assert_all_covered(WRAPPERS)


def test_a_family_that_draws_two_tasks_at_once() -> None:
    env = EarlyEnd()
    env.sample_tasks = two_tasks  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"sample_tasks\(1\) must return one task, it returned 2: \[0.5, 0.5\]"):
        MultiEpisodeTrial(env).reset()
