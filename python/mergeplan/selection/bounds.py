"""A lower bound on the predicted value of every subset of k experts, without listing them.

The series is bounded from the inside out, as Gilmore and Lawler bound quadratic assignments: for
each pair (i, j) the best k experts l, for each i the best j given those, and the best i. Each is a
choice of its own, so that no subset is below their sum; how far above it the best one lies, the gap
between bound and search says.
"""

import numpy as np
from numpy.typing import NDArray

from mergeplan.subset_law.form import Coefficients

Array = NDArray[np.float64]


def lower_bound(
    series: Coefficients, k: int, *, sign: float = 1.0, shrinkage: float = 1.0
) -> float:
    """No subset of k is predicted below this.

    Args:
        shrinkage: Power of k that a share is 1 over; see `fit.seen`.
        sign: -1 to bound the negated values, for metrics of which more is better.
    """
    share = k**-shrinkage
    cubic = sign * series.cubic * share**3
    quadratic = sign * series.quadratic * share**2
    linear = sign * series.linear * share
    # The experts i and j are among the l themselves: their terms are known, the others are chosen.
    pairs = quadratic + _smallest_with(cubic, k)
    singles = linear + _row_minimum(pairs, k)
    return sign * series.constant + float(np.sort(singles)[:k].sum())


def _smallest_with(cubic: Array, k: int) -> Array:
    """For each (i, j) the least sum over k experts l that include i and j, shape (n, n)."""
    n = len(cubic)
    rows, columns = np.indices((n, n))
    own = cubic[rows, columns, rows]
    other = np.where(rows == columns, 0.0, cubic[rows, columns, columns])
    rest = cubic.copy()
    rest[rows, columns, rows] = np.inf
    rest[rows, columns, columns] = np.inf
    rest.sort(axis=2)
    # k - 2 further ones beside a pair, k - 1 beside a single expert.
    beside_pair = rest[:, :, : max(k - 2, 0)].sum(2) if k > 2 else np.zeros((n, n))
    beside_one = rest[:, :, : k - 1].sum(2) if k > 1 else np.zeros((n, n))
    if k == n:
        beside_one = np.where(rows == columns, beside_one, 0.0)
    sums: Array = own + other + np.where(rows == columns, beside_one, beside_pair)
    return sums


def _row_minimum(pairs: Array, k: int) -> Array:
    """For each i the least sum over k experts j that include i, shape (n,)."""
    n = len(pairs)
    rest = pairs.copy()
    rest[np.arange(n), np.arange(n)] = np.inf
    rest.sort(axis=1)
    sums: Array = np.diag(pairs) + rest[:, : k - 1].sum(1)
    return sums
