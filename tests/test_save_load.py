"""Saving and loading: every option comes back, an older file survives a failed save, foreign files are refused."""

import errno
import inspect
import io
import json
import os
import pathlib
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from agent_helpers import (
    IMAGE_FIRST,
    IMAGE_LAST,
    TRANSITION,
    VECTOR,
    SampledEnv,
    assert_equal_weights,
    changed,
    parameters_of,
    sampled_vec_env,
    tiny_model,
)
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

import sb3_trmrl.transformer_ppo.transformer_ppo as module_of_ppo
from sb3_trmrl.common.buffers import WindowRolloutBuffer
from sb3_trmrl.transformer_ppo import TransformerPPO, TrMRLPolicy

BOX_ACTION = spaces.Box(np.array([-1.0, -2.0], np.float32), np.array([3.0, 5.0], np.float32))


class LinearFeatures(BaseFeaturesExtractor):
    """A features extractor with an argument of its own."""

    def __init__(self, observation_space: spaces.Space, width: int = 3) -> None:
        super().__init__(observation_space, width)
        self.linear = nn.Linear(get_flattened_obs_dim(observation_space), width)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.linear(observations.flatten(1))


class OwnBuffer(WindowRolloutBuffer):
    """A buffer class that a user might pass."""


def halved(progress: float) -> float:
    return 1e-2 * progress / 2


# Non-default values of every argument: (policy_kwargs, arguments of the model, observation space, action space)
POLICY_OPTIONS: list[dict[str, Any]] = [
    dict(net_arch=[4]),
    dict(net_arch=[]),
    dict(net_arch=dict(pi=[4], vf=[6, 5])),
    dict(activation_fn=nn.ELU),
    dict(ortho_init=False),
    dict(log_std_init=-1.0),
    dict(features_extractor_class=LinearFeatures, features_extractor_kwargs=dict(width=5)),
    dict(share_features_extractor=False),
    dict(share_features_extractor=False, features_extractor_class=LinearFeatures),
    dict(critic_input="token"),
    dict(critic_input="token", features_extractor_class=LinearFeatures),
    dict(critic_input="token", share_features_extractor=False, features_extractor_class=LinearFeatures),
    dict(optimizer_class=th.optim.AdamW, optimizer_kwargs=dict(weight_decay=0.1)),
    dict(context_length=1),
    dict(context_length=7),
    dict(d_model=4),
    dict(n_layers=3),
    dict(n_heads=4),
    dict(dim_feedforward=6),
    dict(initialization="xavier"),
    dict(initialization="default"),
    dict(layer_norm="pre"),
    dict(layer_norm="post"),
    dict(positional_encoding="learned"),
    dict(positional_encoding="none"),
    dict(embedding_arch=[6]),
    dict(reset_memory_on="trial"),
    dict(action_head_gain=1.0),
]
SDE_OPTIONS: list[dict[str, Any]] = [{}, dict(full_std=False), dict(use_expln=True), dict(squash_output=True)]
IMAGE_OPTIONS: list[dict[str, Any]] = [
    dict(features_extractor_kwargs=dict(features_dim=6)),
    dict(features_extractor_class=NatureCNN, normalize_images=False),
    dict(critic_input="token", share_features_extractor=False, features_extractor_kwargs=dict(features_dim=6)),
]
MODEL_OPTIONS: list[dict[str, Any]] = [
    dict(learning_rate=halved),
    dict(learning_rate=LinearSchedule(1e-2, 1e-3, 0.5)),
    dict(n_steps=8),
    dict(batch_size=8),
    dict(n_epochs=3),
    dict(gamma=0.5),
    dict(gae_lambda=0.5),
    dict(clip_range=0.05),
    dict(clip_range_vf=0.05),
    dict(normalize_advantage=False),
    dict(ent_coef=0.1),
    dict(vf_coef=0.1),
    dict(max_grad_norm=0.01),
    dict(rollout_buffer_class=OwnBuffer),
    dict(target_kl=1e-6),
    dict(stats_window_size=7),
    dict(seed=5),
    dict(vf_learning_rate=5e-2),
    dict(vf_learning_rate=halved),
]
CASES: list[tuple[dict[str, Any], dict[str, Any], spaces.Space, spaces.Space]] = [
    *(
        (option, {}, VECTOR if "features_extractor_class" in option else TRANSITION, BOX_ACTION)
        for option in POLICY_OPTIONS
    ),
    *((option, dict(use_sde=True), VECTOR, BOX_ACTION) for option in SDE_OPTIONS),
    ({}, dict(use_sde=True, sde_sample_freq=4), VECTOR, BOX_ACTION),
    *((option, {}, IMAGE_FIRST, spaces.Discrete(3)) for option in IMAGE_OPTIONS),
    *(({}, option, VECTOR, spaces.Discrete(2)) for option in MODEL_OPTIONS),
    ({}, {}, spaces.Discrete(4), spaces.MultiDiscrete([2, 3])),
    ({}, {}, spaces.MultiBinary(4), spaces.MultiBinary(2)),
]


