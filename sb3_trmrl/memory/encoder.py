"""
The causal encoder of TrMRL, which maps working memories to the episodic memory of the newest slot (figure 1, right).

Shapes: B batch, N slots of the window, Q queries, D width of the model (``d_model``), H heads.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch as th
import torch.nn.functional as F
from torch import nn

#: Attention: queries, keys and values (..., H, D / H) to attended values, like the queries
Attend = Callable[[th.Tensor, th.Tensor, th.Tensor], th.Tensor]

LAYER_NORMS = ("none", "pre", "post")

#: Distances with a bias of their own, ranges of larger distances, and where the last of these ranges begins
_N_EXACT, _N_RANGES, _LAST_RANGE = 16, 16, 1024

#: Biases per unit of their parameters. With 8, tasks of POPGym are learned in half the steps, but HalfCheetahVel hardly
_BIAS_SCALE = 2.0


class EncoderTrace(NamedTuple):
    """
    Intermediate results of every layer of the encoder, for analysis.

    :param memories: The working memories and each layer's episodic memories (eq. 6), n_layers + 1 tensors (B, N, D)
    :param attention: Attention weights alpha of each layer (eq. 4), n_layers tensors (B, H, N, N); rows sum to 1
    :param values: The values that these weights apply to, n_layers tensors (B, H, N, D / H)
    """

    memories: list[th.Tensor]
    attention: list[th.Tensor]
    values: list[th.Tensor]


class SelfAttention(nn.Module):
    """
    Multi-head attention (eq. 1) of queries to the memories that they may attend to.

    :param d_model: Width D
    :param n_heads: Number of heads H, divides D
    """

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, queries: th.Tensor, memories: th.Tensor, attend: Attend) -> th.Tensor:
        """
        :param queries: Memories that attend, (..., D)
        :param memories: Memories attended to, (..., D)
        :param attend: Attention function, which decides which query attends to which memories
        :return: Task representations mu (eq. 5), like ``queries``
        """
        attended = attend(*map(self._heads, (self.query(queries), self.key(memories), self.value(memories))))
        representations: th.Tensor = self.out(attended.flatten(-2))
        return representations

    def trace(self, memories: th.Tensor, mask: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        :param memories: (B, N, D)
        :param mask: Mask of all slots, see :func:`attention_mask`
        :return: Attention weights (eq. 4), (B, H, N, N), and values, (B, H, N, D / H)
        """
        q, k, v = (self._heads(linear(memories)).transpose(1, 2) for linear in (self.query, self.key, self.value))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == th.bool else scores + mask
        return scores.softmax(dim=-1), v

    def _heads(self, x: th.Tensor) -> th.Tensor:
        return th.unflatten(x, -1, (self.n_heads, -1))  # (..., D) -> (..., H, D / H)


class RelativePositions(nn.Module):
    """
    Learned bias of the attention scores by head and distance, the same in all layers (Raffel et al. 2020, "Exploring
    the Limits of Transfer Learning with a Unified Text-to-Text Transformer", section 2.1).

    Distances below 16 have a bias each. Larger ones share 16 ranges, whose limits grow geometrically up to 1,024 and
    more. All biases are 0 at first, as without positions.

    :param n_heads: Number of heads H
    """

    ranges: th.Tensor

    def __init__(self, n_heads: int) -> None:
        super().__init__()
        self.biases = nn.Parameter(th.zeros(_N_EXACT + _N_RANGES, n_heads))
        limits = _N_EXACT * (_LAST_RANGE / _N_EXACT) ** (np.arange(1, _N_RANGES) / (_N_RANGES - 1))
        distances = np.arange(_LAST_RANGE + 1)
        ranges = np.where(distances < _N_EXACT, distances, _N_EXACT + np.searchsorted(limits, distances, "right"))
        self.register_buffer("ranges", th.as_tensor(ranges), persistent=False)

    def forward(self, distances: th.Tensor) -> th.Tensor:
        """
        :param distances: Number of steps from each key to the query, integers, 0 or more, (..., Q, N)
        :return: Biases of the scores, (..., H, Q, N)
        """
        ranges = self.ranges[distances.clamp(max=_LAST_RANGE)]
        # The gradient of index_select is several times faster than that of an embedding
        biases: th.Tensor = _BIAS_SCALE * self.biases.index_select(0, ranges.flatten())
        return th.unflatten(biases, 0, ranges.shape).movedim(-1, -3)


def attention_mask(
    positions: RelativePositions | None, distances: th.Tensor, context_length: int | None = None
) -> th.Tensor:
    """
    :param positions: Relative positions of the encoder, if it has any
    :param distances: Number of tokens from each key to the query, negative for later keys, integers (..., Q, N)
    :param context_length: Number of tokens that a query attends to, including itself; None for all up to itself
    :return: Mask of the keys that each query attends to, booleans (..., 1, Q, N), or with relative positions the biases
        of its scores, with minus infinity for other keys, (..., H, Q, N)
    """
    visible = distances >= 0
    if context_length is not None:
        visible = visible & (distances < context_length)
    visible = visible.unsqueeze(-3)
    if positions is None:
        return visible
    mask: th.Tensor = positions(distances.clamp(min=0)).masked_fill(~visible, -math.inf)
    return mask


def attend_with_mask(mask: th.Tensor) -> Attend:
    """
    :param mask: Mask of the queries, see :func:`attention_mask`
    :return: Attention of queries (B, Q, H, D / H) to keys and values (B, N, H, D / H)
    """

    def attend(q: th.Tensor, k: th.Tensor, v: th.Tensor) -> th.Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)

    return attend


