"""Wrong uses of the analyses: steps, results to draw and paths of pictures."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO

from sb3_trmrl.analysis import (
    ablations,
    adaptation,
    attention,
    comparison,
    consensus,
    learning_curve,
    online,
    refinement,
    traces,
    working_memories,
)
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from sb3_trmrl.evaluation.trials import Trials
from tests.evaluation.test_wrong_evaluations import ENV, PLAY, RESULT
from tests.helpers.agents import tiny_model
from tests.helpers.wrong_use import Wrong, assert_covered, name_of, rows, wrong_integer, wrong_keywords, wrong_option

STEPS = [
    *rows("steps", (5, None), TypeError, "the result of traced_steps"),
    Wrong("steps", [5], TypeError, "the result of traced_steps", quoted="5"),
    Wrong("steps", [], ValueError, "at least one", quoted="none"),
]
SEED_OF_BOOTSTRAP = wrong_integer("seed", low=0)
ARRAYS = "arrays that this package computed"
TEXT = "text of the picture"
MODEL: Any = tiny_model(gym.make(ENV))
SPEEDS = AdaptationResult(ENV, [0.0, 1.0, 2.0], np.ones((3, 2, 4)), infos={"speed": np.ones((3, 2, 4))})
CURVE = learning_curve.LearningCurve(np.zeros((2, 0)), np.zeros(0), np.zeros((0, 0)))
SOME = np.ones(2)
GROUP = comparison.Group(np.arange(3), np.zeros((2, 3)), {"selected": [RESULT, RESULT]})
ONLINE = online.online_adaptation(RESULT, 1)


def wrong_result(argument: str, allowed: str) -> list[Wrong]:
    """Wrong uses of the result to draw, and of the path of its picture"""
    return [
        *rows(argument, (5, None, "result.npz"), TypeError, allowed),
        *rows("path", (5, None), TypeError, "a file"),
        *rows("path", ("picture.xyz", "picture.csv"), ValueError, ".png"),
        Wrong("path", "no/such/folder/picture.png", ValueError, "an existing folder"),
    ]


def wrong_results(argument: str, kind: str) -> list[Wrong]:
    """Wrong uses of several results by name, and of the path of their picture"""
    return [
        *wrong_result(argument, kind),
        Wrong(argument, {}, ValueError, f"at least one {kind}"),
        Wrong(argument, {"TrMRL": 5}, TypeError, kind, quoted="5"),
    ]


#: Function, its other arguments, its rows, and the arguments that need none with the reason
ANALYSES: list[tuple[Callable[..., Any], dict[str, Any], list[Wrong], dict[str, str]]] = [
    (
        online.online_adaptation,
        {"result": RESULT},
        [
            *rows("result", (5, None), TypeError, "an AdaptationResult"),
            *wrong_integer("window"),
            Wrong("window", 4, ValueError, "odd"),
        ],
        {},
    ),
    (refinement.refinement, {"steps": []}, [*STEPS, *wrong_integer("n_train_tasks")], {}),
    (working_memories.working_memories, {"labels": ["a"]}, STEPS, {"labels": "checked when there are steps"}),
    (attention.attention_map, {}, STEPS, {}),
    (consensus.consensus, {}, STEPS, {}),
    (
        traces.traced_steps,
        {"model": MODEL.policy, "trials": 5},
        [
            *rows("model", (5, None, "best_model.zip", PPO), TypeError, "a TransformerPPO"),
            *rows("trials", (5, ENV), TypeError, "Trials"),
            *(row for row in PLAY if row.argument != "model"),
        ],
        {},
    ),
    (adaptation.plot_adaptation, {"results": {"TrMRL": RESULT}}, wrong_results("results", "AdaptationResult"), {}),
    (
        online.plot_online_adaptation,
        {"result": ONLINE},
        [*wrong_result("result", "an OnlineAdaptation"), *wrong_keywords("targets")],
        {"title": TEXT},
    ),
    (
        online.plot_targets,
        {"result": SPEEDS, "name": "speed"},
        [
            *wrong_result("result", "an AdaptationResult"),
            *wrong_option("name", "speed"),
            *wrong_integer("n_shown"),
        ],
        {"title": TEXT},
    ),
    (
        comparison.plot_comparison,
        {"groups": {"TrMRL": GROUP}, "title": "agents"},
        wrong_results("groups", "Group"),
        {"title": TEXT, "split": TEXT},
    ),
    (
        learning_curve.plot_learning_curve,
        {"curve": CURVE, "levels": {}, "title": "run"},
        wrong_result("curve", "a LearningCurve"),
        {"title": TEXT, "levels": TEXT},
    ),
    *(
        (function, {"result": result}, wrong_result("result", allowed), {"title": TEXT})
        for function, result, allowed in (
            (refinement.plot_refinement, refinement.Refinement(SOME, SOME, SOME), "a Refinement"),
            (consensus.plot_consensus, consensus.Consensus(SOME, SOME, SOME), "a Consensus"),
            (attention.plot_attention, attention.AttentionMap(SOME, SOME), "an AttentionMap"),
        )
    ),
    (
        working_memories.plot_working_memories,
        {"result": working_memories.WorkingMemories(SOME, SOME, SOME, SOME, [])},
        [*wrong_result("result", "the result of working_memories"), *wrong_integer("max_points")],
        {"title": TEXT, "task_unit": TEXT},
    ),
    (
        ablations.plot_ablations,
        {"result": ablations.Ablations(ENV, SOME, {})},
        wrong_result("result", "an Ablations"),
        {},
    ),
    (
        comparison.common_steps,
        {},
        [
            Wrong("groups", [5], TypeError, "Groups", quoted="5"),
            Wrong("groups", [], ValueError, "at least one", quoted="none"),
        ],
        {},
    ),
    (comparison.interquartile_mean, {"scores": np.zeros((3, 2))}, SEED_OF_BOOTSTRAP, {"scores": ARRAYS}),
    (
        comparison.share_above,
        {"returns": np.zeros((3, 2)), "thresholds": np.zeros(2)},
        SEED_OF_BOOTSTRAP,
        {"returns": ARRAYS, "thresholds": ARRAYS},
    ),
    (
        comparison.share_of_gap,
        {name: np.zeros((3, 2)) for name in ("agent", "lower", "upper")},
        SEED_OF_BOOTSTRAP,
        dict.fromkeys(("agent", "lower", "upper"), ARRAYS),
    ),
]
ANALYSIS_ROWS = [(function, right, row) for function, right, table, _ in ANALYSES for row in table]


@pytest.mark.parametrize(("function", "right", "row"), ANALYSIS_ROWS, ids=name_of)
def test_analysis(function: Callable[..., Any], right: dict[str, Any], row: Wrong, tmp_path: Path) -> None:
    right = dict(right)
    if function.__name__.startswith("plot"):
        right["path"] = tmp_path / "picture.png"
    if function is traces.traced_steps and row.argument != "trials":
        right["trials"] = Trials(ENV, 1)
    row.check(lambda **arguments: exhausted(function(**arguments)), right)
    assert not list(tmp_path.iterdir())


def exhausted(found: Any) -> Any:
    return list(found) if isinstance(found, Iterator) else found


def test_every_argument_of_the_analyses_is_in_the_table() -> None:
    modules = (ablations, adaptation, attention, comparison, consensus, learning_curve, online, refinement)
    drawing = {name for module in (*modules, working_memories) for name in vars(module) if name.startswith("plot_")}
    assert drawing == {each[0].__name__ for each in ANALYSES if each[0].__name__.startswith("plot_")}
    for function, _, table, without in ANALYSES:
        assert_covered(function, table, without)
