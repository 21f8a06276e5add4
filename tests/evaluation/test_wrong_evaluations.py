"""Wrong uses of evaluation, its results and callbacks."""

from collections.abc import Callable
from io import BytesIO
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
from tests.helpers.families import early_end
from tests.helpers.wrong_use import (
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
    """An untrained agent."""
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


def saved(save: Callable[..., None], *arrays: Any, **named: Any) -> bytes:
    """Return the content of a file that one of NumPy's functions saves."""
    file = BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


NO_RESULTS = {
    "text": b"no result",
    "nothing": b"",
    "one array": saved(np.save, np.zeros(3)),
    "other arrays": saved(np.savez, timesteps=np.zeros(3)),
    "pickle": saved(np.savez, rewards=np.array([{}]), tasks="[]", about="{}"),
    "other fields": saved(np.savez, rewards=np.zeros((1, 1, 1)), tasks="[0]", about='{"name": 1}'),
}


def assert_no_result(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        AdaptationResult.load(path)
    assert_says(str(caught.value), "path", repr(str(path)), "AdaptationResult.save")


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
        Wrong("path", path, TypeError, "a path").check(AdaptationResult.load)
        Wrong("path", path, TypeError, "a path").check(RESULT.save)
    with pytest.raises(FileNotFoundError, match=r"missing\.npz"):
        AdaptationResult.load(tmp_path / "missing.npz")
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        AdaptationResult.load(tmp_path)