def name_of(value: Any) -> str | None:
    if isinstance(value, dict):
        return ",".join(f"{key}={getattr(item, '__name__', item)}" for key, item in value.items())
    return type(value).__name__ if isinstance(value, spaces.Space) else None


def test_every_argument_has_a_case() -> None:
    """An argument that is added must be added above."""
    policy_arguments = set(inspect.signature(TrMRLPolicy.__init__).parameters)
    policy_arguments -= {"self", "observation_space", "action_space", "lr_schedule", "use_sde"}
    assert {name for case in CASES for name in case[0]} == policy_arguments
    arguments = set(inspect.signature(TransformerPPO.__init__).parameters)
    arguments -= {"self", "policy", "env", "policy_kwargs", "device", "_init_setup_model"}
    # Without effect on the model: no logs in these tests, no arguments of a buffer
    arguments -= {"verbose", "tensorboard_log", "rollout_buffer_kwargs"}
    assert {name for case in CASES for name in case[1]} == arguments


def acts_and_values(policy: TrMRLPolicy, n_envs: int = 3) -> list[np.ndarray]:
    """:return: Deterministic actions, and values of the memory, at six steps of ``n_envs`` environments"""
    env: VecEnv = sampled_vec_env(n_envs, policy.observation_space, policy.action_space)
    env.seed(0)
    observations: Any = env.reset()
    state: Any = None
    starts = np.ones(n_envs, dtype=bool)
    outcome = []
    for _ in range(6):
        actions, state = policy.predict(observations, state, starts, deterministic=True)
        with th.no_grad():
            values = policy.predict_values(state.to("cpu"))
        outcome += [actions, values.numpy()]
        observations, _, starts, _ = env.step(actions)
    return outcome


def same_training(model: TransformerPPO, other: TransformerPPO, env: Callable[[], Any]) -> None:
    """Both learn from equal environments with equal random numbers; optimizer and schedules must agree, too."""
    for learner in (model, other):
        learner.set_env(env())
        learner.set_random_seed(11)
        learner.learn(32)
    assert_equal_weights(model, other)


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
@pytest.mark.parametrize(("policy_kwargs", "kwargs", "observation_space", "action_space"), CASES, ids=name_of)
def test_every_option_comes_back(
    tmp_path: pathlib.Path,
    policy_kwargs: dict[str, Any],
    kwargs: dict[str, Any],
    observation_space: spaces.Space,
    action_space: spaces.Space,
) -> None:
    def env() -> VecEnv:
        return sampled_vec_env(2, observation_space, action_space)

    if policy_kwargs.get("normalize_images") is False:
        observation_space = spaces.Box(0.0, 1.0, observation_space.shape, np.float32)
    model = tiny_model(env(), deepcopy(policy_kwargs), **kwargs).learn(32)

    # The whole model
    model.save(tmp_path / "model")
    loaded = TransformerPPO.load(tmp_path / "model", device="cpu")
    for name, value in kwargs.items():
        found = getattr(loaded, "_stats_window_size" if name == "stats_window_size" else name)
        is_schedule = callable(found) and name != "rollout_buffer_class"
        assert (found(0.5) == FloatSchedule(value)(0.5)) if is_schedule else found == value
    assert type(loaded.rollout_buffer) is kwargs.get("rollout_buffer_class", WindowRolloutBuffer)
    assert loaded.num_timesteps == 32 and loaded._n_updates == model._n_updates

    # The policy alone
    model.policy.save(str(tmp_path / "policy.pkl"))
    policy = TrMRLPolicy.load(str(tmp_path / "policy.pkl"), device="cpu")
    policy_arguments = set(inspect.signature(TrMRLPolicy.__init__).parameters) - {"self"}
    ours, theirs = model.policy._get_constructor_parameters(), policy._get_constructor_parameters()
    assert {name: ours[name] for name in ours if name != "lr_schedule"} == {
        name: theirs[name] for name in theirs if name != "lr_schedule"
    }
    assert set(ours) == policy_arguments
    assert policy_kwargs.items() <= theirs.items()
    assert [len(group["params"]) for group in policy.optimizer.param_groups] == [
        len(group["params"]) for group in model.policy.optimizer.param_groups
    ]

    # Its parameters in another model
    other = tiny_model(env(), deepcopy(policy_kwargs), **{**kwargs, "seed": 99})
    other.set_parameters(model.get_parameters())

    expected = acts_and_values(model.policy)
    for restored in (loaded.policy, policy, other.policy):
        weights = restored.state_dict()
        assert weights.keys() == model.policy.state_dict().keys()
        assert all(th.equal(weight, weights[name]) for name, weight in model.policy.state_dict().items())
        for found, wanted in zip(acts_and_values(restored), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)

    same_training(model, loaded, env)


