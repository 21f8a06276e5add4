"""Wrong arguments of TransformerPPO, ``learn``, ``load`` and ``save``, and unusual ones that are right."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_trmrl.memory.sequence_buffer import SequenceRolloutBuffer
from sb3_trmrl.memory.window_buffer import WindowRolloutBuffer
from sb3_trmrl.transformer_ppo import TransformerPPO
from tests.helpers.agents import tiny_model
from tests.helpers.wrong_use import (
    INF,
    NAN,
    Wrong,
    assert_covered,
    name_of,
    rows,
    wrong_bool,
    wrong_integer,
    wrong_keywords,
    wrong_number,
    wrong_option,
)


def negative(progress_remaining: float) -> float:
    return -1.0


def text(progress_remaining: float) -> Any:
    return "fast"


def no_argument() -> float:
    return 1.0


def wrong_schedule(argument: str, or_none: bool = False) -> list[Wrong]:
    """Return wrong uses of a number that may be a schedule."""
    made = wrong_number(argument, (-1.0, NAN, INF), "not negative", or_none)
    made += rows(argument, [text, no_argument], TypeError, "a schedule that returns")
    return [*made, Wrong(argument, negative, ValueError, "not negative", quoted="-1.0")]


MODEL = [
    *wrong_option("policy", "TrMRLPolicy")[:2],
    Wrong("policy", "MlpPolicy", ValueError, "'TrMRLPolicy'"),
    Wrong("policy", ActorCriticPolicy, ValueError, "'TrMRLPolicy'", quoted="ActorCriticPolicy"),
    *rows("policy", (5, None), TypeError, "'TrMRLPolicy'"),
    *rows("env", (5, [gym.make("CartPole-v1")], gym.make, gym.Env), TypeError, "a Gymnasium environment"),
    Wrong("env", None, TypeError, "a Gymnasium environment"),
    *wrong_schedule("learning_rate"),
    *wrong_integer("n_steps"),
    *wrong_integer("batch_size"),
    Wrong("batch_size", 1, ValueError, "at least 2"),
    *wrong_integer("n_epochs"),
    *wrong_number("gamma", (-0.1, 1.1, 2, NAN, INF), "[0, 1]"),
    *wrong_number("gae_lambda", (-0.1, 1.1, NAN, INF), "[0, 1]"),
    *wrong_schedule("clip_range"),
    *wrong_number("clip_range_vf", (0, -0.2, NAN, INF), "positive", or_none=True),
    *wrong_bool("normalize_advantage"),
    *wrong_number("ent_coef", (NAN, INF, -INF), "finite"),
    *wrong_number("vf_coef", (-0.1, NAN, INF), "not negative"),
    *wrong_number("max_grad_norm", (0, -0.5, NAN, -INF), "positive"),
    *wrong_bool("use_sde"),
    *rows("sde_sample_freq", (2.5, "4", True, None), TypeError, "integer"),
    *rows("sde_sample_freq", (0, -2), ValueError, "at least"),
    *rows("rollout_buffer_class", ("WindowRolloutBuffer", 5, dict), TypeError, "RolloutBuffer"),
    *rows("rollout_buffer_class", (RolloutBuffer, DictRolloutBuffer), ValueError, "SequenceRolloutBuffer"),
    Wrong("rollout_buffer_class", WindowRolloutBuffer, ValueError, "SequenceRolloutBuffer"),
    *(
        Wrong("rollout_buffer_class", buffer, ValueError, expected.__name__, given={"policy_kwargs": policy_kwargs})
        for buffer, expected, policy_kwargs in (
            (WindowRolloutBuffer, SequenceRolloutBuffer, {"memory": "full", "context_length": 5}),
            (SequenceRolloutBuffer, WindowRolloutBuffer, {"context_length": 5}),
            (SequenceRolloutBuffer, WindowRolloutBuffer, {"memory": "window"}),
        )
    ),
    *wrong_keywords("rollout_buffer_kwargs"),
    Wrong("rollout_buffer_kwargs", {"gamma": 0.5}, TypeError, "it takes none", quoted="'gamma'"),
    Wrong("rollout_buffer_kwargs", {"depth": 5}, TypeError, "it takes none", quoted="'depth'"),
    *wrong_number("target_kl", (0, -0.1, NAN), "positive", or_none=True),
    *wrong_integer("stats_window_size"),
    *rows("tensorboard_log", (5, ["runs"]), TypeError, "a folder"),
    *wrong_keywords("policy_kwargs"),
    *wrong_integer("seed", low=0, or_none=True, high=2**32 - 1),
    *rows("device", ("gpu", "", 1.5, None, "cpu:x"), ValueError, "'auto'"),
    *wrong_schedule("vf_learning_rate", or_none=True),
]
#: An argument of SB3 that only decides what is printed
NEED_NO_ROW = ("verbose",)


@pytest.mark.parametrize("row", MODEL, ids=name_of)
def test_model(row: Wrong) -> None:
    row.check(TransformerPPO, {"policy": "TrMRLPolicy", "env": "CartPole-v1", "device": "cpu"})


def test_every_argument_of_the_model_is_in_the_table() -> None:
    assert_covered(TransformerPPO, MODEL, NEED_NO_ROW)


RIGHT: list[dict[str, Any]] = [
    dict(gamma=0, gae_lambda=0),
    dict(gamma=1, gae_lambda=1.0),
    dict(max_grad_norm=INF, target_kl=INF, ent_coef=-0.01),
    dict(clip_range=0.0, learning_rate=0, ent_coef=0, vf_coef=0),
    dict(learning_rate=lambda progress: np.float32(progress), clip_range=lambda progress: th.tensor(0.2)),
    dict(clip_range_vf=lambda progress: 0.2 * progress, vf_learning_rate=0.1),
    dict(batch_size=1, n_steps=1, normalize_advantage=False),
    dict(seed=np.int64(3)),
    dict(seed=2**32 - 1, device=th.device("cpu"), tensorboard_log=Path("runs")),
    dict(n_steps=np.int64(3), batch_size=np.int32(3), use_sde=np.bool_(False)),
    dict(policy_kwargs=dict(activation_fn=lambda: nn.LeakyReLU(0.1), net_arch=[])),
    dict(policy_kwargs=dict(net_arch=dict(pi=[4]), optimizer_kwargs=None)),
    dict(policy_kwargs=dict(d_model=7, n_heads=1, positional_encoding="learned", context_length=3)),
    dict(policy_kwargs=dict(d_model=7, n_heads=1, positional_encoding="none")),
    dict(policy_kwargs=dict(context_length=np.int64(3), n_layers=np.int64(3)), n_steps=np.int64(3), batch_size=3),
    dict(policy_kwargs=dict(context_length=np.int32(3), n_layers=np.int32(3)), n_steps=np.int32(3), batch_size=3),
]


@pytest.mark.parametrize("arguments", RIGHT, ids=lambda arguments: ",".join(arguments))
def test_arguments_that_are_accepted(
    arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PPO accepts them, integers of NumPy, and an odd width without sinusoidal positions. They train for a rollout."""
    monkeypatch.chdir(tmp_path)
    model = tiny_model("CartPole-v1", **arguments)
    assert model.learn(1).num_timesteps == arguments.get("n_steps", 16)


