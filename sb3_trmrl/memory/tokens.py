"""
Tokens: observations of the environment, of which the agent's memory is made.

A batch of tokens is an array or, for Dict observations, a dictionary of arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

#: One batch of tokens: an array (NumPy or PyTorch), or a dictionary with one array for each key
Tokens = Any

#: Key of the Dict observation that marks the first observation of an inner episode
PREV_DONE = "prev_done"

#: Types of observations that are stored in another type
_STORED_AS = {"float64": "float32", "uint16": "int32", "uint32": "int64", "uint64": "int64"}
_TENSORS_STORED_AS = {getattr(th, name): getattr(th, stored) for name, stored in _STORED_AS.items()}


def map_tokens(function: Callable[..., Any], *tokens: Tokens) -> Tokens:
    """
    Apply a function to an array, or to each entry of a Dict observation.

    :param function: Takes one array of each of ``tokens``
    :param tokens: Arrays, or dictionaries with the same keys
    :return: The result, or a dictionary of results
    """
    if isinstance(tokens[0], dict):
        return {key: function(*(token[key] for token in tokens)) for key in tokens[0]}
    return function(*tokens)


def first_array(tokens: Tokens) -> Any:
    """
    Return one array of a batch, to read what all arrays share: batch size, number of slots, device.

    :param tokens: An array or a dictionary of arrays
    :return: The array, or the first array of the dictionary
    """
    return next(iter(tokens.values())) if isinstance(tokens, dict) else tokens


def inner_starts(obs: Tokens, n_envs: int) -> Any:
    """
    Return where an inner episode begins.

    :param obs: Newest observations, arrays or tensors (B, \\*observation), or a dictionary
    :param n_envs: Number of environments B
    :return: Mask of the environments, (B,), or None if the observations do not tell
    """
    if not isinstance(obs, dict) or PREV_DONE not in obs:
        return None
    # VecNormalize keeps the sign, as its mean lies between 0 and 1. With stacked frames, [-1] is the newest
    return obs[PREV_DONE].reshape(n_envs, -1)[:, -1] > 0


def token_dtype(space: spaces.Space[Any]) -> np.dtype:
    """
    Return the type in which tokens are stored.

    :param space: Observation space other than Dict
    :return: The space's own type, except that 64-bit floats are stored in 32 bits, as networks read them, and unsigned
        integers that PyTorch cannot index are stored as signed ones
    """
    return _stored_as(np.dtype(space.dtype))


def _stored_as(dtype: np.dtype) -> np.dtype:
    return np.dtype(_STORED_AS.get(str(dtype), dtype))


def widened(stored: np.ndarray, new: np.ndarray) -> np.ndarray:
    """
    Return storage that can hold new tokens. A wrapper may return another type than the space declares: VecNormalize
    makes floats of integers.

    :param stored: Stored tokens
    :param new: Tokens to store
    :return: ``stored``, or a copy of it in a wider type
    """
    return stored.astype(_stored_as(np.promote_types(stored.dtype, _stored_as(new.dtype))), copy=False)


def widened_tensor(stored: th.Tensor, new: th.Tensor) -> th.Tensor:
    """
    As :func:`widened`, for tensors.

    :param stored: Stored tokens
    :param new: Tokens to store
    :return: ``stored``, or a copy of it in a wider type
    """
    return stored.to(th.promote_types(stored.dtype, _TENSORS_STORED_AS.get(new.dtype, new.dtype)))


def zero_tokens(space: spaces.Space[Any], *shape: int) -> Tokens:
    """
    Return storage for tokens.

    :param space: Observation space of one environment
    :param shape: Leading dimensions
    :return: NumPy arrays of zeros, (\\*shape, \\*observation); a dictionary for a Dict space
    """
    if isinstance(space, spaces.Dict):
        return {key: zero_tokens(subspace, *shape) for key, subspace in space.spaces.items()}
    return np.zeros((*shape, *(space.shape or ())), dtype=token_dtype(space))


def zero_tensors(space: spaces.Space[Any], *shape: int, device: th.device | str) -> Tokens:
    """
    Return :func:`zero_tokens` as PyTorch tensors.

    :param space: Observation space of one environment
    :param shape: Leading dimensions
    :param device: PyTorch device
    :return: Tensors of zeros, (\\*shape, \\*observation); a dictionary for a Dict space
    """
    return map_tokens(lambda array: th.as_tensor(array, device=device), zero_tokens(space, *shape))
