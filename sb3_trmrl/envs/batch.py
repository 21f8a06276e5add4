"""The steps of many copies of a small problem at once, in NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class Batch:
    """
    The states of n copies of a problem in arrays. A batch draws the same random numbers as its copies would, with their
    generators.

    :param envs: The copies, made with the same arguments
    """

    def __init__(self, envs: Sequence[Any]) -> None:
        self.envs = envs
        self._numbers = np.arange(len(envs))

    def load(self, copy: int) -> None:
        """Read the state and the task of a copy into the arrays."""
        raise NotImplementedError

    def store(self, copy: int) -> None:
        """Write the state of a copy, which has been stepped since it was loaded, back to it."""
        raise NotImplementedError

    def start(self, copies: np.ndarray) -> None:
        """Start an episode with the same task in some of the copies."""
        raise NotImplementedError

    def act(self, actions: np.ndarray) -> np.ndarray:
        """Execute a valid action in each copy, and return the rewards, float64 (n,)."""
        raise NotImplementedError

    def observe(self) -> np.ndarray:
        """Return new arrays of observations, (n, \\*observation)."""
        raise NotImplementedError

    def accepts(self, actions: np.ndarray) -> bool:
        """Return whether there is a valid action for each copy."""
        is_known = actions.dtype.kind in "iu" and actions.shape == self._numbers.shape
        return bool(is_known and actions.min() >= 0 and actions.max() < self.envs[0].action_space.n)
