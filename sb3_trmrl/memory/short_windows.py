"""
The encoder for windows of a few slots, where attention by batched matrix products costs far more than its arithmetic.

Everything is kept feature by feature, (features, columns), columns as in :class:`~sb3_trmrl.memory.windows.Windows`.
Linear layers are matrix products either way, and attention becomes a few sums over long contiguous rows instead of
thousands of products of tiny matrices. It computes what :class:`~sb3_trmrl.memory.encoder.TransformerEncoder`
does, with its parameters; without LayerNorm.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch as th
from torch import nn
from torch.autograd.function import once_differentiable


class Block(NamedTuple):
    """
    Queries that see the same slots.

    :param queries: Columns of the queries
    :param windows: Windows they belong to, as many
    :param visible: Number of slots they see, from slot 0 on
    """

    queries: slice
    windows: slice
    visible: int


def every_slot(counts: tuple[int, ...]) -> list[Block]:
    """
    :param counts: Number of windows that fill each slot
    :return: Blocks of queries from every filled slot: slot s sees the slots 0 to s
    """
    ends = np.cumsum(counts).tolist()
    return [
        Block(slice(end - count, end), slice(0, count), slot + 1)
        for slot, (count, end) in enumerate(zip(counts, ends, strict=True))
    ]


def newest_slots(counts: tuple[int, ...]) -> list[Block]:
    """
    :param counts: Number of windows that fill each slot
    :return: Blocks of one query for each window, from its newest slot, which sees them all
    """
    longer = (*counts[1:], 0)
    return [
        Block(slice(first, last), slice(first, last), slot + 1)
        for slot, (first, last) in enumerate(zip(longer, counts, strict=True))
        if first < last
    ]


class _Attention(th.autograd.Function):
    """Scaled dot-product attention (eq. 1) block by block, (H, D / H, columns), with its gradient."""

    @staticmethod
    def forward(ctx: Any, q: th.Tensor, k: th.Tensor, v: th.Tensor, counts: tuple[int, ...], blocks: list[Block]):  # type: ignore[no-untyped-def]
        scale = 1 / math.sqrt(q.shape[1])
        keys, values = _by_window(k, counts), _by_window(v, counts)
        out, weights = th.empty_like(q), []
        for queries, windows, visible in blocks:
            scores = (q[:, :, None, queries] * keys[:, :, :visible, windows]).sum(1)
            weights.append(scores.mul_(scale).softmax(1))  # (H, visible, windows)
            th.sum(weights[-1][:, None] * values[:, :, :visible, windows], 2, out=out[:, :, queries])
        ctx.save_for_backward(q, keys, values, *weights)
        ctx.counts, ctx.blocks, ctx.scale = counts, blocks, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: th.Tensor) -> tuple[th.Tensor | None, ...]:
        q, keys, values, *weights = ctx.saved_tensors
        d_q, d_keys, d_values = th.empty_like(q), th.zeros_like(keys), th.zeros_like(values)
        for (queries, windows, visible), w in zip(ctx.blocks, weights, strict=True):
            seen = (slice(None), slice(None), slice(visible), windows)
            d_o = d_out[:, :, None, queries]
            d_w = (d_o * values[seen]).sum(1)
            d_scores = (w * (d_w - (w * d_w).sum(1, keepdim=True))).mul_(ctx.scale)[:, None]
            th.sum(d_scores * keys[seen], 2, out=d_q[:, :, queries])
            d_keys[seen].addcmul_(d_scores, q[:, :, None, queries])
            d_values[seen].addcmul_(w[:, None], d_o)
        return d_q, _by_column(d_keys, ctx.counts), _by_column(d_values, ctx.counts), None, None


class _FeedForward(th.autograd.Function):
    """
    Position-wise ReLU network with its residual, (D, columns). Hidden units, the largest arrays of all, are written
    once in each direction: fresh memory costs more than the arithmetic on it.
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
    """
    :param x: (H, D / H, T)
    :param counts: Number of windows that fill each slot
    :return: (H, D / H, N, B); slots that are not filled hold anything, as no query sees them
    """
    shape = (*x.shape[:2], len(counts), counts[0])
    if counts[-1] == counts[0]:
        return x.view(shape)
    padded = x.new_empty(shape)
    for slot, part in enumerate(x.split(counts, dim=2)):
        padded[:, :, slot, : counts[slot]] = part
    return padded


def _by_column(x: th.Tensor, counts: tuple[int, ...]) -> th.Tensor:
    """The inverse of :func:`_by_window`"""
    if counts[-1] == counts[0]:
        return x.flatten(2)
    return th.cat([x[:, :, slot, :count] for slot, count in enumerate(counts)], dim=2)


def _linear(layers: list[nn.Linear], x: th.Tensor) -> th.Tensor:
    """
    :param layers: Linear layers of the same input
    :param x: (features, columns)
    :return: Their outputs, one after the other, (features, columns)
    """
    if len(layers) == 1:
        return th.addmm(layers[0].bias[:, None], layers[0].weight, x)
    bias, weight = th.cat([layer.bias for layer in layers]), th.cat([layer.weight for layer in layers])
    return th.addmm(bias[:, None], weight, x)


def encode(layers: Any, x: th.Tensor, counts: tuple[int, ...], newest: th.Tensor) -> th.Tensor:
    """
    :param layers: The encoder's layers
    :param x: Working memories, (D, T)
    :param counts: Number of windows that fill each slot
    :param newest: Column of each window's newest slot, (B,)
    :return: Episodic memory of each window's newest slot, (D, B)
    """
    full = counts[-1] == counts[0]
    for index, layer in enumerate(layers):
        is_last = index == len(layers) - 1  # of which only the newest slots are read
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
        blocks = newest_slots(counts) if is_last else every_slot(counts)
        attended = _Attention.apply(q.view(heads), k.view(heads), v.view(heads), counts, blocks)  # type: ignore[no-untyped-call]
        x = queries + _linear([attention.out], attended.flatten(0, 1))
        up, _, down = layer.feedforward
        x = _FeedForward.apply(x, up.weight, up.bias, down.weight, down.bias)  # type: ignore[no-untyped-call]
    return x
