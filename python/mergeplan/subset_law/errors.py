"""How far the predictions of a fit may be off, if its prior is right."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mergeplan.subset_law.merges import Merges
from mergeplan.subset_law.prior import Prior
from mergeplan.subset_law.rows import Rows

Array = NDArray[np.float64]


class Shares(NamedTuple):
    """How predictions are put together of a fit's rows, shape (n, n_rows) each.

    Attributes:
        shares: A prediction is the sum of what was observed by these.
        cross: Its covariances with the rows, of the degrees that were fitted.
        omitted: The same of those that could not be.
    """

    shares: Array
    cross: Array
    omitted: Array


class Joined(NamedTuple):
    """Weightings that are predicted together, with what no variance changes."""

    rows: Rows
    own: Array
    powers: Array
    same: Array


@dataclass(frozen=True, eq=False)
class Errors:
    """Of predictions from given rows, misfit included.

    Attributes:
        prior: Of all values and slopes.
        rows: That were fitted.
        inverse: Of their covariance, shape (n_rows, n_rows).
        noise: Known covariance of the rows, (n_rows, n_rows); `None` for none.
        merges: The rows' weightings.
    """

    prior: Prior
    rows: Rows
    inverse: Array
    noise: Array | None
    merges: Merges

    def variances(self, weights: Array) -> Array:
        """Of the predicted values, shape (n,).

        Args:
            weights: Shape (n, n_experts).
        """
        rows, n_rows = Rows.of(weights), len(self.inverse)
        prior, omitted = self.prior.split(self.prior.squares(weights))  # (n,), (n,)
        same = self.merges.same(weights, n_rows)
        misfits = self.prior.misfits(weights)
        found = self.shares(rows, same=same)
        variance = prior + omitted + misfits
        variance -= 2 * ((found.cross + found.omitted) * found.shares).sum(1)
        variance += np.einsum("ij,jk,ik->i", found.shares, self._rows, found.shares, optimize=True)
        # Differences of large numbers: rounding may leave them a little below the misfit, of which
        # a row with noise leaves a part.
        noise = same @ (np.zeros(n_rows) if self.noise is None else np.diag(self.noise))
        least = misfits * np.where(noise > 0, noise / (noise + misfits), 1.0)
        return np.maximum(variance, least)

    def join(self, weights: Array) -> Joined:
        """What `joint` needs of weightings, for this and for other variances of the prior.

        Args:
            weights: Shape (n, n_experts).
        """
        rows, same = Rows.of(weights), self.merges.same(weights, len(self.inverse))
        powers = self.prior.powers(rows, rows), self.prior.powers(rows, self.rows)
        return Joined(rows, *powers, same)

    def joint(self, joined: Joined) -> tuple[Array, Array]:
        """Shares of the rows in each prediction, and the predictions' covariances.

        Returns:
            Shape (n, n_rows) and (n, n).
        """
        prior, omitted = self.prior.split(joined.own)
        shares, cross, cross_omitted = self.shares(joined.rows, joined.powers, joined.same)
        joint = prior + omitted
        joint[np.diag_indices(len(joint))] += self.prior.misfits(joined.rows.weights)
        both = (cross + cross_omitted) @ shares.T
        joint += shares @ self._rows @ shares.T - both - both.T
        return shares, joint

    def between(self, left: Rows, here: Shares, right: Rows, there: Shares) -> Array:
        """Covariances of the errors of rows with those of others, without misfit, (n, m).

        Args:
            left, right: Of n and m values and slopes.
            here, there: Their shares.
        """
        errors = np.add(*self.prior.split(self.prior.powers(left, right)))
        errors = errors - (here[1] + here[2]) @ there[0].T - here[0] @ (there[1] + there[2]).T
        return np.asarray(errors + here[0] @ self._rows @ there[0].T)

    def shares(self, rows: Rows, powers: Array | None = None, same: Array | None = None) -> Shares:
        """How values and slopes are predicted.

        Args:
            rows: Of any weightings.
            powers: Of these with the fit's rows, where they are known.
            same: Which are merges with noise, whose misfit is that of their row.
        """
        n = len(self.rows.weights)
        powers = self.prior.powers(rows, self.rows) if powers is None else powers
        cross, omitted = self.prior.split(powers)
        if same is not None:
            cross = cross + self.prior.misfits(rows.weights)[:, None] * same
        sums = self.inverse[:, :n].sum(1)
        left = rows.ones - cross @ sums
        shares = cross @ self.inverse + np.outer(left, sums) / sums[:n].sum()
        return Shares(shares, cross, omitted)

    @cached_property
    def _rows(self) -> Array:
        """Covariance of the rows, shape (n_rows, n_rows)."""
        rows = self.prior.covariance(self.rows)
        return rows if self.noise is None else rows + self.noise
