"""The variance law: how single subsets scatter around the mean of their size.

For subsets drawn without replacement from a pool of M the variance of a merge's loss goes like
1/k - 1/M: it falls faster than the 1/k of an endless pool, and is nothing at k = M. The published
figures follow this better than the 1/k of Corollary 3.2 (arXiv 2509.24244).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergeplan.law.series import Point, Series
from mergeplan.system.ranges import Experts, Magnitude

# Weight of the variance law, in subsets, beside the subsets measured at one k.
_PRIOR_SUBSETS = 4.0


@dataclass(frozen=True)
class SpreadLaw:
    """Var of one subset's loss = scale · (1/k - 1/pool_size), in nats²."""

    scale: Magnitude
    pool_size: Experts

    def variance(self, k: float) -> float:
        return self.scale * max(1 / k - 1 / self.pool_size, 0.0)

    def deviation(self, k: float) -> float:
        """Standard deviation over subsets of k, in nats.

        >>> round(SpreadLaw(0.0144, 9).deviation(1), 4)
        0.1131
        """
        return math.sqrt(self.variance(k))

    def chance(self, target_loss: float, mean: float, k: int) -> float:
        """Chance that one random subset of k, not the mean, is at or below the target."""
        deviation = self.deviation(k)
        if deviation == 0:
            return 1.0 if mean <= target_loss else 0.0
        return 0.5 * math.erfc((mean - target_loss) / deviation / math.sqrt(2))


def fit_spread(points: tuple[Point, ...], pool_size: int) -> SpreadLaw | None:
    """Pool the spreads at all k, weighted by their degrees of freedom; `None` without any."""
    freedom, total = 0, 0.0
    for point in points:
        share = 1 / point.k - 1 / pool_size
        if point.spread is not None and share > 0:
            freedom += point.n_subsets - 1
            total += (point.n_subsets - 1) * point.spread**2 / share
    return SpreadLaw(total / freedom, pool_size) if freedom else None


def subset_variance(point: Point, law: SpreadLaw) -> float:
    """Variance of single subsets around their mean: that measured, drawn towards the law's."""
    freedom = max(point.n_subsets - 1, 0)
    own = point.spread**2 * freedom if point.spread is not None else 0.0
    return (own + _PRIOR_SUBSETS * law.variance(point.k)) / (freedom + _PRIOR_SUBSETS)


def subset_variances(series: Series) -> dict[int, float]:
    """What is left of it by k, in nats², where means are corrected: what makes their errors.

    Args:
        series: Whose means may be corrected.

    Returns:
        Of single subsets, for each k that was measured in part; empty where means are not
        corrected.
    """
    known = np.diag(np.array(series.covariance)) if series.covariance else ()
    return {
        point.k: float(error) * point.n_subsets / point.share_left
        for point, error in zip(series.points, known, strict=False)
        if not point.complete
    }


def sampling_variance(point: Point, law: SpreadLaw | None) -> float | None:
    """Variance of the measured subsets' mean around the pool's: s²/n · (1 - n/C).

    With few subsets s² is drawn towards the variance law. `None` where nothing is known of it.
    """
    if point.complete:
        return 0.0
    if law is None:
        return None
    return subset_variance(point, law) / point.n_subsets * point.share_left


def item_variances(series: Series, ks: NDArray[np.float64]) -> NDArray[np.float64] | float:
    """What of the means of all subsets of some k is at most no more than single items that flip.

    A loss on a fixed text is smooth in the weights of a merge, and so is its mean in k; how many of
    n items are right is not. What of that is each merge's own is at most the error of its items.

    Args:
        ks: Whole, shape (n,).

    Returns:
        Shape (n,), on the squared scale of the values; 0 of losses, and where nothing is known.
    """
    if not series.own_se:
        return 0.0
    possible = np.array([float(min(math.comb(series.pool_size, int(k)), 10**300)) for k in ks])
    return series.own_se**2 / possible


def known_covariance(series: Series, law: SpreadLaw | None) -> NDArray[np.float64] | None:
    """Of the errors of all means, shape (n_k, n_k); `None` where that of some is unknown.

    Args:
        law: Of the subsets' spread; `None` where that was not measured.

    Returns:
        In nats²; zero for a k that was measured whole.
    """
    if series.covariance:
        return np.array(series.covariance)
    found = [sampling_variance(point, law) for point in series.points]
    return None if None in found else np.diag(np.array(found, np.float64))
