"""Wrong uses of evaluation, its results and callbacks."""

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
from tests.helpers import wrong_use as w
from tests.helpers.environments import ToyFamily, early_end

ENV = "BernoulliBandit-v0"


def no_trials(**kwargs: Any) -> gym.Env:
    return ToyFamily()


FAMILY = [
    *w.rows("env", (5, None, ["GridNavi-v0"]), TypeError, "a registered id"),
    w.Wrong("env", no_trials, TypeError, "a MultiEpisodeTrial", quoted="ToyFamily"),
    *w.wrong_option("split", "validation"),
    *w.wrong_integer("seed", low=0),
    *w.wrong_keywords("env_kwargs"),
    w.Wrong("env_kwargs", {"arms": 3}, TypeError, "it takes", quoted="'arms'"),
]
PLAY = [
    *w.rows("model", (5, None, "best_model.zip", PPO), TypeError, "predict"),
    *w.wrong_bool("deterministic"),
    *w.rows("vec_normalize", (5, "vecnormalize.pkl"), TypeError, "a VecNormalize"),
    *w.wrong_integer("n_envs", or_none=True),
    *w.rows("after_task", (5, "print"), TypeError, "a function"),
]
TRIALS = [*FAMILY, *w.wrong_integer("n_tasks"), *w.wrong_integer("n_episodes", or_none=True)]
EVALUATION = [
    *FAMILY,
    *PLAY,
    *w.wrong_integer("n_eval_tasks"),
    *w.wrong_integer("n_eval_episodes", or_none=True),
    *w.rows("info_keys", ("x_velocity", 5, None), TypeError, "a list of names"),
    w.Wrong("info_keys", ["height"], ValueError, "among", quoted="'height'"),
    w.Wrong("env_kwargs", {"reveal_task": True}, ValueError, "trained with", quoted="'task'"),
    w.Wrong("env_kwargs", {"previous_transition": False}, ValueError, "trained with", quoted="Box("),
]


PROTOCOL = [
    *PLAY,
    *w.rows("env_id", (5, None, no_trials), TypeError, "a registered id"),
    w.Wrong("env_id", ENV, ValueError, "MetaWorld"),
    *(row for name in ("n_goals", "n_adaptation_episodes", "n_evaluation_episodes") for row in w.wrong_integer(name)),
    *w.wrong_integer("seed", low=0),
    *w.wrong_keywords("env_kwargs"),
    *w.wrong_option("split", "validation"),
    w.Wrong("split", "train", ValueError, "'test'"),
]


@pytest.mark.parametrize("row", PROTOCOL, ids=w.name_of)
@pytest.mark.usefixtures("few_goals")
def test_metaworld_protocol(row: w.Wrong) -> None:
    from sb3_trmrl.evaluation.metaworld_protocol import metaworld_protocol

    row.check(metaworld_protocol, {"model": references.RandomArm(0), "env_id": "MetaWorldML1-v0"})


def test_every_argument_of_the_protocol_is_in_the_table() -> None:
    from sb3_trmrl.evaluation.metaworld_protocol import metaworld_protocol

    w.assert_covered(metaworld_protocol, PROTOCOL)


CALLBACK = [
    *w.rows("eval_env", (5, None, [gym.make(ENV)], early_end), TypeError, "a registered id"),
    *w.wrong_integer("n_eval_episodes", or_none=True),
    *w.wrong_keywords("env_kwargs"),
    w.Wrong("env_kwargs", {"arms": 3}, TypeError, "it takes", quoted="'arms'"),
    w.Wrong("env_kwargs", {"n_arms": 3}, ValueError, "a registered id", given={"eval_env": gym.make(ENV)}),
    *w.wrong_integer("seed", low=0),
    *w.wrong_option("best_by", "success_rate"),
]


def test_an_argument_that_the_callback_does_not_take() -> None:
    with w.refused(TypeError, "'evaluation_freq'", "it takes", "eval_freq", "EvalCallback"):
        AdaptationEvalCallback(DummyVecEnv([early_end]), evaluation_freq=5)


RESULT = AdaptationResult(ENV, [0, 1, 2], np.ones((3, 2, 4)))
CONFIDENCE = w.wrong_number("confidence", (0, 1, -0.5, 2), "between 0 and 1")
SEED = w.wrong_integer("seed", low=0)
AGENT = PPO("MultiInputPolicy", gym.make(ENV), n_steps=8, batch_size=8, device="cpu")
TABLES = [
    w.Table(evaluate_adaptation, {"model": AGENT, "env": ENV, "n_eval_tasks": 1, "n_eval_episodes": 1}, EVALUATION),
    w.Table(Trials, {"env": ENV}, TRIALS),
    w.Table(Trials(ENV, 1).play, {"model": references.RandomArm(0)}, PLAY),
    w.Table(AdaptationEvalCallback, {"eval_env": ENV}, CALLBACK),
    w.Table(InnerEpisodeCallback, {}, w.wrong_integer("window"), {"verbose": "SB3's, decides on what is printed only"}),
    w.Table(RESULT.interval, {}, CONFIDENCE),
    w.Table(bootstrap_interval, {"values": np.ones((3, 2))}, [*CONFIDENCE, *SEED], {"values": "computed"}),
    w.Table(evaluation_seed, {"purpose": "test"}, SEED, {"purpose": "ours"}),
]


@w.each_row(TABLES)
def test_wrong_use(function: Callable[..., Any], right: dict[str, Any], row: w.Wrong) -> None:
    row.check(function, right)


def test_every_argument_is_in_the_table() -> None:
    w.assert_all_covered(TABLES)


NO_RESULTS = {
    "text": b"no result",
    "nothing": b"",
    "one array": w.saved(np.save, np.zeros(3)),
    "other arrays": w.saved(np.savez, timesteps=np.zeros(3)),
    "pickle": w.saved(np.savez, rewards=np.array([{}]), tasks="[]", about="{}"),
    "other fields": w.saved(np.savez, rewards=np.zeros((1, 1, 1)), tasks="[0]", about='{"name": 1}'),
}


def assert_no_result(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with w.refused(ValueError, "path", repr(str(path)), "AdaptationResult.save"):
        AdaptationResult.load(path)


@pytest.mark.parametrize("content", NO_RESULTS.values(), ids=list(NO_RESULTS))
def test_other_files(content: bytes, tmp_path: Path) -> None:
    assert_no_result(tmp_path / "result.npz", content)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "result.npz"
    RESULT.save(path)
    content = path.read_bytes()
    changed = bytearray(content)
    changed[content.index(b"about.npy") + 60] ^= 0xFF
    for damaged in (content[: len(content) // 2], bytes(changed)):
        assert_no_result(path, damaged)


def test_files_of_results(tmp_path: Path) -> None:
    for path in (5, None, ["result.npz"]):
        w.Wrong("path", path, TypeError, "a path").check(AdaptationResult.load)
        w.Wrong("path", path, TypeError, "a path").check(RESULT.save)
    with pytest.raises(FileNotFoundError, match=r"missing\.npz"):
        AdaptationResult.load(tmp_path / "missing.npz")
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        AdaptationResult.load(tmp_path)
