"""Wrong uses of the wrappers."""

import gymnasium as gym
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation, TimeLimit

from sb3_trmrl import MultiEpisodeTrial, PreviousTransitionObservation
from sb3_trmrl.envs.tasks import TaskObservation
from tests.helpers.agents import SampledEnv
from tests.helpers.families import EarlyEnd
from tests.helpers.wrong_use import Wrong, assert_covered, name_of, rows, wrong_integer, wrong_option


def test_action_of_another_space_reaches_no_observation() -> None:
    env = PreviousTransitionObservation(SampledEnv(action_space=spaces.Discrete(4)))
    env.reset(seed=0)
    for value in (-1, 4, [0, 1], 1.5, "up", None):
        Wrong("action", value, ValueError, "Discrete(4)").check(env.step)


def test_a_family_without_actions_that_can_be_told() -> None:
    env = SampledEnv(action_space=spaces.Tuple([spaces.Discrete(2)]))
    Wrong("env", env, TypeError, "MultiDiscrete", quoted="Tuple").check(PreviousTransitionObservation)


class Incomplete(EarlyEnd):
    """A family without one of the methods."""

    set_task = None  # type: ignore[assignment]


def two_tasks(n: int) -> list[float]:
    return [0.5, 0.5]


NO_ENVIRONMENT = rows("env", (5, "GridNavi-v0", None, EarlyEnd), TypeError, "a Gymnasium environment")
TRIAL = [
    *NO_ENVIRONMENT,
    Wrong("env", gym.make("CartPole-v1"), TypeError, "lacks sample_tasks, set_task, get_task", quoted="CartPole-v1"),
    Wrong("env", Incomplete(), TypeError, "lacks set_task", quoted="Incomplete"),
    *(
        Wrong("env", env, ValueError, "PreviousTransitionObservation(MultiEpisodeTrial(env))", quoted=quoted)
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
    *wrong_integer("episodes_per_trial"),
    *wrong_option("trial_end", "terminated", or_none=True),
    *rows("tasks", (3, "abc", b"abc"), TypeError, "a sequence of tasks"),
    Wrong("tasks", [], ValueError, "at least one task", quoted="()"),
]
PREVIOUS = [
    *NO_ENVIRONMENT,
    Wrong("env", PreviousTransitionObservation(EarlyEnd()), ValueError, "none of the new keys", quoted="'prev_action'"),
    *(
        Wrong("env", SampledEnv(spaces.Dict({key: spaces.Discrete(2)})), ValueError, "none of the new keys", repr(key))
        for key in ("prev_action", "prev_reward", "prev_done")
    ),
    *wrong_option("across_episodes", "zero"),
]
TASK_OBSERVATION = [
    *NO_ENVIRONMENT,
    Wrong("env", gym.make("CartPole-v1"), TypeError, "a TaskEnv", quoted="CartPoleEnv"),
]


@pytest.mark.parametrize(
    ("wrapper", "row"),
    [
        *((MultiEpisodeTrial, row) for row in TRIAL),
        *((PreviousTransitionObservation, row) for row in PREVIOUS),
        *((TaskObservation, row) for row in TASK_OBSERVATION),
    ],
    ids=name_of,
)
def test_wrapper(wrapper: type[gym.Wrapper], row: Wrong) -> None:
    row.check(wrapper, {"env": EarlyEnd()})


def test_every_argument_of_the_wrappers_is_in_the_table() -> None:
    assert_covered(MultiEpisodeTrial, TRIAL)
    assert_covered(PreviousTransitionObservation, PREVIOUS)
    assert_covered(TaskObservation, TASK_OBSERVATION)


def test_a_family_that_draws_two_tasks_at_once() -> None:
    env = EarlyEnd()
    env.sample_tasks = two_tasks  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"sample_tasks\(1\) must return one task, it returned 2: \[0.5, 0.5\]"):
        MultiEpisodeTrial(env).reset()
