"""The transformer memory in plain loops: layer after layer, token after token, head after head."""

import math
from typing import Any

import numpy as np
from torch import nn


def linear(layer: Any, x: np.ndarray) -> np.ndarray:
    weight, bias = (parameter.detach().numpy().astype(np.float64) for parameter in (layer.weight, layer.bias))
    return weight @ x + bias


def norm(layer: Any, x: np.ndarray) -> np.ndarray:
    if isinstance(layer, nn.Identity):
        return x
    weight, bias = (parameter.detach().numpy().astype(np.float64) for parameter in (layer.weight, layer.bias))
    return (x - x.mean()) / math.sqrt(((x - x.mean()) ** 2).mean() + layer.eps) * weight + bias


def sinusoid(position: int, width: int) -> np.ndarray:
    """:return: Sine and cosine of the position at frequencies 10,000^(-2 i / D), in turn"""
    angles = [position * 10_000 ** (-2 * i / width) for i in range(width // 2)]
    return np.array([function(angle) for angle in angles for function in (math.sin, math.cos)])


def attend(query: np.ndarray, keys: list[np.ndarray], values: list[np.ndarray], n_heads: int) -> np.ndarray:
    """
    :param query: Of the token that looks, (D,)
    :param keys: Of the tokens that it sees, (D,) each
    :param values: Likewise
    :param n_heads: Number of heads, each with its share of the D numbers
    :return: What the token gets, (D,)
    """
    width = len(query) // n_heads
    heads = []
    for head in range(n_heads):
        part = slice(head * width, (head + 1) * width)
        scores = [math.exp(query[part] @ key[part] / math.sqrt(width)) for key in keys]
        total = sum(scores)
        heads.append(sum(score / total * value[part] for score, value in zip(scores, values, strict=True)))
    return np.concatenate(heads)


def refine(layer: Any, memories: list[np.ndarray], context_length: int) -> list[np.ndarray]:
    """
    :param layer: An ``EncoderLayer``
    :param memories: All memories before it, (D,) each
    :param context_length: How many of them one sees, itself among them
    :return: All memories after it
    """
    attention, is_pre = layer.attention, layer.layer_norm == "pre"
    inputs = [norm(layer.norm_attention, memory) if is_pre else memory for memory in memories]
    keys, values = ([linear(part, x) for x in inputs] for part in (attention.key, attention.value))
    refined = []
    for i, memory in enumerate(memories):
        seen = slice(max(0, i + 1 - context_length), i + 1)
        got = attend(linear(attention.query, inputs[i]), keys[seen], values[seen], attention.n_heads)
        x = memory + linear(attention.out, got)
        x = x if is_pre else norm(layer.norm_attention, x)
        hidden = linear(layer.feedforward[0], norm(layer.norm_feedforward, x) if is_pre else x)
        x = x + linear(layer.feedforward[2], np.maximum(hidden, 0.0))
        refined.append(x if is_pre else norm(layer.norm_feedforward, x))
    return refined


def episodic_memories(extractor: Any, tokens: np.ndarray, context_length: int) -> np.ndarray:
    """
    :param extractor: A ``TransformerExtractor`` that flattens observations and has no hidden layers before its linear
        one
    :param tokens: All tokens since the memory was emptied, (T, F)
    :param context_length: How many tokens one sees in each layer, itself among them
    :return: Episodic memory of each token, (T, D)
    """
    memories = []
    for position, token in enumerate(np.asarray(tokens, np.float64)):
        memories.append(linear(extractor.embedding[0], token))
        if extractor.positional_encoding == "sinusoidal":
            memories[-1] = memories[-1] + sinusoid(position, len(memories[-1]))
        elif extractor.positional_encoding == "learned":
            memories[-1] = memories[-1] + extractor.positions[position].detach().numpy().astype(np.float64)
    for layer in extractor.encoder.layers:
        memories = refine(layer, memories, context_length)
    return np.array([norm(extractor.encoder.final_norm, memory) for memory in memories])
