"""From the description of an agent to its tensors' shapes, without allocating any, and then to its policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution, StateDependentNoiseDistribution
from stable_baselines3.common.preprocessing import get_action_dim
from torch import nn

from sb3_trmrl.memory.tokens import token_dtype
from sb3_trmrl.sharing.container import Entry
from sb3_trmrl.sharing.description import Description
from sb3_trmrl.sharing.limits import MAX_FILE_BYTES, MAX_MEMORY_BYTES, MAX_NOISE
from sb3_trmrl.sharing.policy_record import PolicyRecord, SACPolicyRecord
from sb3_trmrl.sharing.space_records import build_space
from sb3_trmrl.sharing.strict_json import InvalidAgentFile
from sb3_trmrl.transformer_ppo.policies import TrMRLPolicy
from sb3_trmrl.transformer_sac.policies import TransformerSACPolicy

#: Prefix of the names of the policy's weights in the file
WEIGHTS = "policy."


class Blueprint:
    """Everything about an agent except its tensors."""

    def __init__(self, description: Description) -> None:
        self.observation_space = build_space(description.observation_space, "observation_space")
        self.action_space = build_space(description.action_space, "action_space")
        self.settings = description.policy
        self.normalization = description.normalization
        self.has_critic = description.has_critic

    def entries(self) -> dict[str, Entry]:
        """Return types and shapes of the agent's tensors by name, without allocating them."""
        found: dict[str, Entry] = {f"{WEIGHTS}{name}": ("F32", shape) for name, shape in self._weight_shapes().items()}
        if self.normalization is not None:
            shapes = self.normalization.tensor_shapes(self.observation_space)
            found |= {name: ("F64", shape) for name, shape in shapes.items()}
        return found

    def build_policy(self, tensors: Mapping[str, th.Tensor], device: th.device) -> TrMRLPolicy | TransformerSACPolicy:
        """Build the policy for acting from the tensors. PyTorch's random generators keep their states."""
        with th.random.fork_rng(devices=[device] if device.type == "cuda" else []), th.no_grad():
            policy = self._new_policy()
            for name, weight in policy_weights(policy).items():
                weight.copy_(tensors[f"{WEIGHTS}{name}"])
            if self.has_critic and isinstance(policy, TransformerSACPolicy):
                policy.critic_target.load_state_dict(policy.critic.state_dict())
            _check_std(policy)
            policy.to(device)
            if self.settings.use_sde:  # the noise depends on the weights and the device
                policy.reset_noise()
        policy.set_training_mode(False)
        return policy

    def _weight_shapes(self) -> dict[str, tuple[int, ...]]:
        self._check_memory_size()
        with th.device("meta"):
            # gSDE computes with the weights at construction, which meta tensors do not have
            is_sac = isinstance(self.settings, SACPolicyRecord)
            policy = self._new_policy(use_sde=False, **({} if is_sac else {"squash_output": False}))
        shapes = {name: tuple(tensor.shape) for name, tensor in policy_weights(policy).items()}
        if self.settings.use_sde:
            self._add_noise(shapes, policy)
        n_bytes = 4 * sum(map(math.prod, shapes.values()))
        if n_bytes > MAX_FILE_BYTES:
            raise InvalidAgentFile(f"its policy has {n_bytes} bytes of weights, more than {MAX_FILE_BYTES}")
        return shapes

    def _add_noise(self, shapes: dict[str, tuple[int, ...]], policy: TrMRLPolicy | TransformerSACPolicy) -> None:
        """Change the shapes of a policy without gSDE to those of one with it."""
        if not isinstance(self.action_space, spaces.Box):
            raise InvalidAgentFile(f"policy.use_sde needs a Box as action_space, got {self.action_space}")
        columns = get_action_dim(self.action_space)
        is_sac = isinstance(policy, TransformerSACPolicy)
        rows: int = policy.actor.mu.in_features if is_sac else policy.mlp_extractor.latent_dim_pi  # type: ignore[union-attr, assignment]
        if rows * columns > MAX_NOISE:
            raise InvalidAgentFile(f"the noise of gSDE has {rows} times {columns} numbers, more than {MAX_NOISE}")
        if isinstance(self.settings, PolicyRecord):
            shapes["log_std"] = (rows, columns if self.settings.full_std else 1)
            return
        for part in ("weight", "bias"):
            del shapes[f"actor.log_std.{part}"]
            if self.settings.clip_mean > 0:  # the mean has a second layer
                shapes[f"actor.mu.0.{part}"] = shapes.pop(f"actor.mu.{part}")
        shapes["actor.log_std"] = (rows, columns)

    def _new_policy(self, **replaced: Any) -> TrMRLPolicy | TransformerSACPolicy:
        """Return a policy with arbitrary weights, and without critic if the file has none, constructed cheaply."""
        cheapest: dict[str, Any] = {"initialization": "default", "optimizer_class": th.optim.SGD}
        if isinstance(self.settings, PolicyRecord):
            cheapest["ortho_init"] = False
        arguments = {**self.settings.policy_kwargs(), **cheapest, **replaced}
        try:
            policy = self.settings.policy_class(self.observation_space, self.action_space, lambda _: 0.0, **arguments)
        except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise InvalidAgentFile(f"no policy can be built from its settings: {error}") from error
        if not self.has_critic:
            _remove_critic(policy)
        return policy

    def _check_memory_size(self) -> None:
        """Check the bytes of the memory that acting keeps for one environment."""
        settings = self.settings
        if settings.memory == "window":
            leaves = [self.observation_space]
            if isinstance(self.observation_space, spaces.Dict):
                leaves = list(self.observation_space.spaces.values())
            per_token = sum(math.prod(leaf.shape or ()) * token_dtype(leaf).itemsize for leaf in leaves)
        else:  # keys and values of every layer, for actor and critic, in float32
            per_token = 2 * settings.d_model * settings.n_layers * 2 * 4
        n_bytes = settings.context_length * per_token
        if n_bytes > MAX_MEMORY_BYTES:
            raise InvalidAgentFile(f"the policy's memory has {n_bytes} bytes, more than {MAX_MEMORY_BYTES}")


