"""What the law of a smaller size says of a larger size's rows, see `transfer`."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mergeplan.subset_law.errors import Errors
from mergeplan.subset_law.rows import Rows

Array = NDArray[np.float64]


class Law(Protocol):
    """What of a `SubsetLaw` is looked at here."""

    @property
    def values(self) -> Array: ...
    @property
    def observed(self) -> Array: ...
    @property
    def errors(self) -> Errors: ...
    def predict(self, weights: Array) -> Array: ...
    @property
    def scale(self) -> float: ...
    def widening(self, weights: Array) -> Array: ...
    def deviations(self, weights: Array) -> Array: ...
    def expected(self, rows: Rows) -> Array: ...


@dataclass(frozen=True, eq=False)
class Smaller:
    """A smaller size, less the mean of its values: a constant carries nothing over."""

    law: Law

    def expected(self, rows: Rows) -> Array:
        """Expected values and slopes, shape (n_rows,)."""
        return np.asarray(self.law.expected(rows) - self.law.values.mean() * rows.ones)

    def moments(self, left: Rows, right: Rows) -> Array:
        """Expected products of what two rows measure, shape (n, m).

        Args:
            left, right: Of n and m values and slopes.

        Returns:
            In the square of the values' unit.
        """
        law = self.law
        here, there = law.errors.shares(left), law.errors.shares(right)
        errors = law.errors.between(left, here, right, there)
        means = [
            shares @ law.observed - law.values.mean() * rows.ones
            for (shares, *_), rows in ((here, left), (there, right))
        ]
        wider = [law.widening(rows.weights)[rows.places] for rows in (left, right)]
        return np.asarray(np.outer(*means) + law.scale**2 * np.outer(*wider) * errors)

    def own_moments(self, weights: Array) -> Array:
        """The diagonal of the moments of weightings with themselves, shape (n,).

        Args:
            weights: Shape (n, n_experts).

        Returns:
            In the square of the values' unit.
        """
        law = self.law
        misfits = law.errors.prior.misfits(weights)
        misfits = law.scale**2 * law.widening(weights) ** 2 * misfits
        errors = law.deviations(weights) ** 2 - misfits
        # Of a row with noise a part of the misfit is known.
        value = law.predict(weights) - law.values.mean()
        return np.asarray(value**2 + np.maximum(errors, 0.0))
