"""The law of single subsets: what measured merges of one pool say of all others.

A deterministic merge on a fixed text has no noise: what the form does not explain is misfit, and
enters as a variance of its own. The error of the text is the same for all rows and no part of it.
A row that was not scored on the whole text has an error of its own, which is known: the merge's
value is then no known one, and its misfit is that of its row.

A law of a larger size may lean on that of a smaller one (Kennedy and O'Hagan, 2000):

    large(α) = constant + ρ · small(α) + δ(α)

with δ of the same form and prior, estimated anew. ρ has the prior N(0, v), and the small value is
known as its own law knows it, m(α) ± C(α, α): to the covariance of two merges they add

    v · (m(α)·m(β) + C(α, β))

v is one more variance for the data to choose, near zero where the small size tells nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mergeplan.subset_law.form import (
    HIGHEST_DEGREE,
    Coefficients,
    coefficients,
    cubic_of,
    points_of,
    products,
    squares,
)
from mergeplan.subset_law.left_out import leave_each_out
from mergeplan.subset_law.spread import spread_scale
from mergeplan.subset_law.transferred import Transfer
from mergeplan.subset_law.variances import MOST_ROWS, draw_variances
from mergeplan.subset_law.weightings import keys_of, seen

Array = NDArray[np.float64]

# Prior variance of a degree that could not be fitted, as a share of the next lower one's. On the
# real pool the cubic term's was 0.03 to 0.4 of the quadratic one's.
OMITTED = 0.3
# Laws that stand for all variances which the rows allow.
_DRAWN = 24
_DRAWN_OF_MANY = 3


@dataclass(frozen=True, eq=False)
class SubsetLaw:
    """What every weighting of a pool is predicted to give.

    Attributes:
        name: Of the domain or metric.
        experts: The order of the weights.
        weights: Of the measured merges, shape (n, n_experts).
        points: The same as the prior sees them; see `seen` and `form.points_of`.
        values: Measured values, shape (n,).
        contrast: See `form.contrast_of`.
        variances: Prior variance of each degree, of the factor ρ where there is a smaller size, and
            last the misfit's.
        left_out: What each row is predicted to be by a fit without it, shape (n,).
        sizes: Different k that were measured.
        scale: Factor on standard deviations, from the rows left out one by one.
        shrinkage: Power of k by which a merge's deltas shrink; see `seen`.
        smaller: The law of a smaller size that this one leans on.
        transfer: What a smaller size tells; `None` where there is none.
        noise: Known covariance of the values, shape (n, n); zero where the whole text was scored.
        aside: Weights and value of rows that are measured and not fitted; see `outlier`.
        partly: Whether it is of documents that were not scored, and not of a metric's items.
    """

    name: str
    experts: tuple[str, ...]
    weights: Array
    points: Array
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

    @property
    def degree(self) -> int:
        return len(self.variances) - 1 - (self.smaller is not None)

    @property
    def factor(self) -> float:
        """ρ: by how much a difference at the smaller size is one here."""
        if self.smaller is None:
            return 0.0
        means = self.smaller.predict(self.weights) - self.smaller.values.mean()
        return float(self.variances[self.degree] * means @ self.duals)

    @property
    def by_geometry(self) -> bool:
        """Whether the prior is in the experts' own geometry, or takes all of them alike."""
        return not np.array_equal(self.geometry, np.eye(len(self.experts)))

    @cached_property
    def series(self) -> Coefficients:
        """L0, a, Q and the cubic term, in the weights that `seen` gives."""
        if self.smaller is not None:
            return cubic_of(self.in_seen_weights().predict, len(self.experts))
        prior = self.variances[:-1], self.geometry, self.contrast
        return coefficients(self.constant, self.duals, self.points, *prior)

    @cached_property
    def alike(self) -> tuple["SubsetLaw", ...]:
        """Laws of the same rows by variances that they make as likely; see `draw_variances`."""
        spread = float(np.std(self.values)) or 1.0
        powers = self.fitted_powers
        values = (self.values - self.values.mean()) / spread
        # Of many rows the variances are as good as known, and each law is the inverse of a matrix.
        count = _DRAWN if len(values) <= MOST_ROWS else _DRAWN_OF_MANY
        noise = None if self.noise is None else self.noise / spread**2
        drawn = draw_variances(powers, values, self.variances / spread**2, count, noise=noise)
        return tuple(solved(self, spread**2 * variances, powers) for variances in drawn)

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
        return np.asarray((self.weights > 0).sum(1) > 1)

    @cached_property
    def _known(self) -> tuple[NDArray[np.void], Array]:
        """Keys of the measured weightings, sorted, and their values; NaN where they have noise."""
        values = self.values if self.noise is None else np.where(self._noisy, np.nan, self.values)
        weights = np.array([*self.weights, *(weights for weights, _ in self.aside)])
        keys, values = keys_of(weights), np.append(values, [value for _, value in self.aside])
        order = np.argsort(keys)
        return keys[order], values[order]

    @property
    def noisy(self) -> bool:
        """Whether some rows have errors from their items: then predictions are of other items."""
        return bool(self._noisy.any()) and not self.partly

    @property
    def _noisy(self) -> NDArray[np.bool_]:
        none = np.zeros(len(self.values), np.bool_)
        return none if self.noise is None else np.diag(self.noise) > 0

    def is_row(self, weights: Array) -> bool:
        """Whether a weighting, of shape (n_experts,), is one of a row, with noise or without."""
        return bool((keys_of(self.weights) == keys_of(weights[None])).any())

    def _same(self, weights: Array) -> Array:
        """1 where a weighting is that of a row with noise, else 0, shape (n, n_rows)."""
        if not self._noisy.any():
            return np.zeros((len(weights), len(self.values)))
        return np.asarray((keys_of(weights)[:, None] == keys_of(self.weights)) & self._noisy, float)

    def measured(self, weights: Array) -> Array:
        """What weightings were measured to give.

        Args:
            weights: Shape (n, n_experts).

        Returns:
            Shape (n,); NaN where a weighting was not measured, or not on the whole text.
        """
        keys, values = self._known
        wanted = keys_of(weights)
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[at] == wanted, values[at], np.nan)

    def predict(self, weights: Array) -> Array:
        """Expected values.

        Args:
            weights: Shape (n, n_experts).

        Returns:
            Shape (n,).
        """
        cross = self._covariance(weights) + self.variances[-1] * self._same(weights)
        predicted: Array = self.constant + cross @ self.duals
        return predicted

    def shares(self, weights: Array) -> Array:
        """What of each row's value a prediction is put together of.

        Args:
            weights: Shape (n, n_experts).

        Returns:
            Shape (n, n_rows); a measured weighting is its own row, and nothing else.
        """
        shares = self._shares(weights)[0]
        row = {key: number for number, key in enumerate(keys_of(self.weights).tolist())}
        for place, key in enumerate(keys_of(weights).tolist()):
            if key in row:
                shares[place] = 0.0
                shares[place, row[key]] = 1.0
        return shares

    def deviations(self, weights: Array) -> Array:
        """Standard deviations of predictions, misfit included.

        Args:
            weights: Shape (n, n_experts).

        Returns:
            Shape (n,), in the values' unit.
        """
        own = squares(self._seen(weights), HIGHEST_DEGREE)
        if self.smaller is not None:
            own = np.concatenate([own, self.smaller.own_moments(weights)[None]])
        prior, omitted = self._split(own)  # (n,), (n,)
        same = self._same(weights)
        shares, cross, cross_omitted = self._shares_of(self._powers(weights), same)
        variance = prior + omitted + self.variances[-1]
        variance -= 2 * ((cross + cross_omitted) * shares).sum(1)
        variance += np.einsum("ij,jk,ik->i", shares, self._rows, shares, optimize=True)
        # Differences of large numbers: rounding may leave them a little below the misfit, of which
        # a row with noise leaves a part.
        noise = same @ (np.zeros(len(self.values)) if self.noise is None else np.diag(self.noise))
        least = self.variances[-1] * np.where(noise > 0, noise / (noise + self.variances[-1]), 1.0)
        return np.asarray(self.scale * np.sqrt(np.maximum(variance, least)))

    def covariances(self, weights: Array) -> Array:
        """Covariances of the predictions of several merges, misfit included.

        Args:
            weights: Shape (n, n_experts).

        Returns:
            Shape (n, n), in the square of the values' unit.
        """
        own, cross = self._powers(weights, weights), self._powers(weights)
        return self._joint(own, cross, self._same(weights))[1]

    def joint_alike(self, weights: Array) -> Iterator[tuple[Array, Array]]:
        """Predictions and their covariances by each of the laws `alike`, (n,) and (n, n)."""
        own, cross = self._powers(weights, weights), self._powers(weights)
        same = self._same(weights)
        for law in self.alike:
            yield law._joint(own, cross, same)

    def moments(self, left: Array, right: Array) -> Array:
        """Expected products of two merges' values, less a constant, shape (n, m).

        Args:
            left, right: Weights of shape (n, n_experts) and (m, n_experts).

        Returns:
            In the square of the values' unit.
        """
        here, there = self._shares(left), self._shares(right)
        errors = np.add(*self._split(self._powers(left, right)))
        errors = errors - (here[1] + here[2]) @ there[0].T - here[0] @ (there[1] + there[2]).T
        errors += here[0] @ self._rows @ there[0].T
        means = [shares @ self.values - self.values.mean() for shares, *_ in (here, there)]
        return np.asarray(np.outer(*means) + self.scale**2 * errors)

    def own_moments(self, weights: Array) -> Array:
        """The diagonal of the moments of weightings with themselves, shape (n,).

        Args:
            weights: Shape (n, n_experts).

        Returns:
            In the square of the values' unit.
        """
        errors = self.deviations(weights) ** 2 - self.scale**2 * self.variances[-1]
        # Of a row with noise a part of the misfit is known.
        value = self.predict(weights) - self.values.mean()
        return np.asarray(value**2 + np.maximum(errors, 0.0))

    def _joint(self, own: Array, powers: Array, same: Array) -> tuple[Array, Array]:
        """From products of unit variance, of the merges and of the merges with the rows."""
        prior, omitted = self._split(own)
        shares, cross, cross_omitted = self._shares_of(powers, same)
        joint = prior + omitted
        joint[np.diag_indices(len(joint))] += self.variances[-1]
        both = (cross + cross_omitted) @ shares.T
        joint += shares @ self._rows @ shares.T - both - both.T
        return shares @ self.values, self.scale**2 * joint

    def _seen(self, weights: Array) -> Array:
        return points_of(seen(weights, self.shrinkage), self.geometry, self.contrast)

    def _covariance(self, weights: Array) -> Array:
        return self._split(self._powers(weights))[0]

    def _split(self, powers: Array) -> tuple[Array, Array]:
        """Covariance of the degrees that were fitted, and of those that could not be.

        Where too few k were measured for the highest degree, it is there all the same: it widens
        intervals, beyond the measured k above all.
        """
        degree = self.degree
        fitted = np.tensordot(self.variances[:degree], powers[:degree], 1)
        if self.smaller is not None:
            fitted += self.variances[degree] * powers[HIGHEST_DEGREE]
        left = OMITTED * self.variances[degree - 1]
        return fitted, left * powers[degree:HIGHEST_DEGREE].sum(0)

    def _powers(self, left: Array, right: Array | None = None) -> Array:
        """Covariances of unit variance, of each degree and by the smaller size; with the rows."""
        theirs = self.points if right is None else self._seen(right)
        powers = products(self._seen(left), theirs, HIGHEST_DEGREE)
        if self.smaller is None:
            return powers
        moments = self.smaller.moments(left, self.weights if right is None else right)
        return np.concatenate([powers, moments[None]])

    @cached_property
    def fitted_powers(self) -> Array:
        """Of the measured rows, for each prior variance, shape (parts, n_rows, n_rows)."""
        powers = self._powers(self.weights)
        return np.concatenate([powers[: self.degree], powers[HIGHEST_DEGREE:]])

    def in_seen_weights(self) -> "SubsetLaw":
        """The same law of weights as `seen` gives them."""
        smaller = None if self.smaller is None else self.smaller.in_seen_weights()
        weights = seen(self.weights, self.shrinkage)
        return replace(self, weights=weights, shrinkage=1.0, smaller=smaller)

    @cached_property
    def _rows(self) -> Array:
        """Covariance of the measured rows, shape (n_rows, n_rows)."""
        fitted, omitted = self._split(self._powers(self.weights))
        rows: Array = fitted + omitted + self.variances[-1] * np.eye(len(self.values))
        return rows if self.noise is None else rows + self.noise

    def _shares(self, weights: Array) -> tuple[Array, Array, Array]:
        """How a prediction is put together of the rows, and its covariances with them.

        Returns:
            Three of shape (n, n_rows): a prediction is the sum of the rows' values by the first.
        """
        return self._shares_of(self._powers(weights))

    def _shares_of(self, powers: Array, same: Array | None = None) -> tuple[Array, Array, Array]:
        cross, omitted = self._split(powers)
        if same is not None:
            cross = cross + self.variances[-1] * same
        sums = self.inverse.sum(1)
        left = 1 - cross @ sums
        return cross @ self.inverse + np.outer(left, sums) / sums.sum(), cross, omitted


def solved(law: SubsetLaw, variances: Array, powers: Array) -> SubsetLaw:
    """The law of the same rows at given variances.

    Args:
        variances: Of the prior's parts, and of the misfit last.
        powers: Covariances of unit variance for each part, shape (parts, n_rows, n_rows).

    Returns:
        With its constant, its duals, and what it predicts of each row that is left out.
    """
    covariance = np.tensordot(variances[:-1], powers, 1)
    if law.noise is not None:
        covariance = covariance + law.noise
    inverse = np.linalg.inv(covariance + variances[-1] * np.eye(len(law.values)))
    found = leave_each_out(inverse, law.values)
    merged = (law.weights > 0).sum(1) > 1
    return replace(
        law,
        variances=variances,
        constant=found.constant,
        duals=found.duals,
        inverse=inverse,
        left_out=law.values - found.errors,
        scale=spread_scale(np.abs(found.ratios)[merged]),
    )
