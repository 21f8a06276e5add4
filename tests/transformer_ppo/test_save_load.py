"""Saving and loading: all options are restored, in whole models, policies and parameters."""

import inspect
import json
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule, obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from sb3_trmrl.memory.sequence_buffer import SequenceRolloutBuffer
from sb3_trmrl.memory.window_buffer import WindowRolloutBuffer
from sb3_trmrl.transformer_ppo import TransformerPPO, TrMRLPolicy
from tests.helpers.agents import (
    BOX_ACTION,
    IMAGE_FIRST,
    IMAGE_LAST,
    TRANSITION,
    VECTOR,
    LinearFeatures,
    assert_equal_weights,
    changed,
    parameters_of,
    sampled_vec_env,
    tiny_model,
)
from tests.helpers.learning import play
from tests.helpers.resuming import assert_same


class OwnBuffer(SequenceRolloutBuffer):
    """A buffer class of a user."""


def halved(progress: float) -> float:
    return 1e-2 * progress / 2


def one_by_one(**values: list[Any]) -> list[dict[str, Any]]:
    return [{name: value} for name, each in values.items() for value in each]


# Values other than the defaults of every argument
POLICY_OPTIONS: list[dict[str, Any]] = [
    *one_by_one(
        net_arch=[[4], [], dict(pi=[4], vf=[6, 5])],
        activation_fn=[nn.ELU],
        ortho_init=[False],
        log_std_init=[-1.0],
        share_features_extractor=[True],
        critic_input=["token"],
        context_length=[1, 7],
        d_model=[4],
        n_layers=[3],
        n_heads=[4],
        dim_feedforward=[6],
        initialization=["xavier", "default"],
        layer_norm=["pre", "post"],
        positional_encoding=["sinusoidal", "none"],
        embedding_arch=[[6]],
        reset_memory_on=["trial"],
        action_head_gain=[1.0],
        memory=["window", "full"],
    ),
    *(
        dict(memory="window", **option)
        for option in one_by_one(
            layer_norm=["pre", "post"], embedding_arch=[[6]], positional_encoding=["learned", "relative", "none"]
        )
    ),
    dict(memory="full", context_length=7),
    dict(optimizer_class=th.optim.AdamW, optimizer_kwargs=dict(weight_decay=0.1)),
    dict(features_extractor_class=LinearFeatures, features_extractor_kwargs=dict(width=5)),
    dict(features_extractor_class=LinearFeatures, share_features_extractor=True),
    dict(features_extractor_class=LinearFeatures, critic_input="token"),
    dict(features_extractor_class=LinearFeatures, critic_input="token", share_features_extractor=True),
]
SDE_OPTIONS: list[dict[str, Any]] = [{}, dict(full_std=False), dict(use_expln=True), dict(squash_output=True)]
IMAGE_OPTIONS: list[dict[str, Any]] = [
    dict(features_extractor_kwargs=dict(features_dim=6)),
    dict(features_extractor_class=NatureCNN, normalize_images=False),
    dict(critic_input="token", share_features_extractor=True, features_extractor_kwargs=dict(features_dim=6)),
]
MODEL_OPTIONS = one_by_one(
    learning_rate=[halved, LinearSchedule(1e-2, 1e-3, 0.5)],
    n_steps=[8],
    batch_size=[8],
    n_epochs=[3],
    gamma=[0.5],
    gae_lambda=[0.5],
    clip_range=[0.05],
    clip_range_vf=[0.05],
    normalize_advantage=[False],
    ent_coef=[0.1],
    vf_coef=[0.1],
    max_grad_norm=[0.01],
    rollout_buffer_class=[OwnBuffer],
    target_kl=[1e-6],
    stats_window_size=[7],
    seed=[5],
    vf_learning_rate=[5e-2, halved],
)
#: Arguments of the policy, arguments of the model, observation space, action space
CASES: list[tuple[dict[str, Any], dict[str, Any], spaces.Space[Any], spaces.Space[Any]]] = [
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


def arguments_of(cls: type) -> set[str]:
    return set(inspect.signature(cls).parameters)


def test_every_argument_has_a_case() -> None:
    """A new argument must be added to the tables."""
    passed = {"observation_space", "action_space", "lr_schedule", "use_sde"}
    assert {name for case in CASES for name in case[0]} == arguments_of(TrMRLPolicy) - passed
    passed = {"policy", "env", "policy_kwargs", "device", "_init_setup_model"}
    # Without effect on the model: no logs in these tests, no arguments of a buffer
    without_effect = {"verbose", "tensorboard_log", "rollout_buffer_kwargs"}
    assert {name for case in CASES for name in case[1]} == arguments_of(TransformerPPO) - passed - without_effect


def actions_and_values(policy: Any, n_envs: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return deterministic actions, and values of the memory, at six steps of ``n_envs`` environments."""
    env = sampled_vec_env(n_envs, policy.observation_space, policy.action_space)
    env.seed(0)
    memory, results = policy.empty_memory(n_envs), []
    with th.no_grad():
        for step in play(policy, env, 6):
            memory = policy.remember(memory, obs_as_tensor(step.observations, "cpu"), step.starts)
            results.append((step.actions, policy.predict_values(memory).numpy()))
    return results


def assert_same_training(model: Any, other: Any, env: Callable[[], Any]) -> None:
    """Both learn from equal environments with equal random numbers, so that optimizers and schedules must agree."""
    for learner in (model, other):
        learner.set_env(env())
        learner.set_random_seed(11)
        learner.learn(32)
    assert_equal_weights(model, other)


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
@pytest.mark.parametrize(("policy_kwargs", "kwargs", "observation_space", "action_space"), CASES, ids=name_of)
def test_every_option_is_restored(
    tmp_path: Path,
    policy_kwargs: dict[str, Any],
    kwargs: dict[str, Any],
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
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
    default = "window" if "context_length" in policy_kwargs else "full"
    is_window = policy_kwargs.get("memory", default) == "window"
    buffer_class = WindowRolloutBuffer if is_window else SequenceRolloutBuffer
    assert type(loaded.rollout_buffer) is kwargs.get("rollout_buffer_class", buffer_class)
    assert loaded.num_timesteps == 32 and loaded._n_updates == model._n_updates

    # The policy alone
    model.policy.save(str(tmp_path / "policy.pkl"))
    policy: Any = TrMRLPolicy.load(str(tmp_path / "policy.pkl"), device="cpu")
    ours, theirs = (each._get_constructor_parameters() for each in (model.policy, policy))
    assert set(ours) == arguments_of(TrMRLPolicy)
    assert {**ours, "lr_schedule": None} == {**theirs, "lr_schedule": None}
    assert policy_kwargs.items() <= theirs.items()
    sizes, expected_sizes = (
        [len(group["params"]) for group in each.optimizer.param_groups] for each in (policy, model.policy)
    )
    assert sizes == expected_sizes

    # Its parameters in another model
    other = tiny_model(env(), deepcopy(policy_kwargs), **{**kwargs, "seed": 99})
    other.set_parameters(model.get_parameters())

    expected = actions_and_values(model.policy)
    for restored in (loaded.policy, policy, other.policy):
        assert_same(restored.state_dict(), model.policy.state_dict())
        assert_same(actions_and_values(restored), expected)

    assert_same_training(model, loaded, env)


def test_training_is_the_same_after_loading(tmp_path: Path) -> None:
    """One model is saved and loaded between its updates, the other is not."""
    model = tiny_model("CartPole-v1", vf_learning_rate=1e-2).learn(32)
    for _ in range(2):
        model.save(tmp_path / "model")
        loaded = TransformerPPO.load(tmp_path / "model", env=gym.make("CartPole-v1"), device="cpu")
        assert_same_training(model, loaded, lambda: gym.make("CartPole-v1"))
        assert loaded.num_timesteps == model.num_timesteps == 32
        model = loaded


@pytest.mark.parametrize("memory", ["window", "full"])
@pytest.mark.parametrize("space", [VECTOR, TRANSITION, IMAGE_LAST], ids=["box", "dict", "image"])
@pytest.mark.parametrize(("n_envs", "other_n_envs"), [(1, 3), (3, 1)])
def test_another_number_of_environments(
    tmp_path: Path, space: spaces.Space[Any], memory: str, n_envs: int, other_n_envs: int
) -> None:
    tiny_model(sampled_vec_env(n_envs, space), dict(memory=memory)).learn(16 * n_envs).save(tmp_path / "model")
    loaded = TransformerPPO.load(tmp_path / "model", env=sampled_vec_env(other_n_envs, space), device="cpu")
    assert loaded.n_envs == other_n_envs
    before = parameters_of(loaded)
    loaded.learn(32 * other_n_envs, reset_num_timesteps=False)
    assert loaded.num_timesteps == 16 * n_envs + 32 * other_n_envs
    assert len(changed(before, loaded)) > 10


def test_memory_and_rollouts_are_not_saved(tmp_path: Path) -> None:
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


# -- Learning rate of the critic --------------------------------------------------------------------------------------


@pytest.mark.parametrize("saved", [None, 1e-2])
@pytest.mark.parametrize("given", [None, 5e-2, halved, "as saved"], ids=["none", "float", "schedule", "as saved"])
@pytest.mark.parametrize("critic_input", ["memory", "token"])
def test_any_zip_loads_with_any_critic_rate(tmp_path: Path, saved: Any, given: Any, critic_input: str) -> None:
    model = tiny_model("CartPole-v1", dict(critic_input=critic_input), learning_rate=1e-3, vf_learning_rate=saved)
    model.learn(16).save(tmp_path / "model")
    kwargs = {} if given == "as saved" else dict(vf_learning_rate=given)
    loaded = TransformerPPO.load(tmp_path / "model", env=gym.make("CartPole-v1"), device="cpu", **kwargs)
    assert_equal_weights(model, loaded)
    loaded.learn(32)  # the first update is at half of the progress, the last at its end
    loaded._update_current_progress_remaining(1, 2)
    loaded._update_learning_rate(loaded.policy.optimizer)
    rate = saved if given == "as saved" else given
    expected = 1e-3 if rate is None else rate(0.5) if callable(rate) else rate
    assert [group["lr"] for group in loaded.policy.optimizer.param_groups] == pytest.approx([1e-3, expected])


# -- Parameters -------------------------------------------------------------------------------------------------------


def test_set_parameters(tmp_path: Path) -> None:
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
    # A shared extractor has several names, the last of which decides
    unshared = [name for name in most if "features_extractor" not in name or name.startswith("vf_features_extractor")]
    assert all(th.equal(found[name], random["policy"][name]) for name in unshared)
    assert th.equal(found[last], original["policy"][last])

    model.save(tmp_path / "model")
    other = tiny_model("CartPole-v1", seed=1)
    other.set_parameters(str(tmp_path / "model"))
    assert_equal_weights(model, other)


def test_exclude_include_and_custom_objects(tmp_path: Path) -> None:
    model = tiny_model("CartPole-v1", gamma=0.5)
    model.save(tmp_path / "model", exclude=["gamma"])
    assert TransformerPPO.load(tmp_path / "model").gamma == 0.99
    model.save(tmp_path / "model", exclude=["gamma"], include=["gamma"])
    loaded = TransformerPPO.load(tmp_path / "model", custom_objects=dict(learning_rate=2e-5, unknown=1.0), n_epochs=7)
    assert (loaded.gamma, loaded.learning_rate, loaded.n_epochs) == (0.5, 2e-5, 7)
    assert loaded.lr_schedule(1.0) == 2e-5 and not hasattr(loaded, "unknown")


def test_policy_kwargs_cannot_change_on_load(tmp_path: Path) -> None:
    model = tiny_model("CartPole-v1")
    model.save(tmp_path / "model")
    TransformerPPO.load(tmp_path / "model", policy_kwargs=model.policy_kwargs)
    with pytest.raises(ValueError, match="policy kwargs do not equal"):
        TransformerPPO.load(tmp_path / "model", policy_kwargs=dict(context_length=5))


@pytest.mark.parametrize("net_arch", [None, [dict(pi=[4], vf=[5])]], ids=["none", "old format"])
@pytest.mark.filterwarnings("ignore:As shared layers")
def test_forms_of_net_arch(tmp_path: Path, net_arch: Any) -> None:
    model = tiny_model("CartPole-v1", dict(net_arch=net_arch))
    model.save(tmp_path / "model")
    assert TransformerPPO.load(tmp_path / "model").policy.net_arch == model.policy.net_arch
    assert model.policy.net_arch is not None


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # imported by th.compile
def test_compiled_policy_is_saved_without_compilation(tmp_path: Path) -> None:
    model = tiny_model("CartPole-v1")
    weights = deepcopy(model.policy.state_dict())
    model.policy = th.compile(model.policy)
    model.save(tmp_path / "model")
    loaded = TransformerPPO.load(tmp_path / "model")
    assert_same(loaded.policy.state_dict(), weights)
