"""Unit vectors."""

import numpy as np

#: Smallest length that a vector is divided by
_EPSILON = 1e-12


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors, (..., D), to unit length; zero vectors stay zero."""
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), _EPSILON)
    return unit
