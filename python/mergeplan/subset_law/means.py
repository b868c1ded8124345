"""Means over all subsets of k, of which some were measured, by the law of single subsets.

A few subsets of k hold some experts too often and others not at all. The law says how much each
expert, pair and triple matters, so the mean of those that were measured is corrected by how they
differ from all. The mean of all subsets of k is one more unknown of the same Gaussian process as
theirs: the measured ones' own misfit is a part of it, and where all were measured nothing is open.
One law says all means, so that their errors are correlated.

Beside the form each k has a deviation of its own, with a variance that is estimated: an upturn with
k alone is not in the form. And all experts merged are left out, as one merge that tells nothing of
who is in a subset. With both, 90 % intervals of simulated upturns hold 67 and 76 % (18 and 9
experts, 8 subsets), with the deviations alone 46 and 71 %, without either 38 and 29 %. A level for
each k of which nothing is known at all was tried as well: it gains nothing from how the form bends,
and three subsets of the domains of a real pool left errors of 4.2 % of the drop instead of 2.2 %.

Where every expert was measured alone, what its members are alone has a coefficient of its own from
two experts on: whether a harmful expert is met by the subsets of a k or not is then no surprise.
Simulated pools of 6 to 30 experts with one that harms hold 96 % with an interval score of 20 % of
the drop, 92 and 34 % without it; with two, 90 and 27 instead of 92 and 35 %. Clusters and
duplicates lose by it, from 34 to 35 and 30 to 32 %. A coefficient of which nothing at all is known
gains as much and loses more.

The variances are drawn, not taken as known: three subsets of each k say little of them.
"""

from dataclasses import dataclass, field
from math import comb

import numpy as np
from numpy.typing import NDArray

from mergeplan.subset_law.form import HIGHEST_DEGREE, contrast_of, points_of, products
from mergeplan.subset_law.left_out import leave_each_out
from mergeplan.subset_law.mean_products import Sizes, mean_products
from mergeplan.subset_law.spread import spread_scale
from mergeplan.subset_law.variances import draw_variances, fit_variances

Array = NDArray[np.float64]

# Subsets of one k, at least, for their mean and scatter to say anything.
_FEWEST = 3
# Expected logarithms of variances, as shares of the values' own: of what goes with what members are
# alone, and of deviations with k alone.
_EXPECTED_MEMBERS, _EXPECTED_DEVIATION = -3.0, -6.0
# Rows from which on the variances are as good as known, and laws that stand for them below.
_MANY_ROWS = 60
_DRAWN = 16


@dataclass(frozen=True)
class CorrectedMeans:
    """Means over all subsets of each measured k but the whole pool.

    Attributes:
        ks, values: Shape (n_ks,).
        covariance: Of their errors, shape (n_ks, n_ks); 0 where every subset was measured.
        left_out, plain: Root mean square error of a subset that is left out, of those k of which
            three subsets or more were measured and not all: by the law, and by the others' mean.
    """

    ks: Array
    values: Array
    covariance: Array
    left_out: float
    plain: float


def corrected_means(weights: Array, values: Array) -> CorrectedMeans | None:
    """Correct the mean of each k of which some subsets were measured.

    Args:
        weights: 1/k for each expert of a merge, shape (n, n_experts); no base.
        values: Shape (n,).

    Returns:
        `None` where there is nothing to correct, or nothing to tell by how much: no k of which
        three subsets or more were measured and not all, only one k, or values that do not differ.
    """
    counts = (weights > 0).sum(1)
    kept = counts < weights.shape[1]
    weights, values, counts = weights[kept], values[kept], counts[kept]
    whole, of_k, measured = np.unique(counts, return_inverse=True, return_counts=True)
    ks = whole.astype(np.float64)
    possible = np.array([float(comb(weights.shape[1], int(k))) for k in ks])
    some = ((measured >= _FEWEST) & (measured < possible))[of_k]  # (n,)
    if len(ks) < 2 or not some.any():
        return None
    centre, spread = float(np.mean(values)), float(np.std(values))
    if spread <= 1e-12 * abs(centre):
        return None
    process = _Process.of(weights, (values - centre) / spread, of_k, ks, possible)
    errors, found, covariance = process.means()
    means = process.in_k.T @ process.values / measured
    others = (process.values - means[of_k]) * (measured / np.maximum(measured - 1, 1))[of_k]
    return CorrectedMeans(
        ks=ks,
        values=centre + spread * found,
        covariance=spread**2 * covariance,
        left_out=spread * float(np.sqrt(np.mean(errors[some] ** 2))),
        plain=spread * float(np.sqrt(np.mean(others[some] ** 2))),
    )