def test_training_after_load_is_that_without(tmp_path: pathlib.Path) -> None:
    """One model trains through, the other is saved and loaded between its updates."""
    model = tiny_model("CartPole-v1", vf_learning_rate=1e-2).learn(32)
    for _ in range(2):
        model.save(tmp_path / "model")
        loaded = TransformerPPO.load(tmp_path / "model", env=gym.make("CartPole-v1"), device="cpu")
        same_training(model, loaded, lambda: gym.make("CartPole-v1"))
        assert loaded.num_timesteps == model.num_timesteps == 32
        model = loaded


@pytest.mark.parametrize("space", [VECTOR, TRANSITION, IMAGE_LAST], ids=["box", "dict", "image"])
@pytest.mark.parametrize(("n_envs", "other_n_envs"), [(1, 3), (3, 1)])
def test_another_number_of_environments(
    tmp_path: pathlib.Path, space: spaces.Space, n_envs: int, other_n_envs: int
) -> None:
    tiny_model(sampled_vec_env(n_envs, space)).learn(16 * n_envs).save(tmp_path / "model")
    loaded = TransformerPPO.load(tmp_path / "model", env=sampled_vec_env(other_n_envs, space), device="cpu")
    assert loaded.n_envs == other_n_envs
    before = parameters_of(loaded)
    loaded.learn(32 * other_n_envs, reset_num_timesteps=False)
    assert loaded.num_timesteps == 16 * n_envs + 32 * other_n_envs
    assert len(changed(before, loaded)) > 10


def test_memory_and_rollouts_are_not_saved(tmp_path: pathlib.Path) -> None:
    model = tiny_model(sampled_vec_env(2)).learn(32)
    assert (model._last_memory.lengths > 0).all()
    model.save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert sorted(archive.namelist()) == [
            "_stable_baselines3_version",
            "data",
            "policy.optimizer.pth",
            "policy.pth",
            "pytorch_variables.pth",
            "system_info.txt",
        ]
        names = set(json.loads(archive.read("data")))
    assert not {"_last_memory", "rollout_buffer", "env", "policy"} & names
    loaded = TransformerPPO.load(tmp_path / "model", device="cpu")
    assert loaded._last_memory.lengths.tolist() == [0, 0]


# -- Rate of the critic -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("saved", [None, 1e-2])
@pytest.mark.parametrize("asked", [None, 5e-2, halved, "as saved"], ids=["none", "float", "schedule", "as saved"])
@pytest.mark.parametrize("critic_input", ["memory", "token"])
def test_any_zip_loads_under_any_critic_rate(tmp_path: pathlib.Path, saved: Any, asked: Any, critic_input: str) -> None:
    model = tiny_model("CartPole-v1", dict(critic_input=critic_input), learning_rate=1e-3, vf_learning_rate=saved)
    model.learn(16).save(tmp_path / "model")
    kwargs = {} if asked == "as saved" else dict(vf_learning_rate=asked)
    loaded = TransformerPPO.load(tmp_path / "model", env=gym.make("CartPole-v1"), device="cpu", **kwargs)
    assert_equal_weights(model, loaded)
    loaded.learn(32)  # the first update is at half of the progress, the last at its end
    loaded._update_current_progress_remaining(1, 2)
    loaded._update_learning_rate(loaded.policy.optimizer)
    rate = saved if asked == "as saved" else asked
    expected = 1e-3 if rate is None else rate(0.5) if callable(rate) else rate
    assert [group["lr"] for group in loaded.policy.optimizer.param_groups] == pytest.approx([1e-3, expected])


