"""The settings of a policy as JSON: those that matter for acting, classes by name from a fixed list."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution, StateDependentNoiseDistribution
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from torch import nn

from sb3_trmrl.memory.encoder import LAYER_NORMS
from sb3_trmrl.memory.extractor import POSITIONAL_ENCODINGS
from sb3_trmrl.memory.kinds import MEMORY_KINDS
from sb3_trmrl.memory.tokens import token_dtype
from sb3_trmrl.sharing.limits import (
    MAX_CONTEXT,
    MAX_FILE_BYTES,
    MAX_HIDDEN_LAYERS,
    MAX_LAYERS,
    MAX_MEMORY_BYTES,
    MAX_NOISE,
    MAX_POSITIONS,
    MAX_WIDTH,
    MAX_WINDOW,
)
from sb3_trmrl.sharing.strict_json import InvalidAgentFile, fields, flag, integer, integers, option
from sb3_trmrl.transformer_ppo.policies import TrMRLPolicy

#: Activation functions of the heads, none of which has parameters
ACTIVATIONS: dict[str, type[nn.Module]] = {
    activation.__name__: activation
    for activation in (
        nn.Tanh,
        nn.ReLU,
        nn.LeakyReLU,
        nn.ELU,
        nn.SELU,
        nn.GELU,
        nn.SiLU,
        nn.Mish,
        nn.Sigmoid,
        nn.Softplus,
        nn.Identity,
    )
}
#: Features extractors, and the arguments each of them may have
EXTRACTORS: dict[str, tuple[type[BaseFeaturesExtractor], tuple[str, ...]]] = {
    "FlattenExtractor": (FlattenExtractor, ()),
    "CombinedExtractor": (CombinedExtractor, ("cnn_output_dim", "normalized_image")),
    "NatureCNN": (NatureCNN, ("features_dim", "normalized_image")),
}
_FLAGS = ("use_sde", "full_std", "use_expln", "squash_output", "share_features_extractor", "normalize_images")
_SIZES = {
    "context_length": MAX_CONTEXT,
    "d_model": MAX_WIDTH,
    "n_layers": MAX_LAYERS,
    "n_heads": MAX_WIDTH,
    "dim_feedforward": MAX_WIDTH,
}
_OPTIONS = {
    "layer_norm": LAYER_NORMS,
    "positional_encoding": POSITIONAL_ENCODINGS,
    "memory": tuple(MEMORY_KINDS),
    "reset_memory_on": ("episode", "trial"),
    "critic_input": ("memory", "token"),
}
_OTHERS = ("net_arch", "activation_fn", "features_extractor", "features_extractor_kwargs", "embedding_arch")


class Blueprint(NamedTuple):
    """
    All that is needed to build a policy but its weights.

    :param observation_space: Observation space
    :param action_space: Action space
    :param settings: Arguments of the policy
    """

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    settings: dict[str, Any]


def settings_to_json(policy: TrMRLPolicy) -> dict[str, Any]:
    """
    :param policy: Policy
    :return: The settings of it that matter for acting
    :raises ValueError: if it has a class that is not on the lists, or is of a subclass
    """
    if type(policy) is not TrMRLPolicy:
        raise ValueError(f"only a TrMRLPolicy can be exported, got a {type(policy).__name__}")
    transformer = policy.transformer_kwargs
    net_arch = policy.net_arch if isinstance(policy.net_arch, dict) else dict(pi=policy.net_arch, vf=policy.net_arch)
    of_noise = policy.dist_kwargs or dict(full_std=True, use_expln=False, squash_output=False)
    return {
        "net_arch": {head: [int(width) for width in net_arch.get(head, [])] for head in ("pi", "vf")},
        "activation_fn": _named("activation_fn", policy.activation_fn, ACTIVATIONS),
        "use_sde": policy.use_sde,
        **{key: bool(of_noise[key]) for key in ("full_std", "use_expln", "squash_output")},
        "features_extractor": _named(
            "features_extractor_class",
            policy.features_extractor_class,
            {key: extractor for key, (extractor, _) in EXTRACTORS.items()},
        ),
        "features_extractor_kwargs": dict(policy.features_extractor_kwargs),
        "share_features_extractor": policy.critic_shares_features,
        "normalize_images": policy.normalize_images,
        **{key: int(transformer[key]) for key in _SIZES},
        "layer_norm": transformer["layer_norm"],
        "positional_encoding": transformer["positional_encoding"],
        "embedding_arch": [int(width) for width in transformer["embedding_arch"] or []],
        "memory": policy.memory,
        "reset_memory_on": policy.reset_memory_on,
        "critic_input": policy.critic_input,
    }


def _named(argument: str, given: type[nn.Module], allowed: Mapping[str, type[nn.Module]]) -> str:
    """
    :param argument: Name of the argument
    :param given: Class that the policy has
    :param allowed: Classes by name
    :return: The name of the class
    :raises ValueError: if it is none of them
    """
    for key, known in allowed.items():
        if given is known:
            return key
    raise ValueError(
        f"`{argument}` must be one of {', '.join(allowed)} to be exported, got {getattr(given, '__name__', given)}"
    )


def settings_from_json(value: Any, observation_space: spaces.Space[Any]) -> dict[str, Any]:
    """
    :param value: Part of a document
    :param observation_space: Observation space of the agent
    :return: Arguments of the policy
    :raises InvalidAgentFile: if a setting is missing, unknown or not allowed, or the policy would be too large
    """
    where = "policy"
    names = (*_FLAGS, *_SIZES, *_OPTIONS, *_OTHERS)
    given = dict(zip(names, fields(value, where, names), strict=True))
    settings: dict[str, Any] = {key: flag(given[key], f"{where}.{key}") for key in _FLAGS}
    settings |= {key: integer(given[key], f"{where}.{key}", 1, limit) for key, limit in _SIZES.items()}
    settings |= {key: option(given[key], f"{where}.{key}", allowed) for key, allowed in _OPTIONS.items()}
    heads = fields(given["net_arch"], f"{where}.net_arch", ("pi", "vf"))
    settings["net_arch"] = {
        head: integers(widths, f"{where}.net_arch.{head}", MAX_HIDDEN_LAYERS, 1, MAX_WIDTH)
        for head, widths in zip(("pi", "vf"), heads, strict=True)
    }
    settings["embedding_arch"] = integers(
        given["embedding_arch"], f"{where}.embedding_arch", MAX_HIDDEN_LAYERS, 1, MAX_WIDTH
    )
    settings["activation_fn"] = ACTIVATIONS[option(given["activation_fn"], f"{where}.activation_fn", ACTIVATIONS)]
    extractor = option(given["features_extractor"], f"{where}.features_extractor", EXTRACTORS)
    settings["features_extractor_class"], arguments = EXTRACTORS[extractor]
    settings["features_extractor_kwargs"] = _extractor_kwargs(given["features_extractor_kwargs"], where, arguments)
    _check_memory(settings, observation_space)
    return settings


def _extractor_kwargs(value: Any, where: str, arguments: tuple[str, ...]) -> dict[str, Any]:
    """
    :param value: Part of a document
    :param where: Its place, for messages
    :param arguments: Arguments that the features extractor may have
    :return: Its arguments
    """
    where = f"{where}.features_extractor_kwargs"
    names = [key for key in arguments if isinstance(value, dict) and key in value]
    found: dict[str, Any] = {}
    for key, entry in zip(names, fields(value, where, names), strict=True):
        place = f"{where}.{key}"
        found[key] = flag(entry, place) if key == "normalized_image" else integer(entry, place, 1, MAX_WIDTH)
    return found


def _check_memory(settings: Mapping[str, Any], observation_space: spaces.Space[Any]) -> None:
    """
    :param settings: Arguments of the policy
    :param observation_space: Observation space of the agent
    :raises InvalidAgentFile: if what is kept for one environment would be too large
    """
    length, width = settings["context_length"], settings["d_model"]
    if length * width > MAX_POSITIONS:
        raise InvalidAgentFile(f"policy.context_length {length} times d_model {width} is above {MAX_POSITIONS}")
    if settings["memory"] == "window":
        if length > MAX_WINDOW:
            raise InvalidAgentFile(f"policy.context_length must be at most {MAX_WINDOW} with a window, got {length}")
        leaves = [observation_space]
        if isinstance(observation_space, spaces.Dict):
            leaves = list(observation_space.spaces.values())
        n_bytes = length * sum(math.prod(leaf.shape or ()) * token_dtype(leaf).itemsize for leaf in leaves)
    else:  # keys and values, 4 bytes each, of every layer of actor and critic
        n_bytes = length * width * settings["n_layers"] * 2 * 4 * 2
    if n_bytes > MAX_MEMORY_BYTES:
        raise InvalidAgentFile(f"the policy's memory has {n_bytes} bytes, more than {MAX_MEMORY_BYTES}")


def _new_policy(blueprint: Blueprint, **others: Any) -> TrMRLPolicy:
    """
    :param blueprint: What to build
    :param others: Arguments that are to be others
    :return: A policy whose weights have no meaning yet
    :raises InvalidAgentFile: if the settings do not go together
    """
    try:
        return TrMRLPolicy(
            blueprint.observation_space,
            blueprint.action_space,
            lambda _: 0.0,
            **{**blueprint.settings, **others},
            # What costs least: weights come from the file, and nothing is trained
            ortho_init=False,
            initialization="default",
            optimizer_class=th.optim.SGD,
        )
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InvalidAgentFile(f"no policy can be built from its settings: {error}") from error


def weights_of(policy: TrMRLPolicy) -> dict[str, th.Tensor]:
    """
    :param policy: Policy
    :return: Its weights by name, each of them once: SB3 has some modules under several names
    """
    found: dict[int, tuple[str, th.Tensor]] = {}
    for key, tensor in policy.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), (key, tensor))
    return dict(found.values())


def expected_shapes(blueprint: Blueprint) -> dict[str, tuple[int, ...]]:
    """
    :param blueprint: What would be built
    :return: Shapes of its weights by name, found without allocating any of them
    :raises InvalidAgentFile: if the settings do not go together, or there would be too many weights
    """
    with th.device("meta"):
        # gSDE looks at the weights it is built with, and there are none
        policy = _new_policy(blueprint, use_sde=False, squash_output=False)
    shapes = {key: tuple(tensor.shape) for key, tensor in weights_of(policy).items()}
    if blueprint.settings["use_sde"]:
        if not isinstance(blueprint.action_space, spaces.Box):
            raise InvalidAgentFile(f"policy.use_sde needs a Box of actions, got {blueprint.action_space}")
        rows, columns = policy.mlp_extractor.latent_dim_pi, get_action_dim(blueprint.action_space)
        if rows * columns > MAX_NOISE:
            raise InvalidAgentFile(f"the noise of gSDE has {rows} times {columns} numbers, more than {MAX_NOISE}")
        shapes["log_std"] = (rows, columns if blueprint.settings["full_std"] else 1)
    elif blueprint.settings["squash_output"]:
        raise InvalidAgentFile("policy.squash_output needs policy.use_sde")
    n_bytes = 4 * sum(map(math.prod, shapes.values()))
    if n_bytes > MAX_FILE_BYTES:
        raise InvalidAgentFile(f"its policy has {n_bytes} bytes of weights, more than {MAX_FILE_BYTES}")
    return shapes


def build_policy(blueprint: Blueprint, weights: Mapping[str, th.Tensor], device: th.device) -> TrMRLPolicy:
    """
    :param blueprint: What to build, which :func:`expected_shapes` has accepted
    :param weights: Its weights by name, of these shapes
    :param device: PyTorch device of the policy
    :return: The policy, for acting. PyTorch's random generators are left as they are
    :raises InvalidAgentFile: if its actions cannot be sampled with these weights
    """
    with th.random.fork_rng(devices=[device] if device.type == "cuda" else []), th.no_grad():
        policy = _new_policy(blueprint)
        for key, tensor in weights_of(policy).items():
            tensor.copy_(weights[key])
        _check_std(policy)
        policy.to(device)
        if policy.use_sde:  # the noise is made of these weights, on that device
            policy.reset_noise()
    policy.set_training_mode(False)
    return policy


def _check_std(policy: TrMRLPolicy) -> None:
    """
    :param policy: Policy
    :raises InvalidAgentFile: if its actions have a standard deviation that no distribution can have
    """
    if isinstance(policy.action_dist, StateDependentNoiseDistribution):
        std = policy.action_dist.get_std(policy.log_std)
    elif isinstance(policy.action_dist, DiagGaussianDistribution):
        std = policy.log_std.exp()
    else:
        return
    # gSDE sums up their squares
    for wrong in (~(std > 0), ~std.square().isfinite()):
        if wrong.any():
            raise InvalidAgentFile(
                "tensor 'policy.log_std' must give standard deviations above 0 with finite squares, "
                f"got {std[wrong][0].item():g} of {policy.log_std.expand_as(std)[wrong][0].item():g}"
            )