def policy_weights(policy: TrMRLPolicy | TransformerSACPolicy) -> dict[str, th.Tensor]:
    """
    Return a policy's weights by name. Tensors that SB3 registers under several names are returned once, under the first
    name.
    """
    found: dict[int, tuple[str, th.Tensor]] = {}
    for name, tensor in policy.state_dict(keep_vars=True).items():
        if name.startswith("critic_target."):  # only training needs the targets
            continue
        found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())


class _NoCritic(nn.Module):
    """Stands for the critic of a policy that was exported without it."""

    def forward(self, *inputs: Any) -> NoReturn:
        raise RuntimeError("the agent was exported without its critic and cannot compute values")

    def set_training_mode(self, mode: bool) -> None:
        self.train(mode)


def _remove_critic(policy: TrMRLPolicy | TransformerSACPolicy) -> None:
    """Replace the critic by a module that raises an error. Actions do not change."""
    if isinstance(policy, TransformerSACPolicy):
        policy.critic = policy.critic_target = _NoCritic()  # type: ignore[assignment]
        return
    policy.vf_features_extractor = policy.pi_features_extractor  # the memory stores nothing for the critic
    policy.mlp_extractor.value_net = policy.value_net = _NoCritic()  # type: ignore[assignment]


def _check_std(policy: TrMRLPolicy | TransformerSACPolicy) -> None:
    """Check that the standard deviation of the actions is positive and that its square is finite, as gSDE needs."""
    is_sac = isinstance(policy, TransformerSACPolicy)
    actor: Any = policy.actor if is_sac else policy
    if isinstance(actor.action_dist, StateDependentNoiseDistribution):
        std = actor.action_dist.get_std(actor.log_std)
    elif isinstance(actor.action_dist, DiagGaussianDistribution) and not is_sac:  # SAC computes and clips it
        std = actor.log_std.exp()
    else:
        return
    for wrong in (~(std > 0), ~std.square().isfinite()):
        if wrong.any():
            raise InvalidAgentFile(
                f"tensor 'policy.{'actor.' if is_sac else ''}log_std' must give standard deviations above 0 with "
                f"finite squares, got {std[wrong][0].item():g} from "
                f"{actor.log_std.expand_as(std)[wrong][0].item():g}"
            )
