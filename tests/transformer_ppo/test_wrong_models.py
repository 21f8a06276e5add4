"""Wrong uses of TransformerPPO, its policy, its extractor, ``predict``, ``learn`` and ``load``."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_trmrl.memory.extractor import TransformerExtractor
from sb3_trmrl.memory.sequence_buffer import SequenceRolloutBuffer
from sb3_trmrl.memory.window_buffer import WindowRolloutBuffer
from sb3_trmrl.transformer_ppo import TransformerPPO, TrMRLPolicy
from tests.helpers.agents import TRANSITION, VECTOR, LinearFeatures, SampledEnv, tiny_model
from tests.helpers.wrong_use import (
    INF,
    NAN,
    NOT_BOOLS,
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


def negative(progress_remaining: float) -> float:
    return -1.0


def text(progress_remaining: float) -> Any:
    return "fast"


def no_argument() -> float:
    return 1.0


def wrong_schedule(argument: str, or_none: bool = False) -> list[Wrong]:
    """:return: Wrong uses of a number that may be a schedule"""
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
    *rows("rollout_buffer_class", (RolloutBuffer, DictRolloutBuffer), ValueError, "WindowRolloutBuffer"),
    Wrong("rollout_buffer_class", SequenceRolloutBuffer, ValueError, "WindowRolloutBuffer"),
    Wrong(
        "rollout_buffer_class",
        WindowRolloutBuffer,
        ValueError,
        "SequenceRolloutBuffer",
        given={"policy_kwargs": {"memory": "full"}},
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
#: Arguments without a row, and why
NEED_NO_ROW = {"verbose": "SB3's, decides on what is printed only"}


@pytest.mark.parametrize("row", MODEL, ids=name_of)
def test_model(row: Wrong) -> None:
    row.check(TransformerPPO, {"policy": "TrMRLPolicy", "env": "CartPole-v1", "device": "cpu"})


def test_every_argument_of_the_model_is_in_the_table() -> None:
    assert_covered(TransformerPPO, MODEL, NEED_NO_ROW)


RIGHT = [
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
]


@pytest.mark.parametrize("arguments", RIGHT, ids=lambda arguments: ",".join(arguments))
def test_what_ppo_takes_is_not_refused(arguments: dict[str, Any]) -> None:
    TransformerPPO("TrMRLPolicy", "CartPole-v1", **{"device": "cpu", "n_steps": 64, **arguments})


LOADED = [row for row in MODEL if row.argument not in ("policy", "env", "device", "stats_window_size", "policy_kwargs")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model's zip"""
    path = tmp_path_factory.mktemp("saved") / "model.zip"
    tiny_model("CartPole-v1").save(path)
    return path


@pytest.mark.parametrize("row", [row for row in LOADED if not row.given], ids=name_of)
def test_model_from_a_zip(row: Wrong, saved: Path) -> None:
    """Loading goes past the constructor."""
    row.check(TransformerPPO.load, {"path": saved, "device": "cpu"})


