"""Values that are left out one by one, and what the others predict of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LeftOut:
    """A Gaussian process with a constant mean, and its exact errors at each row without that row.

    Attributes:
        constant: The mean.
        duals: The inverse covariance times what values differ from it, shape (n,).
        errors: Values less what the other rows predict, shape (n,).
        ratios: The same in their predicted standard deviations.
    """

    constant: float
    duals: Array
    errors: Array
    ratios: Array


def leave_each_out(inverse: Array, values: Array) -> LeftOut:
    """The process of some rows, and its errors where they are left out one by one.

    Args:
        inverse: Of the rows' covariance, shape (n, n).
        values: Shape (n,).

    Returns:
        In the values' unit.
    """
    sums = inverse.sum(1)
    constant = float(sums @ values / sums.sum())
    precision = np.maximum(np.diag(inverse) - sums**2 / sums.sum(), 1e-300)
    duals = inverse @ (values - constant)
    return LeftOut(constant, duals, duals / precision, duals / np.sqrt(precision))
