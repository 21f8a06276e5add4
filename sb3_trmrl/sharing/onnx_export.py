"""
Writing a trained agent as one ONNX graph, which runs without PyTorch.

The graph computes one step of the agent in B environments. The live memories of :mod:`sb3_trmrl.memory` choose their
operations by the number of filled slots, which a graph cannot do. The memories of this module therefore always compute
all slots. With ``memory="window"``, the slots contain the working memories phi in place of raw tokens: the weights no
longer change, so the features of each token are computed only once.

Shapes: B environments, N slots of the memory, L layers, H heads, D width of the model.
"""

from __future__ import annotations

import warnings
from copy import deepcopy
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_trmrl.common.checks import check_instance, check_positive_int
from sb3_trmrl.memory.encoder import attention_mask
from sb3_trmrl.memory.extractor import TransformerExtractor, encode_positions, sinusoidal_frequencies
from sb3_trmrl.memory.full_memory import slot_ages
from sb3_trmrl.memory.tokens import PREV_DONE, Tokens
from sb3_trmrl.sharing.export import agent_path, check_shapes, write_agent
from sb3_trmrl.sharing.statistics import ObservationStatistics
from sb3_trmrl.transformer_ppo.action_masks import mask_sizes
from sb3_trmrl.transformer_ppo.policies import TrMRLPolicy
from sb3_trmrl.transformer_sac.policies import TransformerSACPolicy

SUFFIX = ".onnx"

#: Types of observations that PyTorch does not compute with
_PASSED_AS = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}


def export_onnx(
    model: BaseAlgorithm,
    path: str | PathLike[str],
    vec_normalize: VecNormalize | None = None,
    max_steps: int | None = None,
) -> Path:
    """Write a trained agent as an ONNX graph, see :meth:`sb3_trmrl.TransformerPPO.export_onnx`."""
    target = agent_path(path, SUFFIX)
    check_instance("vec_normalize", vec_normalize, (VecNormalize, type(None)), "a VecNormalize or None")
    policy: Any = model.policy
    if type(policy) not in (TrMRLPolicy, TransformerSACPolicy):  # a subclass may compute something else
        raise ValueError(
            "the agent cannot be exported: only a TrMRLPolicy or a TransformerSACPolicy can be, got a "
            f"{type(policy).__name__}"
        )
    if max_steps is not None:
        check_positive_int("max_steps", max_steps)
        if policy.memory == "window":
            raise ValueError(f"`max_steps` must be None with memory='window', got {max_steps}")
    _check_packages()
    normalizer = model.get_vec_normalize_env() if vec_normalize is None else vec_normalize
    statistics = ObservationStatistics.from_vec_normalize(normalizer)
    if statistics is not None:
        check_shapes(statistics, policy.observation_space, model.get_env())
    takes_masks = getattr(model, "uses_action_masks", False)
    agent = AgentStep(policy, statistics, max_steps, takes_masks)
    for name, tensor in agent.state_dict().items():
        if not bool(th.isfinite(tensor).all()) and not name.startswith("actions."):  # bounds may be infinite
            raise ValueError(f"the agent cannot be exported: {name!r} has numbers that are not finite")
    write_agent(target, _graph(agent.eval()))
    return target


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ModuleNotFoundError(
            f"exporting to ONNX needs onnx and onnxscript ({error}): pip install 'sb3_trmrl[onnx]'"
        ) from error


