"""The encoder against formulas of the papers and against PyTorch's own layers."""

import math

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn

from sb3_trmrl import TransformerPPO
from sb3_trmrl.memory.encoder import EncoderLayer, SelfAttention, TransformerEncoder, attend_to_visible
from sb3_trmrl.memory.extractor import TransformerExtractor, sinusoidal_positions
from sb3_trmrl.memory.working_memory import WorkingMemory

BOX = spaces.Box(-1.0, 1.0, (6,), np.float32)


def make_encoder(layer_norm="none", n_layers=3, d_model=16):
    th.manual_seed(0)
    return TransformerEncoder(d_model, n_layers, 4, 32, layer_norm)


@pytest.mark.parametrize("layer_norm", ["pre", "post"])
def test_layer_equals_pytorchs(layer_norm):
    """With LayerNorm the layer is nn.TransformerEncoderLayer, the reference implementation, given the same weights."""
    th.manual_seed(0)
    ours = EncoderLayer(16, 4, 32, layer_norm)
    reference = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True, norm_first=layer_norm == "pre")
    attention = ours.attention
    reference.load_state_dict(
        {
            "self_attn.in_proj_weight": th.cat([attention.query.weight, attention.key.weight, attention.value.weight]),
            "self_attn.in_proj_bias": th.cat([attention.query.bias, attention.key.bias, attention.value.bias]),
            **{f"self_attn.out_proj.{k}": v for k, v in attention.out.state_dict().items()},
            **{f"linear1.{k}": v for k, v in ours.feedforward[0].state_dict().items()},
            **{f"linear2.{k}": v for k, v in ours.feedforward[2].state_dict().items()},
            **{f"norm1.{k}": v for k, v in ours.norm_attention.state_dict().items()},
            **{f"norm2.{k}": v for k, v in ours.norm_feedforward.state_dict().items()},
        }
    )
    x = th.randn(3, 5, 16)
    visible = th.ones(5, 5, dtype=th.bool).tril()
    expected = reference(x, src_mask=~visible)
    th.testing.assert_close(ours(x, x, attend_to_visible(visible)), expected, atol=1e-5, rtol=1e-5)


def test_attention_equals_equation_4_and_5():
    """Loops over heads, slots and keys, as the paper writes them."""
    th.manual_seed(0)
    attention = SelfAttention(8, 2)
    x = th.randn(1, 4, 8)
    q, k, v = (linear(x)[0].detach().numpy() for linear in (attention.query, attention.key, attention.value))
    mu = np.zeros((4, 8))
    for head in (slice(0, 4), slice(4, 8)):
        for t in range(4):
            alpha = np.array([math.exp(q[t, head] @ k[n, head] / math.sqrt(4)) for n in range(t + 1)])
            alpha /= alpha.sum()
            mu[t, head] = sum(alpha[n] * v[n, head] for n in range(t + 1))
    expected = attention.out(th.as_tensor(mu, dtype=th.float32))
    actual = attention(x, x, attend_to_visible(th.ones(4, 4, dtype=th.bool).tril()))[0]
    th.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("layer_norm", ["none", "pre", "post"])
def test_output_is_the_newest_slot_and_nothing_else_matters(layer_norm):
    """Same memory from the window cut at its length, with rubbish in the slots not filled, and in a full trace."""
    encoder = make_encoder(layer_norm)
    tokens, lengths = th.randn(4, 7, 16), th.tensor([1, 3, 6, 7])
    output = encoder(tokens, lengths)
    rubbish = tokens.clone()
    for env, length in enumerate(lengths):
        rubbish[env, length:] = 1e6
    th.testing.assert_close(encoder(rubbish, lengths), output)
    trace = encoder.trace(tokens)
    for env, length in enumerate(lengths):
        cut = encoder(tokens[env : env + 1, :length], th.tensor([length]))
        th.testing.assert_close(cut[0], output[env], atol=1e-5, rtol=1e-5)
        th.testing.assert_close(trace.memories[-1][env, length - 1], output[env], atol=1e-5, rtol=1e-5)


