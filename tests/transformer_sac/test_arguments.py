"""Wrong arguments of TransformerSAC and its policy, and environments that it cannot learn from."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.type_aliases import TrainFrequencyUnit
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_trmrl import TransformerPPO, TransformerSAC, TransformerSACPolicy
from sb3_trmrl.memory.sequence_replay_buffer import SequenceReplayBuffer
from sb3_trmrl.memory.window_replay_buffer import WindowReplayBuffer
from tests.helpers.agents import BOX_ACTION, VECTOR, SampledEnv
from tests.helpers.sac import POLICY, TINY, tiny_sac
from tests.helpers.wrong_use import (
    INF,
    NAN,
    Table,
    Wrong,
    assert_all_covered,
    each_row,
    refused,
    rows,
    wrong_bool,
    wrong_integer,
    wrong_keywords,
    wrong_number,
    wrong_option,
)


def wrong_sizes(argument: str) -> list[Wrong]:
    return [
        *rows(argument, (5, "wide"), TypeError, "a list of layer sizes"),
        Wrong(argument, [8, 0], ValueError, "at least 1", quoted="0"),
    ]


MODEL = Table(
    TransformerSAC,
    {**TINY, "policy": "TrMRLPolicy", "env": SampledEnv(VECTOR, BOX_ACTION), "policy_kwargs": POLICY},
    [
        *wrong_option("policy", "TrMRLPolicy")[:2],
        Wrong("policy", "MlpPolicy", ValueError, "'TrMRLPolicy'"),
        *rows("policy", (5, None), TypeError, "'TrMRLPolicy'"),
        *rows("env", (5, gym.make, gym.Env), TypeError, "a Gymnasium environment"),
        Wrong("env", None, TypeError, "a Gymnasium environment"),
        *wrong_number("learning_rate", (-1.0, NAN, INF), "not negative"),
        *wrong_integer("buffer_size", low=0)[:3],
        Wrong("buffer_size", 4, ValueError, "at least 5"),
        *wrong_integer("learning_starts", low=0)[:3],
        *wrong_integer("batch_size"),
        *wrong_number("tau", (-0.1, 1.1, NAN), "[0, 1]"),
        *wrong_number("gamma", (-0.1, 1.1, NAN), "[0, 1]"),
        *rows("train_freq", (0, -1, (0, "step")), ValueError, "at least 1")[:2],
        Wrong("train_freq", (1, "hour"), ValueError, "'episode'"),
        *rows("train_freq", ((1,), (1, "step", 2), "step"), ValueError, "'episode'")[:2],
        Wrong("train_freq", 2.5, TypeError, "an integer"),
        *wrong_integer("gradient_steps", low=-1)[:-2],
        Wrong("gradient_steps", -2, ValueError, "at least -1"),
        Wrong("action_noise", 0.1, TypeError, "an ActionNoise"),
        Wrong("replay_buffer_class", list, TypeError, "MemoryReplayBuffer"),
        *wrong_keywords("replay_buffer_kwargs"),
        Wrong("replay_buffer_kwargs", dict(size=5), TypeError, "folder", quoted="'size'"),
        Wrong("replay_buffer_kwargs", dict(n_envs=5), TypeError, "folder", quoted="'n_envs'"),
        *rows("ent_coef", ("automatic", "auto_", "auto_0"), ValueError, "'auto'"),
        *rows("ent_coef", (-1.0, NAN), ValueError, "not negative"),
        *wrong_integer("target_update_interval"),
        *rows("target_entropy", ("high", None), TypeError, "a number"),
        *wrong_bool("use_sde"),
        *wrong_integer("sde_sample_freq", low=-1)[:-2],
        Wrong("sde_sample_freq", 0, ValueError, "at least 1"),
        *wrong_bool("use_sde_at_warmup"),
        *wrong_integer("stats_window_size"),
        Wrong("tensorboard_log", 5, TypeError, "a folder or None"),
        *wrong_keywords("policy_kwargs"),
        Wrong("policy_kwargs", dict(wide=5), TypeError, "context_length", quoted="'wide'"),
        Wrong("policy_kwargs", dict(use_sde=True), TypeError, "context_length", quoted="'use_sde'"),
        *wrong_integer("seed", low=0, or_none=True),
        Wrong("device", "gpu", ValueError, "a PyTorch device"),
    ],
    {"verbose": "SB3's"},
)


def test_numbers_of_steps_and_tokens() -> None:
    """NumPy's integers, floats without a fraction and lists are accepted, also by ``load``."""
    model = tiny_sac(train_freq=[np.int64(2), "step"], buffer_size=1e3)
    assert tuple(model.train_freq) == (2, TrainFrequencyUnit.STEP) and model.buffer_size == 1000  # type: ignore[arg-type]
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    loaded = TransformerSAC.load(file, env=model.get_env(), buffer_size=2e3, train_freq=np.int64(3))
    assert loaded.train_freq.frequency == 3 and loaded.replay_buffer.buffer_size * loaded.n_envs == 2000  # type: ignore[union-attr]


def test_whole_episodes_are_for_one_environment() -> None:
    env = DummyVecEnv([lambda: SampledEnv(VECTOR, BOX_ACTION)] * 2)
    with refused(ValueError, "train_freq", "2 environments", "(1, 'episode')"):
        TransformerSAC("TrMRLPolicy", env, train_freq=(1, "episode"))


