"""Embedding, positions and initialization of the extractor, against formulas of the papers."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn

from sb3_trmrl.memory.extractor import TransformerExtractor, sinusoidal_positions
from sb3_trmrl.memory.working_memory import WorkingMemory
from sb3_trmrl.transformer_ppo import TrMRLPolicy
from tests.helpers.agents import IMAGE_FIRST, tiny_model
from tests.helpers.naive_transformer import sinusoid

BOX = spaces.Box(-1.0, 1.0, (6,), np.float32)


def test_sinusoidal_positions_equal_the_formula() -> None:
    """PE(p, 2i) = sin(p / 10000^(2i/d)), PE(p, 2i+1) = cos(p / 10000^(2i/d)) (Vaswani et al. 2017)"""
    expected = [sinusoid(position, 6) for position in range(9)]
    np.testing.assert_allclose(sinusoidal_positions(th.arange(9), 6), expected, atol=1e-5)


def test_position_of_a_token_is_its_slot() -> None:
    extractor = TransformerExtractor(BOX, context_length=4, d_model=8, n_heads=2)
    tokens = th.randn(1, 6).expand(4, 6)  # one window of four equal tokens
    difference = extractor.working_memories(tokens, positions=th.arange(4)) - extractor.embedding(tokens)
    th.testing.assert_close(difference, sinusoidal_positions(th.arange(4), 8), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("embedding_arch", "n_computed"), [([5], 4), ([], 6)])
def test_expensive_tokens_are_computed_once(embedding_arch: list[int], n_computed: int) -> None:
    """Tokens that occur in several windows pass through the user's layers once, with the same result."""
    seen: list[int] = []
    tokens, rows = th.randn(9, 6), np.array([2, 3, 3, 8, 2, 0])
    extractor = TransformerExtractor(BOX, d_model=8, n_heads=2, embedding_arch=embedding_arch)
    extractor.token_extractor.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    memories = extractor.working_memories(tokens, rows, rows)
    assert seen == [n_computed]
    expected = extractor.embedding(tokens)[rows] + sinusoidal_positions(th.as_tensor(rows), 8)
    th.testing.assert_close(memories, expected, atol=1e-6, rtol=1e-5)


# -- Initialization ---------------------------------------------------------------------------------------------------


def assert_uniform(linear: Any, bound: float) -> None:
    """Hundreds of draws come close to the bound, and their standard deviation to that of the uniform distribution."""
    assert 0.98 * bound < linear.weight.abs().max().item() <= bound * (1 + 1e-6)
    assert linear.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def assert_tfixup(extractor: Any, n_layers: int, d_model: int, dim_feedforward: int) -> None:
    """
    Check the initialization of Huang et al. (2020): Xavier-uniform on [-a, a], a = sqrt(6 / (fan_in + fan_out)), times
    0.67 L^(-1/4) for W_v, W_o and the two feed-forward matrices; Gaussian embedding of standard deviation
    d^(-1/2) (9 L)^(-1/4).
    """
    factor = 0.67 * n_layers ** (-1 / 4)
    square, wide = math.sqrt(6 / (2 * d_model)), math.sqrt(6 / (d_model + dim_feedforward))
    assert len(extractor.encoder.layers) == n_layers
    for layer in extractor.encoder.layers:
        bounds = {
            layer.attention.query: square,
            layer.attention.key: square,
            layer.attention.value: square * factor,
            layer.attention.out: square * factor,
            layer.feedforward[0]: wide * factor,
            layer.feedforward[2]: wide * factor,
        }
        for linear, bound in bounds.items():
            assert_uniform(linear, bound)
            assert (linear.bias == 0).all()
    embedding = extractor.embedding[-1]
    assert embedding.weight.std().item() == pytest.approx(d_model**-0.5 * (9 * n_layers) ** -0.25, rel=0.1)
    # Gaussian: the maximum of a uniform distribution is 1.73 standard deviations
    assert embedding.weight.abs().max() > 2.5 * embedding.weight.std()
    assert (embedding.bias == 0).all()


@pytest.mark.parametrize("n_layers", [1, 4, 12])
def test_tfixup_scales(n_layers: int) -> None:
    th.manual_seed(1)
    space = spaces.Box(-1.0, 1.0, (20,), np.float32)
    assert_tfixup(TransformerExtractor(space, None, 5, 64, n_layers, 4, 128), n_layers, 64, 128)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("ortho_init", [True, False])
def test_tfixup_holds_after_the_policy_is_built(share: bool, ortho_init: bool) -> None:
    """SB3 initializes every Linear of a features extractor orthogonally. The policy has to undo that."""
    sizes = dict(n_layers=2, d_model=64, dim_feedforward=128)
    kwargs = dict(**sizes, ortho_init=ortho_init, share_features_extractor=share, embedding_arch=[32], n_heads=4)
    policy = tiny_model("Pendulum-v1", kwargs).policy
    for extractor in {policy.pi_features_extractor, policy.vf_features_extractor}:
        assert_tfixup(extractor, **sizes)


def test_token_extractor_is_initialized_orthogonally() -> None:
    extractor = TrMRLPolicy(IMAGE_FIRST, spaces.Discrete(2), lambda _: 1e-3).pi_features_extractor.token_extractor
    assert isinstance(extractor, NatureCNN)
    weight = extractor.cnn[0].get_parameter("weight").flatten(1)  # 32 orthogonal rows of norm sqrt(2)
    th.testing.assert_close(weight @ weight.T, 2 * th.eye(32), atol=1e-5, rtol=0)


@pytest.mark.parametrize("initialization", ["xavier", "default"])
def test_other_initializations_are_not_scaled(initialization: str) -> None:
    """Xavier's bound is sqrt(6 / 2d); PyTorch's Linear draws from [-1/sqrt(d), 1/sqrt(d)]."""
    th.manual_seed(0)
    extractor = TransformerExtractor(BOX, d_model=64, n_layers=4, initialization=initialization)
    for layer in extractor.encoder.layers:
        for linear in (layer.attention.query, layer.attention.value, layer.attention.out):
            assert_uniform(linear, math.sqrt(6 / 128) if initialization == "xavier" else 1 / 8)


def test_twelve_layers_train_with_tfixup_and_not_with_plain_xavier() -> None:
    """
    Paper, appendix E.3: 12 layers are stable without LayerNorm and warm-up. The task is to tell which of six numbers
    was marked in the first token. Adam has a rate of 1e-3 from the first step on.
    """

    def losses(initialization: str, n_steps: int) -> list[float]:
        th.manual_seed(0)
        extractor = TransformerExtractor(BOX, None, 8, 32, 12, 4, 64, initialization=initialization)
        head = nn.Linear(32, 6)
        optimizer = th.optim.Adam([*extractor.parameters(), *head.parameters()], lr=1e-3)
        history = []
        for _ in range(n_steps):
            target = th.randint(6, (64,))
            tokens = 0.1 * th.randn(64, 8, 6)
            tokens[th.arange(64), 0, target] += 1.0
            output = head(extractor(WorkingMemory(tokens, th.full((64,), 8)).batch()))
            loss = nn.functional.cross_entropy(output, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        return history

    tfixup, xavier = losses("tfixup", 160), losses("xavier", 40)
    assert max(tfixup) < 3.0  # never far above the ln 6 = 1.79 of a guess
    assert np.mean(tfixup[-20:]) < 0.2
    assert max(xavier) > 2 * max(tfixup)
