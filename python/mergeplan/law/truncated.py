"""Gaussian draws none of whose coordinates lies below its bound, without scipy.

Each coordinate is drawn given those before it, above its bound; a draw's weight is the product of
the chances that a free one would have been there (Geweke, 1991; Hajivassiliou and Keane, 1998).
However little of the Gaussian lies above the bounds, there are draws.
"""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_ERFC = np.frompyfunc(math.erfc, 1, 1)
# From here on the chance is that of its first term, to a thousandth.
_VANISHING = 30.0
# From here on an exponential is the better proposal.
_FAR = 0.45


def log_chance_above(low: Array) -> Array:
    """Logarithm of the chance that a standard normal variable is above `low`.

    Args:
        low: Of any shape.

    Returns:
        Of the same shape; finite however far `low` is.
    """
    chance = np.asarray(_ERFC(np.minimum(low, _VANISHING) / np.sqrt(2)), np.float64) / 2
    far = np.maximum(low, _VANISHING)
    beyond = -far * far / 2 - np.log(far * np.sqrt(2 * np.pi))
    return np.asarray(np.where(low < _VANISHING, np.log(chance), beyond))


def normal_above(low: Array, rng: np.random.Generator) -> Array:
    """Standard normal draws, each above its bound (Robert, 1995).

    Args:
        low: The bounds, shape (n,).

    Returns:
        One draw for each bound, shape (n,).
    """
    found = np.empty_like(low)
    left = np.arange(low.size)
    while len(left):
        bound = low[left]
        rate = (bound + np.sqrt(bound * bound + 4)) / 2
        near = bound < _FAR
        free, waiting = rng.standard_normal(len(left)), rng.exponential(size=len(left)) / rate
        drawn = np.where(near, free, bound + waiting)
        chance = np.where(near, free >= bound, np.exp(-((drawn - rate) ** 2) / 2))
        taken = rng.random(len(left)) < chance
        found[left[taken]] = drawn[taken]
        left = left[~taken]
    return found


def gaussian_above(
    centre: Array, precision: Array, low: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """One draw from each of many Gaussians.

    Args:
        centre: Shape (draws, p).
        precision: Inverse covariances, shape (draws, p, p).
        low: Bounds, shape (p,).

    Returns:
        Draws, shape (draws, p), and the logarithms of their weights, shape (draws,).
    """
    # The root of the precision, not of its inverse, which rounding may leave indefinite.
    root = np.linalg.cholesky(precision)
    away = np.zeros_like(centre)
    log_weight = np.zeros(len(centre))
    for i in reversed(range(centre.shape[1])):
        # The transposed root times what is drawn, less its centre, is standard normal.
        shift = np.einsum("dj,dj->d", root[:, i + 1 :, i], away[:, i + 1 :])
        bound = root[:, i, i] * (low[i] - centre[:, i]) + shift
        log_weight += log_chance_above(bound)
        away[:, i] = (normal_above(bound, rng) - shift) / root[:, i, i]
    return np.maximum(centre + away, low), log_weight
