"""Fit the form to measured merges of one domain or metric, by restricted maximum likelihood.

A deterministic merge on a fixed text has no noise: what the form does not explain is misfit, and
enters as a variance of its own. The error of the text is the same for all rows and no part of it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mergeplan.errors import InputError
from mergeplan.selection.form import (
    HIGHEST_DEGREE,
    Coefficients,
    coefficients,
    geometry_of,
    products,
)
from mergeplan.selection.variances import fit_variances

Array = NDArray[np.float64]

_FEWEST = 4
# Left-out merges that weigh as much as what the likelihood says.
_TRUST = 20
# Standard deviations of a normal variable within which it lies nine times out of ten.
NINE_IN_TEN = 1.6448536269514722


@dataclass(frozen=True, eq=False)
class SubsetLaw:
    """What every weighting of a pool is predicted to give.

    Attributes:
        name: Of the domain or metric.
        experts: The order of the weights.
        weights: Of the measured merges, shape (n, n_experts).
        points: The same in the geometry.
        values: Measured values, shape (n,).
        variances: Prior variance of each degree, and last the misfit's.
        left_out: What each row is predicted to be by a fit without it, shape (n,).
        sizes: Different k that were measured.
        scale: Factor on standard deviations, from the rows left out one by one.
    """

    name: str
    experts: tuple[str, ...]
    weights: Array
    points: Array
    values: Array
    geometry: Array
    variances: Array
    constant: float
    duals: Array
    inverse: Array
    left_out: Array
    sizes: tuple[int, ...]
    scale: float
    higher: bool = False

    @property
    def degree(self) -> int:
        return len(self.variances) - 1

    @cached_property
    def series(self) -> Coefficients:
        """L0, a, Q and the cubic term."""
        return coefficients(
            self.constant, self.duals, self.points, self.variances[:-1], self.geometry
        )

    @property
    def r2(self) -> float:
        """Share of the merges' variance that predictions without the merge itself explain.

        Of merges of two experts and more, whose differences are what is to be decided.
        """
        merged = self._merged
        errors = self.left_out[merged] - self.values[merged]
        total = float(np.sum((self.values[merged] - self.values[merged].mean()) ** 2))
        return 1 - float(np.sum(errors**2)) / total if total > 0 else 0.0

    @property
    def error(self) -> float:
        """Root mean square of the same errors, in the target's unit."""
        merged = self._merged
        return float(np.sqrt(np.mean((self.left_out[merged] - self.values[merged]) ** 2)))

    @property
    def _merged(self) -> NDArray[np.bool_]:
        merged: NDArray[np.bool_] = (self.weights > 0).sum(1) > 1
        return merged

    @cached_property
    def measured(self) -> dict[bytes, float]:
        """Measured value by weighting; see `key_of`."""
        return {key_of(w): float(v) for w, v in zip(self.weights, self.values, strict=True)}

    def predict(self, weights: Array) -> Array:
        """Expected values.

        Args:
            weights: Shape (n, n_experts).

        Returns:
            Shape (n,).
        """
        predicted: Array = self.constant + self._covariance(weights) @ self.duals
        return predicted

    def deviations(self, weights: Array) -> Array:
        """Standard deviations of predictions, misfit included, shape (n,)."""
        squares = (weights @ self.geometry) ** 2
        norms = squares.sum(1)
        prior = sum(v * norms ** (d + 1) for d, v in enumerate(self.variances[:-1]))
        cross = self._covariance(weights)  # (n, n_rows)
        left = 1 - cross @ self.inverse.sum(1)
        explained = np.einsum("ij,jk,ik->i", cross, self.inverse, cross, optimize=True)
        variance = prior - explained + left**2 / self.inverse.sum() + self.variances[-1]
        # Differences of large numbers: rounding may leave them a little below the misfit.
        return self.scale * np.sqrt(np.maximum(variance, self.variances[-1]))

    def covariances(self, weights: Array) -> Array:
        """Covariances of the predictions of several merges, misfit included, shape (n, n)."""
        x = weights @ self.geometry
        prior = np.tensordot(self.variances[:-1], products(x, x, self.degree), 1)
        cross = self._covariance(weights)
        left = 1 - cross @ self.inverse.sum(1)
        joint: Array = prior - cross @ self.inverse @ cross.T
        joint += np.outer(left, left) / self.inverse.sum() + self.variances[-1] * np.eye(len(x))
        return self.scale**2 * joint

    def _covariance(self, weights: Array) -> Array:
        powers = products(weights @ self.geometry, self.points, self.degree)
        covariance: Array = np.tensordot(self.variances[:-1], powers, 1)
        return covariance


