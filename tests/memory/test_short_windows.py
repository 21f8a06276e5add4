"""The fast encoder for short windows against the plain one, gradients included."""

import pytest
import torch as th
from gymnasium import spaces

from sb3_trmrl.memory.encoder import TransformerEncoder
from sb3_trmrl.memory.extractor import TransformerExtractor
from sb3_trmrl.memory.short_windows import encode
from sb3_trmrl.memory.windows import Windows
from sb3_trmrl.memory.working_memory import WorkingMemory


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("n_heads", [1, 4, 16])
@pytest.mark.parametrize("lengths", [[1], [4, 4, 4], [1, 1], [2, 5, 1, 5, 3], [7, 7, 1], [3, 6, 2, 2, 7, 1, 4]])
def test_equals_the_plain_encoder(n_layers: int, n_heads: int, lengths: list[int]) -> None:
    """Outputs, gradients of every parameter and of the working memories to 1e-5, whatever slots are filled"""
    th.manual_seed(0)
    encoder = TransformerEncoder(32, n_layers, n_heads, 24, "none")
    memory = WorkingMemory(th.randn(len(lengths), 7, 32, requires_grad=True), th.tensor(lengths))
    weights = th.randn(len(lengths), 32)

    def gradients(output: th.Tensor) -> list[th.Tensor]:
        encoder.zero_grad()
        memory.tokens.grad = None
        (output * weights).sum().backward()
        return [memory.tokens.grad, *(parameter.grad.clone() for parameter in encoder.parameters())]

    plain = encoder(memory.tokens, memory.lengths)
    expected = gradients(plain)
    windows = Windows.of(memory)
    newest = th.as_tensor(windows.newest_columns())
    fast = windows.restore_order(encode(encoder.layers, windows.tokens.t().contiguous(), windows.counts, newest).t())
    th.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
    for actual, reference in zip(gradients(fast), expected, strict=True):
        th.testing.assert_close(actual, reference, atol=1e-5, rtol=1e-5)
    for length, gradient in zip(lengths, expected[0], strict=True):
        assert (gradient[length:] == 0).all()


def test_without_gradient() -> None:
    encoder = TransformerEncoder(8, 2, 2, 8, "none")
    windows = Windows(th.randn(6, 8), (3, 2, 1))
    x, newest = windows.tokens.t().contiguous(), th.as_tensor(windows.newest_columns())
    with th.no_grad():
        acting = encode(encoder.layers, x, windows.counts, newest)
    th.testing.assert_close(acting, encode(encoder.layers, x, windows.counts, newest), atol=0, rtol=0)


@pytest.mark.parametrize("layer_norm", ["none", "pre"])
def test_many_windows_give_what_each_gives_alone(layer_norm: str) -> None:
    """One window alone takes the plain encoder, many without LayerNorm the fast one"""
    th.manual_seed(0)
    extractor = TransformerExtractor(spaces.Box(-1.0, 1.0, (3,)), None, context_length=5, layer_norm=layer_norm)
    memory = WorkingMemory(th.randn(70, 5, 3), th.randint(1, 6, (70,)))
    windows = Windows.of(memory)
    assert extractor.encoder.is_short(5, 70) == (layer_norm == "none")
    assert not extractor.encoder.is_short(5, 1)
    assert not extractor.encoder.is_short(16, 70)
    alone = [Windows.of(memory.select([index])) for index in range(70)]
    expected = th.cat([extractor(window.tokens, window) for window in alone])
    th.testing.assert_close(extractor(windows.tokens, windows), expected, atol=1e-5, rtol=1e-5)
