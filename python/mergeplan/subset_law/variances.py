"""Variances of prior and misfit by restricted maximum likelihood (REML), and how sure they are."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# What is expected of the logarithms of the variances, as shares of the values' own: the prior's of
# order one, a misfit of a hundredth in standard deviation, and all by three either way. Without
# this, merges that are hardly more than the unknowns may be passed through exactly, with no misfit.
_EXPECTED, _EXPECTED_MISFIT, _WIDTH = 0.0, -9.0, 3.0
# The draws allow for more misfit than the fit expects: it is what few merges tell least about.
_DRAWN_MISFIT = -8.0
# A variance more or less than that of the values by this factor is as good as infinite or zero.
_WIDE = np.log(1e7)
# Misfit that keeps rounding from making a covariance indefinite, as a share of all variances.
_ROUNDING = 1e-12
# Values that the likelihood is formed of at most, and rows together with slopes: its cost is their
# number cubed, and variances need no more.
MOST_ROWS, MOST_SLOPED = 150, 250
# Of the search for the likeliest: steps at most, a slope that is none, and the share of what the
# slope promises that a step has to keep.
_MOST_STEPS, _FLAT, _ENOUGH = 200, 1e-6, 1e-4
_FLAT_WITH_SLOPES = 1e-2
# Proposals of the importance sampling, from a t distribution of so many degrees of freedom.
_PROPOSALS, _FREEDOM = 200, 5


class Likelihood:
    """Restricted likelihood of values, as a function of the logarithms of the variances."""

    def __init__(
        self,
        products: Array,
        values: Array,
        expected: tuple[float, ...] | None = None,
        noise: Array | None = None,
        ones: Array | None = None,
    ) -> None:
        """Prepare the contrasts.

        Args:
            products: Covariances of unit variance, one for each part of the prior, (parts, n, n).
            values: Shape (n,), of variance about 1.
            expected: Of the logarithm of each part's variance; by default of order one.
            noise: Known covariance of the values beside the misfit, shape (n, n); `None` for none.
            ones: What a constant mean adds to each, shape (n,): 1 to a value, 0 to a slope, which
                come after the values; by default 1.
        """
        ones = np.ones(len(values)) if ones is None else ones
        some = _some(int(ones.sum()), len(ones))
        if len(some) < len(values):
            products, values, ones = products[:, some][:, :, some], values[some], ones[some]
            noise = None if noise is None else noise[np.ix_(some, some)]
        n = len(values)
        # All contrasts that a constant mean leaves.
        contrasts = np.linalg.qr(ones[:, None], mode="complete")[0][:, 1:]  # (n, n - 1)
        sizes = [max(float(np.mean(np.diag(part))), 1e-300) for part in products]
        self.sizes = np.array([*sizes, 1.0])
        parts = [
            _positive(contrasts.T @ (p / s) @ contrasts)
            for p, s in zip(products, sizes, strict=True)
        ]
        self.parts = np.stack([*parts, np.eye(n - 1)])
        self.noise = None if noise is None else contrasts.T @ noise @ contrasts
        self.z = contrasts.T @ values
        self.expected = np.array(expected or (_EXPECTED,) * len(products))

    def negative_log(self, logs: Array, misfit: float = _EXPECTED_MISFIT) -> tuple[float, Array]:
        """Minus the logarithm of likelihood and prior, and its slopes.

        Args:
            misfit: What is expected of the logarithm of its variance.
        """
        variances = np.exp(logs)
        total = np.tensordot(variances, self.parts, 1)
        total[np.diag_indices(len(total))] += _ROUNDING * variances.sum()
        if self.noise is not None:
            total += self.noise
        factor = np.linalg.cholesky(total)
        inverse = np.linalg.inv(total)
        w = inverse @ self.z
        away = (logs - np.append(self.expected, misfit)) / _WIDTH
        value = np.log(np.diag(factor)).sum() + 0.5 * w @ self.z + 0.5 * away @ away
        slopes = 0.5 * (np.einsum("ij,pij->p", inverse, self.parts) - self.parts @ w @ w)
        return float(value), slopes * variances + away / _WIDTH


def n_used(n_values: int, n_rows: int) -> int:
    """How many rows the likelihood is of.

    Args:
        n_values: That there are.
        n_rows: Values and slopes.

    Returns:
        All, or as many as it may be.
    """
    return len(_some(n_values, n_rows))


def _some(n_values: int, n_rows: int) -> NDArray[np.intp]:
    """Which rows the likelihood is of: all, or as many as it may be, values before slopes."""
    rng = np.random.default_rng(0)
    values = rng.permutation(n_values)[:MOST_ROWS]
    if n_rows == n_values:
        return values if n_values > MOST_ROWS else np.arange(n_values)
    slopes = rng.permutation(np.arange(n_values, n_rows))[: max(MOST_SLOPED - len(values), 0)]
    return np.sort(np.concatenate([values, slopes]))


def _positive(part: Array) -> Array:
    """Without the negative eigenvalues that rounding leaves.

    A smaller law's moments are differences of large numbers: of nine experts at three sizes they
    had eigenvalues down to -4e-11, more than what is added before a root is taken.
    """
    part = (part + part.T) / 2
    try:
        np.linalg.cholesky(part + _ROUNDING * np.eye(len(part)))
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(part)
        part = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return part


def fit_variances(
    products: Array,
    values: Array,
    expected: tuple[float, ...] | None = None,
    noise: Array | None = None,
    ones: Array | None = None,
) -> Array:
    """The variances that make the differences between values likeliest.

    Args:
        products, values, expected, noise, ones: See `Likelihood`.

    Returns:
        One variance for each part, and the misfit's, shape (parts + 1,).
    """
    likelihood = Likelihood(products, values, expected, noise, ones)
    # A rough and a smooth start: the likelihood may have a maximum in either, and with slopes each
    # gets stuck now and then.
    starts = ((-1.0, -9.0), (-4.0, -5.0))
    # A hundredth of the logarithm is little next to what hundreds of slopes tell.
    flat = _FLAT if ones is None or ones.all() else _FLAT_WITH_SLOPES
    found = [
        _lowest(likelihood.negative_log, np.array([prior] * len(products) + [misfit]), flat)
        for prior, misfit in starts
    ]
    _, logs = min(found, key=lambda one: one[0])
    variances: Array = np.exp(logs) / likelihood.sizes
    return variances


def log_likelihood(
    products: Array,
    values: Array,
    variances: Array,
    expected: tuple[float, ...] | None = None,
    noise: Array | None = None,
    ones: Array | None = None,
) -> float:
    """Logarithm of the restricted likelihood and of the prior, up to a constant of the values.

    Args:
        products, values, expected, noise, ones: See `Likelihood`.
        variances: As `fit_variances` gives them.

    Returns:
        The more, the likelier.
    """
    likelihood = Likelihood(products, values, expected, noise, ones)
    logs = np.log(np.maximum(variances * likelihood.sizes, 1e-300))
    return -likelihood.negative_log(logs)[0]


def _lowest(
    function: Callable[[Array], tuple[float, Array]], start: Array, flat: float
) -> tuple[float, Array]:
    """The lowest value near a start, and where it is: BFGS with a halved step, within `_WIDE`.

    Four unknowns at most, with slopes: scipy's own takes half a second to import, a third of what
    `suggest` may take in all.
    """
    x, (value, slope) = start, function(start)
    inverse = np.eye(len(x))
    for _ in range(_MOST_STEPS):
        if np.abs(slope).max() < flat:
            break
        step = -inverse @ slope
        if step @ slope > 0:
            inverse, step = np.eye(len(x)), -slope
        while True:
            new = np.clip(x + step, -_WIDE, _WIDE)
            new_value, new_slope = function(new)
            if new_value <= value + _ENOUGH * slope @ (new - x) or np.abs(step).max() < _FLAT:
                break
            step = step / 2
        moved, turned = new - x, new_slope - slope
        if (curvature := moved @ turned) > 0:
            left = np.eye(len(x)) - np.outer(moved, turned) / curvature
            inverse = left @ inverse @ left.T + np.outer(moved, moved) / curvature
        if new_value >= value:
            break
        x, value, slope = new, new_value, new_slope
    return value, x


def draw_variances(
    products: Array,
    values: Array,
    likeliest: Array,
    count: int,
    expected: tuple[float, ...] | None = None,
    noise: Array | None = None,
    ones: Array | None = None,
) -> Array:
    """Variances as likely as the values make them: the likeliest are not taken as known.

    Importance sampling around the maximum (Geweke, 1989), which needs no chain.

    Args:
        products, values, expected, noise, ones: See `Likelihood`.
        likeliest: As `fit_variances` gives them.

    Returns:
        Shape (count, parts + 1).
    """
    likelihood = Likelihood(products, values, expected, noise, ones)
    mode = np.log(likeliest * likelihood.sizes)
    n = len(mode)
    step = 0.2 * np.eye(n)
    slopes = [
        likelihood.negative_log(mode + s)[1] - likelihood.negative_log(mode - s)[1] for s in step
    ]
    curvature = np.array(slopes) / 0.4
    scales, axes = np.linalg.eigh((curvature + curvature.T) / 2)
    # No wider than what is expected of a variance before any value is seen.
    scales = np.maximum(scales, _WIDTH**-2)
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((_PROPOSALS, n))
    t = normal / np.sqrt(rng.chisquare(_FREEDOM, (_PROPOSALS, 1)) / _FREEDOM)
    proposed = np.clip(mode + (t / np.sqrt(scales)) @ axes.T, -_WIDE, _WIDE)
    proposal = -(_FREEDOM + n) / 2 * np.log1p((t**2).sum(1) / _FREEDOM)
    logs = [-likelihood.negative_log(one, _DRAWN_MISFIT)[0] for one in proposed] - proposal
    shares = np.cumsum(np.exp(logs - logs.max()))
    at = np.searchsorted(shares, (np.arange(count) + 0.5) / count * shares[-1])
    drawn: Array = np.exp(proposed[at]) / likelihood.sizes
    return drawn