def fit_subset_law(
    weights: Array,
    values: Array,
    experts: tuple[str, ...],
    *,
    name: str = "loss",
    higher: bool = False,
    gram: Array | None = None,
) -> SubsetLaw:
    """Fit one domain or metric.

    Args:
        weights: Shape (n, n_experts), the order of `experts`; zero for the base.
        values: Shape (n,); NaN for merges that were not measured on it.
        gram: Inner products of the experts' deltas; see `form.geometry_of`.

    Raises:
        InputError: Too few merges, an expert in none of them, or only one k.
    """
    there = np.isfinite(values)
    weights, values = weights[there], values[there]
    counts = (weights > 0).sum(1)
    sizes = tuple(sorted({int(k) for k in counts if k}))
    missing = [e for e, used in zip(experts, (weights > 0).any(0), strict=True) if not used]
    if missing:
        raise InputError(f"`{name}`: no merge with the expert `{missing[0]}` was measured")
    if len(values) < _FEWEST or len(sizes) < 2:
        raise InputError(
            f"`{name}`: {len(values)} merges of k = {', '.join(map(str, sizes))} are too few",
            "measure every single expert, some pairs, and all of them merged",
        )
    geometry = geometry_of(gram, len(experts))
    points = weights @ geometry
    # Each further degree needs a further k, or nothing tells how the value changes along k.
    degree = min(HIGHEST_DEGREE, len(sizes))
    spread = float(np.std(values)) or 1.0
    powers = products(points, points, degree)
    variances = spread**2 * fit_variances(powers, (values - values.mean()) / spread)
    covariance = np.tensordot(variances[:-1], powers, 1)
    inverse = np.linalg.inv(covariance + variances[-1] * np.eye(len(values)))
    sums = inverse.sum(1)
    constant = float(sums @ values / sums.sum())
    duals = inverse @ (values - constant)
    # Exact leave-one-out of a Gaussian process with a constant mean.
    precision = np.diag(inverse) - sums**2 / sums.sum()
    errors = duals / np.maximum(precision, 1e-300)
    ratios = np.abs(errors * np.sqrt(np.maximum(precision, 0)))
    return SubsetLaw(
        name=name,
        experts=experts,
        weights=weights,
        points=points,
        values=values,
        geometry=geometry,
        variances=variances,
        constant=constant,
        duals=duals,
        inverse=inverse,
        left_out=values - errors,
        sizes=sizes,
        scale=_scale(ratios[counts > 1]),
        higher=higher,
    )


def key_of(weights: Array) -> bytes:
    """A weighting as the key of a table; equal up to nine digits."""
    # Zero is added for the sake of -0.0, whose bytes differ.
    return bytes((np.round(weights, 9) + 0.0).tobytes())


def _scale(ratios: Array) -> float:
    """What brings nine of ten left-out merges into their interval, the nearer to 1 the fewer.

    Held-out merges of the real pools lie within it 85 to 95 times of 100, where intervals of the
    likelihood alone are nearly twice too wide.
    """
    n = len(ratios)
    if n == 0:
        return 1.0
    # The order statistic that a further merge exceeds one time in ten.
    last = min(int(np.ceil(0.9 * (n + 1))), n) - 1
    found = float(np.sort(ratios)[last]) / NINE_IN_TEN
    return float(max(found, 1e-3) ** (n / (n + _TRUST)))
