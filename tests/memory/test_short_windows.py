"""The fast encoder for short windows against the plain encoder, including gradients."""

import pytest
import torch as th

from sb3_trmrl.memory import short_windows
from sb3_trmrl.memory.extractor import TransformerExtractor
from sb3_trmrl.memory.working_memory import WorkingMemory
from tests.helpers.agents import VECTOR


@pytest.mark.parametrize("positions", ["sinusoidal", "relative"])
@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("n_heads", [1, 4, 16])
@pytest.mark.parametrize("lengths", [[1], [4, 4, 4], [1, 1], [2, 5, 1, 5, 3], [7, 7, 1], [3, 6, 2, 2, 7, 1, 4]])
def test_equals_the_plain_encoder(n_layers: int, n_heads: int, lengths: list[int], positions: str) -> None:
    """Outputs, gradients of all parameters and gradients of the tokens agree to 1e-5 for windows of any lengths."""
    th.manual_seed(0)
    transformer = TransformerExtractor(VECTOR, None, 7, 32, n_layers, n_heads, 24, positional_encoding=positions)
    if transformer.encoder.relative_positions is not None:
        th.nn.init.normal_(transformer.encoder.relative_positions.biases)
    tokens = th.randn(len(lengths), 7, 3, requires_grad=True)
    windows = WorkingMemory(tokens, th.tensor(lengths)).batch()
    weights = th.randn(len(lengths), 32)

    def gradients(output: th.Tensor) -> list[th.Tensor]:
        return list(th.autograd.grad((output * weights).sum(), [tokens, *transformer.parameters()], retain_graph=True))

    memories = transformer.embedding(tokens) + transformer.position_encodings(th.arange(7))
    plain = transformer.encoder(memories, th.tensor(lengths))
    expected = gradients(plain)
    fast = short_windows.encode(transformer, *windows)
    th.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
    th.testing.assert_close(gradients(fast), expected, atol=1e-5, rtol=1e-5)
    for length, gradient in zip(lengths, expected[0], strict=True):
        assert (gradient[length:] == 0).all()


def test_without_gradient() -> None:
    transformer = TransformerExtractor(VECTOR, None, 3, 8, 2, 2, 8)
    windows = WorkingMemory(th.randn(3, 3, 3), th.tensor([1, 3, 2])).batch()
    with th.no_grad():
        acting = short_windows.encode(transformer, *windows)
    th.testing.assert_close(acting, short_windows.encode(transformer, *windows), atol=0, rtol=0)


@pytest.mark.parametrize("layer_norm", ["none", "pre"])
def test_many_windows_equal_single_windows(layer_norm: str) -> None:
    """A single window is encoded by the plain encoder, many windows without LayerNorm by the fast one."""
    th.manual_seed(0)
    extractor = TransformerExtractor(VECTOR, None, context_length=5, layer_norm=layer_norm)
    memory = WorkingMemory(th.randn(70, 5, 3), th.randint(1, 6, (70,)))
    assert short_windows.are_faster(extractor.encoder, n_windows=70, longest=5) == (layer_norm == "none")
    assert not short_windows.are_faster(extractor.encoder, n_windows=1, longest=5)
    assert not short_windows.are_faster(extractor.encoder, n_windows=70, longest=16)
    expected = th.cat([extractor(memory.select([index]).batch()) for index in range(70)])
    th.testing.assert_close(extractor(memory.batch()), expected, atol=1e-5, rtol=1e-5)
