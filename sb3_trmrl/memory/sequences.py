"""Whole sequences of tokens, each computed once: what the full-context memory is trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch as th
import torch.nn.functional as F

from sb3_trmrl.memory.working_memory import Tokens, first_array, map_tokens


class Sequences(NamedTuple):
    """
    Tokens since the memory was emptied, of S sequences, one sequence after the other, T tokens in all.

    :param tokens: Raw observations, (T, \\*observation), or a dictionary
    :param lengths: Number of tokens of each sequence, (S,)
    :param positions: Steps since the memory was emptied, of each token, (T,), from 0
    :param outputs: Rows of ``tokens`` whose episodic memory is read, (B,); the others are context
    """

    tokens: Tokens
    lengths: tuple[int, ...]
    positions: th.Tensor
    outputs: th.Tensor

    def newest(self) -> Tokens:
        """
        :return: The tokens that are read, (B, \\*observation)
        """
        return map_tokens(lambda tokens: tokens[self.outputs], self.tokens)

    def __len__(self) -> int:
        return len(first_array(self.tokens))


def attend_within_sequences(
    lengths: tuple[int, ...], context_length: int
) -> Callable[[th.Tensor, th.Tensor, th.Tensor], th.Tensor]:
    """
    Banded causal attention: a token sees the newest ``context_length`` tokens of its sequence, itself among them.

    :param lengths: Number of tokens of each sequence
    :param context_length: Width of the band C
    :return: Attention of queries to keys and values, all (T, H, D / H)
    """
    n_sequences, longest = len(lengths), max(lengths)
    is_ragged = min(lengths) < longest
    if is_ragged:
        filled = np.arange(longest) < np.asarray(lengths)[:, None]
        firsts = np.cumsum((0, *lengths[:-1]))
        # Behind the end of a sequence stands its last token, which causality hides from the others
        rows = firsts[:, None] + np.minimum(np.arange(longest), np.asarray(lengths)[:, None] - 1)
        padded, kept = th.as_tensor(rows.reshape(-1)), th.as_tensor(np.flatnonzero(filled))

    def by_sequence(x: th.Tensor) -> th.Tensor:
        x = x[padded.to(x.device)] if is_ragged else x
        return th.unflatten(x, 0, (n_sequences, longest)).transpose(1, 2)  # (S, H, longest, D / H)

    def attend(q: th.Tensor, k: th.Tensor, v: th.Tensor) -> th.Tensor:
        attended = banded_attention(by_sequence(q), by_sequence(k), by_sequence(v), context_length)
        attended = attended.transpose(1, 2).flatten(0, 1)
        return attended[kept.to(q.device)] if is_ragged else attended

    return attend


def banded_attention(q: th.Tensor, k: th.Tensor, v: th.Tensor, context_length: int) -> th.Tensor:
    """
    :param q: Queries, (S, H, T, D / H)
    :param k: Keys, likewise
    :param v: Values, likewise
    :param context_length: Width of the band C; time and space grow with T * min(T, 2 C)
    :return: Attended values, (S, H, T, D / H)
    """
    n_tokens = q.shape[2]
    if n_tokens <= context_length:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    # Chunks of C queries see their own chunk and the one before; the first has none before it
    q_first, k_first, v_first = (x[:, :, :context_length] for x in (q, k, v))
    first = F.scaled_dot_product_attention(q_first, k_first, v_first, is_causal=True)
    n_chunks = -(-n_tokens // context_length)
    q, k, v = (F.pad(x, (0, 0, 0, n_chunks * context_length - n_tokens)) for x in (q, k, v))

    def chunks(x: th.Tensor) -> th.Tensor:
        return th.unflatten(x, 2, (n_chunks, context_length)).transpose(1, 2)  # (S, chunks, H, C, D / H)

    def with_previous(x: th.Tensor) -> th.Tensor:
        x = chunks(x)
        return th.cat((x[:, :-1], x[:, 1:]), dim=-2).flatten(0, 1)  # (S * (chunks - 1), H, 2 C, D / H)

    offsets = th.arange(2 * context_length, device=q.device) - th.arange(context_length, device=q.device)[:, None]
    band = (offsets > 0) & (offsets <= context_length)
    rest = F.scaled_dot_product_attention(
        chunks(q)[:, 1:].flatten(0, 1), with_previous(k), with_previous(v), attn_mask=band
    )
    rest = th.unflatten(rest, 0, (-1, n_chunks - 1)).transpose(1, 2).flatten(2, 3)
    return th.cat((first, rest), dim=2)[:, :, :n_tokens]
