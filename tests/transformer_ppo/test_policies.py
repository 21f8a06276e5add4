"""What the test suites of SB3 and sb3-contrib check for PPO and RecurrentPPO: networks, optimizers, initialization."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from torch import nn

from sb3_trmrl import load_agent
from sb3_trmrl.transformer_ppo import (
    CnnTransformerPolicy,
    MlpTransformerPolicy,
    MultiInputTransformerPolicy,
    TrMRLPolicy,
)
from tests.helpers.agents import (
    BOX_ACTION,
    CRITICS,
    IMAGE_FIRST,
    OBSERVATION_SPACES,
    TRANSITION,
    VECTOR,
    LinearFeatures,
    SampledEnv,
    by_name,
    changed,
    parameters_of,
    sampled_vec_env,
    tiny_model,
)
from tests.helpers.learning import assert_learns


def test_policy_names() -> None:
    aliases = (MlpTransformerPolicy, CnnTransformerPolicy, MultiInputTransformerPolicy)
    assert all(alias is TrMRLPolicy for alias in aliases)
    names = ("TrMRLPolicy", "MlpTransformerPolicy", "CnnTransformerPolicy", "MultiInputTransformerPolicy")
    for policy in (*names, TrMRLPolicy):
        assert type(tiny_model("CartPole-v1", policy=policy).policy) is TrMRLPolicy


@pytest.mark.parametrize(
    ("space", "expected"),
    [(VECTOR, FlattenExtractor), (IMAGE_FIRST, NatureCNN), (OBSERVATION_SPACES["box-small-image"], FlattenExtractor)],
    ids=["vector", "image", "small image"],
)
def test_default_token_extractors(space: spaces.Space[Any], expected: type[BaseFeaturesExtractor]) -> None:
    """Images pass through SB3's CNN, other observations are flattened."""
    assert type(tiny_model(SampledEnv(space)).policy.pi_features_extractor.token_extractor) is expected


SMALL_IMAGES = spaces.Dict(
    {
        "big": spaces.Box(0, 255, (36, 40, 3), np.uint8),
        "small": spaces.Box(0, 255, (35, 40, 3), np.uint8),
        "vector": VECTOR,
    }
)


@pytest.mark.parametrize("memory", ["window", "full"])
@pytest.mark.parametrize("critic", **by_name(CRITICS))
def test_small_images_inside_a_dict_are_flattened(critic: dict[str, Any], memory: str, tmp_path: Path) -> None:
    """Large ones still pass through SB3's CNN."""
    model = tiny_model(SampledEnv(SMALL_IMAGES), {**critic, "memory": memory}, n_steps=8, batch_size=8).learn(8)
    extractor = model.policy.pi_features_extractor.token_extractor
    tokens = {
        "big": th.rand(2, 3, 36, 40),
        "small": th.rand(2, 3, 35, 40),
        "vector": th.rand(2, *VECTOR.shape),
    }
    features = extractor(tokens)
    assert th.equal(features[:, 256:], th.cat([tokens["small"].flatten(1), tokens["vector"]], dim=1))
    assert th.equal(features[:, :256], extractor.extractors["big"](tokens["big"]))
    assert type(extractor.extractors["big"]) is NatureCNN
    agent = load_agent(model.export(tmp_path / "agent"))
    first: Any = (SMALL_IMAGES.sample(), None, np.array([True]), True)
    assert agent.predict(*first)[0] == model.predict(*first)[0]


def test_dicts_without_small_images_have_the_extractor_of_sb3() -> None:
    large = spaces.Dict({key: space for key, space in SMALL_IMAGES.items() if key != "small"})
    assert type(tiny_model(SampledEnv(large)).policy.pi_features_extractor.token_extractor) is CombinedExtractor


@pytest.mark.parametrize("critic", **by_name(CRITICS))
def test_custom_features_extractor(critic: dict[str, Any]) -> None:
    kwargs = dict(features_extractor_class=LinearFeatures, features_extractor_kwargs=dict(width=5), **critic)
    model = tiny_model(sampled_vec_env(2), kwargs)
    before = assert_learns(model)
    extractors = [module for module in model.policy.modules() if isinstance(module, LinearFeatures)]
    assert len(extractors) == (1 if critic["share_features_extractor"] else 2)
    assert all(extractor.linear.out_features == 5 for extractor in extractors)
    for part in ("token_extractor.linear", "vf_features_extractor.linear"):
        assert {name for name in before if part in name} <= changed(before, model)


@pytest.mark.parametrize("critic", **by_name(CRITICS))
def test_every_parameter_is_read_and_optimized_once(critic: dict[str, Any]) -> None:
    """The optimizer has two groups: the parameters that only the value loss reaches, and all others."""
    kwargs = {**critic, "n_layers": 2, "embedding_arch": [4]}
    model = tiny_model(sampled_vec_env(2, TRANSITION, BOX_ACTION), kwargs, vf_learning_rate=1e-2).learn(32)
    policy = model.policy
    others, critic_only = (group["params"] for group in policy.optimizer.param_groups)
    optimized = [id(parameter) for parameter in (*others, *critic_only)]
    assert sorted(optimized) == sorted(id(parameter) for parameter in policy.parameters())

    batch = next(model.rollout_buffer.get())

    def reached(loss: th.Tensor) -> set[int]:
        policy.zero_grad(set_to_none=True)
        loss.sum().backward()
        return {id(parameter) for parameter in policy.parameters() if parameter.grad is not None}

    by_actor = reached(policy.evaluate_actions(batch.observations, batch.actions)[1])
    by_critic = reached(policy.evaluate_actions(batch.observations, batch.actions)[0])
    assert by_actor == {id(parameter) for parameter in others}
    assert by_critic - by_actor == {id(parameter) for parameter in critic_only}
    # Flattened tokens have no parameters to share
    assert bool(by_critic & by_actor) == (critic == CRITICS["memory-shared"])


