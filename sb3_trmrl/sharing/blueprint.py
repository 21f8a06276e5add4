"""From the description of an agent to its tensors' shapes, without allocating any, and then to its policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution, StateDependentNoiseDistribution
from stable_baselines3.common.preprocessing import get_action_dim

from sb3_trmrl.memory.tokens import token_dtype
from sb3_trmrl.sharing.container import Entry
from sb3_trmrl.sharing.description import Description
from sb3_trmrl.sharing.limits import MAX_FILE_BYTES, MAX_MEMORY_BYTES, MAX_NOISE
from sb3_trmrl.sharing.space_records import build_space
from sb3_trmrl.sharing.strict_json import InvalidAgentFile
from sb3_trmrl.transformer_ppo.policies import TrMRLPolicy

#: Prefix of the names of the policy's weights in the file
WEIGHTS = "policy."


class Blueprint:
    """Everything about an agent except its tensors."""

    def __init__(self, description: Description) -> None:
        self.observation_space = build_space(description.observation_space, "observation_space")
        self.action_space = build_space(description.action_space, "action_space")
        self.settings = description.policy
        self.normalization = description.normalization

    def entries(self) -> dict[str, Entry]:
        """Return types and shapes of the agent's tensors by name, without allocating them."""
        found: dict[str, Entry] = {f"{WEIGHTS}{name}": ("F32", shape) for name, shape in self._weight_shapes().items()}
        if self.normalization is not None:
            shapes = self.normalization.tensor_shapes(self.observation_space)
            found |= {name: ("F64", shape) for name, shape in shapes.items()}
        return found

    def build_policy(self, tensors: Mapping[str, th.Tensor], device: th.device) -> TrMRLPolicy:
        """Build the policy for acting from the tensors. PyTorch's random generators keep their states."""
        with th.random.fork_rng(devices=[device] if device.type == "cuda" else []), th.no_grad():
            policy = self._new_policy()
            for name, weight in policy_weights(policy).items():
                weight.copy_(tensors[f"{WEIGHTS}{name}"])
            _check_std(policy)
            policy.to(device)
            if policy.use_sde:  # the noise depends on the weights and the device
                policy.reset_noise()
        policy.set_training_mode(False)
        return policy

    def _weight_shapes(self) -> dict[str, tuple[int, ...]]:
        self._check_memory_size()
        with th.device("meta"):
            # gSDE computes with the weights at construction, which meta tensors do not have
            policy = self._new_policy(use_sde=False, squash_output=False)
        shapes = {name: tuple(tensor.shape) for name, tensor in policy_weights(policy).items()}
        if self.settings.use_sde:
            if not isinstance(self.action_space, spaces.Box):
                raise InvalidAgentFile(f"policy.use_sde needs a Box as action_space, got {self.action_space}")
            rows, columns = policy.mlp_extractor.latent_dim_pi, get_action_dim(self.action_space)
            if rows * columns > MAX_NOISE:
                raise InvalidAgentFile(f"the noise of gSDE has {rows} times {columns} numbers, more than {MAX_NOISE}")
            shapes["log_std"] = (rows, columns if self.settings.full_std else 1)
        n_bytes = 4 * sum(map(math.prod, shapes.values()))
        if n_bytes > MAX_FILE_BYTES:
            raise InvalidAgentFile(f"its policy has {n_bytes} bytes of weights, more than {MAX_FILE_BYTES}")
        return shapes

    def _new_policy(self, **replaced: Any) -> TrMRLPolicy:
        """Return a policy with arbitrary weights, constructed as cheaply as possible."""
        cheapest = {"ortho_init": False, "initialization": "default", "optimizer_class": th.optim.SGD}
        arguments = {**self.settings.policy_kwargs(), **cheapest, **replaced}
        try:
            return TrMRLPolicy(self.observation_space, self.action_space, lambda _: 0.0, **arguments)
        except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise InvalidAgentFile(f"no policy can be built from its settings: {error}") from error

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


def policy_weights(policy: TrMRLPolicy) -> dict[str, th.Tensor]:
    """Return a policy's weights by name. Where SB3 keeps a module under several names, the first one counts."""
    found: dict[int, tuple[str, th.Tensor]] = {}
    for name, tensor in policy.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())


def _check_std(policy: TrMRLPolicy) -> None:
    """Check that the standard deviation of the actions is positive and that its square is finite, as gSDE needs."""
    if isinstance(policy.action_dist, StateDependentNoiseDistribution):
        std = policy.action_dist.get_std(policy.log_std)
    elif isinstance(policy.action_dist, DiagGaussianDistribution):
        std = policy.log_std.exp()
    else:
        return
    for wrong in (~(std > 0), ~std.square().isfinite()):
        if wrong.any():
            raise InvalidAgentFile(
                "tensor 'policy.log_std' must give standard deviations above 0 with finite squares, "
                f"got {std[wrong][0].item():g} from {policy.log_std.expand_as(std)[wrong][0].item():g}"
            )