POLICY_TABLE = Table(
    TransformerSACPolicy,
    dict(observation_space=VECTOR, action_space=BOX_ACTION, lr_schedule=lambda _: 1e-3),
    [
        Wrong("lr_schedule", 0.1, TypeError, "a schedule"),
        Wrong("observation_space", 5, TypeError, "a Gymnasium space"),
        *wrong_sizes("net_arch"),
        Wrong("net_arch", dict(pi=[8], vf=[8]), ValueError, "'pi' and 'qf'", quoted="'vf'"),
        Wrong("activation_fn", "relu", TypeError, "nn.Module"),
        *wrong_bool("use_sde"),
        *wrong_number("log_std_init", (NAN, INF), "finite"),
        *wrong_bool("use_expln"),
        *wrong_number("clip_mean", (NAN, INF), "finite"),
        Wrong("features_extractor_class", 5, TypeError, "BaseFeaturesExtractor"),
        *wrong_keywords("features_extractor_kwargs"),
        Wrong("features_extractor_kwargs", dict(size=5), TypeError, "it takes none", quoted="'size'"),
        *wrong_bool("normalize_images"),
        Wrong("optimizer_class", 5, TypeError, "Optimizer"),
        *wrong_keywords("optimizer_kwargs"),
        Wrong("optimizer_kwargs", dict(lr=1.0), TypeError, "eps", quoted="'lr'"),
        *wrong_integer("n_critics"),
        *wrong_bool("share_features_extractor"),
        *wrong_option("shared_memory_loss", "critic"),
        *wrong_bool("critic_layer_norm"),
        *wrong_integer("context_length", or_none=True),
        *wrong_integer("d_model"),
        *wrong_integer("n_layers"),
        *wrong_integer("n_heads"),
        *wrong_integer("dim_feedforward"),
        *wrong_option("initialization", "tfixup"),
        *wrong_option("layer_norm", "pre"),
        *wrong_option("positional_encoding", "sinusoidal", or_none=True),
        Wrong("embedding_arch", 5, TypeError, "a list of layer sizes"),
        *wrong_option("reset_memory_on", "episode"),
        *wrong_option("memory", "window", or_none=True),
    ],
    {"action_space": "see below"},
)
TABLES = (MODEL, POLICY_TABLE)


@each_row(TABLES)
def test_wrong_arguments(function: Callable[..., Any], right: dict[str, Any], row: Wrong) -> None:
    row.check(function, right)


def test_every_argument_has_a_row() -> None:
    assert_all_covered(TABLES)


@pytest.mark.parametrize(
    ("space", "error", "message"),
    [
        (spaces.Discrete(2), TypeError, r"`env` must have a Box action space, because TransformerSAC's.*Discrete\(2\)"),
        (spaces.Box(-np.inf, 1.0, (2,)), ValueError, r"`env` must have an action space with finite bounds.*Box\(-inf"),
    ],
)
def test_action_spaces(space: spaces.Space[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tiny_sac(SampledEnv(VECTOR, space))
    with pytest.raises(error, match=message):
        TransformerSACPolicy(VECTOR, space, lambda _: 1e-3)


def test_kinds_of_memory_and_their_replay_buffers() -> None:
    with pytest.raises(ValueError, match=r"`memory` must be .*, got 'infinite'"):
        tiny_sac(policy_kwargs=dict(memory="infinite"))
    for memory, wrong in (("full", WindowReplayBuffer), ("window", SequenceReplayBuffer)):
        message = f"`replay_buffer_class` must be .* with memory='{memory}', got .*{wrong.__name__}"
        with pytest.raises(TypeError, match=message):
            tiny_sac(policy_kwargs=dict(memory=memory), replay_buffer_class=wrong)
    with pytest.raises(TypeError, match=r"`replay_buffer_kwargs` .*burn_in"):
        tiny_sac(replay_buffer_kwargs=dict(burn_in=3))
    with pytest.raises(TypeError, match=r"`replay_buffer_kwargs` .*seq_length"):
        tiny_sac(policy_kwargs=dict(memory="full"), replay_buffer_kwargs=dict(seq_length=3))
    with pytest.raises(ValueError, match="`buffer_size` must be at least 1026, a memory of 1024"):
        tiny_sac(policy_kwargs=dict(memory="full", context_length=None))


def test_the_zip_of_another_algorithm(tmp_path: Path) -> None:
    SAC("MlpPolicy", SampledEnv(VECTOR, BOX_ACTION), buffer_size=10).save(tmp_path / "sac")
    with pytest.raises(ValueError, match="`policy` must be 'TrMRLPolicy' or a subclass of TransformerSACPolicy, got"):
        TransformerSAC.load(tmp_path / "sac")
    tiny_sac().save(tmp_path / "ours")
    with pytest.raises(ValueError, match="must be 'TrMRLPolicy' or a subclass of it, got TransformerSACPolicy"):
        TransformerPPO.load(tmp_path / "ours")
    with pytest.raises(ValueError, match=r"`path` must be a zip that TransformerSAC\.save wrote"):
        (tmp_path / "broken.zip").write_bytes(b"PK")
        TransformerSAC.load(tmp_path / "broken.zip")
    with pytest.raises(TypeError, match="n_tasks"):
        TransformerSAC.load(tmp_path / "ours", n_tasks=9)


def test_the_replay_buffer_of_another_algorithm(tmp_path: Path) -> None:
    model = SAC("MlpPolicy", SampledEnv(VECTOR, BOX_ACTION), buffer_size=10)
    model.save_replay_buffer(tmp_path / "buffer")
    with pytest.raises(ValueError, match="`path` must hold a WindowReplayBuffer"):
        tiny_sac().load_replay_buffer(tmp_path / "buffer")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [(dict(total_timesteps=2.5), TypeError), (dict(total_timesteps=-1), ValueError), (dict(callback=5), TypeError)],
)
def test_wrong_arguments_of_learn(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        tiny_sac().learn(**{"total_timesteps": 1, **arguments})
