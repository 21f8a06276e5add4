"""Wrong uses of the reference agents and the optima."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sb3_trmrl import references
from tests.helpers.wrong_use import (
    INF,
    NAN,
    Wrong,
    assert_covered,
    assert_says,
    name_of,
    rows,
    wrong_bool,
    wrong_integer,
    wrong_number,
)

SIZES = [*wrong_integer("n_arms"), *wrong_integer("n_pulls")]
TOO_LARGE = [
    Wrong("n_pulls", 100, ValueError, "too many"),
    Wrong("n_pulls", 10**9, ValueError, "too many", given={"n_arms": 1}),
    Wrong("n_arms", 1000, ValueError, "too many", given={"n_pulls": 1000}),
    Wrong("n_arms", 40, ValueError, "too many", given={"n_pulls": 40}),
]
SEED = wrong_integer("seed", low=0, or_none=True)
HORIZON = wrong_integer("horizon")
SIZE = wrong_integer("size", low=3)
REFERENCES: dict[Callable[..., Any], list[Wrong]] = {
    references.bayes_optimal_value: [*SIZES, *TOO_LARGE],
    references.BayesOptimal: [*SIZES, *TOO_LARGE],
    references.GittinsIndex: wrong_integer("n_pulls", high=200),
    references.PosteriorMeanGreedy: SEED,
    references.ThompsonSampling: SEED,
    references.RandomArm: SEED,
    references.UCB1: wrong_number("exploration", (-1.0, NAN, INF), "not negative"),
    references.StayOrNext: [],
    references.GridNaviOracle: [],
    references.DarkKeyToDoorOracle: [],
    references.SparsePointRobotOracle: [],
    references.simulate_bandits: [
        *rows("agent", (5, None, references.RandomArm), TypeError, "predict"),
        *wrong_integer("n_tasks"),
        *SIZES,
        *wrong_bool("deterministic"),
        *wrong_integer("seed", low=0),
    ],
    references.grid_navi_optimum: [
        Wrong("goals", 5, TypeError, "a sequence of tasks"),
        Wrong("goals", [], ValueError, "at least one", quoted="none"),
        *(Wrong("goals", [goal], ValueError, "goal", quoted=repr(goal)) for goal in ((0, 0), (5, 5))),
        *(Wrong("goals", [goal], TypeError, "(x, y)", quoted=repr(goal)) for goal in ("ab", 3, None)),
        *SIZE,
        *HORIZON,
    ],
    references.dark_key_to_door_optimum: [
        Wrong("tasks", 5, TypeError, "a sequence of tasks"),
        Wrong("tasks", [], ValueError, "at least one", quoted="none"),
        Wrong("tasks", [(1, 2)], TypeError, "(x, y)", quoted="1"),
        Wrong("tasks", [5], TypeError, "(key, door)", quoted="5"),
        Wrong("tasks", [((0, 0), (9, 9))], ValueError, "9 x 9", quoted="(9, 9)"),
        *SIZE,
        *HORIZON,
    ],
    references.sparse_point_robot_optimum: [
        Wrong("angles", 5, TypeError, "a sequence of tasks"),
        Wrong("angles", [], ValueError, "at least one", quoted="none"),
        Wrong("angles", ["up"], TypeError, "number", quoted="'up'"),
        Wrong("angles", [NAN], ValueError, "finite", quoted="nan"),
        *wrong_number("goal_radius", (0.0, 1.5), "(0, 1]"),
        *rows("angle_range", (1.0, "ab"), TypeError, "(low, high)"),
        *rows("angle_range", ((1.0, 0.0), (0.0, 4.0)), ValueError, "low <= high"),
        *HORIZON,
    ],
}
RIGHT_REFERENCES: dict[Callable[..., Any], dict[str, Any]] = {
    references.bayes_optimal_value: {"n_arms": 5, "n_pulls": 10},
    references.simulate_bandits: {"agent": references.RandomArm(0), "n_tasks": 2},
}


@pytest.mark.parametrize(
    ("function", "row"), [(function, row) for function, table in REFERENCES.items() for row in table], ids=name_of
)
def test_reference(function: Callable[..., Any], row: Wrong) -> None:
    row.check(function, RIGHT_REFERENCES.get(function))


def test_every_argument_of_the_references_is_in_the_table() -> None:
    assert {function.__name__ for function in REFERENCES} == set(references.__all__)
    for function, table in REFERENCES.items():
        assert_covered(function, table)


def bandit(**changed: Any) -> dict[str, Any]:
    """First observations of two bandits with three arms."""
    zeros = {"observation": 1, "prev_action": 3, "prev_reward": 1, "prev_done": 1}
    return {**{key: np.zeros((2, width)) for key, width in zeros.items()}, **changed}


SCRIPTED = [
    Wrong("observation", np.zeros(3), TypeError, "'prev_action'", quoted="ndarray"),
    Wrong("observation", {"observation": np.zeros(1)}, ValueError, "prev_action", quoted="['observation']"),
    Wrong("observation", bandit(prev_reward=np.full((2, 1), 0.3)), ValueError, "normalised", quoted="0.3"),
    Wrong("state", np.zeros((3, 3, 2)), ValueError, "(2, 3, 2)", quoted="(3, 3, 2)"),
    Wrong("state", 5, ValueError, "(2, 3, 2)", quoted="()"),
    Wrong("episode_start", [True] * 3, ValueError, "(2,)", "(3,)", {"state": np.zeros((2, 3, 2))}),
]


@pytest.mark.parametrize("row", SCRIPTED, ids=name_of)
def test_predict_of_a_reference(row: Wrong) -> None:
    row.check(references.UCB1().predict, {"observation": bandit()})


def test_every_argument_of_a_references_predict_is_in_the_table() -> None:
    assert_covered(references.UCB1.predict, SCRIPTED, {"deterministic": "has no effect"})


@pytest.mark.parametrize(
    ("agent", "observation", "quoted", "allowed"),
    [
        (references.BayesOptimal(5, 3), bandit(), "3", "5 arms"),
        (references.GridNaviOracle(), {"observation": np.zeros((1, 2))}, "['observation']", "reveal_task=True"),
        (references.StayOrNext(), bandit(prev_reward=np.full((2, 1), -1.0)), "-1.", "normalised"),
    ],
)
def test_observations_of_another_problem(agent: Any, observation: Any, quoted: str, allowed: str) -> None:
    Wrong("observation", observation, ValueError, allowed, quoted).check(agent.predict)


@pytest.mark.parametrize("agent", [references.BayesOptimal(3, 2), references.GittinsIndex(2)])
def test_more_pulls_than_planned(agent: Any) -> None:
    pulled = bandit(prev_action=np.eye(3)[[0, 1]])
    _, state = agent.predict(bandit())
    _, state = agent.predict(pulled, state)
    with pytest.raises(ValueError) as caught:
        agent.predict(pulled, state)
    assert_says(str(caught.value), "n_pulls", "2 pulls", "all episodes")
