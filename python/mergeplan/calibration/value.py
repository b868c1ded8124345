"""What the next measurements are worth: at which k they would narrow the decision most.

Over the posterior's draws, the k that is asked for and the pool's mean m at every k are nearly
jointly Gaussian. Then measuring at one k with error variance s² takes Cov(k*, m)² / (Var m + s²)
off the variance of k*, and tells by the same rule what is left for the next measurement.

The mean over n of C subsets has variance v(n) = s²/n · (1 - n/C) around the pool's mean. One subset
more raises its precision from 1/v(n) to 1/v(n+1): little where most subsets are measured, and
nothing once all are.
"""

import numpy as np
from numpy.typing import NDArray

from mergeplan.calibration.decision import CurveGoal, exact_k
from mergeplan.law.curve import Fit
from mergeplan.law.series import Point
from mergeplan.law.spread import subset_variance, subset_variances

Array = NDArray[np.float64]


class Prospect:
    """How far measurements that are still to come would narrow the k that is asked for.

    Args:
        fit: With draws.
        possible: Number of all subsets by k.
    """

    def __init__(self, fit: Fit, wish: CurveGoal, possible: dict[int, int]) -> None:
        draws = fit.draws
        assert draws is not None
        self._ks = sorted(possible)
        self._possible = possible
        heights = np.stack([draws.at(k) for k in self._ks])  # (n_k, draws)
        self._covariance = np.cov(np.vstack([exact_k(fit, wish), heights]))  # (1 + n_k, 1 + n_k)
        misfit = float(np.median(draws.tau)) ** 2
        points = {point.k: point for point in fit.series.points}
        left = subset_variances(fit.series)
        self._measured, self._variance = {}, {}
        for k in self._ks:
            point = points.get(k) or Point(k, float("nan"), 0, possible[k])
            self._measured[k] = point.n_subsets
            # Every k may have another spread; where none is known, that of the curve's misfit.
            spread = fit.spread
            own = subset_variance(point, spread) if spread else misfit
            self._variance[k] = left.get(k, own)

    def allocate(self, count: int) -> dict[int, int]:
        """How many more subsets of each k to measure, one by one where the next tells most.

        Args:
            count: How many in all; fewer where no more are left.
        """
        found: dict[int, int] = {}
        for _ in range(count):
            left = [k for k in self._ks if self._measured[k] < self._possible[k]]
            if not left:
                break
            k = max(left, key=lambda k: (self._gain(k, 1), -k))
            self._measure(k, 1)
            found[k] = found.get(k, 0) + 1
        return found

    def left_over(self) -> float:
        """Share of the standard deviation of k that stays when every subset is measured.

        Calling this ends the prospect: it has then seen everything.
        """
        before = self._covariance[0, 0]
        if before <= 0:
            return 1.0
        for k in self._ks:
            rest = self._possible[k] - self._measured[k]
            if rest > 0:
                self._measure(k, rest)
        return float(np.sqrt(max(self._covariance[0, 0], 0.0) / before))

    def _gain(self, k: int, more: int) -> float:
        i = self._ks.index(k) + 1
        covariance = self._covariance
        return float(covariance[0, i] ** 2 / (covariance[i, i] + self._noise(k, more) + 1e-300))

    def _measure(self, k: int, more: int) -> None:
        i = self._ks.index(k) + 1
        seen = self._covariance[:, i]
        self._covariance = self._covariance - np.outer(seen, seen) / (
            seen[i] + self._noise(k, more)
        )
        self._measured[k] += more

    def _noise(self, k: int, more: int) -> float:
        """Error variance of a measurement worth what `more` subsets of k add, in nats²."""
        before, after = (self._precision(k, self._measured[k] + n) for n in (0, more))
        return 1 / max(after - before, 1e-300)

    def _precision(self, k: int, measured: int) -> float:
        if measured == 0:
            return 0.0
        error = self._variance[k] / measured * (1 - measured / self._possible[k])
        # A mean without any error would be worth infinitely much.
        return 1 / max(error, 1e-18)