def _graph(agent: AgentStep) -> bytes:
    """Return the serialized graph of a step."""
    observations, memory = agent.empty_observations(2), agent.memory.empty(2)  # a size of 1 would become a constant
    masks = {"action_masks": th.ones(2, agent.n_choices, dtype=th.bool)} if agent.n_choices else {}
    inputs = ([*observations.values()], [*memory.values()], th.zeros(2, dtype=th.bool), *masks.values())
    batch = th.export.Dim("batch")
    dynamic_shapes = (
        [{0: batch} for _ in observations],
        [{0: batch} for _ in memory],
        *({0: batch} for _ in inputs[2:]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about PyTorch's own code
        try:
            # torch.export raises an error if control flow depends on data or the batch size is fixed. The older
            # exporter (dynamo=False, deprecated) records the operations on the example, so the graph could be wrong
            traced = th.export.export(agent, inputs, dynamic_shapes=dynamic_shapes, strict=False)
            program = th.onnx.export(
                traced,
                dynamo=True,
                verbose=False,
                input_names=[*observations, *(f"memory.{name}" for name in memory), "reset", *masks],
                output_names=["action", *(f"next_memory.{name}" for name in memory)],
                dynamic_shapes=dynamic_shapes,
            )
        except Exception as error:  # a custom features extractor may raise any error
            raise ValueError(f"the agent cannot be exported: PyTorch cannot trace its policy: {error}") from error
    assert program is not None
    document = program.model_proto
    # PyTorch adds stack traces, which contain folders of this machine
    for part in (document, document.graph, *document.graph.node):
        part.ClearField("metadata_props")
    document.graph.ClearField("value_info")
    data: bytes = document.SerializeToString()
    return data


class AgentStep(nn.Module):
    """One step of the agent: normalisation, memory, actor and deterministic action."""

    def __init__(
        self,
        policy: TrMRLPolicy | TransformerSACPolicy,
        statistics: ObservationStatistics | None,
        max_steps: int | None = None,
        takes_masks: bool = False,
    ) -> None:
        super().__init__()
        space = policy.observation_space
        self.is_dict = isinstance(space, spaces.Dict)
        self.spaces: dict[str, spaces.Space[Any]] = space.spaces if isinstance(space, spaces.Dict) else {"": space}
        self.resets_at_prev_done = policy.reset_memory_on == "episode" and self.is_dict and PREV_DONE in self.spaces
        unknown = [key for key in (statistics.key_stats if statistics else ()) if (key or "") not in self.spaces]
        if unknown:
            raise ValueError(
                f"the agent cannot be exported: VecNormalize has statistics of the keys {unknown}, and the policy "
                f"reads {list(self.spaces) if self.is_dict else 'arrays'}"
            )
        self.normalizers = nn.ModuleList(_normalizer(statistics, key) for key in self.spaces)
        # The critic is left out, and the model keeps its device and mode
        if isinstance(policy, TransformerSACPolicy):
            heads = [policy.actor.latent_pi, policy.actor.mu]
        else:
            heads = [policy.mlp_extractor.policy_net, policy.action_net]
        parts = nn.ModuleList([policy.transformers[0], *heads])
        transformer, self.policy_net, self.action_net = deepcopy(parts).to("cpu")
        assert isinstance(transformer, TransformerExtractor)
        self.memory = _Window(transformer) if policy.memory == "window" else _Cache(transformer, max_steps)
        self.n_choices = sum(mask_sizes(policy.action_space)) if takes_masks else 0
        self.actions = _DeterministicActions(policy.action_space, policy.squash_output)

    def empty_observations(self, n_envs: int) -> dict[str, th.Tensor]:
        """Return observations of the right shapes and types by the names of the inputs."""
        return {
            f"observation.{key}" if self.is_dict else "observation": th.as_tensor(
                np.zeros((n_envs, *(space.shape or ())), _PASSED_AS.get(str(space.dtype), space.dtype))
            )
            for key, space in self.spaces.items()
        }

    def forward(
        self,
        observations: list[th.Tensor],
        memory: list[th.Tensor],
        reset: th.Tensor,
        action_masks: th.Tensor | None = None,
    ) -> tuple[th.Tensor, ...]:
        """Return actions, (B, \\*action), and the tensors of the memory that ends with these observations."""
        tokens = {
            key: normalizer(observation)
            for key, normalizer, observation in zip(self.spaces, self.normalizers, observations, strict=True)
        }
        if self.resets_at_prev_done:
            reset = reset | (tokens[PREV_DONE][:, None].flatten(1)[:, -1] > 0)
        episodic, memory = self.memory(tokens if self.is_dict else tokens[""], memory, reset)
        return self.actions(self.action_net(self.policy_net(episodic)), action_masks), *memory


def _normalizer(statistics: ObservationStatistics | None, key: str) -> nn.Module:
    """Return the normalisation of a key of the observation, "" for observations other than a Dict."""
    stats = None if statistics is None else statistics.key_stats.get(key or None)
    return nn.Identity() if statistics is None or stats is None else _Normalizer(statistics, stats)


class _Normalizer(nn.Module):
    """Normalisation of one key of the observations, see :meth:`ObservationStatistics.normalize`."""

    mean: th.Tensor
    std: th.Tensor

    def __init__(self, statistics: ObservationStatistics, stats: tuple[Any, Any]) -> None:
        super().__init__()
        mean, var = stats
        self.clip_obs = statistics.clip_obs
        self.register_buffer("mean", th.as_tensor(np.array(mean, dtype=np.float64)))
        self.register_buffer("std", th.as_tensor(np.sqrt(np.array(var, dtype=np.float64) + statistics.epsilon)))

    def forward(self, observation: th.Tensor) -> th.Tensor:
        return ((observation.double() - self.mean) / self.std).clamp(-self.clip_obs, self.clip_obs).float()


class _Window(nn.Module):
    """The memory of ``memory="window"``, see :class:`~sb3_trmrl.memory.working_memory.WorkingMemory`."""

    def __init__(self, transformer: TransformerExtractor) -> None:
        super().__init__()
        self.transformer = transformer

    def empty(self, n_envs: int) -> dict[str, th.Tensor]:
        """Return the memory without tokens: working memories without positions, and the number of filled slots."""
        window = th.zeros(n_envs, self.transformer.context_length, self.transformer.features_dim)
        return {"window": window, "length": th.zeros(n_envs, dtype=th.long)}

    def forward(self, tokens: Tokens, memory: list[th.Tensor], reset: th.Tensor) -> tuple[th.Tensor, list[th.Tensor]]:
        """Return episodic memories and the memory that ends with these tokens."""
        # The mask alone does not hide a NaN: it would be multiplied by an attention weight of 0
        window = th.where(reset[:, None, None], 0.0, memory[0])
        slots = th.arange(self.transformer.context_length)
        filled = th.where(reset, 0, memory[1])
        is_full = filled == len(slots)
        window = th.where(is_full[:, None, None], window.roll(-1, dims=1), window)  # drops the oldest
        newest = filled - is_full.long()
        written = self.transformer.working_memories(tokens)[:, None]
        window = th.where((slots == newest[:, None])[:, :, None], written, window)
        memories = window + self.transformer.position_encodings(slots)
        return self.transformer.encoder(memories, newest + 1), [window, newest + 1]


class _Cache(nn.Module):
    """The memory of ``memory="full"``, see :class:`~sb3_trmrl.memory.full_memory.KeyValueCache`."""

    frequencies: th.Tensor

    def __init__(self, transformer: TransformerExtractor, max_steps: int | None) -> None:
        super().__init__()
        self.transformer = transformer
        self.n_slots = min(max_steps or transformer.context_length, transformer.context_length)
        # A constant: powers that are rounded differently would change the sines of large positions
        self.register_buffer("frequencies", sinusoidal_frequencies(transformer.features_dim, transformer.device))

    def empty(self, n_envs: int) -> dict[str, th.Tensor]:
        """Return the memory without tokens: keys and values (B, L, N, H, D / H), and the number of tokens so far."""
        layers = self.transformer.encoder.layers
        n_heads = layers[0].attention.n_heads
        shape = (n_envs, len(layers), self.n_slots, n_heads, self.transformer.features_dim // n_heads)
        return {"keys": th.zeros(shape), "values": th.zeros(shape), "length": th.zeros(n_envs, dtype=th.long)}

    def forward(self, tokens: Tokens, memory: list[th.Tensor], reset: th.Tensor) -> tuple[th.Tensor, list[th.Tensor]]:
        """Return episodic memories and the memory that ends with these tokens."""
        # The mask alone does not hide a NaN: it would be multiplied by an attention weight of 0
        emptied = reset[:, None, None, None, None]
        keys, values = (th.where(emptied, 0.0, x) for x in memory[:2])
        length = th.where(reset, 1, memory[2] + 1)
        slots = th.arange(self.n_slots)
        is_newest = (slots == ((length - 1) % self.n_slots)[:, None])[:, :, None, None]
        distances = slot_ages(length, self.n_slots, self.n_slots)
        mask = attention_mask(self.transformer.encoder.relative_positions, distances[:, None])
        memories = self.transformer.working_memories(tokens)
        if self.transformer.positional_encoding == "sinusoidal":
            memories = memories + encode_positions(length - 1, self.frequencies)
        written: list[tuple[th.Tensor, th.Tensor]] = []

        def attend(q: th.Tensor, k: th.Tensor, v: th.Tensor) -> th.Tensor:
            index = len(written)
            k, v = (th.where(is_newest, new[:, None], old[:, index]) for new, old in ((k, keys), (v, values)))
            written.append((k, v))
            k, v = k.transpose(1, 2), v.transpose(1, 2)
            return F.scaled_dot_product_attention(q[:, :, None], k, v, attn_mask=mask)[:, :, 0]

        for layer in self.transformer.encoder.layers:
            memories = layer(memories, memories, attend)
        new_keys, new_values = (th.stack(x, dim=1) for x in zip(*written, strict=True))
        return self.transformer.encoder.final_norm(memories), [new_keys, new_values, length]


class _DeterministicActions(nn.Module):
    """Actions of ``predict(..., deterministic=True)``, in the type that it returns."""

    low: th.Tensor
    high: th.Tensor

    def __init__(self, space: spaces.Space[Any], squash_output: bool) -> None:
        super().__init__()
        self.space = space
        self.squash_output = squash_output
        if isinstance(space, spaces.Box):
            dtype = np.result_type(np.float32, space.low)
            self.register_buffer("low", th.as_tensor(space.low.astype(dtype)))
            self.register_buffer("high", th.as_tensor(space.high.astype(dtype)))

    def forward(self, outputs: th.Tensor, masks: th.Tensor | None = None) -> th.Tensor:
        """Return actions (B, \\*action) for the means or logits that the head returns, and masks of valid actions."""
        if isinstance(self.space, spaces.MultiBinary):
            ones = outputs > 0
            if masks is not None:
                zero_is_valid, one_is_valid = masks.unflatten(1, (-1, 2)).unbind(dim=2)
                ones = (ones | ~zero_is_valid) & one_is_valid
            actions: th.Tensor = ones.unflatten(1, self.space.shape).float()
            return actions
        if masks is not None:
            outputs = outputs.masked_fill(~masks, -th.inf)
        if isinstance(self.space, spaces.Discrete):
            return outputs.argmax(dim=1)
        if isinstance(self.space, spaces.MultiDiscrete):
            return th.stack([part.argmax(dim=1) for part in outputs.split(self.space.nvec.tolist(), dim=1)], dim=1)
        outputs = outputs.unflatten(1, self.space.shape or (1,))
        if self.squash_output:
            return self.low + 0.5 * (outputs.tanh() + 1.0) * (self.high - self.low)
        return outputs.to(self.low.dtype).maximum(self.low).minimum(self.high)
