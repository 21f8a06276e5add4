"""Wrong uses of the analyses: steps, results to draw and paths of pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
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
    seeds,
    traces,
    working_memories,
)
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from sb3_trmrl.evaluation.trials import Trials
from tests.evaluation.test_wrong_evaluations import ENV, PLAY, RESULT
from tests.helpers import wrong_use as w
from tests.helpers.agents import tiny_model

STEPS = [
    *w.rows("steps", (5, None), TypeError, "the result of traced_steps"),
    w.Wrong("steps", [5], TypeError, "the result of traced_steps", quoted="5"),
    w.Wrong("steps", [], ValueError, "at least one", quoted="none"),
]
SEED_OF_BOOTSTRAP = w.wrong_integer("seed", low=0)
ARRAYS = "arrays that this package computed"
TEXT = "text of the picture"
MODEL: Any = tiny_model(gym.make(ENV))
SPEEDS = AdaptationResult(ENV, [0.0, 1.0, 2.0], np.ones((3, 2, 4)), infos={"speed": np.ones((3, 2, 4))})
CURVE = learning_curve.LearningCurve(np.zeros((2, 0)), np.zeros(0), np.zeros((0, 0)))
SOME = np.ones(2)
GROUP = comparison.Group(np.arange(3), np.zeros((2, 3)), {"selected": [RESULT, RESULT]})
ONLINE = online.online_adaptation(RESULT, 1)


def wrong_result(argument: str, allowed: str) -> list[w.Wrong]:
    """Wrong uses of the result to draw, and of the path of its picture"""
    return [
        *w.rows(argument, (5, None, "result.npz"), TypeError, allowed),
        *w.rows("path", (5, None), TypeError, "a file"),
        *w.rows("path", ("picture.xyz", "picture.csv"), ValueError, ".png"),
        w.Wrong("path", "no/such/folder/picture.png", ValueError, "an existing folder"),
    ]


def wrong_results(argument: str, kind: str) -> list[w.Wrong]:
    """Wrong uses of several results by name, and of the path of their picture"""
    return [
        *wrong_result(argument, kind),
        w.Wrong(argument, {}, ValueError, f"at least one {kind}"),
        w.Wrong(argument, {"TrMRL": 5}, TypeError, kind, quoted="5"),
    ]


ANALYSES = [
    w.Table(
        online.online_adaptation,
        {"result": RESULT},
        [
            *w.rows("result", (5, None), TypeError, "an AdaptationResult"),
            *w.wrong_integer("window"),
            w.Wrong("window", 4, ValueError, "odd"),
        ],
    ),
    w.Table(refinement.refinement, {"steps": []}, [*STEPS, *w.wrong_integer("n_train_tasks")], {}),
    w.Table(working_memories.working_memories, {"labels": ["a"]}, STEPS, {"labels": "checked when there are steps"}),
    w.Table(attention.attention_map, {}, STEPS),
    w.Table(consensus.consensus, {}, STEPS),
    w.Table(
        traces.traced_steps,
        {"model": MODEL.policy, "trials": Trials(ENV, 1)},
        [
            *w.rows("model", (5, None, "best_model.zip", PPO), TypeError, "a TransformerPPO"),
            *w.rows("trials", (5, ENV), TypeError, "Trials"),
            *(row for row in PLAY if row.argument != "model"),
        ],
    ),
    w.Table(adaptation.plot_adaptation, {"results": {"TrMRL": RESULT}}, wrong_results("results", "AdaptationResult")),
    w.Table(
        online.plot_online_adaptation,
        {"result": ONLINE},
        [*wrong_result("result", "an OnlineAdaptation"), *w.wrong_keywords("targets")],
        {"title": TEXT},
    ),
    w.Table(
        online.plot_targets,
        {"result": SPEEDS, "name": "speed"},
        [
            *wrong_result("result", "an AdaptationResult"),
            *w.wrong_option("name", "speed"),
            *w.wrong_integer("n_shown"),
        ],
        {"title": TEXT},
    ),
    w.Table(
        comparison.plot_comparison,
        {"groups": {"TrMRL": GROUP}, "title": "agents"},
        wrong_results("groups", "Group"),
        {"title": TEXT, "split": TEXT},
    ),
    w.Table(
        seeds.plot_training,
        {"groups": {"TrMRL": GROUP}, "timed": {}, "title": "agents"},
        wrong_results("groups", "Group"),
        {"title": TEXT, "timed": ARRAYS},
    ),
    w.Table(
        seeds.plot_testing,
        {"groups": {"TrMRL": GROUP}, "title": "agents"},
        wrong_results("groups", "Group"),
        {"title": TEXT, "which": "a key of the results"},
    ),
    w.Table(
        learning_curve.plot_learning_curve,
        {"curve": CURVE, "levels": {}, "title": "run"},
        wrong_result("curve", "a LearningCurve"),
        {"title": TEXT, "levels": TEXT},
    ),
    *(
        w.Table(function, {"result": result}, wrong_result("result", allowed), dict.fromkeys(texts, TEXT))
        for function, result, allowed, texts in (
            (
                refinement.plot_refinement,
                refinement.Refinement(SOME, SOME, SOME, 1, 1),
                "a Refinement",
                ("title", "unit"),
            ),
            (consensus.plot_consensus, consensus.Consensus(SOME, SOME, SOME), "a Consensus", ("title", "unit")),
            (attention.plot_attention, attention.AttentionMap(SOME, SOME), "an AttentionMap", ("title",)),
        )
    ),
    w.Table(
        working_memories.plot_working_memories,
        {"result": working_memories.WorkingMemories(SOME, SOME, SOME, SOME, [])},
        [*wrong_result("result", "the result of working_memories"), *w.wrong_integer("max_points")],
        {"title": TEXT, "task_unit": TEXT, "unit": TEXT},
    ),
    w.Table(
        ablations.plot_ablations,
        {"result": ablations.Ablations(ENV, SOME, {})},
        wrong_result("result", "an Ablations"),
    ),
    w.Table(
        comparison.common_steps,
        {},
        [
            w.Wrong("groups", [5], TypeError, "Groups", quoted="5"),
            w.Wrong("groups", [], ValueError, "at least one", quoted="none"),
        ],
    ),
    w.Table(comparison.interquartile_mean, {"scores": np.zeros((3, 2))}, SEED_OF_BOOTSTRAP, {"scores": ARRAYS}),
    w.Table(
        comparison.share_above,
        {"returns": np.zeros((3, 2)), "thresholds": np.zeros(2)},
        SEED_OF_BOOTSTRAP,
        {"returns": ARRAYS, "thresholds": ARRAYS},
    ),
    w.Table(
        comparison.share_of_gap,
        {name: np.zeros((3, 2)) for name in ("agent", "lower", "upper")},
        SEED_OF_BOOTSTRAP,
        dict.fromkeys(("agent", "lower", "upper"), ARRAYS),
    ),
]


@w.each_row(ANALYSES)
def test_analysis(function: Callable[..., Any], right: dict[str, Any], row: w.Wrong, tmp_path: Path) -> None:
    path = {"path": tmp_path / "picture.png"} if function.__name__.startswith("plot") else {}
    row.check(function, {**right, **path})
    assert not list(tmp_path.iterdir())


def test_every_argument_of_the_analyses_is_in_the_table() -> None:
    modules = (ablations, adaptation, attention, comparison, consensus, learning_curve, online, refinement, seeds)
    drawing = {name for module in (*modules, working_memories) for name in vars(module) if name.startswith("plot_")}
    assert drawing == {each.function.__name__ for each in ANALYSES if each.function.__name__.startswith("plot_")}
    w.assert_all_covered(ANALYSES)
