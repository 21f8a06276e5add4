"""The encoder against formulas of the paper and PyTorch's own layers."""

from typing import Any

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_trmrl.memory.encoder import (
    EncoderLayer,
    RelativePositions,
    SelfAttention,
    TransformerEncoder,
    attend_with_mask,
)
from tests.helpers.naive_transformer import attend


def make_encoder(layer_norm: str = "none") -> TransformerEncoder:
    th.manual_seed(0)
    return TransformerEncoder(d_model=16, n_layers=3, n_heads=4, dim_feedforward=32, layer_norm=layer_norm)


@pytest.mark.parametrize("layer_norm", ["pre", "post"])
def test_layer_equals_pytorchs(layer_norm: str) -> None:
    """With LayerNorm, the layer computes what nn.TransformerEncoderLayer computes with the same weights."""
    th.manual_seed(0)
    ours = EncoderLayer(16, 4, 32, layer_norm)
    reference = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True, norm_first=layer_norm == "pre")
    attention = ours.attention
    inputs = (attention.query, attention.key, attention.value)
    state = {
        "self_attn.in_proj_weight": th.cat([linear.weight for linear in inputs]),
        "self_attn.in_proj_bias": th.cat([linear.bias for linear in inputs]),
    }
    modules: dict[str, nn.Module] = {
        "self_attn.out_proj": attention.out,
        "linear1": ours.feedforward[0],
        "linear2": ours.feedforward[2],
        "norm1": ours.norm_attention,
        "norm2": ours.norm_feedforward,
    }
    for name, module in modules.items():
        state.update({f"{name}.{key}": value for key, value in module.state_dict().items()})
    reference.load_state_dict(state)
    x = th.randn(3, 5, 16)
    visible = th.ones(5, 5, dtype=th.bool).tril()
    expected = reference(x, src_mask=~visible)
    th.testing.assert_close(ours(x, x, attend_with_mask(visible)), expected, atol=1e-5, rtol=1e-5)


def test_attention_equals_equations_4_and_5() -> None:
    """Compare with loops over heads, slots and keys, as the paper writes them."""
    th.manual_seed(0)
    attention = SelfAttention(8, 2)
    x = th.randn(1, 4, 8)
    q, k, v = (list(linear(x)[0].detach().numpy()) for linear in (attention.query, attention.key, attention.value))
    attended = [attend(q[t], k[: t + 1], v[: t + 1], n_heads=2) for t in range(4)]
    expected = attention.out(th.as_tensor(np.array(attended), dtype=th.float32))
    actual = attention(x, x, attend_with_mask(th.ones(4, 4, dtype=th.bool).tril()))[0]
    th.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)


def test_relative_positions_share_biases_among_large_distances() -> None:
    """Distances below 16 have a bias each. Each of 16 ranges then grows by the same factor; the last one has no end."""
    positions = RelativePositions(n_heads=2)
    with th.no_grad():
        positions.biases.copy_(th.arange(32.0)[:, None].expand(-1, 2) + th.tensor([0.0, 100.0]))
    rows = positions(th.arange(5_000)[None])[:, 0] / 2
    assert th.equal(rows[1] - rows[0], th.full((5_000,), 100.0))
    assert rows[0, :16].tolist() == list(range(16))
    begins = [rows[0].tolist().index(row) for row in range(16, 32)]
    np.testing.assert_allclose(begins, [np.ceil(16 * 64 ** (i / 15)) for i in range(16)])
    assert rows[0, 1_024:].unique().tolist() == [31]


@pytest.mark.parametrize("layer_norm", ["none", "pre", "post"])
def test_output_depends_on_filled_slots_only(layer_norm: str) -> None:
    """The output is the same for a window cut at its length, with other numbers in unfilled slots, and in a trace."""
    encoder = make_encoder(layer_norm)
    tokens, lengths = th.randn(4, 7, 16), th.tensor([1, 3, 6, 7])
    output = encoder(tokens, lengths)
    overwritten = tokens.clone()
    trace = encoder.trace(tokens)
    close: dict[str, Any] = dict(atol=1e-5, rtol=1e-5)
    for env, length in enumerate(lengths):
        overwritten[env, length:] = 1e6
        cut = encoder(tokens[env : env + 1, :length], th.tensor([length]))
        th.testing.assert_close(cut[0], output[env], **close)
        th.testing.assert_close(trace.memories[-1][env, length - 1], output[env], **close)
    th.testing.assert_close(encoder(overwritten, lengths), output)


def test_trace_holds_every_layer() -> None:
    trace = make_encoder().trace(th.randn(2, 5, 16))
    assert [tuple(memory.shape) for memory in trace.memories] == [(2, 5, 16)] * 4
    assert [tuple(alpha.shape) for alpha in trace.attention] == [(2, 4, 5, 5)] * 3
    for alpha in trace.attention:
        th.testing.assert_close(alpha.sum(-1), th.ones(2, 4, 5))
        assert (alpha.triu(1) == 0).all()