@pytest.mark.parametrize("critic", **by_name(CRITICS))
def test_critic_learns_at_its_own_rate(critic: dict[str, Any]) -> None:
    model = tiny_model(sampled_vec_env(2), critic, learning_rate=0.0, vf_learning_rate=1e-2)
    before = parameters_of(model)
    model.learn(32)
    critic_only = {id(parameter) for parameter in model.policy.optimizer.param_groups[1]["params"]}
    names = {name for name, parameter in model.policy.named_parameters() if id(parameter) in critic_only}
    moved = changed(before, model)
    assert moved <= names
    # Biases of keys cancel in the softmax, so their gradient is rounding noise or 0
    assert {name for name in names - moved if "attention.key.bias" not in name} == set()


@pytest.mark.parametrize(
    "net_arch",
    [[], [4], [4, 4], dict(vf=[16], pi=[8]), dict(vf=[8, 4], pi=[8]), dict(pi=[8]), [dict(vf=[8], pi=[4])]],
    ids=str,
)
@pytest.mark.parametrize("critic_input", ["memory", "token"])
def test_net_arch(net_arch: Any, critic_input: str) -> None:
    kwargs = dict(net_arch=net_arch, critic_input=critic_input, activation_fn=nn.ELU)
    old_format = bool(net_arch) and isinstance(net_arch, list) and isinstance(net_arch[0], dict)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = tiny_model("CartPole-v1", kwargs)
    assert any("shared layers" in str(warning.message) for warning in caught) == old_format
    model.learn(16)
    arch = net_arch[0] if old_format else net_arch
    sizes = {"pi": arch, "vf": arch} if isinstance(arch, list) else {"pi": [], "vf": [], **arch}
    extractor = model.policy.mlp_extractor
    for name, net in (("pi", extractor.policy_net), ("vf", extractor.value_net)):
        assert [layer.out_features for layer in net if isinstance(layer, nn.Linear)] == sizes[name]
        assert all(isinstance(layer, (nn.Linear, nn.ELU)) for layer in net)


@pytest.mark.parametrize(
    ("optimizer_class", "optimizer_kwargs"),
    [
        (th.optim.AdamW, None),
        (th.optim.AdamW, dict(weight_decay=0.5)),
        (th.optim.SGD, dict(momentum=0.9)),
        (RMSpropTFLike, dict(alpha=0.5)),
    ],
)
def test_custom_optimizer(optimizer_class: type[th.optim.Optimizer], optimizer_kwargs: dict[str, Any] | None) -> None:
    kwargs = dict(optimizer_class=optimizer_class, optimizer_kwargs=optimizer_kwargs)
    model = tiny_model("Pendulum-v1", kwargs)
    assert_learns(model)
    assert type(model.policy.optimizer) is optimizer_class
    for group in model.policy.optimizer.param_groups:
        assert (optimizer_kwargs or {}).items() <= group.items()


@pytest.mark.parametrize("optimizer_kwargs", [None, {}, dict(eps=1e-3)])
def test_adam_has_the_epsilon_of_pytorch(optimizer_kwargs: dict[str, Any] | None) -> None:
    model = tiny_model("CartPole-v1", dict(optimizer_kwargs=optimizer_kwargs))
    expected = th.optim.Adam([nn.Parameter(th.zeros(1))], **(optimizer_kwargs or {})).param_groups[0]["eps"]
    assert [group["eps"] for group in model.policy.optimizer.param_groups] == [expected] * 2


@pytest.mark.parametrize("optimizer_class", [th.optim.Adam, th.optim.AdamW])
@pytest.mark.parametrize(
    ("optimizer_kwargs", "fused"),
    [(None, True), (dict(eps=1e-3), True), (dict(fused=False), False), (dict(foreach=True), None)],
)
def test_adam_is_fused_by_default(optimizer_class: Any, optimizer_kwargs: Any, fused: bool | None) -> None:
    kwargs = dict(optimizer_class=optimizer_class, optimizer_kwargs=optimizer_kwargs)
    model = tiny_model("CartPole-v1", kwargs)
    assert [group["fused"] for group in model.policy.optimizer.param_groups] == [fused] * 2
    # Only the given arguments are saved, so that a zip also loads where there is no fused optimizer
    assert model.policy._get_constructor_parameters()["optimizer_kwargs"] == (optimizer_kwargs or {})


def gains(layer: nn.Linear) -> th.Tensor:
    singular_values: th.Tensor = th.linalg.svdvals(layer.weight.detach())
    return singular_values


@pytest.mark.parametrize("gain", [0.01, 0.5, 1.0])
def test_action_head_gain(gain: float) -> None:
    policy = tiny_model("CartPole-v1", dict(action_head_gain=gain)).policy
    th.testing.assert_close(gains(policy.action_net), th.full((2,), gain))


def test_initialization_arguments() -> None:
    """Heads are initialized orthogonally with SB3's gains, or as in PyTorch."""
    policy = tiny_model("CartPole-v1").policy
    th.testing.assert_close(gains(policy.value_net), th.ones(1))
    th.testing.assert_close(gains(policy.mlp_extractor.value_net[0]), th.full((8,), 2.0**0.5))
    policy = tiny_model("CartPole-v1", dict(ortho_init=False)).policy
    assert gains(policy.mlp_extractor.value_net[0]).std() > 0.01
    assert tiny_model("Pendulum-v1", dict(log_std_init=-1.5)).policy.log_std.tolist() == [-1.5]
