"""How wide intervals of single merges are: checked by those that are left out."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Standard deviations of a normal variable within which it lies nine times out of ten.
NINE_IN_TEN = 1.6448536269514722
# Left-out merges that weigh as much as what the likelihood says.
_TRUST = 20
# The same where there are slopes, in errors that are independent of each other.
_TRUST_SLOPED = 3
# How fast intervals widen as a sum of weights falls from 1: in full from three quarters down.
BETWEEN = 4.0


def spread_scale(ratios: Array) -> float:
    """What brings nine of ten left-out merges into their interval, the nearer to 1 the fewer.

    Intervals of the likelihood alone are up to twice too wide for averages of the real pool.

    Args:
        ratios: Left-out errors in units of their predicted deviations.

    Returns:
        A factor of deviations.
    """
    n = len(ratios)
    if n == 0:
        return 1.0
    # The order statistic that a further merge exceeds one time in ten.
    last = min(int(np.ceil(0.9 * (n + 1))), n) - 1
    found = float(np.sort(ratios)[last]) / NINE_IN_TEN
    return float(max(found, 1e-3) ** (n / (n + _TRUST)))


def scale_by(squares: Array, counts: Array) -> float:
    """Root mean square of left-out errors, the nearer to 1 the fewer of them are independent.

    Args:
        squares: Of errors in units of their predicted variances.
        counts: How many independent errors each of them stands for.

    Returns:
        A factor of deviations; 1 where there are none.
    """
    if not len(squares):
        return 1.0
    n = float(counts.sum())
    found = float(np.sqrt(squares.mean()))
    return float(max(found, 1e-3) ** (n / (n + _TRUST_SLOPED)))


def widening(below: float, sums: Array) -> Array:
    """Factors on deviations between the base and a sum of 1, 1 elsewhere, shape (n,).

    Args:
        below: The largest.
        sums: Of the weights, shape (n,).
    """
    between = np.minimum(BETWEEN * np.maximum(1 - sums, 0.0), 1.0)
    return np.asarray(1 + (below - 1) * between)