# -- Parameters -------------------------------------------------------------------------------------------------------


def test_set_parameters(tmp_path: pathlib.Path) -> None:
    model = tiny_model("CartPole-v1").learn(16)
    original = deepcopy(model.get_parameters())
    assert set(original) == {"policy", "policy.optimizer"}

    unknown = {**original, "no_such_object": {}}
    for exact_match in (True, False):
        with pytest.raises(ValueError, match="no_such_object"):
            model.set_parameters(unknown, exact_match=exact_match)
    with pytest.raises(ValueError, match="policy"):
        model.set_parameters({"policy": original["policy"]}, exact_match=True)
    *most, last = original["policy"]
    without_last = {**original, "policy": {name: original["policy"][name] for name in most}}
    with pytest.raises(RuntimeError, match=last):
        model.set_parameters(without_last, exact_match=True)

    random = {**without_last, "policy": {name: th.rand_like(original["policy"][name]) for name in most}}
    model.set_parameters(random, exact_match=False)
    found = model.get_parameters()["policy"]
    # A shared extractor stands under several names, the last of which wins
    unshared = [name for name in most if "features_extractor" not in name or name.startswith("vf_features_extractor")]
    assert all(th.equal(found[name], random["policy"][name]) for name in unshared)
    assert th.equal(found[last], original["policy"][last])

    model.save(tmp_path / "model")
    other = tiny_model("CartPole-v1", seed=1)
    other.set_parameters(str(tmp_path / "model"))
    assert_equal_weights(model, other)


def test_exclude_include_and_custom_objects(tmp_path: pathlib.Path) -> None:
    model = tiny_model("CartPole-v1", gamma=0.5)
    model.save(tmp_path / "model", exclude=["gamma"])
    assert TransformerPPO.load(tmp_path / "model").gamma == 0.99
    model.save(tmp_path / "model", exclude=["gamma"], include=["gamma"])
    loaded = TransformerPPO.load(tmp_path / "model", custom_objects=dict(learning_rate=2e-5, unknown=1.0), n_epochs=7)
    assert (loaded.gamma, loaded.learning_rate, loaded.n_epochs) == (0.5, 2e-5, 7)
    assert loaded.lr_schedule(1.0) == 2e-5 and not hasattr(loaded, "unknown")


def test_policy_kwargs_cannot_change_on_load(tmp_path: pathlib.Path) -> None:
    model = tiny_model("CartPole-v1")
    model.save(tmp_path / "model")
    TransformerPPO.load(tmp_path / "model", policy_kwargs=model.policy_kwargs)
    with pytest.raises(ValueError, match="policy kwargs do not equal"):
        TransformerPPO.load(tmp_path / "model", policy_kwargs=dict(context_length=5))


@pytest.mark.parametrize("net_arch", [None, [dict(pi=[4], vf=[5])]], ids=["none", "old format"])
@pytest.mark.filterwarnings("ignore:As shared layers")
def test_forms_of_net_arch(tmp_path: pathlib.Path, net_arch: Any) -> None:
    model = tiny_model("CartPole-v1", dict(net_arch=net_arch))
    model.save(tmp_path / "model")
    assert TransformerPPO.load(tmp_path / "model").policy.net_arch == model.policy.net_arch
    assert model.policy.net_arch is not None


def test_compiled_policy_is_saved_plain(tmp_path: pathlib.Path) -> None:
    model = tiny_model("CartPole-v1")
    weights = deepcopy(model.policy.state_dict())
    model.policy = th.compile(model.policy)
    model.save(tmp_path / "model")
    loaded = TransformerPPO.load(tmp_path / "model")
    assert all(th.equal(weight, weights[name]) for name, weight in loaded.policy.state_dict().items())