@dataclass(frozen=True)
class _Process:
    """Values of rows and means of sizes, with their covariances of unit variance by part: one for
    each degree of the form, what members are alone where that is known, and deviations of k."""

    values: Array
    possible: Array
    expected: tuple[float, ...]  # of the logarithm of each part's variance
    in_k: Array = field(repr=False)  # (n, n_ks), one where a row is of that size
    rows: Array = field(repr=False)  # (parts, n, n)
    cross: Array = field(repr=False)  # (parts, n_ks, n)
    sizes: Array = field(repr=False)  # (parts, n_ks, n_ks)

    @classmethod
    def of(
        cls, weights: Array, values: Array, of_k: NDArray[np.intp], ks: Array, possible: Array
    ) -> "_Process":
        n_experts, degree = weights.shape[1], min(HIGHEST_DEGREE, len(ks))
        contrast = contrast_of(weights, values)
        points = points_of(weights, np.eye(n_experts), contrast)
        sizes = Sizes.of(ks, contrast)
        in_k = np.asarray(of_k[:, None] == np.arange(len(ks)), np.float64)
        of_rows, of_sizes = _members(weights, values, ks)
        parts = (
            (products(points, points, degree), of_rows @ of_rows.T, in_k @ in_k.T),
            (mean_products(sizes, points, degree), of_sizes @ of_rows.T, in_k.T),
            (mean_products(sizes, sizes.beside, degree), of_sizes @ of_sizes.T, np.eye(len(ks))),
        )
        known = slice(None) if of_rows.any() else slice(0)
        together = (np.stack([*form, *[members][known], own]) for form, members, own in parts)
        expected = (*[0.0] * degree, *[_EXPECTED_MEMBERS][known], _EXPECTED_DEVIATION)
        return cls(values, possible, expected, in_k, *together)

    def means(self) -> tuple[Array, Array, Array]:
        """Errors of rows left out, the means, and the covariance of the means' errors."""
        likeliest = fit_variances(self.rows, self.values, self.expected)
        inverse = self._inverse(likeliest)
        left_out = leave_each_out(inverse, self.values)
        scale = spread_scale(np.abs(left_out.ratios))
        drawn = likeliest[None]
        if len(self.values) <= _MANY_ROWS:
            drawn = draw_variances(self.rows, self.values, likeliest, _DRAWN, self.expected)
        found, covariances = zip(*(self._means_by(variances) for variances in drawn), strict=True)
        centre = np.mean(found, axis=0)
        away = np.array(found) - centre
        covariance = scale**2 * np.mean(covariances, axis=0) + away.T @ away / len(away)
        measured = self.in_k.sum(0)
        # Rounding leaves negative variances where values follow the form.
        roots, axes = np.linalg.eigh((covariance + covariance.T) / 2)
        covariance = (axes * np.maximum(roots, 0.0)) @ axes.T
        whole = measured >= self.possible
        centre[whole] = (self.in_k.T @ self.values / measured)[whole]
        covariance[whole], covariance[:, whole] = 0.0, 0.0
        return left_out.errors, centre, covariance

    def _inverse(self, variances: Array) -> Array:
        covariance = np.tensordot(variances[:-1], self.rows, 1)
        inverse: Array = np.linalg.inv(covariance + variances[-1] * np.eye(len(self.values)))
        return inverse

    def _means_by(self, variances: Array) -> tuple[Array, Array]:
        inverse = self._inverse(variances)
        sums = inverse.sum(1)
        # A subset's misfit is its share of the mean of its size.
        misfit = variances[-1] / self.possible
        cross = np.tensordot(variances[:-1], self.cross, 1) + misfit[:, None] * self.in_k.T
        shares = cross @ inverse
        constant = float(sums @ self.values / sums.sum())
        left = 1 - cross @ sums
        covariance = np.tensordot(variances[:-1], self.sizes, 1) + np.diag(misfit)
        covariance += np.outer(left, left) / sums.sum() - shares @ cross.T
        found = constant + shares @ (self.values - constant)
        return found, covariance


def _members(weights: Array, values: Array, ks: Array) -> tuple[Array, Array]:
    """Means of what members are alone, less that of all experts, from two experts on.

    Returns:
        Of rows, (n, 1), and of all subsets of each k, (n_ks, 1), where it is none; nothing but
        zeros where some expert was not measured alone.
    """
    rows, sizes = np.zeros((len(weights), 1)), np.zeros((len(ks), 1))
    alone = (weights > 0).sum(1) == 1
    if alone.sum() == weights.shape[1]:
        own = weights[alone].T @ values[alone]  # (n_experts,)
        rows[~alone, 0] = weights[~alone] @ (own - own.mean())
    return rows, sizes
