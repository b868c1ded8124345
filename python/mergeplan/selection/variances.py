"""Variances of the prior and of the misfit, by restricted maximum likelihood (REML)."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import null_space
from scipy.optimize import minimize

Array = NDArray[np.float64]

# What is expected of the logarithms of the variances, as shares of the values' own: the prior's of
# order one, a misfit of a hundredth in standard deviation, and all by three either way. Without
# this, merges that are hardly more than the unknowns may be passed through exactly, with no misfit.
_EXPECTED, _EXPECTED_MISFIT, _WIDTH = 0.0, -9.0, 3.0
# A variance more or less than that of the values by this factor is as good as infinite or zero.
_WIDE = np.log(1e7)
# Rows that the likelihood is formed of at most: its cost is their number cubed, and variances need
# no more.
MOST_ROWS = 150


def fit_variances(products: Array, values: Array) -> Array:
    """The variances that make the differences between values likeliest.

    Args:
        products: Covariances of unit variance, one for each part of the prior, (parts, n, n).
        values: Shape (n,), of variance about 1.

    Returns:
        One variance for each part, and the misfit's, shape (parts + 1,).
    """
    if len(values) > MOST_ROWS:
        some = np.random.default_rng(0).permutation(len(values))[:MOST_ROWS]
        products, values = products[:, some][:, :, some], values[some]
    n = len(values)
    # All contrasts that a constant mean leaves.
    contrasts = null_space(np.ones((1, n)))  # (n, n - 1)
    sizes = [max(float(np.mean(np.diag(part))), 1e-300) for part in products]
    parts = [contrasts.T @ (p / s) @ contrasts for p, s in zip(products, sizes, strict=True)]
    parts.append(np.eye(n - 1))
    z = contrasts.T @ values

    def minus_likelihood(logs: Array) -> tuple[float, Array]:
        variances = np.exp(logs)
        total = sum(v * part for v, part in zip(variances, parts, strict=True))
        factor = np.linalg.cholesky(total)
        inverse = np.linalg.inv(total)
        w = inverse @ z
        away = (logs - expected) / _WIDTH
        value = np.log(np.diag(factor)).sum() + 0.5 * w @ z + 0.5 * away @ away
        slopes = [0.5 * (np.sum(inverse * part) - w @ part @ w) for part in parts]
        return float(value), np.array(slopes) * variances + away / _WIDTH

    expected = np.array([_EXPECTED] * len(products) + [_EXPECTED_MISFIT])
    best = None
    bounds = [(-_WIDE, _WIDE)] * len(parts)
    # A rough and a smooth start: the likelihood may have a maximum in either.
    for prior, misfit in ((-1.0, -9.0), (-4.0, -5.0)):
        start = np.array([prior] * len(products) + [misfit])
        found = minimize(minus_likelihood, start, jac=True, method="L-BFGS-B", bounds=bounds)
        if best is None or found.fun < best.fun:
            best = found
    assert best is not None
    variances: Array = np.exp(best.x) / np.array([*sizes, 1.0])
    return variances