LOADED = [row for row in MODEL if row.argument not in ("policy", "env", "device", "stats_window_size", "policy_kwargs")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.zip"
    tiny_model("CartPole-v1").save(path)
    return path


@pytest.mark.parametrize("row", [row for row in LOADED if not row.given], ids=name_of)
def test_model_from_a_zip(row: Wrong, saved: Path) -> None:
    """Loading sets attributes without calling the constructor."""
    row.check(TransformerPPO.load, {"path": saved, "device": "cpu"})


LEARN = [
    *rows("total_timesteps", ("many", True, 2.5, NAN, INF, [5], None), TypeError, "an integer"),
    *rows("total_timesteps", (-5, -1e6), ValueError, "at least 0"),
    *rows("callback", (5, "best", BaseCallback, (BaseCallback,)), TypeError, "an SB3 callback, a list of them"),
    Wrong("callback", [CheckpointCallback(5, "models"), 5], TypeError, "an SB3 callback", quoted="5"),
    *wrong_integer("log_interval", or_none=True),
    *rows("tb_log_name", (5, ["run"]), TypeError, "a name"),
    *wrong_bool("reset_num_timesteps"),
    *wrong_bool("progress_bar"),
    *wrong_bool("use_masking"),
]
LEARN = [row._replace(quoted="-1000000") if row.value == -1e6 else row for row in LEARN]
LOAD = [
    *rows("path", (5, None, ["model"]), TypeError, "a file"),
    *rows("env", (5, "CartPole-v1", gym.Env, gym.make), TypeError, "a Gymnasium environment or a VecEnv"),
    *rows("device", ("gpu", "", 1.5, None), ValueError, "'auto'"),
    *wrong_keywords("custom_objects"),
    *wrong_bool("print_system_info"),
    *wrong_bool("force_reset"),
    *(
        Wrong(name, 5, TypeError, "it takes", quoted=repr(name))
        for name in ("n_epoch", "policy", "_init_setup_model", "policy_class")
    ),
]
NOT_NAMES = ("policy", 5, [5])
SAVE = [
    *rows("path", (5, None, ["model"]), TypeError, "a path"),
    Wrong("path", f"{__file__}/model", ValueError, "cannot save"),
    *(row for name in ("exclude", "include") for row in rows(name, NOT_NAMES, TypeError, "a list of names")),
]


@pytest.mark.parametrize("row", LEARN, ids=name_of)
def test_learn(row: Wrong) -> None:
    model = tiny_model("CartPole-v1")
    row.check(model.learn, {"total_timesteps": 8})
    assert model.num_timesteps == 0


@pytest.mark.parametrize("row", LOAD, ids=name_of)
def test_load(row: Wrong, saved: Path) -> None:
    row.check(TransformerPPO.load, {"path": saved})


@pytest.mark.parametrize("row", SAVE, ids=name_of)
def test_save(row: Wrong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    row.check(tiny_model("CartPole-v1").save, {"path": "model"})
    assert not list(tmp_path.iterdir())


def test_every_argument_of_learn_load_and_save_is_in_the_table() -> None:
    assert_covered(TransformerPPO.learn, LEARN)
    assert_covered(TransformerPPO.load, [row for row in LOAD if row.argument != "n_epoch"])
    assert_covered(TransformerPPO.save, SAVE)


def test_arguments_of_learn_load_and_save_that_ppo_accepts(saved: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    model = TransformerPPO.load(str(saved), env=gym.make("CartPole-v1"), custom_objects={"gamma": 0.5}, n_epochs=1)
    assert (model.gamma, model.n_epochs) == (0.5, 1)
    model.learn(1e1, callback=lambda locals_, _: steps.append(locals_["n_steps"]), log_interval=None)  # type: ignore[arg-type]
    model.learn(np.int64(0), callback=[])
    assert steps and model.num_timesteps == 0
    with open(tmp_path / "model.zip", "wb") as file:
        model.save(file, exclude=("ep_info_buffer",), include={"env"} - {"env"})
    assert TransformerPPO.load(tmp_path / "model", env=gym.make("CartPole-v1"), seed=np.int64(3)).seed == 3


def test_one_transition_has_no_normalized_advantage(saved: Path) -> None:
    with pytest.raises(AssertionError, match=r"`n_steps \* n_envs` must be greater than 1.* n_steps=1 and n_envs=1"):
        tiny_model("CartPole-v1", n_steps=1)
    with pytest.raises(ValueError, match=r"`n_steps` must be at least 2 .*, got 1"):
        TransformerPPO.load(saved, env=gym.make("CartPole-v1"), n_steps=1)
