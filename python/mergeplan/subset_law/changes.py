"""What every subset one change away from a given one is predicted to give, from the series.

With x the indicator of k members and s = 1/k^shrinkage the form is
s·a·x + s²·xᵀQx + s³·T(x, x, x). Adding j, removing i or putting j for i changes x by one or two
entries, so that all changes follow from three contractions of T and Q with x: n³ operations for n²
neighbours, where a prediction of each on its own takes as many as there are rows, times n.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mergeplan.subset_law.form import Coefficients

Array = NDArray[np.float64]
Members = NDArray[np.bool_]


class Changes:
    """Neighbours of subsets by one fitted form."""

    def __init__(self, series: Coefficients, shrinkage: float = 1.0) -> None:
        self._series, self._shrinkage = series, shrinkage

    @cached_property
    def _twice(self) -> Array:
        """T_iij, shape (n, n)."""
        return np.asarray(np.einsum("iij->ij", self._series.cubic))

    def added(self, members: Members) -> Array:
        """Predicted value with each further expert, shape (n,); of members it means nothing.

        Args:
            members: Of the subset that is changed.

        Returns:
            In the unit of the values.
        """
        return self._one(members, 1.0)

    def removed(self, members: Members) -> Array:
        """Predicted value without each member, shape (n,); of others it means nothing.

        Args:
            members: Of the subset that is changed.

        Returns:
            In the unit of the values.
        """
        return self._one(members, -1.0)

    def swapped(self, members: Members) -> Array:
        """Predicted value with j in the place of i, shape (n, n) by i and j.

        Args:
            members: Of the subset that is changed.

        Returns:
            In the unit of the values; where i is no member, or j is one, it means nothing.
        """
        linear, (q_total, qx), (t_total, tx, txx) = self._contracted(members)
        series = self._series
        q, q_own = series.quadratic, np.diagonal(series.quadratic)
        own = np.diagonal(tx)
        t_own = np.diagonal(self._twice)
        a = linear - series.linear[:, None] + series.linear
        quadratic = q_total + 2 * (qx - qx[:, None]) + q_own + q_own[:, None] - 2 * q
        cubic = t_total + 3 * (txx - txx[:, None]) + 3 * (own + own[:, None] - 2 * tx)
        # T(d, d, d) for d with 1 at j and -1 at i.
        cubic += t_own - t_own[:, None] + 3 * (self._twice - self._twice.T)
        return self._weighed(a, quadratic, cubic, int(members.sum()))

    def _one(self, members: Members, sign: float) -> Array:
        linear, (q_total, qx), (t_total, tx, txx) = self._contracted(members)
        series = self._series
        quadratic = q_total + sign * 2 * qx + np.diagonal(series.quadratic)
        own = np.diagonal(self._twice)
        cubic = t_total + sign * (3 * txx + own) + 3 * np.diagonal(tx)
        k = int(members.sum() + sign)
        return self._weighed(linear + sign * series.linear, quadratic, cubic, k)

    def _contracted(
        self, members: Members
    ) -> tuple[float, tuple[float, Array], tuple[float, Array, Array]]:
        series = self._series
        inside = np.flatnonzero(members)
        qx = series.quadratic[:, inside].sum(1)  # (n,)
        tx = series.cubic[inside].sum(0)  # (n, n)
        txx = tx[:, inside].sum(1)  # (n,)
        linear = float(series.linear[inside].sum())
        return linear, (float(qx[inside].sum()), qx), (float(txx[inside].sum()), tx, txx)

    def _weighed(self, linear: Array, quadratic: Array, cubic: Array, k: int) -> Array:
        share = max(k, 1) ** -self._shrinkage
        value = self._series.constant + share * linear + share**2 * quadratic + share**3 * cubic
        return np.asarray(value)