def slot_distances(memories: th.Tensor) -> th.Tensor:
    """
    :param memories: (B, N, D)
    :return: Number of slots from each key back to the query, negative for later keys, (N, N)
    """
    slots = th.arange(memories.shape[1], device=memories.device)
    return slots[:, None] - slots


class EncoderLayer(nn.Module):
    """
    One refinement of the episodic memory (eq. 6): attention and a position-wise ReLU network, each with a residual.

    :param d_model: Width D
    :param n_heads: Number of heads
    :param dim_feedforward: Hidden units of the position-wise network
    :param layer_norm: ``"none"`` (the paper), ``"pre"`` or ``"post"``
    """

    def __init__(self, d_model: int, n_heads: int, dim_feedforward: int, layer_norm: str) -> None:
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads)
        self.feedforward = nn.Sequential(
            nn.Linear(d_model, dim_feedforward), nn.ReLU(inplace=True), nn.Linear(dim_feedforward, d_model)
        )
        self.layer_norm = layer_norm
        self.norm_attention = nn.Identity() if layer_norm == "none" else nn.LayerNorm(d_model)
        self.norm_feedforward = nn.Identity() if layer_norm == "none" else nn.LayerNorm(d_model)

    def forward(self, queries: th.Tensor, memories: th.Tensor, attend: Attend) -> th.Tensor:
        """
        :param queries: Memories to refine, (..., D)
        :param memories: Memories to refine them with, (..., D)
        :param attend: Attention function, which decides which query sees which memories
        :return: Refined memories, like ``queries``
        """
        if self.layer_norm == "pre":
            x = queries + self.attention(self.norm_attention(queries), self.norm_attention(memories), attend)
            refined: th.Tensor = x + self.feedforward(self.norm_feedforward(x))
            return refined
        x = self.norm_attention(queries + self.attention(queries, memories, attend))
        refined = self.norm_feedforward(x + self.feedforward(x))
        return refined

    def matrices_scaled_by_tfixup(self) -> list[th.Tensor]:
        """
        :return: W_v, W_o and both feed-forward matrices
        """
        linears = (self.attention.value, self.attention.out, self.feedforward[0], self.feedforward[2])
        return [linear.get_parameter("weight") for linear in linears]

    def trace_attention(self, memories: th.Tensor, mask: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        :param memories: (B, N, D)
        :param mask: Mask of all slots, see :func:`attention_mask`
        :return: Attention weights of all slots, (B, H, N, N), and values, (B, H, N, D / H)
        """
        x = self.norm_attention(memories) if self.layer_norm == "pre" else memories
        return self.attention.trace(x, mask)


class TransformerEncoder(nn.Module):
    """
    Causal encoder whose output is the episodic memory of the newest slot (section 4.3, Algorithm 1).

    :param d_model: Width D
    :param n_layers: Number of layers L
    :param n_heads: Number of heads
    :param dim_feedforward: Hidden units of the position-wise networks
    :param layer_norm: ``"none"`` (the paper), ``"pre"`` or ``"post"``
    :param relative_positions: Whether attention depends on the distance, see :class:`RelativePositions`
    """

    layers: list[EncoderLayer]

    def __init__(
        self,
        d_model: int,
        n_layers: int,
        n_heads: int,
        dim_feedforward: int,
        layer_norm: str,
        relative_positions: bool = False,
    ) -> None:
        super().__init__()
        self.relative_positions = RelativePositions(n_heads) if relative_positions else None
        layers = (EncoderLayer(d_model, n_heads, dim_feedforward, layer_norm) for _ in range(n_layers))
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]
        # The output of a pre-norm stack is not normalized by any layer
        self.final_norm = nn.LayerNorm(d_model) if layer_norm == "pre" else nn.Identity()

    def forward(self, memories: th.Tensor, lengths: th.Tensor) -> th.Tensor:
        """
        :param memories: Working memories, (B, N, D)
        :param lengths: Number of filled slots, (B,)
        :return: Episodic memory of the newest filled slot, (B, D)
        """
        distances = slot_distances(memories)
        attend = attend_with_mask(attention_mask(self.relative_positions, distances))
        for layer in self.layers[:-1]:
            memories = layer(memories, memories, attend)
        # Only the newest slot of the last layer is read
        newest = lengths - 1
        rows = th.arange(lengths.shape[0], device=lengths.device)
        attend = attend_with_mask(attention_mask(self.relative_positions, distances[newest, None]))
        last = self.layers[-1](memories[rows, newest, None], memories, attend)
        episodic: th.Tensor = self.final_norm(last[:, 0])
        return episodic

    def trace(self, memories: th.Tensor, context_length: int | None = None) -> EncoderTrace:
        """
        :param memories: Working memories, (B, N, D)
        :param context_length: Number of slots that a slot attends to, including itself; None for all slots up to itself
        :return: Memories, attention weights and values of every layer at every slot; undefined at slots not filled
        """
        mask = attention_mask(self.relative_positions, slot_distances(memories), context_length)
        trace = EncoderTrace([memories], [], [])
        for layer in self.layers:
            weights, values = layer.trace_attention(memories, mask)
            trace.attention.append(weights)
            trace.values.append(values)
            memories = layer(memories, memories, attend_with_mask(mask))
            trace.memories.append(memories)
        trace.memories[-1] = self.final_norm(memories)
        return trace
