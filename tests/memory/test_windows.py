"""Batches of windows against a transformer written in plain loops."""

import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_trmrl.memory.working_memory import WorkingMemory
from tests.helpers.naive_transformer import RandomTransformer, assert_close, random_transformers


@pytest.mark.usefixtures("one_thread")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    transformer=random_transformers(["sinusoidal", "learned", "relative", "none"], bounded_positions=True),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    repeats=st.sampled_from([1, 1, 20]),
)
def test_packed_windows(transformer: RandomTransformer, lengths: list[int], repeats: int) -> None:
    """Windows of different lengths are encoded together. Many windows are computed in another way than few."""
    lengths = [min(length, transformer.context_length) for length in lengths]
    tokens = transformer.random_tokens(len(lengths), transformer.context_length)
    expected = [transformer.expected(window[:length])[-1] for window, length in zip(tokens, lengths, strict=True)]
    memory = WorkingMemory(th.as_tensor(tokens).repeat(repeats, 1, 1), th.tensor(lengths * repeats))
    assert_close(transformer.extractor(memory.batch()).detach(), expected * repeats)
