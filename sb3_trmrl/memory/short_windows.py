"""
The encoder for windows of a few slots, where attention by batched matrix products costs far more than its arithmetic.

Only filled slots are computed. They are packed slot after slot, longest windows first: with ``counts[s]`` windows that
fill slot s, the columns ``sum(counts[:s])`` to ``sum(counts[:s + 1])`` hold slot s of the first ``counts[s]`` windows.
There are T columns in all. Arrays are stored feature by feature, (features, columns). Linear layers are matrix products
either way, and attention becomes a few sums over long contiguous rows instead of thousands of products of tiny
matrices. The result is that of :class:`~sb3_trmrl.memory.encoder.TransformerEncoder` without LayerNorm, with the same
parameters.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch as th
from torch import nn
from torch.autograd.function import once_differentiable

from sb3_trmrl.memory.encoder import EncoderLayer, TransformerEncoder
from sb3_trmrl.memory.tokens import Tokens

if TYPE_CHECKING:
    from sb3_trmrl.memory.extractor import TransformerExtractor


def are_faster(encoder: TransformerEncoder, n_windows: int, longest: int) -> bool:
    """
    Return whether :func:`encode` is faster than the plain encoder. Measured on two x86 cores: rows have to be long, and
    the work grows with the square of the slots.

    :param encoder: Encoder
    :param n_windows: Number of windows B
    :param longest: Number of slots that the longest window fills
    """
    return encoder.layers[0].layer_norm == "none" and longest <= 12 and n_windows >= 64


def encode(transformer: TransformerExtractor, tokens: Tokens, index: np.ndarray, lengths: np.ndarray) -> th.Tensor:
    """
    Encode windows as the plain encoder does.

    :param transformer: Transformer without LayerNorm
    :param tokens: Raw observations, (U, \\*observation), or a dictionary
    :param index: Row of ``tokens`` in each slot, (B, N)
    :param lengths: Number of filled slots of each window, (B,)
    :return: Episodic memory of each window's newest slot, (B, D)
    """
    order = np.argsort(-lengths, kind="stable")
    lengths = lengths[order]
    is_filled = np.arange(lengths[0])[:, None] < lengths  # (longest, B)
    counts = tuple(is_filled.sum(axis=1).tolist())
    slots, windows = np.nonzero(is_filled)
    memories = transformer.working_memories(tokens, index[order[windows], slots], slots)  # (T, D)
    first_columns = np.cumsum((0, *counts[:-1]))
    newest = th.as_tensor(first_columns[lengths - 1] + np.arange(len(lengths)), device=memories.device)
    biases = None
    if transformer.encoder.relative_positions is not None:
        distances = th.arange(len(counts), device=memories.device)
        biases = transformer.encoder.relative_positions(distances[None])[:, 0]  # (H, longest)
    episodic = _refine(transformer.encoder.layers, memories.t().contiguous(), counts, newest, biases).t()
    if (np.diff(order) == 1).all():
        return episodic
    return episodic[th.as_tensor(np.argsort(order), device=memories.device)]


def _refine(
    layers: list[EncoderLayer], x: th.Tensor, counts: tuple[int, ...], newest: th.Tensor, biases: th.Tensor | None
) -> th.Tensor:
    """
    Apply all layers to packed windows.

    :param layers: The encoder's layers
    :param x: Working memories, packed, (D, T)
    :param counts: Number of windows that fill each slot
    :param newest: Column of each window's newest slot, (B,)
    :param biases: Biases of the scores by head and distance, (H, longest), or None
    :return: Episodic memory of each window's newest slot, (D, B)
    """
    full = counts[-1] == counts[0]
    for index, layer in enumerate(layers):
        is_last = index == len(layers) - 1  # only its newest slots are read
        queries = x
        if is_last:
            queries = x[:, -counts[0] :] if full else x[:, newest]
        attention = layer.attention
        heads = (attention.n_heads, x.shape[0] // attention.n_heads, -1)
        if is_last:
            q = _linear([attention.query], queries)
            k, v = _linear([attention.key, attention.value], x).chunk(2)
        else:
            q, k, v = _linear([attention.query, attention.key, attention.value], x).chunk(3)
        blocks = _newest_slots(counts) if is_last else _every_slot(counts)
        attended = _Attention.apply(q.view(heads), k.view(heads), v.view(heads), biases, counts, blocks)  # type: ignore[no-untyped-call]
        x = queries + _linear([attention.out], attended.flatten(0, 1))
        up, _, down = layer.feedforward
        x = _FeedForward.apply(x, up.weight, up.bias, down.weight, down.bias)  # type: ignore[no-untyped-call]
    return x


class _Block(NamedTuple):
    """Queries that see the same number of slots."""

    queries: slice  # columns of the queries
    windows: slice  # the windows they belong to, in the same order
    visible: int  # number of slots they see, from slot 0 on


def _every_slot(counts: tuple[int, ...]) -> list[_Block]:
    """Return blocks of queries from every filled slot: slot s sees the slots 0 to s."""
    ends = np.cumsum(counts).tolist()
    return [
        _Block(slice(end - count, end), slice(0, count), slot + 1)
        for slot, (count, end) in enumerate(zip(counts, ends, strict=True))
    ]


def _newest_slots(counts: tuple[int, ...]) -> list[_Block]:
    """Return blocks of one query for each window, from its newest slot, which sees all filled slots."""
    longer = (*counts[1:], 0)
    return [
        _Block(slice(first, last), slice(first, last), slot + 1)
        for slot, (first, last) in enumerate(zip(longer, counts, strict=True))
        if first < last
    ]


class _Attention(th.autograd.Function):
    """Scaled dot-product attention (eq. 1) block by block, (H, D / H, columns), with its gradient."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx: Any,
        q: th.Tensor,
        k: th.Tensor,
        v: th.Tensor,
        biases: th.Tensor | None,
        counts: tuple[int, ...],
        blocks: list[_Block],
    ):
        scale = 1 / math.sqrt(q.shape[1])
        keys, values = _by_window(k, counts), _by_window(v, counts)
        out, weights = th.empty_like(q), []
        for queries, windows, visible in blocks:
            scores = (q[:, :, None, queries] * keys[:, :, :visible, windows]).sum(1)
            scores.mul_(scale)
            if biases is not None:
                scores += biases[:, :visible, None].flip(1)  # slot 0 is the farthest
            weights.append(scores.softmax(1))  # (H, visible, windows)
            th.sum(weights[-1][:, None] * values[:, :, :visible, windows], 2, out=out[:, :, queries])
        ctx.save_for_backward(q, keys, values, *weights)
        ctx.counts, ctx.blocks, ctx.scale, ctx.biases_like = counts, blocks, scale, biases
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: th.Tensor) -> tuple[th.Tensor | None, ...]:
        q, keys, values, *weights = ctx.saved_tensors
        d_q, d_keys, d_values = th.empty_like(q), th.zeros_like(keys), th.zeros_like(values)
        d_biases = None if ctx.biases_like is None else th.zeros_like(ctx.biases_like)
        for (queries, windows, visible), w in zip(ctx.blocks, weights, strict=True):
            seen = (slice(None), slice(None), slice(visible), windows)
            d_o = d_out[:, :, None, queries]
            d_w = (d_o * values[seen]).sum(1)
            d_scores = w * (d_w - (w * d_w).sum(1, keepdim=True))
            if d_biases is not None:
                d_biases[:, :visible] += d_scores.sum(-1).flip(1)
            d_scores = d_scores.mul_(ctx.scale)[:, None]
            th.sum(d_scores * keys[seen], 2, out=d_q[:, :, queries])
            d_keys[seen].addcmul_(d_scores, q[:, :, None, queries])
            d_values[seen].addcmul_(w[:, None], d_o)
        return d_q, _by_column(d_keys, ctx.counts), _by_column(d_values, ctx.counts), d_biases, None, None