# -- Files ------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["str", "path", "file", "bytes"])
def test_kinds_of_files(tmp_path: pathlib.Path, kind: str) -> None:
    """Files given open stay open, others are closed."""
    model = tiny_model("CartPole-v1")
    with tempfile.TemporaryFile() as file:
        where: Any = dict(str=str(tmp_path / "model"), path=tmp_path / "model", file=file, bytes=io.BytesIO())[kind]
        model.save(where)
        if kind in ("file", "bytes"):
            assert not where.closed
            where.seek(0)
        loaded = TransformerPPO.load(where, device="cpu")
        assert kind in ("str", "path") or not where.closed
    assert_equal_weights(model, loaded)
    assert os.listdir(tmp_path) == (["model.zip"] if kind in ("str", "path") else [])


@pytest.mark.filterwarnings("ignore:Path")
@pytest.mark.parametrize(
    "name", ["model", "model.zip", "model.pkl", "model_0.5", ".hidden", "new/folder/model", "folder"]
)
@pytest.mark.parametrize("as_string", [True, False])
def test_names_of_files_are_those_of_sb3(tmp_path: pathlib.Path, name: str, as_string: bool) -> None:
    trees = []
    for algorithm in (PPO("MlpPolicy", "CartPole-v1", device="cpu"), tiny_model("CartPole-v1")):
        root = tmp_path / type(algorithm).__name__
        (root / "folder").mkdir(parents=True)
        path = root / name
        algorithm.save(str(path) if as_string else path)
        trees.append(sorted(str(file.relative_to(root)) for file in root.rglob("*")))
        if name != "folder":  # SB3 tries to read the folder
            type(algorithm).load(str(path) if as_string else path, device="cpu")
    assert trees[0] == trees[1]


def test_saving_again_replaces_the_file(tmp_path: pathlib.Path) -> None:
    model = tiny_model("CartPole-v1")
    model.save(tmp_path / "model")
    model.learn(16)
    model.save(tmp_path / "model")
    assert_equal_weights(model, TransformerPPO.load(tmp_path / "model", device="cpu"))
    assert os.listdir(tmp_path) == ["model.zip"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("older", [True, False])
def test_failing_save_leaves_the_older_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, older: bool
) -> None:
    """It fails at the second of three state dictionaries, when a part of the zip is written."""
    model = tiny_model("CartPole-v1")
    if older:
        model.save(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(files) == ({"model.zip"} if older else set())
    calls = []
    save = th.save

    def fail(*args: Any, **kwargs: Any) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise error
        save(*args, **kwargs)

    model.learn(16)
    with monkeypatch.context() as patch:
        patch.setattr(th, "save", fail)
        with pytest.raises(type(error)):
            model.save(tmp_path / "model")
    assert len(calls) == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    model.save(tmp_path / "model")
    assert_equal_weights(model, TransformerPPO.load(tmp_path / "model", device="cpu"))


def test_attribute_that_cannot_be_saved(tmp_path: pathlib.Path) -> None:
    """An error before anything is written."""
    model = tiny_model("CartPole-v1")
    model.save(tmp_path / "model")
    content = (tmp_path / "model.zip").read_bytes()
    model.file = open(tmp_path / "model.zip", "rb")  # noqa: SIM115
    with model.file, pytest.raises(TypeError, match="pickle"):
        model.save(tmp_path / "model")
    assert os.listdir(tmp_path) == ["model.zip"] and (tmp_path / "model.zip").read_bytes() == content


def test_unwritable_paths(tmp_path: pathlib.Path) -> None:
    """The message names the argument and the path; nothing is created, nothing is lost."""
    model = tiny_model("CartPole-v1")
    (tmp_path / "file").write_text("kept")
    (tmp_path / "model.zip").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for path in (tmp_path / "file" / "model", tmp_path / "model", str(tmp_path / "model.zip"), tmp_path / ("x" * 300)):
        with pytest.raises(ValueError, match="`path`") as caught:
            model.save(path)
        assert str(path) in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_read_only_folder(tmp_path: pathlib.Path) -> None:
    model = tiny_model("CartPole-v1")
    model.save(tmp_path / "model")
    content = (tmp_path / "model.zip").read_bytes()
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ValueError, match="`path`"):
            model.save(tmp_path / "model")
    finally:
        tmp_path.chmod(0o700)
    assert (tmp_path / "model.zip").read_bytes() == content