def test_trace_holds_every_layer():
    trace = make_encoder(n_layers=3).trace(th.randn(2, 5, 16))
    assert [tuple(memory.shape) for memory in trace.memories] == [(2, 5, 16)] * 4
    assert [tuple(alpha.shape) for alpha in trace.attention] == [(2, 4, 5, 5)] * 3
    for alpha in trace.attention:
        th.testing.assert_close(alpha.sum(-1), th.ones(2, 4, 5))
        assert (alpha.triu(1) == 0).all()


def test_sinusoidal_positions_equal_the_formula():
    """PE(p, 2i) = sin(p / 10000^(2i/d)), PE(p, 2i+1) = cos of the same (Vaswani et al. 2017)"""
    positions = sinusoidal_positions(th.arange(9), 6)
    for p in range(9):
        for i in range(3):
            angle = p / 10_000 ** (2 * i / 6)
            assert positions[p, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert positions[p, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_a_token_s_position_is_its_slot():
    extractor = TransformerExtractor(BOX, context_length=4, d_model=8, n_heads=2)
    tokens = th.randn(1, 6).expand(4, 6)  # one window of four equal tokens
    difference = extractor.working_memories(tokens, positions=th.arange(4)) - extractor.embedding(tokens)
    th.testing.assert_close(difference, sinusoidal_positions(th.arange(4), 8), atol=1e-6, rtol=1e-5)


def test_expensive_tokens_are_computed_once() -> None:
    """Rows that occur in several windows pass through the user's layers once, and the result is the same."""
    seen: list[int] = []
    space = spaces.Box(-1.0, 1.0, (6,), np.float32)
    tokens, rows = th.randn(9, 6), np.array([2, 3, 3, 8, 2, 0])
    for embedding_arch, n_computed in (([5], 4), ([], 6)):
        extractor = TransformerExtractor(space, d_model=8, n_heads=2, embedding_arch=embedding_arch)
        extractor.token_extractor.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
        memories = extractor.working_memories(tokens, rows, rows)
        assert seen.pop() == n_computed
        expected = extractor.embedding(tokens)[rows] + sinusoidal_positions(th.as_tensor(rows), 8)
        th.testing.assert_close(memories, expected, atol=1e-6, rtol=1e-5)


def assert_tfixup(extractor, n_layers, d_model, dim_feedforward):
    """
    Huang et al. 2020: Xavier-uniform on [-a, a], a = sqrt(6 / (fan_in + fan_out)), times 0.67 L^(-1/4) for W_v, W_o and
    the two feed-forward matrices; Gaussian embedding of standard deviation d^(-1/2) (9 L)^(-1/4). Hundreds of draws
    come close to the bound, and the standard deviation of the uniform is a / sqrt(3).
    """
    factor = 0.67 * n_layers ** (-1 / 4)
    assert len(extractor.encoder.layers) == n_layers
    for layer in extractor.encoder.layers:
        square, wide = math.sqrt(6 / (2 * d_model)), math.sqrt(6 / (d_model + dim_feedforward))
        bounds = {
            layer.attention.query: square,
            layer.attention.key: square,
            layer.attention.value: square * factor,
            layer.attention.out: square * factor,
            layer.feedforward[0]: wide * factor,
            layer.feedforward[2]: wide * factor,
        }
        for linear, bound in bounds.items():
            assert 0.98 * bound < linear.weight.abs().max().item() <= bound * (1 + 1e-6)
            assert linear.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
            assert (linear.bias == 0).all()
    embedding = extractor.embedding[-1]
    assert embedding.weight.std().item() == pytest.approx(d_model**-0.5 * (9 * n_layers) ** -0.25, rel=0.1)
    assert embedding.weight.abs().max() > 2.5 * embedding.weight.std()  # Gaussian, a uniform stops at 1.73
    assert (embedding.bias == 0).all()


@pytest.mark.parametrize("n_layers", [1, 4, 12])
def test_tfixup_scales(n_layers):
    th.manual_seed(1)
    space = spaces.Box(-1.0, 1.0, (20,), np.float32)
    assert_tfixup(TransformerExtractor(space, None, 5, 64, n_layers, 4, 128), n_layers, 64, 128)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("ortho_init", [True, False])
def test_tfixup_holds_after_the_policy_is_built(share, ortho_init):
    """SB3's orthogonal initialization reaches every Linear of a features extractor, unless it is undone."""
    sizes = dict(n_layers=2, d_model=64, dim_feedforward=128)
    kwargs = dict(**sizes, context_length=4, ortho_init=ortho_init, share_features_extractor=share, embedding_arch=[32])
    policy = TransformerPPO("TrMRLPolicy", "Pendulum-v1", policy_kwargs=kwargs, seed=0, n_steps=8, batch_size=8).policy
    for extractor in {policy.pi_features_extractor, policy.vf_features_extractor}:
        assert_tfixup(extractor, **sizes)


def test_orthogonal_initialization_still_reaches_the_users_extractor():
    image = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    policy = TransformerPPO.policy_aliases["CnnTransformerPolicy"](image, spaces.Discrete(2), lambda _: 1e-3)
    extractor = policy.features_extractor.token_extractor
    assert isinstance(extractor, NatureCNN)
    weight = extractor.cnn[0].weight.flatten(1)  # 32 orthogonal rows of norm sqrt(2)
    th.testing.assert_close(weight @ weight.T, 2 * th.eye(32), atol=1e-5, rtol=0)


@pytest.mark.parametrize("gain", [0.01, 1.0])
def test_action_head_gain(gain):
    kwargs = dict(action_head_gain=gain)
    model = TransformerPPO("TrMRLPolicy", "Pendulum-v1", policy_kwargs=kwargs, n_steps=8, batch_size=8)
    assert model.policy.action_net.weight.norm().item() == pytest.approx(gain, rel=1e-5)


@pytest.mark.parametrize("initialization", ["xavier", "default"])
def test_other_initializations_are_not_scaled(initialization):
    """Xavier's bound is sqrt(6 / 2d); PyTorch's Linear draws from [-1/sqrt(d), 1/sqrt(d)]"""
    th.manual_seed(0)
    extractor = TransformerExtractor(BOX, d_model=64, n_layers=4, initialization=initialization)
    bound = math.sqrt(6 / 128) if initialization == "xavier" else 1 / 8
    for layer in extractor.encoder.layers:
        for linear in (layer.attention.query, layer.attention.value, layer.attention.out):
            assert 0.98 * bound < linear.weight.abs().max().item() <= bound * (1 + 1e-6)


def test_twelve_layers_train_with_tfixup_and_not_with_plain_xavier():
    """
    Paper, appendix E.3: 12 layers without LayerNorm or warm-up are stable. The task: tell which of the first tokens was
    marked, by Adam at a rate of 1e-3 from the first step on.
    """

    def losses(initialization):
        th.manual_seed(0)
        extractor = TransformerExtractor(BOX, None, 8, 32, 12, 4, 64, initialization=initialization)
        head = nn.Linear(32, 6)
        optimizer = th.optim.Adam([*extractor.parameters(), *head.parameters()], lr=1e-3)
        history = []
        for _ in range(200):
            target = th.randint(6, (128,))
            tokens = 0.1 * th.randn(128, 8, 6)
            tokens[th.arange(128), 0, target] += 1.0
            output = head(extractor(WorkingMemory(tokens, th.full((128,), 8)).batch()))
            loss = nn.functional.cross_entropy(output, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        return history

    tfixup, xavier = losses("tfixup"), losses("xavier")
    assert max(tfixup) < 3.0  # never far above the ln 6 = 1.79 of a guess
    assert np.mean(tfixup[-20:]) < 0.2
    assert max(xavier) > 2 * max(tfixup)
