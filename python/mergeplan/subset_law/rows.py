"""What a law is fitted to: values of the form, and slopes of it by the experts' weights.

Both are linear functionals of one function, so that one kernel gives all covariances. It is a
polynomial k(p, q) in the points p(α) of `form.points_of`; with t = ∂p/∂α_i the covariances of a
slope with a value and with a slope are its derivatives along t. For the degrees, with x and y the
weights in the geometry, v = x·y, and s and t two tangents of them,

    value, value: v^d    slope, value: d·v^(d-1)·(s·y)
    slope, slope: d·v^(d-1)·(s·t) + d·(d-1)·v^(d-2)·(s·y)·(x·t)

and what coefficients have in common is an inner product of c_d(α), or of its derivatives.

The form is a Taylor series of three degrees, and slopes show what it leaves out: at a single
expert, of weight 1, far more than at a merge of many. So each point has a misfit of its own, of
value and slopes together, with the covariance (αᵀGβ)^`REMAINDER` where α and β are one point, else
none; beside it slopes have a misfit of their own, which is as large everywhere.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergeplan.subset_law.form import (
    COMMON,
    HIGHEST_DEGREE,
    Coefficients,
    parts_of,
    points_of,
    products,
)

Array = NDArray[np.float64]

# What is left of a cubic series is of degree four. The sixth predicts better all the same, and its
# intervals hold the more evenly: see docs/evidence/select.md.
REMAINDER = 6
# Parts of the prior that are of a row alone, where there are slopes: remainder and slopes' misfit.
OWN = 2


@dataclass(frozen=True)
class Rows:
    """Values at points, and after them the slopes by every weight at some of these.

    Attributes:
        weights: Shape (n, n_experts).
        sloped: Places of the points with slopes, shape (n_sloped,).
    """

    weights: Array
    sloped: NDArray[np.intp]

    @classmethod
    def of(cls, weights: Array, slopes: Array | None = None) -> "Rows":
        """Rows of what was measured.

        Args:
            weights: Shape (n, n_experts).
            slopes: Shape (n, n_experts), NaN where a point has none; `None` for no slopes at all.
        """
        there = np.zeros(len(weights), np.bool_) if slopes is None else np.isfinite(slopes).all(1)
        return cls(weights, np.flatnonzero(there))

    @property
    def ones(self) -> Array:
        """What a constant adds to each row: 1 to a value, nothing to a slope."""
        return (np.arange(len(self.places)) < len(self.weights)).astype(np.float64)

    @property
    def places(self) -> NDArray[np.intp]:
        """Of which point each row is."""
        n, m = self.weights.shape
        return np.concatenate([np.arange(n), np.repeat(self.sloped, m)])

    def seen(self, weights: Array, geometry: Array, contrast: Array) -> "Points":
        """The rows as a law's prior sees them.

        Args:
            weights: As `weightings.seen` gives them; the same where there are slopes.
        """
        tangents = [np.zeros((0, geometry.shape[1] + 1 + HIGHEST_DEGREE))]
        for row in weights[self.sloped]:
            powers = [d * row ** (d - 1) for d in range(1, HIGHEST_DEGREE + 1)]
            tangents.append(np.column_stack([geometry, contrast, *powers]))
        points = points_of(weights, geometry, contrast)
        return Points(points, np.concatenate(tangents), self.places[len(weights) :])


@dataclass(frozen=True)
class Points:
    """Rows in a prior's own coordinates.

    Attributes:
        points: See `form.points_of`, shape (n, n_coordinates).
        tangents: Their change with a weight, one for each slope, shape (n_slopes, n_coordinates).
        places: Of which point each tangent is, shape (n_slopes,).
    """

    points: Array
    tangents: Array
    places: NDArray[np.intp]

    def common(self) -> tuple[Array, ...]:
        """c_1 to c_3 of the values, and their derivatives for the slopes, (n_rows, 1 or 3) each."""
        values = parts_of(self.points)[1]
        u, s1, s2, _ = self.points[self.places, -1 - HIGHEST_DEGREE :].T
        du, d1, d2, d3 = self.tangents[:, -1 - HIGHEST_DEGREE :].T
        slopes = (
            [d1],
            [2 * s1 * d1, d2, 2 * u * du],
            [3 * s1**2 * d1, d1 * s2 + s1 * d2, d3],
        )
        each = zip(values, slopes, strict=True)
        return tuple(np.concatenate([c, np.stack(some, axis=1)]) for c, some in each)

    def own_parts(self) -> Array:
        """Covariances of unit variance of what no other point has a part in: the remainder, and the
        slopes' misfit.

        Returns:
            Shape (OWN, n_rows, n_rows), and (0, n_rows, n_rows) where there are no slopes.
        """
        n = len(self.points)
        size = n + len(self.places)
        if size == n:
            return np.zeros((0, n, n))
        places = np.concatenate([np.arange(n), self.places])
        remainder = _power(self, self, REMAINDER) * (places[:, None] == places)
        return np.stack([remainder, np.diag((np.arange(size) >= n).astype(np.float64))])

    def remainders(self) -> Array:
        """The remainder of each value in units of its variance, shape (n,)."""
        return np.asarray((parts_of(self.points)[0] ** 2).sum(1) ** REMAINDER)


def covariances(left: Points, right: Points, degree: int) -> Array:
    """Covariances of unit variance of rows with rows, one matrix for each degree.

    Args:
        left, right: Of n and m rows.

    Returns:
        Shape (degree, n, m).
    """
    if not len(left.tangents) and not len(right.tangents):
        return products(left.points, right.points, degree)
    ours, theirs = left.common(), right.common()
    return np.stack(
        [_power(left, right, d + 1) + COMMON * ours[d] @ theirs[d].T for d in range(degree)]
    )


def _power(left: Points, right: Points, d: int) -> Array:
    """(αᵀGβ)^d and its derivatives, d 1 or more."""
    x, y = parts_of(left.points)[0], parts_of(right.points)[0]
    s, t = parts_of(left.tangents)[0], parts_of(right.tangents)[0]
    at, to = left.places, right.places
    inner = x @ y.T
    slope = d * inner ** (d - 1)
    bend = d * (d - 1) * inner ** max(d - 2, 0)
    sy, xt = s @ y.T, x @ t.T
    both = slope[np.ix_(at, to)] * (s @ t.T) + bend[np.ix_(at, to)] * sy[:, to] * xt[at]
    return np.block([[inner**d, slope[:, to] * xt], [slope[at] * sy, both]])


def coefficients(
    constant: float,
    duals: Array,
    rows: Points,
    variances: Array,
    geometry: Array,
    contrast: Array,
) -> Coefficients:
    """The series of a fit in its dual form, constant + Σ_n duals_n · covariance with row n.

    Args:
        duals: Shape (n_rows,).
        rows: What was fitted.
        variances: One for each degree.
    """
    by_degree = np.zeros(HIGHEST_DEGREE)
    by_degree[: len(variances)] = variances
    x = parts_of(rows.points)[0] @ geometry.T
    n = len(x)
    # The slopes of a point together are one slope along the sum of their tangents.
    along = np.zeros_like(x)
    np.add.at(along, rows.places, duals[n:, None] * (parts_of(rows.tangents)[0] @ geometry.T))
    (a,), (q, q_own, q_alike), (t, t_pair, t_own) = (COMMON * duals @ c for c in rows.common())
    eye, place = np.eye(x.shape[1]), np.arange(x.shape[1])
    quadratic = np.einsum("n,ni,nj->ij", duals[:n], x, x, optimize=True) + q + q_own * eye
    quadratic += q_alike * np.outer(contrast, contrast) + along.T @ x + x.T @ along
    cubic = np.einsum("n,ni,nj,nl->ijl", duals[:n], x, x, x, optimize=True) + t
    for places in ("i,nj,nl", "j,ni,nl", "l,ni,nj"):
        cubic += np.einsum(f"n{places}->ijl", along, x, x, optimize=True)
    # Each of the three ways to pair two equal experts with a third.
    cubic += t_pair / 3 * (eye[:, :, None] + eye[:, None, :] + eye[None, :, :])
    cubic[place, place, place] += t_own
    return Coefficients(
        constant=constant,
        linear=by_degree[0] * (duals[:n] @ x + along.sum(0) + a),
        quadratic=by_degree[1] * quadratic,
        cubic=by_degree[2] * cubic,
    )
