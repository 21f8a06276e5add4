"""Batches of windows against a transformer written in plain loops."""

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_trmrl.memory.working_memory import WorkingMemory
from tests.helpers.naive_transformer import WIDTH, RandomTransformer, assert_close, random_transformers


@pytest.mark.usefixtures("one_thread")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    transformer=random_transformers(["sinusoidal", "learned", "none"], bounded_positions=True),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    repeats=st.sampled_from([1, 1, 20]),
)
def test_packed_windows(transformer: RandomTransformer, lengths: list[int], repeats: int) -> None:
    """Windows of different lengths are encoded together. Many windows are computed in another way than few."""
    rng = np.random.default_rng(transformer.seed)
    lengths = [min(length, transformer.context_length) for length in lengths]
    tokens = rng.normal(size=(len(lengths), transformer.context_length, WIDTH)).astype(np.float32)
    expected = [transformer.expected(window[:length])[-1] for window, length in zip(tokens, lengths, strict=True)]
    memory = WorkingMemory(th.as_tensor(tokens).repeat(repeats, 1, 1), th.tensor(lengths * repeats))
    assert_close(transformer.extractor(memory.batch()).detach(), expected * repeats)
