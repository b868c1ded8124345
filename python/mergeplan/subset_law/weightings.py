"""Weights of merges as the form sees them, and as values to find them by."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def seen(weights: Array, shrinkage: float) -> Array:
    """Weights as the form sees them: k equal ones of 1/k as 1/k^shrinkage each.

    Unequal ones count as so many experts as equal ones with the same sum of squares.

    Args:
        weights: Shape (n, n_experts).
        shrinkage: Power of k by which a merge's deltas shrink.

    Returns:
        Shape (n, n_experts).
    """
    if shrinkage == 1:
        return weights
    squares = (weights**2).sum(1)
    sums = weights.sum(1)
    n_effective = np.divide(sums**2, squares, out=np.ones_like(sums), where=squares > 0)
    enlarged: Array = weights * n_effective[:, None] ** (1 - shrinkage)
    return enlarged


def keys_of(weights: Array) -> NDArray[np.void]:
    """Each weighting as one sortable value, shape (n,); equal up to nine digits."""
    # Zero is added for the sake of -0.0, whose bytes differ.
    rounded = np.ascontiguousarray(np.round(weights, 9) + 0.0)
    return rounded.view(f"V{rounded.dtype.itemsize * rounded.shape[1]}")[:, 0]
