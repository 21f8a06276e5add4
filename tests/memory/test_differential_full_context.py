"""Full-context batching, the key/value cache and packed windows against a transformer written in plain loops."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_trmrl.memory.extractor import TransformerExtractor
from sb3_trmrl.memory.full_memory import KeyValueCache
from sb3_trmrl.memory.sequences import Sequences
from sb3_trmrl.memory.working_memory import WorkingMemory
from tests.helpers.naive_transformer import episodic_memories

pytestmark = pytest.mark.usefixtures("one_thread")

#: Numbers of a token
WIDTH = 3


@dataclass
class Model:
    n_layers: int
    n_heads: int
    context_length: int
    layer_norm: str
    positional_encoding: str
    seed: int
    bounded_positions: bool = False

    @cached_property
    def extractor(self) -> Any:
        """Weights so large that tokens look at some and not at others"""
        th.manual_seed(self.seed)
        extractor = TransformerExtractor(
            spaces.Box(-np.inf, np.inf, (WIDTH,), np.float32),
            context_length=self.context_length,
            d_model=4,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            dim_feedforward=5,
            initialization="default",
            layer_norm=self.layer_norm,
            positional_encoding=self.positional_encoding,
            bounded_positions=self.bounded_positions,
        )
        with th.no_grad():
            for parameter in extractor.parameters():
                parameter.add_(0.3 * th.randn_like(parameter))
        return extractor

    def expected(self, tokens: np.ndarray) -> np.ndarray:
        """:return: Episodic memories of all tokens of one sequence, each computed alone"""
        return episodic_memories(self.extractor, tokens, self.context_length)


def models(positions: list[str], **kwargs: Any) -> st.SearchStrategy[Model]:
    return st.builds(
        Model,
        n_layers=st.integers(1, 3),
        n_heads=st.sampled_from([1, 2, 4]),
        context_length=st.integers(1, 9),
        layer_norm=st.sampled_from(["none", "pre", "post"]),
        positional_encoding=st.sampled_from(positions),
        seed=st.integers(0, 1_000),
        **kwargs,
    )


FULL = models(["sinusoidal", "none"])
LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=4)


def assert_close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, np.array(expected), rtol=1e-3, atol=2e-4)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(model=FULL, lengths=LENGTHS, data=st.data())
def test_packed_sequences(model: Model, lengths: list[int], data: st.DataObject) -> None:
    """
    Some rows of sequences of any lengths, in one pass. Of each sequence the oldest tokens that no row reaches are left
    out: L layers reach back L (C - 1) tokens.
    """
    rng = np.random.default_rng(model.seed)
    tokens, positions, outputs, expected, packed_lengths = [], [], [], [], []
    n_before = 0
    for length in lengths:
        sequence = rng.normal(size=(length, WIDTH)).astype(np.float32)
        memories = model.expected(sequence)
        read = sorted(data.draw(st.sets(st.integers(0, length - 1), min_size=1)))
        cut = max(0, read[0] - model.n_layers * (model.context_length - 1))
        tokens.append(sequence[cut:])
        positions += range(cut, length)
        outputs += [n_before + row - cut for row in read]
        expected += [memories[row] for row in read]
        packed_lengths.append(length - cut)
        n_before += length - cut
    observations = th.as_tensor(np.concatenate(tokens))
    packed = Sequences(observations, tuple(packed_lengths), th.tensor(positions), th.tensor(outputs))
    assert_close(model.extractor(packed).detach(), expected)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(model=FULL, n_envs=st.integers(1, 3), n_steps=st.integers(1, 25), emptied=st.sampled_from([0.0, 0.1, 0.5]))
def test_cache(model: Model, n_envs: int, n_steps: int, emptied: float) -> None:
    """
    One token at a time, memories emptied anywhere; now and then the cache is made anew from the tokens that still
    matter, as after an update.
    """
    rng = np.random.default_rng(model.seed)
    extractor, reach = model.extractor, model.n_layers * (model.context_length - 1)
    histories: list[list[np.ndarray]] = [[] for _ in range(n_envs)]
    outputs: list[list[np.ndarray]] = [[] for _ in range(n_envs)]
    cache = KeyValueCache.empty(extractor, n_envs)
    for step in range(n_steps + 1):
        if rng.random() < 0.2:
            cache = refilled(extractor, histories, reach) or cache
        for env, history in enumerate(histories):
            if history and (step == n_steps or rng.random() < emptied):
                assert_close(np.array(outputs[env]), model.expected(np.array(history)))
                histories[env], outputs[env] = [], []
            histories[env].append(rng.normal(size=WIDTH).astype(np.float32))
        newest = th.as_tensor(np.array([history[-1] for history in histories]))
        steps = th.tensor([len(history) for history in histories])
        with th.no_grad():
            cache, memories = cache.append(extractor, newest, steps)
        for env, memory in enumerate(memories.numpy()):
            outputs[env].append(memory)


def refilled(extractor: Any, histories: list[list[np.ndarray]], reach: int) -> Any:
    """:return: A cache that is filled with the newest tokens of each environment at once, None if there are none"""
    kept = {env: history[-reach:] for env, history in enumerate(histories) if history[-reach:] and reach}
    if not kept:
        return None
    positions = [place for env in kept for place in range(len(histories[env]))[-reach:]]
    tokens = th.as_tensor(np.array([token for history in kept.values() for token in history]))
    envs = th.tensor([env for env, history in kept.items() for _ in history])
    sequences = Sequences(tokens, tuple(map(len, kept.values())), th.tensor(positions), th.tensor([], dtype=th.long))
    with th.no_grad():
        return KeyValueCache.of_sequences(extractor, sequences, envs, len(histories))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    model=models(["sinusoidal", "learned", "none"], bounded_positions=st.just(True)),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    repeats=st.sampled_from([1, 1, 20]),
)
def test_packed_windows(model: Model, lengths: list[int], repeats: int) -> None:
    """Windows of any lengths at once, few of them and many, which are computed in another way"""
    rng = np.random.default_rng(model.seed)
    lengths = [min(length, model.context_length) for length in lengths]
    tokens = rng.normal(size=(len(lengths), model.context_length, WIDTH)).astype(np.float32)
    expected = [model.expected(window[:length])[-1] for window, length in zip(tokens, lengths, strict=True)]
    memory = WorkingMemory(th.as_tensor(tokens).repeat(repeats, 1, 1), th.tensor(lengths * repeats))
    assert_close(model.extractor(memory.batch()).detach(), expected * repeats)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(model=FULL, length=st.integers(2, 14), data=st.data())
def test_context_is_a_band(model: Model, length: int, data: st.DataObject) -> None:
    """A token changes the memories of itself and of the L (C - 1) behind it, and no others."""
    rng = np.random.default_rng(model.seed)
    changed = data.draw(st.integers(0, length - 1))
    one = rng.normal(size=(length, WIDTH)).astype(np.float32)
    other = one.copy()
    other[changed] += rng.normal(size=WIDTH)
    rows = th.arange(length)
    first, second = (model.extractor(Sequences(th.as_tensor(tokens), (length,), rows, rows)) for tokens in (one, other))
    differs = ((first - second).abs() > 1e-6).any(dim=1).numpy()
    reach = model.n_layers * (model.context_length - 1)
    assert differs[changed]
    assert not differs[:changed].any() and not differs[changed + reach + 1 :].any()
