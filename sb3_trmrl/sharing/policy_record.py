"""Records of the settings of policies that matter for acting. Classes are chosen by name from a fixed list."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, to_builtins
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN, get_actor_critic_arch
from torch import nn

from sb3_trmrl.memory.encoder import LAYER_NORMS
from sb3_trmrl.memory.extractor import POSITIONAL_ENCODINGS, SmallImageCombinedExtractor
from sb3_trmrl.memory.kinds import MEMORY_KINDS
from sb3_trmrl.sharing.limits import MAX_POSITIONS, MAX_WINDOW
from sb3_trmrl.sharing.plain_data import plain
from sb3_trmrl.sharing.strict_json import InvalidAgentFile, Record, decode, shown
from sb3_trmrl.transformer_ppo.policies import TrMRLPolicy
from sb3_trmrl.transformer_sac.policies import TransformerSACPolicy


def _by_name(*classes: type[nn.Module]) -> dict[str, type[nn.Module]]:
    return {each.__name__: each for each in classes}


#: Activation functions of the heads. None of them has parameters
ACTIVATIONS: dict[str, type[nn.Module]] = _by_name(
    nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Softplus, nn.Identity
)
EXTRACTORS: dict[str, type[nn.Module]] = _by_name(
    FlattenExtractor, CombinedExtractor, SmallImageCombinedExtractor, NatureCNN
)
_OPTIONS: dict[str, Collection[str]] = {
    "activation_fn": ACTIVATIONS,
    "features_extractor": EXTRACTORS,
    "layer_norm": LAYER_NORMS,
    "positional_encoding": POSITIONAL_ENCODINGS,
    "memory": MEMORY_KINDS,
    "reset_memory_on": ("episode", "trial"),
    "critic_input": ("memory", "token"),
}

_Width = Annotated[int, Meta(ge=1, le=2**16)]
_HiddenLayers = Annotated[list[_Width], Meta(max_length=32)]


class _NetArch(Record):
    """Widths of the hidden layers of the heads of actor and critic."""

    pi: _HiddenLayers
    vf: _HiddenLayers


class PolicyRecord(Record):
    """The settings of a policy, under the names of :class:`TrMRLPolicy`'s arguments."""

    policy_class: ClassVar[type[TrMRLPolicy]] = TrMRLPolicy

    net_arch: _NetArch
    activation_fn: str
    use_sde: bool
    full_std: bool
    use_expln: bool
    squash_output: bool
    features_extractor: str
    features_extractor_kwargs: dict[Literal["cnn_output_dim", "features_dim", "normalized_image"], bool | _Width]
    share_features_extractor: bool
    normalize_images: bool
    context_length: Annotated[int, Meta(ge=1, le=2**16)]
    d_model: _Width
    n_layers: Annotated[int, Meta(ge=1, le=64)]
    n_heads: _Width
    dim_feedforward: _Width
    layer_norm: str
    positional_encoding: str
    embedding_arch: _HiddenLayers
    memory: str
    reset_memory_on: str
    critic_input: str

    def __post_init__(self) -> None:
        _check(self)
        if self.squash_output and not self.use_sde:
            raise InvalidAgentFile("squash_output needs use_sde")

    @classmethod
    def from_policy(cls, policy: TrMRLPolicy) -> PolicyRecord:
        """Return the settings of a policy, whose classes have to be on the lists."""
        arguments = policy._get_constructor_parameters()
        net_arch = arguments["net_arch"]
        heads = net_arch if isinstance(net_arch, dict) else {"pi": net_arch, "vf": net_arch}
        arguments |= _named_classes(policy)
        arguments["net_arch"] = {head: heads.get(head, []) for head in ("pi", "vf")}
        if policy.dist_kwargs is None:
            arguments |= {"full_std": True, "use_expln": False, "squash_output": False}
        return decode({name: plain(arguments[name], name) for name in cls.__struct_fields__}, cls, "policy")

    def policy_kwargs(self) -> dict[str, Any]:
        """Return the arguments of :class:`TrMRLPolicy` besides its spaces."""
        return _arguments(self)


class _SACNetArch(Record):
    """Widths of the hidden layers of the heads of actor and critics."""

    pi: _HiddenLayers
    qf: _HiddenLayers


