"""What a law expects before any row: covariances of values and slopes at any weightings."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mergeplan.subset_law.form import HIGHEST_DEGREE, squares
from mergeplan.subset_law.rows import OWN, Points, Rows, covariances
from mergeplan.subset_law.weightings import seen

Array = NDArray[np.float64]

# Prior variance of a degree that could not be fitted, as a share of the next lower one's. On the
# real pool the cubic term's was 0.03 to 0.4 of the quadratic one's.
OMITTED = 0.3


class Smaller(Protocol):
    """What of a smaller size's law a prior leans on; see `transfer`."""

    def moments(self, left: Rows, right: Rows) -> Array: ...
    def own_moments(self, weights: Array) -> Array: ...


@dataclass(frozen=True, eq=False)
class Prior:
    """A Gaussian process of the form, its misfit, and what a smaller size tells.

    Attributes:
        geometry, contrast, variances, shrinkage: As `SubsetLaw` has them.
        smaller: The law of a smaller size; `None` where there is none.
        sloped: Whether slopes were measured, so that points have parts of their own.
    """

    geometry: Array
    contrast: Array
    variances: Array
    shrinkage: float
    smaller: Smaller | None
    sloped: bool

    @property
    def n_own(self) -> int:
        """Variances of what each point has for itself beside the misfit."""
        return OWN if self.sloped else 0

    @property
    def degree(self) -> int:
        """The highest that was fitted."""
        return len(self.variances) - 1 - (self.smaller is not None) - self.n_own

    def seen(self, rows: Rows) -> Points:
        """Rows in the prior's coordinates."""
        return rows.seen(seen(rows.weights, self.shrinkage), self.geometry, self.contrast)

    def powers(self, left: Rows, right: Rows) -> Array:
        """Covariances of unit variance, of each degree and by the smaller size.

        Args:
            left, right: Of n and m values and slopes.

        Returns:
            Shape (HIGHEST_DEGREE, n, m), or one more with a smaller size.
        """
        powers = covariances(self.seen(left), self.seen(right), HIGHEST_DEGREE)
        if self.smaller is None:
            return powers
        return np.concatenate([powers, self.smaller.moments(left, right)[None]])

    def squares(self, weights: Array) -> Array:
        """The same of each weighting with itself, shape (HIGHEST_DEGREE or one more, n).

        Args:
            weights: Shape (n, n_experts).
        """
        own = squares(self.seen(Rows.of(weights)).points, HIGHEST_DEGREE)
        if self.smaller is None:
            return own
        return np.concatenate([own, self.smaller.own_moments(weights)[None]])

    def split(self, powers: Array) -> tuple[Array, Array]:
        """Covariance of the degrees that were fitted, and of those that could not be.

        Where too few k were measured for the highest degree, it is there all the same: it widens
        intervals, beyond the measured k above all.

        Args:
            powers: As `powers` and `squares` give them.
        """
        degree = self.degree
        fitted = np.tensordot(self.variances[:degree], powers[:degree], 1)
        if self.smaller is not None:
            fitted += self.variances[degree] * powers[HIGHEST_DEGREE]
        left = OMITTED * self.variances[degree - 1]
        return fitted, left * powers[degree:HIGHEST_DEGREE].sum(0)

    def parts(self, rows: Rows) -> Array:
        """Covariances of unit variance of rows, for each variance but the misfit's.

        Returns:
            Shape (parts, n_rows, n_rows).
        """
        powers, own = self.powers(rows, rows), self.seen(rows).own_parts()
        return np.concatenate([powers[: self.degree], powers[HIGHEST_DEGREE:], own])

    def covariance(self, rows: Rows) -> Array:
        """Of rows, misfit and degrees that could not be fitted included, (n_rows, n_rows)."""
        fitted, omitted = self.split(self.powers(rows, rows))
        found: Array = fitted + omitted + self.variances[-1] * np.eye(len(fitted))
        if self.sloped:
            own = self.variances[-1 - OWN : -1]
            found += np.tensordot(own, self.seen(rows).own_parts(), 1)
        return found

    def misfits(self, weights: Array) -> Array:
        """Variances of what a weighting's value has for itself, shape (n,).

        Args:
            weights: Shape (n, n_experts).
        """
        found = np.full(len(weights), self.variances[-1])
        if self.sloped:
            found += self.variances[-1 - OWN] * self.seen(Rows.of(weights)).remainders()
        return found