class _FeedForward(th.autograd.Function):
    """
    Position-wise ReLU network with its residual, (D, columns). The hidden units are the largest arrays. They are
    written once in each direction, because allocating memory costs more than the arithmetic on it.
    """

    @staticmethod
    def forward(ctx: Any, x: th.Tensor, w_up: th.Tensor, b_up: th.Tensor, w_down: th.Tensor, b_down: th.Tensor):  # type: ignore[no-untyped-def]
        hidden = th.addmm(b_up[:, None], w_up, x).relu_()
        ctx.save_for_backward(x, hidden, w_up, w_down)
        return th.addmm(b_down[:, None], w_down, hidden).add_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: th.Tensor) -> tuple[th.Tensor, ...]:
        x, hidden, w_up, w_down = ctx.saved_tensors
        d_hidden = w_down.t() @ d_out
        th.ops.aten.threshold_backward.grad_input(d_hidden, hidden, 0, grad_input=d_hidden)
        d_x = th.addmm(d_out, w_up.t(), d_hidden)
        return d_x, d_hidden @ x.t(), d_hidden.sum(1), d_out @ hidden.t(), d_out.sum(1)


def _by_window(x: th.Tensor, counts: tuple[int, ...]) -> th.Tensor:
    """Unpack (H, D / H, T) into (H, D / H, N, B). Slots that are not filled are undefined: no query sees them."""
    shape = (*x.shape[:2], len(counts), counts[0])
    if counts[-1] == counts[0]:
        return x.view(shape)
    padded = x.new_empty(shape)
    for slot, part in enumerate(x.split(counts, dim=2)):
        padded[:, :, slot, : counts[slot]] = part
    return padded


def _by_column(x: th.Tensor, counts: tuple[int, ...]) -> th.Tensor:
    """Invert :func:`_by_window`."""
    if counts[-1] == counts[0]:
        return x.flatten(2)
    return th.cat([x[:, :, slot, :count] for slot, count in enumerate(counts)], dim=2)


def _linear(layers: list[nn.Linear], x: th.Tensor) -> th.Tensor:
    """Apply linear layers to the same input (features, columns) and concatenate their outputs."""
    if len(layers) == 1:
        return th.addmm(layers[0].bias[:, None], layers[0].weight, x)
    bias, weight = th.cat([layer.bias for layer in layers]), th.cat([layer.weight for layer in layers])
    return th.addmm(bias[:, None], weight, x)
