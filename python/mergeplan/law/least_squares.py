"""Least squares by variable projection: linear coefficients are solved exactly and are never
negative, inside a bounded search over the few that are not linear (Golub and Pereyra, 1973)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Design = Callable[[Array], Array]

_COARSE = 400
_RANDOM = 300
_STARTS = 6
_EXACT = 1e-15


@dataclass(frozen=True)
class LeastSquaresFit:
    """A least-squares fit.

    Attributes:
        shape: The coefficients that were searched, shape (n_shape,).
        linear: The coefficients that were solved, shape (n_linear,), none negative.
        cost: Weighted sum of squared residuals.
    """

    shape: Array
    linear: Array
    cost: float


def solve_linear(design: Array, loss: Array, weights: Array) -> tuple[Array, Array]:
    """Non-negative linear least squares.

    Args:
        design: Shape (n, n_linear).
        loss, weights: Shape (n,).

    Returns:
        Coefficients, shape (n_linear,), and weighted residuals, shape (n,).
    """
    from scipy.optimize import nnls

    root = np.sqrt(weights)
    scaled = design * root[:, None]
    # Columns of very different length would leave the solver short of digits.
    length = np.linalg.norm(scaled, axis=0)
    length[length == 0] = 1.0
    found, _ = nnls(scaled / length, loss * root)
    linear = found / length
    return linear, (loss - design @ linear) * root


def huber(residuals: Array) -> Array:
    """Factors on weights that let a residual far from the others count linearly, not squared.

    Args:
        residuals: Weighted, shape (n,).
    """
    size = np.abs(residuals)
    scale = max(1.4826 * float(np.median(size)), 1e-12)
    return np.asarray(np.minimum(1.0, 1.345 * scale / np.maximum(size, 1e-300)))


def project(
    design: Design,
    loss: Array,
    weights: Array,
    bounds: Sequence[tuple[float, float]],
    seed: int = 0,
) -> LeastSquaresFit:
    """Fit `design(shape) @ linear` to `loss`.

    Args:
        design: Makes the matrix, shape (n, n_linear), from the searched coefficients.
        bounds: Of each searched coefficient, on the scale on which steps are even.
        seed: Of the points from which the best are taken as starts.
    """
    from scipy.optimize import least_squares

    low, high = np.array(bounds, np.float64).T

    def residuals(shape: Array) -> Array:
        return solve_linear(design(shape), loss, weights)[1]

    if len(low) == 1:
        points = np.linspace(low, high, _COARSE)
    else:
        inside = np.random.default_rng(seed).random((_RANDOM, len(low)))
        points = np.concatenate([low + inside * (high - low), [low, high, (low + high) / 2]])
    costs = np.array([float((residuals(point) ** 2).sum()) for point in points])
    best: LeastSquaresFit | None = None
    for number in np.argsort(costs, kind="stable")[:_STARTS]:
        start = np.clip(points[number], low + 1e-9 * (high - low), high - 1e-9 * (high - low))
        found = least_squares(
            residuals,
            start,
            bounds=(low, high),
            jac="3-point",
            xtol=_EXACT,
            ftol=_EXACT,
            gtol=_EXACT,
            x_scale=high - low,
            max_nfev=200,
        )
        # The search stays inside its box: the edge itself is tried for each coefficient.
        for shape in (found.x, *_edges(found.x, low, high)):
            linear, rest = solve_linear(design(shape), loss, weights)
            cost = float((rest**2).sum())
            if best is None or cost < best.cost:
                best = LeastSquaresFit(np.asarray(shape), linear, cost)
    assert best is not None
    return best


def _edges(shape: Array, low: Array, high: Array) -> list[Array]:
    near = []
    for i in range(len(shape)):
        for edge in (low[i], high[i]):
            if abs(shape[i] - edge) < 0.01 * (high[i] - low[i]):
                moved = shape.copy()
                moved[i] = edge
                near.append(moved)
    return near


def aicc(cost: float, n: int, p: int) -> float:
    """Akaike's criterion for small samples: the least is best (Burnham and Anderson, 2002).

    Args:
        cost: Weighted sum of squares.
        n: Values that were fitted, more than p + 1.
        p: Coefficients.
    """
    return n * float(np.log(max(cost, 1e-300) / n)) + 2 * p + 2 * p * (p + 1) / (n - p - 1)