def test_unwritable_folder_leaves_the_older_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same without permissions, for the superuser too: no file can be opened for writing."""
    model = tiny_model("CartPole-v1")
    model.save(tmp_path / "model")
    content = (tmp_path / "model.zip").read_bytes()
    opened = pathlib.Path.open

    def refuse(self: pathlib.Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if "w" in mode:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return opened(self, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "open", refuse)
        with pytest.raises(ValueError, match=r"`path`.*Permission denied"):
            model.save(tmp_path / "model")
    assert os.listdir(tmp_path) == ["model.zip"] and (tmp_path / "model.zip").read_bytes() == content


def test_link_is_followed(tmp_path: pathlib.Path) -> None:
    """As with SB3, a link (to a larger disk, say) stays a link."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "model.zip").symlink_to(tmp_path / "disk" / "model.zip")
    model = tiny_model("CartPole-v1")
    for _ in range(2):
        model.save(tmp_path / "model.zip")
        assert (tmp_path / "model.zip").is_symlink()
        assert os.listdir(tmp_path / "disk") == ["model.zip"]


# -- Files of others --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "algorithm",
    [
        lambda: PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu"),
        lambda: PPO("MultiInputPolicy", SampledEnv(TRANSITION), n_steps=8, batch_size=8, device="cpu"),
        lambda: A2C("MlpPolicy", "CartPole-v1", device="cpu"),
        lambda: SAC("MlpPolicy", "Pendulum-v1", buffer_size=10, device="cpu"),
        lambda: DQN("MlpPolicy", "CartPole-v1", buffer_size=10, device="cpu"),
        lambda: RecurrentPPO("MlpLstmPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu"),
    ],
    ids=["PPO", "PPO-dict", "A2C", "SAC", "DQN", "RecurrentPPO"],
)
@pytest.mark.parametrize("with_env", [True, False])
def test_zip_of_another_algorithm(
    tmp_path: pathlib.Path, algorithm: Callable[[], BaseAlgorithm], with_env: bool
) -> None:
    other = algorithm()
    other.save(tmp_path / "model")
    with pytest.raises(ValueError, match=rf"{type(other.policy).__name__}.*saved by another algorithm"):
        TransformerPPO.load(tmp_path / "model", env=other.get_env() if with_env else None, device="cpu")


def test_files_that_are_no_model(tmp_path: pathlib.Path) -> None:
    (tmp_path / "text.zip").write_text("not a zip")
    with pytest.raises(ValueError, match="zip-file"):
        TransformerPPO.load(tmp_path / "text")
    with pytest.raises(FileNotFoundError, match="missing"):
        TransformerPPO.load(tmp_path / "missing")


def test_environment_with_other_spaces(tmp_path: pathlib.Path) -> None:
    tiny_model(SampledEnv(TRANSITION)).save(tmp_path / "model")
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        TransformerPPO.load(tmp_path / "model", env=SampledEnv(VECTOR))
    with pytest.raises(ValueError, match="Action spaces do not match"):
        TransformerPPO.load(tmp_path / "model", env=SampledEnv(TRANSITION, BOX_ACTION))


def test_loading_warns_of_nothing(tmp_path: pathlib.Path) -> None:
    """n_steps and batch_size of the zip are not those that the constructor meets while loading."""
    tiny_model(sampled_vec_env(3), n_steps=5, batch_size=5).save(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TransformerPPO.load(tmp_path / "model", env=sampled_vec_env(3), device="cpu").learn(30)


def test_zip_names_its_classes(tmp_path: pathlib.Path) -> None:
    """What is unpickled on loading: our public classes, so that files outlive changes inside."""
    tiny_model("CartPole-v1", vf_learning_rate=1e-3).save(tmp_path / "model")
    data, _, _ = load_from_zip_file(tmp_path / "model.zip")
    assert data is not None
    assert data["policy_class"] is module_of_ppo.TrMRLPolicy
    assert data["rollout_buffer_class"] is WindowRolloutBuffer
    assert data["vf_learning_rate"] == 1e-3
