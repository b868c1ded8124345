"""Plain forecasts of the mean loss at k to stand beside the planner's: value and 90 % interval.

None knows more than the means, and for the interval how much single subsets scatter.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

Array = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Means:
    """Mean losses by k with the variance of each around the pool's own; shape (n_k,) each."""

    k: Array
    loss: Array
    variance: Array


Baseline = Callable[[Means, float], Interval]
_TAIL = 0.95


def least_squares(data: Means, k: float) -> Interval:
    """Floor + tail/k, ordinary least squares with its textbook prediction interval."""
    x = np.stack([np.ones_like(data.k), 1 / data.k], axis=1)
    inverse = np.linalg.inv(x.T @ x)
    found = inverse @ x.T @ data.loss
    freedom = len(data.k) - 2
    rest = float(((data.loss - x @ found) ** 2).sum()) / max(freedom, 1)
    at = np.array([1.0, 1 / k])
    half = t.ppf(_TAIL, max(freedom, 1)) * np.sqrt(rest * (1 + at @ inverse @ at))
    return float(at @ found - half), float(at @ found + half)


def interpolation(data: Means, k: float) -> Interval:
    """Linear in 1/k between the two nearest means (past the ends, along the last two); the interval
    has their sampling errors, and a tenth of the step between them where k itself is not there."""
    x = 1 / data.k  # falls
    right = int(np.clip(np.searchsorted(-x, -1 / k), 1, len(x) - 1))
    left = right - 1
    share = (1 / k - x[left]) / (x[right] - x[left])
    value = data.loss[left] + share * (data.loss[right] - data.loss[left])
    variance = (1 - share) ** 2 * data.variance[left] + share**2 * data.variance[right]
    step = abs(data.loss[right] - data.loss[left]) * min(1.0, 4 * abs(share * (1 - share)))
    half = norm.ppf(_TAIL) * np.sqrt(variance + (0.1 * step) ** 2)
    return float(value - half), float(value + half)


def gaussian_process(data: Means, k: float) -> Interval:
    """A Gaussian process in log k around the means' mean; scale and length by maximum likelihood.

    Beside the sampling variance each mean has a nugget of a thousandth of the scale.
    """
    centre, drop = float(data.loss.mean()), max(float(np.ptp(data.loss)), 1e-12)
    y, x, at = (data.loss - centre) / drop, np.log(data.k), float(np.log(k))
    best: tuple[float, Interval] | None = None
    for length in (0.5, 1.0, 2.0, 4.0):
        for scale in (0.3, 1.0, 3.0, 10.0):

            def kernel(a: Array, b: Array, length: float = length, scale: float = scale) -> Array:
                return scale**2 * np.exp(-0.5 * ((a[:, None] - b[None]) / length) ** 2)

            noise = data.variance / drop**2 + (1e-3 * scale) ** 2
            covariance = kernel(x, x) + np.diag(noise)
            across = kernel(np.array([at]), x)[0]
            solved = np.linalg.solve(covariance, np.stack([y, across], axis=1))
            evidence = -0.5 * y @ solved[:, 0] - 0.5 * np.linalg.slogdet(covariance)[1]
            if best is None or evidence > best[0]:
                value = across @ solved[:, 0]
                rest = max(float(scale**2 - across @ solved[:, 1]), 0.0)
                half = norm.ppf(_TAIL) * np.sqrt(rest)
                interval = (centre + drop * (value - half), centre + drop * (value + half))
                best = evidence, (float(interval[0]), float(interval[1]))
    assert best is not None
    return best[1]


BASELINES: dict[str, Baseline] = {
    "least squares, b = 0": least_squares,
    "interpolation in 1/k": interpolation,
    "Gaussian process": gaussian_process,
}
