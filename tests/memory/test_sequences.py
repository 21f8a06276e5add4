"""Batches of whole sequences, against a masked softmax and a transformer written in plain loops."""

from unittest import mock

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_trmrl.memory.encoder import RelativePositions
from sb3_trmrl.memory.sequences import Sequences, banded_attention, block_mask, blockwise_attention
from tests.helpers.naive_transformer import FULL_CONTEXT, RandomTransformer, assert_close

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", ["banded", "banded relative", "blockwise"])
@pytest.mark.parametrize("n_tokens", [1, 2, 5, 8, 9, 13])
@pytest.mark.parametrize("context_length", [1, 2, 3, 4, 8, 20])
def test_attention_equals_a_masked_softmax(
    n_tokens: int, context_length: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients are equal."""
    monkeypatch.setattr("sb3_trmrl.memory.sequences._BLOCK_SIZE", 4)
    th.manual_seed(0)
    q, k, v = inputs = [th.randn(2, 3, n_tokens, 4, requires_grad=True) for _ in range(3)]
    band = th.tensor([[i - context_length < j <= i for j in range(n_tokens)] for i in range(n_tokens)])
    scores = q @ k.transpose(-2, -1) / 2
    positions = None if kind == "banded" else RelativePositions(3)
    if positions is not None:
        inputs.append(th.nn.init.normal_(positions.biases))
        distances = th.tensor([[max(i - j, 0) for j in range(n_tokens)] for i in range(n_tokens)])
        scores = scores + 2 * positions.biases[distances].permute(2, 0, 1)
    expected = scores.masked_fill(~band, -th.inf).softmax(-1) @ v
    if positions is not None and kind == "blockwise":
        actual = blockwise_attention(q, k, v, block_mask(positions, n_tokens, context_length))
    else:
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
    outside the receptive field of L (C - 1) tokens. Blocks of attention are smaller than the context, or larger.
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
    with mock.patch("sb3_trmrl.memory.sequences._BLOCK_SIZE", data.draw(st.sampled_from([3, 64]))):
        assert_close(transformer.extractor(packed).detach(), expected)


def test_gradients_of_packed_sequences_are_sums() -> None:
    """Padding of the shorter sequences adds nothing to the gradient of any parameter."""
    extractor = RandomTransformer(0, n_layers=2, context_length=100, positional_encoding="relative").extractor
    lengths = (70, 5, 33)
    tokens, weights = th.randn(sum(lengths), 3), th.randn(sum(lengths), 4)

    def gradients(rows: slice, lengths: tuple[int, ...]) -> tuple[th.Tensor, ...]:
        steps = th.cat([th.arange(length) for length in lengths])
        sequences = Sequences(tokens[rows], lengths, steps, th.arange(len(steps)))
        return th.autograd.grad((extractor(sequences) * weights[rows]).sum(), list(extractor.parameters()))

    alone = [gradients(slice(sum(lengths[:i]), sum(lengths[: i + 1])), lengths[i : i + 1]) for i in range(3)]
    expected = tuple(sum(parts) for parts in zip(*alone, strict=True))
    th.testing.assert_close(gradients(slice(None), lengths), expected, atol=1e-4, rtol=1e-4)


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
