"""How wide intervals of single merges are: checked by those that are left out."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Standard deviations of a normal variable within which it lies nine times out of ten.
NINE_IN_TEN = 1.6448536269514722
# Left-out merges that weigh as much as what the likelihood says.
_TRUST = 20


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
