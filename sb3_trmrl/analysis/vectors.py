"""Unit vectors."""

import numpy as np

#: Smallest length that a vector is divided by
_EPSILON = 1e-12


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """
    Scale vectors to unit length.

    :param vectors: (..., D)
    :return: Vectors of length 1, or 0 for zero vectors, (..., D)
    """
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), _EPSILON)
    return unit
