"""What the next measurements are worth: at which k they would narrow the decision most.

Over the posterior's draws, the k that is asked for and the curve's height at every k are nearly
jointly Gaussian. Then measuring at one k with error variance s² takes Cov(k*, L)² / (Var L + s²)
off the variance of k*, and tells by the same rule what is left for the next measurement.

The mean over n of C subsets has variance v(n) = s²/n · (1 - n/C) around the pool's mean, and that a
lack of fit τ² around the curve. One subset more raises its precision from 1/(v(n) + τ²) to
1/(v(n+1) + τ²): little where most subsets are measured, and nothing once all are.
"""

import numpy as np
from numpy.typing import NDArray

from mergeplan.calibration.decision import Wish, exact_k
from mergeplan.curve import Fit
from mergeplan.series import Point
from mergeplan.spread import subset_variance

Array = NDArray[np.float64]


def allocate(fit: Fit, wish: Wish, possible: dict[int, int], count: int) -> dict[int, int]:
    """How many more subsets of each k to measure, one by one where the next tells most.

    Args:
        fit: With draws.
        possible: Number of all subsets by k.
        count: How many in all; fewer where no more are left.

    Returns:
        From k to the number of new subsets.
    """
    draws = fit.draws
    assert draws is not None
    ks = sorted(possible)
    heights = np.stack([draws.law_at(k) for k in ks])  # (n_k, draws)
    covariance = np.cov(np.vstack([exact_k(fit, wish), heights]))  # (1 + n_k, 1 + n_k)
    points = {point.k: point for point in fit.series.points}
    misfit = float(np.median(draws.tau)) ** 2
    variance, measured = {}, {}
    for k in ks:
        point = points.get(k) or Point(k, float("nan"), 0, possible[k])
        measured[k] = point.n_subsets
        variance[k] = misfit if fit.spread is None else subset_variance(point, fit.spread)
    found: dict[int, int] = {}
    for _ in range(count):
        gains = np.zeros(len(ks))
        noise = np.zeros(len(ks))
        for i, k in enumerate(ks):
            if measured[k] >= possible[k]:
                continue
            noise[i] = 1 / _precision_gain(measured[k], possible[k], variance[k], misfit)
            gains[i] = covariance[0, i + 1] ** 2 / (covariance[i + 1, i + 1] + noise[i])
        open_ks = [i for i, k in enumerate(ks) if measured[k] < possible[k]]
        if not open_ks:
            break
        best = max(open_ks, key=lambda i: (gains[i], -ks[i]))
        seen = covariance[:, best + 1]
        covariance = covariance - np.outer(seen, seen) / (seen[best + 1] + noise[best])
        measured[ks[best]] += 1
        found[ks[best]] = found.get(ks[best], 0) + 1
    return found


def _precision_gain(n: int, possible: int, variance: float, misfit: float) -> float:
    """What one subset more adds to the precision of the curve's height, in 1/nats²."""

    def precision(measured: int) -> float:
        if measured == 0:
            return 0.0
        left = variance / measured * (1 - measured / possible)
        # A mean without any error would be worth infinitely much.
        return 1 / max(left + misfit, 1e-18)

    return max(precision(n + 1) - precision(n), 1e-300)
