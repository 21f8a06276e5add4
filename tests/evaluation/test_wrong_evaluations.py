"""Wrong uses of evaluation, callbacks, schedules and references."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_trmrl import references
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult, bootstrap_interval
from sb3_trmrl.evaluation.callbacks import AdaptationEvalCallback, InnerEpisodeCallback
from sb3_trmrl.evaluation.trials import Trials
from sb3_trmrl.trials.held_out import evaluation_seed
from sb3_trmrl.zoo.schedules import ExponentialSchedule, schedule_from_string
from tests.helpers.families import early_end
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
    wrong_keywords,
    wrong_number,
    wrong_option,
)

ENV = "BernoulliBandit-v0"


def no_trials(**kwargs: Any) -> gym.Env:
    return gym.make("CartPole-v1")


# -- Evaluation -------------------------------------------------------------------------------------------------------

FAMILY = [
    *rows("env", (5, None, ["GridNavi-v0"]), TypeError, "a registered id"),
    Wrong("env", no_trials, TypeError, "a MultiEpisodeTrial", quoted="CartPole-v1"),
    Wrong("env", "CartPole-v1", TypeError, "a MultiEpisodeTrial", quoted="CartPole-v1"),
    *wrong_option("split", "validation"),
    *wrong_integer("seed", low=0),
    *wrong_keywords("env_kwargs"),
    Wrong("env_kwargs", {"arms": 3}, TypeError, "it takes", quoted="'arms'"),
]
PLAY = [
    *rows("model", (5, None, "best_model.zip", PPO), TypeError, "predict"),
    *wrong_bool("deterministic"),
    *rows("vec_normalize", (5, "vecnormalize.pkl"), TypeError, "a VecNormalize"),
    *wrong_integer("n_envs", or_none=True),
    *rows("after_task", (5, "print"), TypeError, "a function"),
]
TRIALS = [*FAMILY, *wrong_integer("n_tasks"), *wrong_integer("n_episodes")]
EVALUATION = [
    *FAMILY,
    *PLAY,
    *wrong_integer("n_eval_tasks"),
    *wrong_integer("n_eval_episodes"),
    *rows("info_keys", ("x_velocity", 5, None), TypeError, "a list of names"),
    Wrong("info_keys", ["height"], ValueError, "among", quoted="'height'"),
    Wrong("env_kwargs", {"reveal_task": True}, ValueError, "trained with", quoted="'task'"),
    Wrong("env_kwargs", {"previous_transition": False}, ValueError, "trained with", quoted="Box("),
]


@pytest.fixture(scope="module")
def agent() -> PPO:
    """An agent that has not learnt anything"""
    return PPO("MultiInputPolicy", gym.make(ENV), n_steps=8, batch_size=8, device="cpu")


@pytest.mark.parametrize("row", EVALUATION, ids=name_of)
def test_evaluation(row: Wrong, agent: PPO) -> None:
    row.check(evaluate_adaptation, {"model": agent, "env": ENV, "n_eval_tasks": 1, "n_eval_episodes": 1})


@pytest.mark.parametrize("row", TRIALS, ids=name_of)
def test_trials(row: Wrong) -> None:
    row.check(Trials, {"env": ENV})


@pytest.mark.parametrize("row", PLAY, ids=name_of)
def test_play(row: Wrong) -> None:
    trials = Trials(ENV, 1)
    row.check(lambda **arguments: next(trials.play(**arguments)), {"model": references.RandomArm(0)})


def test_every_argument_of_the_evaluation_is_in_the_table() -> None:
    assert_covered(evaluate_adaptation, EVALUATION)
    assert_covered(Trials, TRIALS)
    assert_covered(Trials.play, PLAY)


PROTOCOL = [
    *(row for row in PLAY if row.argument != "n_envs"),
    *wrong_integer("n_envs", or_none=True),
    *rows("env_id", (5, None, no_trials), TypeError, "a registered id"),
    Wrong("env_id", ENV, ValueError, "MetaWorld"),
    *(row for name in ("n_goals", "n_adaptation_episodes", "n_evaluation_episodes") for row in wrong_integer(name)),
    *wrong_integer("seed", low=0),
    *wrong_keywords("env_kwargs"),
    *wrong_option("split", "validation"),
    Wrong("split", "train", ValueError, "'test'"),
]


@pytest.mark.parametrize("row", PROTOCOL, ids=name_of)
@pytest.mark.usefixtures("few_goals")
def test_metaworld_protocol(row: Wrong) -> None:
    from sb3_trmrl.evaluation.metaworld_protocol import metaworld_protocol

    row.check(metaworld_protocol, {"model": references.RandomArm(0), "env_id": "MetaWorldML1-v0"})


def test_every_argument_of_the_protocol_is_in_the_table() -> None:
    from sb3_trmrl.evaluation.metaworld_protocol import metaworld_protocol

    assert_covered(metaworld_protocol, PROTOCOL)


CALLBACK = [
    *rows("eval_env", (5, None, [gym.make(ENV)], early_end), TypeError, "a registered id"),
    *wrong_integer("n_eval_episodes", or_none=True),
    *wrong_keywords("env_kwargs"),
    Wrong("env_kwargs", {"arms": 3}, TypeError, "it takes", quoted="'arms'"),
    Wrong("env_kwargs", {"n_arms": 3}, ValueError, "a registered id", given={"eval_env": gym.make(ENV)}),
    *wrong_integer("seed", low=0),
]


@pytest.mark.parametrize("row", CALLBACK, ids=name_of)
def test_callback(row: Wrong) -> None:
    row.check(AdaptationEvalCallback, {"eval_env": ENV})


@pytest.mark.parametrize("row", wrong_integer("window"), ids=name_of)
def test_inner_episode_callback(row: Wrong) -> None:
    row.check(InnerEpisodeCallback)


def test_every_argument_of_the_callbacks_is_in_the_table() -> None:
    assert_covered(AdaptationEvalCallback, CALLBACK)
    verbose = {"verbose": "SB3's, decides on what is printed only"}
    assert_covered(InnerEpisodeCallback, wrong_integer("window"), verbose)
    with pytest.raises(TypeError) as caught:
        AdaptationEvalCallback(DummyVecEnv([early_end]), evaluation_freq=5)
    assert_says(str(caught.value), "'evaluation_freq'", "it takes", "eval_freq", "EvalCallback")


RESULT = AdaptationResult(ENV, [0, 1, 2], np.ones((3, 2, 4)))
CONFIDENCE = wrong_number("confidence", (0, 1, -0.5, 2), "between 0 and 1")


@pytest.mark.parametrize("row", CONFIDENCE, ids=name_of)
def test_interval(row: Wrong) -> None:
    row.check(RESULT.interval)
    row.check(bootstrap_interval, {"values": np.ones((3, 2))})


@pytest.mark.parametrize("row", wrong_integer("seed", low=0), ids=name_of)
def test_seeds(row: Wrong) -> None:
    row.check(bootstrap_interval, {"values": np.ones((3, 2))})
    row.check(evaluation_seed, {"purpose": "test"})


# -- Schedules --------------------------------------------------------------------------------------------------------

SCHEDULE = [
    *wrong_number("initial_value", (0, -1, NAN, INF), "positive"),
    *wrong_number("final_factor", (0, -1, NAN, INF), "positive"),
    *wrong_number("start", (-0.1, 1.0, 2), "0 <= start < end <= 1"),
    *wrong_number("end", (0.0, -0.1, 1.1), "0 <= start < end <= 1"),
]
STRINGS = [
    *rows("text", (5, None, 3e-4, ["lin_3e-4"]), TypeError, "a schedule in a string"),
    *rows(
        "text",
        [
            *("", "fast", "lin", "lin_", "lin_x", "lin_1_2", "exp_1", "exp_1_", "exp_1_2_3_4_5", "cos_1", "exp_3e-4_x"),
            *("-1", "nan", "inf", "lin_-1", "lin_nan", "exp_0_0.1", "exp_1_0", "exp_1_-1", "exp_1_0.1_0.5_0.2"),
        ],
        ValueError,
        "'lin_<from>'",
    ),
]


@pytest.mark.parametrize("row", SCHEDULE, ids=name_of)
def test_exponential_schedule(row: Wrong) -> None:
    row.check(ExponentialSchedule, {"initial_value": 3e-4, "final_factor": 0.1})


@pytest.mark.parametrize("row", STRINGS, ids=name_of)
def test_schedule_from_string(row: Wrong) -> None:
    row.check(schedule_from_string)


def test_every_argument_of_the_schedules_is_in_the_table() -> None:
    assert_covered(ExponentialSchedule, SCHEDULE)
    assert_covered(schedule_from_string, STRINGS)


# -- References -------------------------------------------------------------------------------------------------------

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
    """:return: First observations of two bandits with three arms"""
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


def write_text(path: Path) -> None:
    path.write_text("no result")


def write_nothing(path: Path) -> None:
    path.write_bytes(b"")


def write_one_array(path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))


def write_other_arrays(path: Path) -> None:
    np.savez(path, timesteps=np.zeros(3))


def write_half(path: Path) -> None:
    RESULT.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_changed(path: Path) -> None:
    RESULT.save(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"about.npy") + 60] ^= 0xFF
    path.write_bytes(content)


def write_pickled(path: Path) -> None:
    np.savez(path, rewards=np.array([{}]), tasks="[]", about="{}")


def write_other_fields(path: Path) -> None:
    np.savez(path, rewards=np.zeros((1, 1, 1)), tasks="[0]", about='{"name": 1}')


@pytest.mark.parametrize(
    "write",
    [
        write_text,
        write_nothing,
        write_one_array,
        write_other_arrays,
        write_half,
        write_changed,
        write_pickled,
        write_other_fields,
    ],
)
def test_what_is_no_result(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "result.npz"
    write(path)
    with pytest.raises(ValueError) as caught:
        AdaptationResult.load(path)
    assert_says(str(caught.value), "path", repr(str(path)), "AdaptationResult.save")


def test_files_of_results(tmp_path: Path) -> None:
    for path in (5, None, ["result.npz"]):
        Wrong("path", path, TypeError, "a path").check(AdaptationResult.load)
        Wrong("path", path, TypeError, "a path").check(RESULT.save)
    with pytest.raises(FileNotFoundError, match=r"missing\.npz"):
        AdaptationResult.load(tmp_path / "missing.npz")
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        AdaptationResult.load(tmp_path)


@pytest.mark.parametrize("row", SCRIPTED, ids=name_of)
def test_predict_of_a_reference(row: Wrong) -> None:
    row.check(references.UCB1().predict, {"observation": bandit()})


def test_every_argument_of_a_references_predict_is_in_the_table() -> None:
    assert_covered(references.UCB1.predict, SCRIPTED, {"deterministic": "makes no difference"})


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
