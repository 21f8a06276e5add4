"""Whole sequences of tokens, each token computed once: what the full-context memory is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch as th
import torch.nn.functional as F

from sb3_trmrl.memory.encoder import Attend, RelativePositions, attention_mask
from sb3_trmrl.memory.tokens import Tokens, first_array, map_tokens

if TYPE_CHECKING:
    from sb3_trmrl.memory.extractor import TransformerExtractor

#: Maximum number of queries in a block, see :func:`block_mask`. Smaller blocks compute fewer scores in more products
_BLOCK_SIZE = 64


class Sequences(NamedTuple):
    """
    S sequences of tokens since the memory was emptied, one sequence after the other, T tokens in all.

    :param tokens: Raw observations, (T, \\*observation), or a dictionary
    :param lengths: Number of tokens of each sequence, (S,)
    :param positions: Steps since the memory was emptied, of each token, from 0, (T,)
    :param outputs: Rows of ``tokens`` whose episodic memory is read, (B,); other tokens only serve as context
    """

    tokens: Tokens
    lengths: tuple[int, ...]
    positions: th.Tensor
    outputs: th.Tensor

    @classmethod
    def of_single_tokens(cls, tokens: Tokens) -> Sequences:
        first = first_array(tokens)
        rows = th.arange(len(first), device=first.device)
        return cls(tokens, (1,) * len(first), th.zeros_like(rows), rows)

    def newest(self) -> Tokens:
        return map_tokens(lambda tokens: tokens[self.outputs], self.tokens)

    def encode(self, transformer: TransformerExtractor) -> th.Tensor:
        attend = attend_within_sequences(self.lengths, transformer)
        return self.refine(transformer, attend)[self.outputs]

    def refine(self, transformer: TransformerExtractor, attend: Attend) -> th.Tensor:
        """
        :param transformer: One of the policy's transformers
        :param attend: Attention within these sequences
        :return: Episodic memory of every token, (T, D)
        """
        memories = transformer.working_memories(self.tokens, positions=self.positions)
        for layer in transformer.encoder.layers:
            memories = layer(memories, memories, attend)
        episodic: th.Tensor = transformer.encoder.final_norm(memories)
        return episodic


def ranges(ends: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Concatenate ranges of integers, given their exclusive ends and their sizes."""
    before = np.cumsum(sizes) - sizes
    integers: np.ndarray = np.arange(sizes.sum()) + np.repeat(ends - sizes - before, sizes)
    return integers


def attend_within_sequences(lengths: tuple[int, ...], transformer: TransformerExtractor) -> Attend:
    """
    Banded causal attention: a token attends to the newest ``context_length`` tokens of its sequence, including itself.

    :param lengths: Number of tokens of each sequence
    :param transformer: The transformer
    :return: Attention of queries to keys and values, all (T, H, D / H), the same for all layers
    """
    context_length, positions = transformer.context_length, transformer.encoder.relative_positions
    n_sequences, longest = len(lengths), max(lengths)
    is_ragged = min(lengths) < longest
    if is_ragged:
        filled = np.arange(longest) < np.asarray(lengths)[:, None]
        firsts = np.cumsum((0, *lengths[:-1]))
        # Sequences are padded with their last token, which the causal mask hides from the others
        rows = firsts[:, None] + np.minimum(np.arange(longest), np.asarray(lengths)[:, None] - 1)
        padded, kept = th.as_tensor(rows.reshape(-1)), th.as_tensor(np.flatnonzero(filled))
    mask = None
    # A narrower band is computed faster in chunks of its width
    if positions is not None and transformer.device.type == "cpu" and context_length >= min(longest, _BLOCK_SIZE):
        mask = block_mask(positions, longest, context_length)

    def by_sequence(x: th.Tensor) -> th.Tensor:
        x = x[padded.to(x.device)] if is_ragged else x
        return th.unflatten(x, 0, (n_sequences, longest)).transpose(1, 2)  # (S, H, longest, D / H)

    def attend(q: th.Tensor, k: th.Tensor, v: th.Tensor) -> th.Tensor:
        q, k, v = by_sequence(q), by_sequence(k), by_sequence(v)
        if mask is None:
            attended = banded_attention(q, k, v, context_length, positions)
        else:
            attended = blockwise_attention(q, k, v, mask)
        attended = attended.transpose(1, 2).flatten(0, 1)
        return attended[kept.to(q.device)] if is_ragged else attended

    return attend


