"""The transformer memory in plain loops over layers, tokens and heads, and random transformers to compare with it."""

import math
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from hypothesis import strategies as st
from torch import nn

from sb3_trmrl.memory.extractor import TransformerExtractor

UNBOUNDED = spaces.Box(-np.inf, np.inf, (3,), np.float32)


def linear(layer: Any, x: np.ndarray) -> np.ndarray:
    weight, bias = (parameter.detach().numpy().astype(np.float64) for parameter in (layer.weight, layer.bias))
    return np.asarray(weight @ x + bias)


def norm(layer: Any, x: np.ndarray) -> np.ndarray:
    if isinstance(layer, nn.Identity):
        return x
    weight, bias = (parameter.detach().numpy().astype(np.float64) for parameter in (layer.weight, layer.bias))
    return np.asarray((x - x.mean()) / math.sqrt(((x - x.mean()) ** 2).mean() + layer.eps) * weight + bias)


def sinusoid(position: int, width: int) -> np.ndarray:
    """Return sine and cosine of the position at each frequency 10,000^(-2 i / D), (D,)."""
    angles = [position * 10_000 ** (-2 * i / width) for i in range(width // 2)]
    return np.array([function(angle) for angle in angles for function in (math.sin, math.cos)])


def distance_bias(relative: Any, distance: int, head: int) -> float:
    """Return the bias of a score: 16 distances have one each, then 16 ranges up to 1,024 grow by the same factor."""
    if relative is None:
        return 0.0
    row = distance
    if distance >= 16:
        limits = [16 * 64 ** (i / 15) for i in range(1, 16)]
        row = 16 + sum(distance >= limit - 1e-9 for limit in limits)
    return float(relative.biases.detach()[row, head])


def attend(
    query: np.ndarray, keys: list[np.ndarray], values: list[np.ndarray], n_heads: int, relative: Any = None
) -> np.ndarray:
    """Attend with one query (D,) to the keys and values (D,) of the visible tokens, as in equation 4."""
    width = len(query) // n_heads
    heads = []
    for head in range(n_heads):
        part = slice(head * width, (head + 1) * width)
        biases = [distance_bias(relative, distance, head) for distance in reversed(range(len(keys)))]
        biases = [2 * bias for bias in biases]
        dots = [query[part] @ key[part] / math.sqrt(width) for key in keys]
        scores = [math.exp(dot + bias) for dot, bias in zip(dots, biases, strict=True)]
        total = sum(scores)
        heads.append(sum(score / total * value[part] for score, value in zip(scores, values, strict=True)))
    return np.concatenate(heads)


def refine(layer: Any, memories: list[np.ndarray], context_length: int, relative: Any = None) -> list[np.ndarray]:
    """Return the memories (D,) after an ``EncoderLayer`` in which each sees ``context_length`` memories."""
    attention, is_pre = layer.attention, layer.layer_norm == "pre"
    inputs = [norm(layer.norm_attention, memory) if is_pre else memory for memory in memories]
    keys, values = ([linear(part, x) for x in inputs] for part in (attention.key, attention.value))
    refined = []
    for i, memory in enumerate(memories):
        seen = slice(max(0, i + 1 - context_length), i + 1)
        got = attend(linear(attention.query, inputs[i]), keys[seen], values[seen], attention.n_heads, relative)
        x = memory + linear(attention.out, got)
        x = x if is_pre else norm(layer.norm_attention, x)
        hidden = linear(layer.feedforward[0], norm(layer.norm_feedforward, x) if is_pre else x)
        x = x + linear(layer.feedforward[2], np.maximum(hidden, 0.0))
        refined.append(x if is_pre else norm(layer.norm_feedforward, x))
    return refined


def episodic_memories(extractor: Any, tokens: np.ndarray, context_length: int) -> np.ndarray:
    """Return the episodic memories (T, D) of the tokens (T, F) of one sequence. The embedding must be linear."""
    memories = []
    for position, token in enumerate(np.asarray(tokens, np.float64)):
        memories.append(linear(extractor.embedding[0], token))
        if extractor.positional_encoding == "sinusoidal":
            memories[-1] = memories[-1] + sinusoid(position, len(memories[-1]))
        elif extractor.positional_encoding == "learned":
            memories[-1] = memories[-1] + extractor.positions[position].detach().numpy().astype(np.float64)
    for layer in extractor.encoder.layers:
        memories = refine(layer, memories, context_length, extractor.encoder.relative_positions)
    return np.array([norm(extractor.encoder.final_norm, memory) for memory in memories])


class RandomTransformer:
    """A ``TransformerExtractor`` whose weights are large enough for attention to differ between tokens."""

    def __init__(self, seed: int, n_layers: int, context_length: int, **kwargs: Any) -> None:
        self.context_length, self.receptive_field = context_length, n_layers * (context_length - 1)
        self.rng = np.random.default_rng(seed)
        th.manual_seed(seed)
        sizes: dict[str, Any] = dict(d_model=4, dim_feedforward=5, n_layers=n_layers, context_length=context_length)
        self.extractor: Any = TransformerExtractor(UNBOUNDED, initialization="default", **sizes, **kwargs)
        with th.no_grad():
            for parameter in self.extractor.parameters():
                parameter.add_(0.3 * th.randn_like(parameter))

    def random_tokens(self, *shape: int) -> np.ndarray:
        return self.rng.normal(size=(*shape, 3)).astype(np.float32)

    def expected(self, tokens: np.ndarray) -> np.ndarray:
        """Return the episodic memories of all tokens of one sequence."""
        return episodic_memories(self.extractor, tokens, self.context_length)


def random_transformers(positional_encodings: list[str], bounded_positions: bool) -> st.SearchStrategy[Any]:
    return st.builds(
        RandomTransformer,
        seed=st.integers(0, 1_000),
        n_layers=st.integers(1, 3),
        n_heads=st.sampled_from([1, 2, 4]),
        context_length=st.integers(1, 9),
        layer_norm=st.sampled_from(["none", "pre", "post"]),
        positional_encoding=st.sampled_from(positional_encodings),
        bounded_positions=st.just(bounded_positions),
    )


#: Transformers of the full-context memory
FULL_CONTEXT = random_transformers(["sinusoidal", "relative", "none"], bounded_positions=False)


def assert_close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, np.array(expected), rtol=1e-3, atol=2e-4)
