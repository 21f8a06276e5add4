"""Wrong uses of the reference agents and the optima."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sb3_trmrl import references
from sb3_trmrl.envs.tabular_mdp import TabularMDPEnv
from tests.helpers import wrong_use as w

SIZES = [*w.wrong_integer("n_arms"), *w.wrong_integer("n_pulls")]
TOO_LARGE = [
    w.Wrong("n_pulls", 100, ValueError, "too many"),
    w.Wrong("n_pulls", 10**9, ValueError, "too many", given={"n_arms": 1}),
    w.Wrong("n_arms", 1000, ValueError, "too many", given={"n_pulls": 1000}),
    w.Wrong("n_arms", 40, ValueError, "too many", given={"n_pulls": 40}),
]
#: MDPs of two sizes
MDPS = [TabularMDPEnv(n_states, 3).get_task() for n_states in (2, 3)]
SEED = w.wrong_integer("seed", low=0, or_none=True)
HORIZON = w.wrong_integer("horizon")
SIZE = w.wrong_integer("size", low=3)
REFERENCES: dict[Callable[..., Any], list[w.Wrong]] = {
    references.bayes_optimal_value: [*SIZES, *TOO_LARGE],
    references.BayesOptimal: [*SIZES, *TOO_LARGE],
    references.GittinsIndex: w.wrong_integer("n_pulls", high=200),
    references.PosteriorMeanGreedy: SEED,
    references.ThompsonSampling: SEED,
    references.RandomArm: SEED,
    references.UCB1: w.wrong_number("exploration", (-1.0, w.NAN, w.INF), "not negative"),
    references.StayOrNext: [],
    references.GridNaviOracle: [],
    references.DarkKeyToDoorOracle: [],
    references.SparsePointRobotOracle: [],
    references.simulate_bandits: [
        *w.rows("agent", (5, None, references.RandomArm), TypeError, "predict"),
        *w.wrong_integer("n_tasks"),
        *SIZES,
        *w.wrong_bool("deterministic"),
        *w.wrong_integer("seed", low=0),
    ],
    references.grid_navi_optimum: [
        w.Wrong("goals", 5, TypeError, "a sequence of tasks"),
        w.Wrong("goals", [], ValueError, "at least one", quoted="none"),
        *(w.Wrong("goals", [goal], ValueError, "goal", quoted=repr(goal)) for goal in ((0, 0), (5, 5))),
        *(w.Wrong("goals", [goal], TypeError, "(x, y)", quoted=repr(goal)) for goal in ("ab", 3, None)),
        *SIZE,
        *HORIZON,
    ],
    references.dark_key_to_door_optimum: [
        w.Wrong("tasks", 5, TypeError, "a sequence of tasks"),
        w.Wrong("tasks", [], ValueError, "at least one", quoted="none"),
        w.Wrong("tasks", [(1, 2)], TypeError, "(x, y)", quoted="1"),
        w.Wrong("tasks", [5], TypeError, "(key, door)", quoted="5"),
        w.Wrong("tasks", [((0, 0), (9, 9))], ValueError, "9 x 9", quoted="(9, 9)"),
        *SIZE,
        *HORIZON,
    ],
    references.sparse_point_robot_optimum: [
        w.Wrong("angles", 5, TypeError, "a sequence of tasks"),
        w.Wrong("angles", [], ValueError, "at least one", quoted="none"),
        w.Wrong("angles", ["up"], TypeError, "number", quoted="'up'"),
        w.Wrong("angles", [w.NAN], ValueError, "finite", quoted="nan"),
        *w.wrong_number("goal_radius", (0.0, 1.5), "(0, 1]"),
        *w.rows("angle_range", (1.0, "ab"), TypeError, "(low, high)"),
        *w.rows("angle_range", ((1.0, 0.0), (0.0, 4.0)), ValueError, "low <= high"),
        *HORIZON,
    ],
    references.tabular_mdp_optimum: [
        w.Wrong("tasks", 5, TypeError, "a sequence of tasks"),
        w.Wrong("tasks", [], ValueError, "at least one", quoted="none"),
        w.Wrong("tasks", [5], TypeError, "TabularMDPTask", quoted="5"),
        w.Wrong("tasks", [MDPS[0], MDPS[1]], ValueError, "2 states and 3 actions", quoted="3 states"),
        *HORIZON,
    ],
    references.PosteriorSampling: [
        *w.wrong_integer("n_states"),
        *w.wrong_integer("n_actions"),
        *HORIZON,
        w.Wrong("reward_prior", 5, TypeError, "a pair of finite numbers"),
        w.Wrong("reward_prior", (0.0, -1.0), ValueError, "at least 0", quoted="-1.0"),
        *w.wrong_number("dirichlet_alpha", (0.0, -1.0, w.NAN, w.INF), "positive"),
        *SEED,
    ],
}
RIGHT: dict[Callable[..., Any], dict[str, Any]] = {
    references.bayes_optimal_value: {"n_arms": 5, "n_pulls": 10},
    references.simulate_bandits: {"agent": references.RandomArm(0), "n_tasks": 2},
    references.tabular_mdp_optimum: {"tasks": [MDPS[0]]},
}
TABLES = [w.Table(function, RIGHT.get(function, {}), table) for function, table in REFERENCES.items()]


@w.each_row(TABLES)
def test_reference(function: Callable[..., Any], right: dict[str, Any], row: w.Wrong) -> None:
    row.check(function, right)


def test_every_argument_of_the_references_is_in_the_table() -> None:
    assert {function.__name__ for function in REFERENCES} == set(references.__all__)
    w.assert_all_covered(TABLES)


def bandit(**changed: Any) -> dict[str, Any]:
    """First observations of two bandits with three arms."""
    zeros = {"observation": 1, "prev_action": 3, "prev_reward": 1, "prev_done": 1}
    return {**{key: np.zeros((2, width)) for key, width in zeros.items()}, **changed}


SCRIPTED = [
    w.Wrong("observation", np.zeros(3), TypeError, "'prev_action'", quoted="ndarray"),
    w.Wrong("observation", {"observation": np.zeros(1)}, ValueError, "prev_action", quoted="['observation']"),
    w.Wrong("observation", bandit(prev_reward=np.full((2, 1), 0.3)), ValueError, "normalised", quoted="0.3"),
    w.Wrong("state", np.zeros((3, 3, 2)), ValueError, "(2, 3, 2)", quoted="(3, 3, 2)"),
    w.Wrong("state", 5, ValueError, "(2, 3, 2)", quoted="()"),
    w.Wrong("episode_start", [True] * 3, ValueError, "(2,)", "(3,)", {"state": np.zeros((2, 3, 2))}),
]


@pytest.mark.parametrize("row", SCRIPTED, ids=w.name_of)
def test_predict_of_a_reference(row: w.Wrong) -> None:
    row.check(references.UCB1().predict, {"observation": bandit()})


def test_every_argument_of_a_references_predict_is_in_the_table() -> None:
    w.assert_covered(references.UCB1.predict, SCRIPTED, {"deterministic": "has no effect"})


@pytest.mark.parametrize(
    ("agent", "observation", "quoted", "allowed"),
    [
        (references.BayesOptimal(5, 3), bandit(), "3", "5 arms"),
        (references.GridNaviOracle(), {"observation": np.zeros((1, 2))}, "['observation']", "reveal_task=True"),
        (references.StayOrNext(), bandit(prev_reward=np.full((2, 1), -1.0)), "-1.", "normalised"),
        (references.PosteriorSampling(10, 3), bandit(observation=np.full(2, 10)), "10", "10 states"),
        (references.PosteriorSampling(10, 5), bandit(observation=np.zeros(2)), "3 actions", "5 actions"),
    ],
)
def test_observations_of_another_problem(agent: Any, observation: Any, quoted: str, allowed: str) -> None:
    w.Wrong("observation", observation, ValueError, allowed, quoted).check(agent.predict)


@pytest.mark.parametrize("agent", [references.BayesOptimal(3, 2), references.GittinsIndex(2)])
def test_more_pulls_than_planned(agent: Any) -> None:
    pulled = bandit(prev_action=np.eye(3)[[0, 1]])
    _, state = agent.predict(bandit())
    _, state = agent.predict(pulled, state)
    with w.refused(ValueError, "n_pulls", "2 pulls", "all episodes"):
        agent.predict(pulled, state)