class SACPolicyRecord(Record):
    """The settings of a policy, under the names of :class:`TransformerSACPolicy`'s arguments."""

    policy_class: ClassVar[type[TransformerSACPolicy]] = TransformerSACPolicy

    net_arch: _SACNetArch
    activation_fn: str
    use_sde: bool
    use_expln: bool
    clip_mean: Annotated[float, Meta(ge=0, le=2**16)]
    n_critics: Annotated[int, Meta(ge=1, le=64)]
    critic_layer_norm: bool
    features_extractor: str
    features_extractor_kwargs: dict[Literal["cnn_output_dim", "features_dim", "normalized_image"], bool | _Width]
    share_features_extractor: bool
    shared_memory_loss: Literal["critic", "actor"]
    normalize_images: bool
    context_length: Annotated[int, Meta(ge=1, le=2**16)]
    d_model: _Width
    n_layers: Annotated[int, Meta(ge=1, le=64)]
    n_heads: _Width
    dim_feedforward: _Width
    layer_norm: str
    positional_encoding: str
    embedding_arch: _HiddenLayers
    memory: Literal["window", "full"]
    reset_memory_on: str

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def from_policy(cls, policy: TransformerSACPolicy) -> SACPolicyRecord:
        """Return the settings of a policy, whose classes have to be on the lists."""
        arguments = policy._get_constructor_parameters() | _named_classes(policy)
        actor, critic = get_actor_critic_arch(policy.net_arch)
        arguments["net_arch"] = {"pi": actor, "qf": critic}
        return decode({name: plain(arguments[name], name) for name in cls.__struct_fields__}, cls, "policy")

    def policy_kwargs(self) -> dict[str, Any]:
        """Return the arguments of :class:`TransformerSACPolicy` besides its spaces."""
        return _arguments(self)


def record_of(policy: TrMRLPolicy | TransformerSACPolicy) -> PolicyRecord | SACPolicyRecord:
    """Return the settings of a policy, which may not be a subclass or have a class that is not on the lists."""
    if type(policy) is TransformerSACPolicy:
        return SACPolicyRecord.from_policy(policy)
    if type(policy) is TrMRLPolicy:
        return PolicyRecord.from_policy(policy)
    raise ValueError(f"only a TrMRLPolicy or a TransformerSACPolicy can be exported, got a {type(policy).__name__}")


def _check(record: PolicyRecord | SACPolicyRecord) -> None:
    """Check the settings that both kinds of policies have."""
    for name, options in _OPTIONS.items():
        if name in record.__struct_fields__ and getattr(record, name) not in options:
            raise InvalidAgentFile(f"{name} must be one of {', '.join(options)}, got {shown(getattr(record, name))}")
    for key, value in record.features_extractor_kwargs.items():
        if isinstance(value, bool) != (key == "normalized_image"):
            raise InvalidAgentFile(f"features_extractor_kwargs has {key} with the value {value}")
    if record.context_length * record.d_model > MAX_POSITIONS:
        raise InvalidAgentFile(
            f"context_length {record.context_length} times d_model {record.d_model} is more than {MAX_POSITIONS}"
        )
    if record.memory == "window" and record.context_length > MAX_WINDOW:
        raise InvalidAgentFile(
            f"context_length must be at most {MAX_WINDOW} with a window, got {record.context_length}"
        )


def _named_classes(policy: TrMRLPolicy | TransformerSACPolicy) -> dict[str, Any]:
    """Return the arguments that records state otherwise: classes by name, no layers as an empty list."""
    return {
        "activation_fn": _class_name("activation_fn", policy.activation_fn, ACTIVATIONS),
        "features_extractor": _class_name("features_extractor_class", policy.features_extractor_class, EXTRACTORS),
        "embedding_arch": policy.transformer_kwargs["embedding_arch"] or [],
    }


def _arguments(record: PolicyRecord | SACPolicyRecord) -> dict[str, Any]:
    """Return the arguments of a policy besides its spaces."""
    arguments: dict[str, Any] = to_builtins(record)
    arguments["activation_fn"] = ACTIVATIONS[record.activation_fn]
    arguments["features_extractor_class"] = EXTRACTORS[arguments.pop("features_extractor")]
    return arguments


def _class_name(argument: str, given: type[nn.Module], allowed: Mapping[str, type[nn.Module]]) -> str:
    """Return the name of a class in a list."""
    name = getattr(given, "__name__", str(given))
    if given not in allowed.values():
        raise ValueError(f"`{argument}` must be one of {', '.join(allowed)} to be exported, got {name}")
    return name
