"""The law of single subsets: what measured merges of one pool say of all others.

A deterministic merge on a fixed text has no noise: what the form does not explain is misfit, and
enters as a variance of its own. The error of the text is the same for all rows and no part of it.
A row that was not scored on the whole text has an error of its own, which is known: the merge's
value is then no known one, and its misfit is that of its row.
What it expects before any row is in `prior`, what is left open after all of them in `errors`; what
a smaller size adds `transfer` and `leaning` say, and what slopes add `rows`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mergeplan.subset_law.errors import Errors
from mergeplan.subset_law.form import Coefficients, cubic_of
from mergeplan.subset_law.leaning import Smaller
from mergeplan.subset_law.merges import Merges
from mergeplan.subset_law.prior import Prior
from mergeplan.subset_law.rows import Points, Rows, coefficients
from mergeplan.subset_law.solving import by_values, solved, standard
from mergeplan.subset_law.spread import widening
from mergeplan.subset_law.transferred import Transfer
from mergeplan.subset_law.variances import MOST_ROWS, draw_variances
from mergeplan.subset_law.weightings import seen

Array = NDArray[np.float64]

# Laws that stand for all variances which the rows allow.
_DRAWN = 24
_DRAWN_OF_MANY = 3
# Numbers in an array of weightings by rows, at most: with slopes there are hundreds of rows.
_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class SubsetLaw:
    """What every weighting of a pool is predicted to give.

    Attributes:
        name: Of the domain or metric.
        experts: The order of the weights.
        weights: Of the measured merges, shape (n, n_experts).
        values: Measured values, shape (n,).
        contrast: See `form.contrast_of`.
        variances: Prior variance of each degree, of the factor ρ where there is a smaller size, of
            `rows.own_parts` where there are slopes, and last the misfit's.
        duals, inverse: Over the rows: values, then slopes; see `rows`.
        left_out: What each merge is predicted to be by a fit without it, shape (n,).
        sizes: Different k that were measured.
        scale: Factor on standard deviations, from the merges left out one by one.
        below: A further one between the base and a sum of 1, 1 or more; see `spread.widening`.
        shrinkage: Power of k by which a merge's deltas shrink; see `seen`.
        smaller: The law of a smaller size that this one leans on.
        transfer: What a smaller size tells; `None` where there is none.
        noise: Known covariance of the rows, shape (n_rows, n_rows); zero where the whole text was
            scored.
        slopes: Of merges by each expert's weight, shape (n, n_experts); NaN where a merge has none,
            and `None` where none has.
        aside: Weights and value of rows that are measured and not fitted; see `outlier`.
        partly: Whether it is of documents that were not scored, and not of a metric's items.
    """

    name: str
    experts: tuple[str, ...]
    weights: Array
    values: Array
    geometry: Array
    contrast: Array
    variances: Array
    constant: float
    duals: Array
    inverse: Array
    left_out: Array
    sizes: tuple[int, ...]
    scale: float
    higher: bool = False
    shrinkage: float = 1.0
    smaller: "SubsetLaw | None" = None
    transfer: Transfer | None = None
    noise: Array | None = None
    partly: bool = False
    aside: tuple[tuple[tuple[float, ...], float], ...] = ()
    slopes: Array | None = None
    below: float = 1.0

    @cached_property
    def rows(self) -> Rows:
        """What it is fitted to."""
        return Rows.of(self.weights, self.slopes)

    @cached_property
    def observed(self) -> Array:
        """The rows' values and slopes, shape (n_rows,)."""
        slopes = np.empty((0, 0)) if self.slopes is None else self.slopes[self.rows.sloped]
        return np.concatenate([self.values, slopes.ravel()])

    @cached_property
    def prior(self) -> Prior:
        """What is expected of any values and slopes before these rows."""
        return Prior(
            self.geometry, self.contrast, self.variances, self.shrinkage,
            None if self.smaller is None else Smaller(self.smaller), self.slopes is not None,
        )  # fmt: skip

    @cached_property
    def errors(self) -> Errors:
        """What the rows leave open, if the prior is right."""
        return Errors(self.prior, self.rows, self.inverse, self.noise, self._merges)

    @cached_property
    def _seen_rows(self) -> Points:
        return self.prior.seen(self.rows)

    @property
    def points(self) -> Array:
        """The merges as the prior sees them; see `seen` and `form.points_of`."""
        return self._seen_rows.points

    @property
    def n_own(self) -> int:
        """Variances of what each point has for itself beside the misfit."""
        return self.prior.n_own

    @property
    def factor(self) -> float:
        """ρ: by how much a difference at the smaller size is one here."""
        if self.smaller is None:
            return 0.0
        means = Smaller(self.smaller).expected(self.rows)
        return float(self.variances[self.prior.degree] * means @ self.duals)

    @property
    def by_geometry(self) -> bool:
        """Whether the prior is in the experts' own geometry, or takes all of them alike."""
        return not np.array_equal(self.geometry, np.eye(len(self.experts)))

    @cached_property
    def series(self) -> Coefficients:
        """L0, a, Q and the cubic term, in the weights that `seen` gives."""
        if self.smaller is not None:
            return cubic_of(self.in_seen_weights().predict, len(self.experts))
        prior = self.variances[: self.prior.degree], self.geometry, self.contrast
        return coefficients(self.constant, self.duals, self._seen_rows, *prior)

    @cached_property
    def alike(self) -> tuple["SubsetLaw", ...]:
        """Laws of the same rows by variances that they make as likely; see `draw_variances`."""
        one = standard(self)
        # Of many rows the variances are as good as known, and each law is the inverse of a matrix.
        count = _DRAWN if len(one.values) <= MOST_ROWS else _DRAWN_OF_MANY
        drawn = draw_variances(
            one.products, one.values, self.variances / one.spread**2, count,
            one.expected, one.noise, one.ones,
        )  # fmt: skip
        return tuple(solved(self, one.spread**2 * each, one.products) for each in drawn)

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
        return float(np.sqrt(np.mean((self.left_out - self.values)[self._merged] ** 2)))

    @property
    def _merged(self) -> NDArray[np.bool_]:
        return np.asarray((self.weights > 0).sum(1) > 1)

    @cached_property
    def _merges(self) -> Merges:
        n = len(self.values)
        noisy = np.zeros(n, np.bool_) if self.noise is None else np.diag(self.noise)[:n] > 0
        return Merges(self.weights, self.values, noisy, self.aside)

    @property
    def noisy(self) -> bool:
        """Whether some rows have errors from their items: then predictions are of other items."""
        return bool(self._merges.noisy.any()) and not self.partly

    def is_row(self, weights: Array) -> bool:
        """Whether a weighting, of shape (n_experts,), is one of a row, with noise or without."""
        return self._merges.has(weights)

    def misfits(self, weights: Array) -> Array:
        """Variances of what a weighting's value has for itself, shape (n,).

        Args:
            weights: Shape (n, n_experts).
        """
        return self.prior.misfits(weights)

    def measured(self, weights: Array) -> Array:
        """What weightings were measured to give.

        Args:
            weights: Shape (n, n_experts).

        Returns:
            Shape (n,); NaN where a weighting was not measured, or not on the whole text.
        """
        return self._merges.values_of(weights)

    def predict(self, weights: Array) -> Array:
        """Expected values.

        Args:
            weights: Shape (n, n_experts).

        Returns:
            Shape (n,).
        """
        return self.expected(Rows.of(weights))

    def expected(self, rows: Rows) -> Array:
        """Expected values and slopes, shape (n_rows,).

        Args:
            rows: Of any weightings.
        """
        n, n_values = len(rows.weights), len(self.values)
        own = self.misfits(rows.weights)[:, None] * self._merges.same(rows.weights, n_values)
        if self.n_own and not len(rows.sloped) and self.smaller is None:
            # With slopes there are hundreds of rows to each weighting; the series says the same.
            return self.series.at(rows.weights) + own @ self.duals[:n_values]
        cross = self.prior.split(self.prior.powers(rows, self.rows))[0]
        cross[:n, :n_values] += own
        predicted: Array = self.constant * rows.ones + cross @ self.duals
        return predicted

    def shares(self, weights: Array) -> Array:
        """What of each row's value a prediction is put together of.

        Args:
            weights: Shape (n, n_experts).

        Returns:
            Shape (n, n_merges); a measured weighting is its own row, and nothing else. Of values
            alone where there are slopes: how these move on another text nothing tells.
        """
        shares = by_values(self).errors.shares(Rows.of(weights)).shares
        self._merges.put_alone(shares, weights)
        return shares

    def deviations(self, weights: Array) -> Array:
        """Standard deviations of predictions, misfit included.

        Args:
            weights: Shape (n, n_experts).

        Returns:
            Shape (n,), in the values' unit.
        """
        n = max(_AT_ONCE // len(self.observed), 1) if self.n_own else len(weights) or 1
        parts = range(0, max(len(weights), 1), n)
        each = [self.errors.variances(weights[at : at + n]) for at in parts]
        return np.asarray(self.scale * self.widening(weights) * np.sqrt(np.concatenate(each)))

    def widening(self, weights: Array) -> Array:
        """By how much deviations are wider than by `scale` alone, (n,); see `spread.widening`."""
        return widening(self.below, weights.sum(1))

    def covariances(self, weights: Array) -> Array:
        """Covariances of the predictions of several merges, misfit included.

        Args:
            weights: Shape (n, n_experts).

        Returns:
            Shape (n, n), in the square of the values' unit.
        """
        wider = self.scale**2 * np.outer(*[self.widening(weights)] * 2)
        return np.asarray(wider * self.errors.joint(self.errors.join(weights))[1])

    def joint_alike(self, weights: Array) -> Iterator[tuple[Array, Array]]:
        """Predictions and their covariances by each of the laws `alike`, (n,) and (n, n)."""
        joined = self.errors.join(weights)
        for law in self.alike:
            shares, joint = law.errors.joint(joined)
            wider = law.scale**2 * np.outer(*[law.widening(weights)] * 2)
            yield shares @ law.observed, wider * joint

    def in_seen_weights(self) -> "SubsetLaw":
        """The same law of weights as `seen` gives them."""
        smaller = None if self.smaller is None else self.smaller.in_seen_weights()
        weights = seen(self.weights, self.shrinkage)
        return replace(self, weights=weights, shrinkage=1.0, smaller=smaller)