def banded_attention(
    q: th.Tensor, k: th.Tensor, v: th.Tensor, context_length: int, positions: RelativePositions | None = None
) -> th.Tensor:
    """
    Attend to the newest C tokens. Time and space grow with T * min(T, 2 C).

    :param q: Queries, (S, H, T, D / H)
    :param k: Keys, (S, H, T, D / H)
    :param v: Values, (S, H, T, D / H)
    :param context_length: Width of the band C
    :param positions: Relative positions, if there are any
    :return: Attended values, (S, H, T, D / H)
    """
    n_tokens = q.shape[2]
    steps = th.arange(min(n_tokens, context_length), device=q.device)
    # Without biases, PyTorch masks faster than with a mask
    causal = None if positions is None else attention_mask(positions, steps[:, None] - steps)
    if n_tokens <= context_length:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=causal, is_causal=causal is None)
    # Each chunk of C queries attends to its own chunk and the previous one. The first chunk has no previous one
    q_first, k_first, v_first = (x[:, :, :context_length] for x in (q, k, v))
    first = F.scaled_dot_product_attention(q_first, k_first, v_first, attn_mask=causal, is_causal=causal is None)
    n_chunks = -(-n_tokens // context_length)
    q, k, v = (F.pad(x, (0, 0, 0, n_chunks * context_length - n_tokens)) for x in (q, k, v))

    def chunks(x: th.Tensor) -> th.Tensor:
        return th.unflatten(x, 2, (n_chunks, context_length)).transpose(1, 2)  # (S, chunks, H, C, D / H)

    def with_previous(x: th.Tensor) -> th.Tensor:
        x = chunks(x)
        return th.cat((x[:, :-1], x[:, 1:]), dim=-2).flatten(0, 1)  # (S * (chunks - 1), H, 2 C, D / H)

    distances = context_length + steps[:, None] - th.arange(2 * context_length, device=q.device)
    band = attention_mask(positions, distances, context_length)
    rest = F.scaled_dot_product_attention(
        chunks(q)[:, 1:].flatten(0, 1), with_previous(k), with_previous(v), attn_mask=band
    )
    rest = th.unflatten(rest, 0, (-1, n_chunks - 1)).transpose(1, 2).flatten(2, 3)
    return th.cat((first, rest), dim=2)[:, :, :n_tokens]


def block_mask(positions: RelativePositions, n_tokens: int, context_length: int) -> th.Tensor:
    """
    :param positions: Relative positions
    :param n_tokens: Number of tokens of the longest sequence T
    :param context_length: Number of tokens that a query attends to, including itself
    :return: Mask of a block of Q queries, see :func:`blockwise_attention`, (H, Q, N)
    """
    n_blocks = -(-n_tokens // _BLOCK_SIZE)
    block_size = -(-n_tokens // n_blocks)
    steps = th.arange(min(context_length - 1 + block_size, n_tokens), device=positions.biases.device)
    return attention_mask(positions, steps[-block_size:, None] - steps, context_length)


def blockwise_attention(q: th.Tensor, k: th.Tensor, v: th.Tensor, mask: th.Tensor) -> th.Tensor:
    """
    Attend with biases, Q queries at a time. On CPUs, this is faster than ``scaled_dot_product_attention``: if the mask
    requires gradients, PyTorch computes the scores of all keys, later ones included, and reads them many times.

    :param q: Queries, (S, H, T, D / H)
    :param k: Keys, (S, H, T, D / H)
    :param v: Values, (S, H, T, D / H)
    :param mask: Biases of the scores of Q successive queries for the newest N keys at the last of them, minus infinity
        for keys that a query does not attend to, (H, Q, N)
    :return: Attended values, (S, H, T, D / H)
    """
    n_tokens, (block_size, n_keys) = q.shape[2], mask.shape[1:]
    q, k = q * q.shape[-1] ** -0.5, k.transpose(-2, -1)
    attended = []
    for end in range(n_tokens, 0, -block_size):
        queries, keys = slice(max(0, end - block_size), end), slice(max(0, end - n_keys), end)
        scores = q[:, :, queries] @ k[..., keys]
        # The first block of queries may be shorter, and the first blocks have fewer keys
        scores += mask[:, queries.start - end :, keys.start - end :]
        attended.append(scores.softmax(dim=-1) @ v[:, :, keys])
    return th.cat(attended[::-1], dim=2)
