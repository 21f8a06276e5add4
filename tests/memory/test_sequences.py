"""Batches of whole sequences, against a masked softmax and a transformer written in plain loops."""

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_trmrl.memory.encoder import RelativePositions
from sb3_trmrl.memory.sequences import Sequences, banded_attention
from tests.helpers.naive_transformer import FULL_CONTEXT, RandomTransformer, assert_close

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("n_tokens", [1, 2, 5, 8, 9, 13])
@pytest.mark.parametrize("context_length", [1, 2, 3, 4, 8, 20])
def test_banded_attention_equals_a_masked_softmax(n_tokens: int, context_length: int, relative: bool) -> None:
    """Values and gradients are equal."""
    th.manual_seed(0)
    q, k, v = inputs = [th.randn(2, 3, n_tokens, 4, requires_grad=True) for _ in range(3)]
    band = th.tensor([[i - context_length < j <= i for j in range(n_tokens)] for i in range(n_tokens)])
    scores = q @ k.transpose(-2, -1) / 2
    positions = RelativePositions(3) if relative else None
    if positions is not None:
        inputs.append(th.nn.init.normal_(positions.biases))
        distances = th.tensor([[max(i - j, 0) for j in range(n_tokens)] for i in range(n_tokens)])
        scores = scores + 2 * positions.biases[distances].permute(2, 0, 1)
    expected = scores.masked_fill(~band, -th.inf).softmax(-1) @ v
    actual = banded_attention(q, k, v, context_length, positions)
    th.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    weights = th.randn_like(expected)
    gradients, expected_gradients = (th.autograd.grad((x * weights).sum(), inputs) for x in (actual, expected))
    th.testing.assert_close(gradients, expected_gradients, atol=1e-5, rtol=1e-5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(transformer=FULL_CONTEXT, lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4), data=st.data())
def test_packed_sequences(transformer: RandomTransformer, lengths: list[int], data: st.DataObject) -> None:
    """
    Some tokens of several sequences are read in one pass. The oldest tokens of each sequence are left out if they are
    outside the receptive field of L (C - 1) tokens.
    """
    tokens, expected, packed_lengths = [], [], []
    positions: list[int] = []
    outputs: list[int] = []
    for length in lengths:
        sequence = transformer.random_tokens(length)
        memories = transformer.expected(sequence)
        read = sorted(data.draw(st.sets(st.integers(0, length - 1), min_size=1)))
        cut = max(0, read[0] - transformer.receptive_field)
        tokens.append(sequence[cut:])
        outputs += [len(positions) + row - cut for row in read]
        positions += range(cut, length)
        expected += [memories[row] for row in read]
        packed_lengths.append(length - cut)
    observations = th.as_tensor(np.concatenate(tokens))
    packed = Sequences(observations, tuple(packed_lengths), th.tensor(positions), th.tensor(outputs))
    assert_close(transformer.extractor(packed).detach(), expected)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(transformer=FULL_CONTEXT, length=st.integers(2, 14), data=st.data())
def test_receptive_field(transformer: RandomTransformer, length: int, data: st.DataObject) -> None:
    """A token changes its own memory and those of the next L (C - 1) tokens, and no others."""
    changed = data.draw(st.integers(0, length - 1))
    one = transformer.random_tokens(length)
    other = one.copy()
    other[changed] += transformer.random_tokens()
    rows = th.arange(length)
    first, second = (
        transformer.extractor(Sequences(th.as_tensor(tokens), (length,), rows, rows)) for tokens in (one, other)
    )
    differs = ((first - second).abs() > 1e-6).any(dim=1).numpy()
    assert differs[changed]
    assert not differs[:changed].any() and not differs[changed + transformer.receptive_field + 1 :].any()


def test_newest_tokens() -> None:
    sequences = Sequences(th.arange(5.0)[:, None], (2, 3), th.tensor([0, 1, 0, 1, 2]), th.tensor([1, 4]))
    assert sequences.newest().flatten().tolist() == [1.0, 4.0]
