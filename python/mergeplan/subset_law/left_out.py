"""Points that are left out one by one, and what the others predict of their values."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LeftOut:
    """A Gaussian process with a constant mean, and its exact errors at each point without it.

    Attributes:
        constant: The mean.
        duals: The inverse covariance times what rows differ from it, shape (n_rows,).
        errors: Values less what the other points predict, shape (n,).
        ratios: The same in their predicted standard deviations.
        variances: Of the errors, if the covariance is right, shape (n,).
        away: Root mean square of errors of a point's value and slopes, of unit variance each if the
            covariance is right, shape (n,).
        sizes: Values and slopes of each point, shape (n,).
    """

    constant: float
    duals: Array
    errors: Array
    ratios: Array
    variances: Array
    away: Array
    sizes: Array


def leave_each_out(
    inverse: Array, observed: Array, places: NDArray[np.intp] | None = None
) -> LeftOut:
    """The process of some rows, and its errors where points are left out one by one.

    A point's slopes go with its value (Dubrule, 1983, leaves out blocks by the inverse's block).

    Args:
        inverse: Of the rows' covariance, shape (n_rows, n_rows).
        observed: Values, and then slopes, shape (n_rows,).
        places: Of which point each row is; by default all are values.

    Returns:
        In the values' unit.
    """
    n = len(observed) if places is None else int(places.max()) + 1
    sums = inverse[:, :n].sum(1)
    total = sums[:n].sum()
    constant = float(sums @ observed / total)
    precision = np.maximum(np.diag(inverse) - sums**2 / total, 1e-300)[:n]
    away = observed.copy()
    away[:n] -= constant
    duals = inverse @ away
    errors, ratios = duals[:n] / precision, duals[:n] / np.sqrt(precision)
    variances, away, sizes = 1 / precision, np.abs(ratios), np.ones(n)
    for at in np.unique(places[n:]) if places is not None else ():
        block = np.flatnonzero(places == at)
        inside = inverse[np.ix_(block, block)] - np.outer(sums[block], sums[block]) / total
        # The value's row comes first.
        covariance = np.linalg.inv(inside)
        row, variances[at] = covariance[0], max(covariance[0, 0], 1e-300)
        errors[at] = row @ duals[block]
        ratios[at] = errors[at] / np.sqrt(max(row[0], 1e-300))
        square = float(duals[block] @ covariance @ duals[block])
        away[at], sizes[at] = np.sqrt(max(square, 0.0) / len(block)), len(block)
    return LeftOut(constant, duals, errors, ratios, variances, away, sizes)