LEARN = [
    *rows("total_timesteps", ("many", True, 2.5, NAN, INF, [5], None), TypeError, "an integer"),
    *rows("total_timesteps", (-5, -1e6), ValueError, "at least 0"),
    *rows("callback", (5, "best", BaseCallback, (BaseCallback,)), TypeError, "a callback of SB3, a list of those"),
    Wrong("callback", [CheckpointCallback(5, "models"), 5], TypeError, "a callback of SB3", quoted="5"),
    *wrong_integer("log_interval", or_none=True),
    *rows("tb_log_name", (5, None, ["run"]), TypeError, "a name"),
    *wrong_bool("reset_num_timesteps"),
    *wrong_bool("progress_bar"),
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


def test_what_learn_load_and_save_of_ppo_take_is_not_refused(saved: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    model = TransformerPPO.load(str(saved), env=gym.make("CartPole-v1"), custom_objects={"gamma": 0.5}, n_epochs=1)
    assert (model.gamma, model.n_epochs) == (0.5, 1)
    model.learn(1e1, callback=lambda locals_, _: steps.append(locals_["n_steps"]), log_interval=None)  # type: ignore[arg-type]
    model.learn(np.int64(0), callback=[])  # type: ignore[arg-type]
    assert steps and model.num_timesteps == 0
    with open(tmp_path / "model.zip", "wb") as file:
        model.save(file, exclude=("ep_info_buffer",), include={"env"} - {"env"})
    assert TransformerPPO.load(tmp_path / "model", env=gym.make("CartPole-v1"), seed=np.int64(3)).seed == 3


def test_one_transition_has_no_normalised_advantage(saved: Path) -> None:
    with pytest.raises(AssertionError, match=r"`n_steps \* n_envs` must be greater than 1.* n_steps=1 and n_envs=1"):
        tiny_model("CartPole-v1", n_steps=1)
    with pytest.raises(ValueError, match=r"`n_steps` must be at least 2 .*, got 1"):
        TransformerPPO.load(saved, env=gym.make("CartPole-v1"), n_steps=1)


SIZES = ("context_length", "d_model", "n_layers", "n_heads", "dim_feedforward")
TRANSFORMER = [
    *(row for name in SIZES[1:] for row in wrong_integer(name)),
    Wrong("n_heads", 3, ValueError, "divide"),
    Wrong("n_heads", 128, ValueError, "divide"),
    Wrong("d_model", 63, ValueError, "even", given={"n_heads": 1}),
    *wrong_option("initialization", "tfixup"),
    *wrong_option("layer_norm", "none"),
    *rows("embedding_arch", (4, "4"), TypeError, "a list of layer sizes"),
    *(Wrong("embedding_arch", [4, value], TypeError, "integer", quoted=repr(value)) for value in (4.0, "a", True)),
    Wrong("embedding_arch", [4, 0], ValueError, "at least 1", quoted="0"),
]
POLICY = [
    *TRANSFORMER,
    *wrong_option("memory", "window"),
    Wrong("positional_encoding", "learned", ValueError, "window", given={"memory": "full"}),
    *wrong_integer("context_length", or_none=True),
    *wrong_option("positional_encoding", "sinusoidal", or_none=True),
    *rows("net_arch", (5, "64", {4}), TypeError, "a list of layer sizes"),
    Wrong("net_arch", {"pi": 64}, TypeError, "a list of layer sizes", quoted="64"),
    Wrong("net_arch", {"pi": [64], "qf": [64]}, ValueError, "'vf'", quoted="'qf'"),
    *(Wrong("net_arch", value, TypeError, "integer", quoted="'a'") for value in (["a"], {"vf": [4, "a"]})),
    *(Wrong("net_arch", value, ValueError, "at least 1", quoted="0") for value in ([4, 0], {"pi": [0]})),
    *rows("activation_fn", ("tanh", nn.Tanh(), th.tanh, None, int), TypeError, "a class of modules"),
    *(row for name in ("ortho_init", "share_features_extractor", "normalize_images") for row in wrong_bool(name)),
    *(
        Wrong(name, value, TypeError, "True or False")
        for name in ("full_std", "use_expln", "squash_output")
        for value in NOT_BOOLS
        if value is not None
    ),
    *wrong_number("log_std_init", (NAN, INF), "finite"),
    *rows("features_extractor_class", ("NatureCNN", 5, nn.Linear), TypeError, "BaseFeaturesExtractor"),
    *wrong_keywords("features_extractor_kwargs"),
    Wrong(
        "features_extractor_kwargs",
        {"depth": 5},
        TypeError,
        "it takes width",
        quoted="'depth'",
        given={"features_extractor_class": LinearFeatures},
    ),
    *rows("optimizer_class", ("Adam", 5, None, nn.Linear), TypeError, "Optimizer"),
    *wrong_keywords("optimizer_kwargs"),
    Wrong("optimizer_kwargs", {"lr": 0.1}, TypeError, "betas", quoted="'lr'"),
    Wrong("optimizer_kwargs", {"beta": 0.1}, TypeError, "betas", quoted="'beta'"),
    *wrong_option("reset_memory_on", "trial"),
    *wrong_option("critic_input", "token"),
    *wrong_number("action_head_gain", (-0.1, NAN, INF), "not negative"),
]
#: What TransformerPPO passes itself; by hand it may be wrong too
OF_MODEL = [
    *rows("observation_space", (5, None, (4,)), TypeError, "a space of Gymnasium"),
    *rows("action_space", (5, None), TypeError, "a space of Gymnasium"),
    *rows("lr_schedule", (3e-4, None, "lin_3e-4"), TypeError, "a schedule"),
    *wrong_bool("use_sde"),
]


@pytest.mark.parametrize("row", POLICY, ids=name_of)
def test_policy_kwargs(row: Wrong) -> None:
    def build(**policy_kwargs: Any) -> TransformerPPO:
        return TransformerPPO("TrMRLPolicy", "CartPole-v1", policy_kwargs=policy_kwargs, device="cpu")

    row.check(build)


@pytest.mark.parametrize("row", [*POLICY, *OF_MODEL], ids=name_of)
def test_policy_by_hand(row: Wrong) -> None:
    right = {"observation_space": VECTOR, "action_space": spaces.Discrete(2), "lr_schedule": lambda _: 1e-3}
    row.check(TrMRLPolicy, right)


def test_every_argument_of_the_policy_is_in_the_table() -> None:
    assert_covered(TrMRLPolicy, [*POLICY, *OF_MODEL])


@pytest.mark.parametrize("name", ["no_such_argument", "use_sde", "observation_space", "n_layer"])
def test_names_that_the_policy_does_not_take(name: str) -> None:
    with pytest.raises(TypeError) as caught:
        tiny_model("CartPole-v1", {name: 1})
    assert_says(str(caught.value), "policy_kwargs", repr(name), "it takes", "n_layers", "embedding_arch")


EXTRACTOR = [
    *TRANSFORMER,
    *wrong_integer("context_length"),
    *wrong_option("positional_encoding", "sinusoidal"),
    *rows("observation_space", (5, None), TypeError, "a space of Gymnasium"),
    *rows("token_extractor", (5, FlattenExtractor), TypeError, "a BaseFeaturesExtractor"),
    *wrong_bool("bounded_positions"),
    *wrong_bool("normalize_images"),
    Wrong("positional_encoding", "learned", ValueError, "bounded", given={"bounded_positions": False}),
]


@pytest.mark.parametrize("row", EXTRACTOR, ids=name_of)
def test_extractor(row: Wrong) -> None:
    row.check(TransformerExtractor, {"observation_space": VECTOR})


def test_every_argument_of_the_extractor_is_in_the_table() -> None:
    assert_covered(TransformerExtractor, EXTRACTOR)


ONE, TWO = np.zeros((1, 3), np.float32), np.zeros((2, 3), np.float32)
PREDICT = [
    *(
        Wrong("observation", value, ValueError, "(n_env, 3)", quoted=str(np.shape(value)))
        for value in (np.zeros(2), np.zeros((2, 4)), np.zeros((2, 2, 3)), 0.0, [[0.0]])
    ),
    *rows("observation", (np.full((2, 3), "a"), np.full((2, 3), None)), ValueError, "numbers"),
    Wrong("observation", {"observation": np.zeros((2, 3))}, ValueError, "an array", quoted="'observation'"),
    *(
        Wrong("observation", np.full((2, 3), value), ValueError, "non-finite", quoted=str(value))
        for value in (NAN, INF, -INF)
    ),
    *rows("state", (5, "memory", np.zeros(3), {}), ValueError, "what predict() returned"),
    *(
        Wrong("episode_start", value, ValueError, "2 observations", quoted=str(value))
        for value in ([True], [True] * 3, True, "yes", ["yes", "no"], [None, None], np.ones((2, 2)))
    ),
    *wrong_bool("deterministic"),
]


@pytest.mark.parametrize("memory", ["window", "full"])
@pytest.mark.parametrize("row", PREDICT, ids=name_of)
def test_predict(row: Wrong, memory: str) -> None:
    model = tiny_model(SampledEnv(VECTOR), {"memory": memory})
    right = {"observation": TWO, "episode_start": [True, True]}
    row.check(model.policy.predict, right)
    row.check(model.predict, right)


def test_predict_takes_tensors_as_episode_starts() -> None:
    model = tiny_model(SampledEnv(VECTOR))
    _, memory = model.predict(TWO, None, np.ones(2, bool))
    for starts in ([True, False], [1, 1]):
        expected, state = model.predict(TWO, memory, np.array(starts), deterministic=True)
        found, of_tensor = model.predict(TWO, memory, th.tensor(starts), deterministic=True)
        assert np.array_equal(found, expected) and np.array_equal(of_tensor.lengths, state.lengths)


def test_every_argument_of_predict_is_in_the_table() -> None:
    assert_covered(TransformerPPO.predict, PREDICT)
    assert_covered(TrMRLPolicy.predict, PREDICT)


def test_predict_with_a_dictionary() -> None:
    model = tiny_model(SampledEnv(TRANSITION))
    right = {key: np.zeros((2, *space.shape), np.float32) for key, space in TRANSITION.spaces.items()}
    starts = np.ones(2)
    bad: dict[str, Any] = {**right, "prev_action": np.zeros((2, 5), np.float32)}
    with pytest.raises(ValueError) as caught:
        model.predict(bad, None, starts)
    assert_says(str(caught.value), "observation", "(2, 5)", "(n_env, 2)")
    bad = {**right, "prev_action": np.full((2, 2), NAN)}
    with pytest.raises(ValueError) as caught:
        model.predict(bad, None, starts)
    assert_says(str(caught.value), "observation['prev_action']", "nan", "environment 0")
    del bad["prev_action"]
    with pytest.raises(ValueError) as caught:
        model.predict(bad, None, starts)
    assert_says(str(caught.value), "observation", "'prev_action'", "'prev_reward'")
    with pytest.raises(ValueError) as caught:
        model.predict({**right, "more": np.zeros((2, 1))}, None, starts)
    assert_says(str(caught.value), "observation", "'more'", "'prev_action'", "'prev_reward'")
    with pytest.raises(ValueError) as caught:
        model.predict(TWO, None, starts)
    assert_says(str(caught.value), "observation", "'prev_action'", "ndarray")
