"""Masks of valid actions: their check, and the distributions without the other actions."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    Distribution,
    MultiCategoricalDistribution,
)
from torch.distributions import Bernoulli, Categorical

from sb3_trmrl.common.checks import short_repr

#: Logit of an action that is certain. The probability of its opposite is exactly 0, and products with it are finite
_CERTAIN = 1e8


def mask_sizes(space: spaces.Space[Any]) -> list[int]:
    """
    :param space: Action space
    :return: Number of choices of each component, whose masks are concatenated. Empty for other action spaces
    """
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.flat]
    return [2] * int(np.prod(space.shape)) if isinstance(space, spaces.MultiBinary) else []


def check_action_masks(masks: Any, space: spaces.Space[Any], n_envs: int) -> np.ndarray:
    """
    Check the action masks of B environments.

    :param masks: Booleans, (B, M), or (M,) for a single environment. M is the number of choices of all components:
        ``n`` for Discrete, ``sum(nvec)`` for MultiDiscrete, and 2 n for MultiBinary, (0 is valid, 1 is valid) for each
        bit
    :param space: Action space
    :param n_envs: Number of environments B
    :return: The masks, (B, M)
    :raises ValueError: if the masks do not fit the action space, or allow no action
    """
    sizes = mask_sizes(space)
    if not sizes:
        raise ValueError(
            f"`action_masks` must be None with the action space {space}: only Discrete, MultiDiscrete and MultiBinary "
            "have masks. learn(use_masking=False) ignores those of the environment"
        )
    shape = (n_envs, sum(sizes))
    try:
        array = np.asarray(masks)
    except ValueError:  # a list of arrays of different shapes
        array = np.array(None)
    is_numeric = array.dtype.kind in "biuf"
    has_shape = array.size == shape[0] * shape[1] and (n_envs == 1 or len(array) == n_envs)
    if not (is_numeric and has_shape and ((array == 0) | (array == 1)).all()):
        got = f"the shape {array.shape}" if is_numeric and not has_shape else short_repr(masks)
        raise ValueError(f"`action_masks` must be booleans of shape {shape} with the action space {space}, got {got}")
    flat = array.reshape(shape).astype(bool)
    for index, mask in enumerate(np.split(flat, np.cumsum(sizes)[:-1], axis=1)):
        for env in np.flatnonzero(~mask.any(axis=1)):
            component = f" in component {index}" if len(sizes) > 1 else ""
            raise ValueError(f"`action_masks` must allow at least one action{component}, got none in environment {env}")
    return flat


def mask_distribution(distribution: Distribution, masks: th.Tensor) -> Distribution:
    """
    Exclude actions from a distribution, which is modified. Their probability is exactly 0.

    :param distribution: SB3's distribution of B actions, just computed
    :param masks: Masks, (B, M), as :func:`check_action_masks` returns them
    :return: The same distribution
    """
    if isinstance(distribution, CategoricalDistribution):
        distribution.distribution = _masked(distribution.distribution, masks)
    elif isinstance(distribution, MultiCategoricalDistribution):
        parts = zip(distribution.distribution, masks.split(distribution.action_dims, dim=1), strict=True)
        distribution.distribution = [_masked(part, mask) for part, mask in parts]
    else:
        assert isinstance(distribution, BernoulliDistribution)
        logits = distribution.distribution.logits
        zero_is_valid, one_is_valid = masks.unflatten(1, (-1, 2)).unbind(dim=2)
        logits = th.where(zero_is_valid, logits, _CERTAIN)
        distribution.distribution = Bernoulli(logits=th.where(one_is_valid, logits, -_CERTAIN))
    return distribution


def _masked(categorical: Categorical, mask: th.Tensor) -> Categorical:
    return Categorical(logits=th.where(mask, categorical.logits, -_CERTAIN))
