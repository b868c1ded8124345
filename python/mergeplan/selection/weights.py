"""The best weights: a smooth problem on the simplex, or on a range of sums that was measured."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mergeplan.selection.choices import Choice, choice_of
from mergeplan.selection.problem import Constraint, Problem
from mergeplan.subset_law.law import SubsetLaw

if TYPE_CHECKING:
    from scipy.optimize import NonlinearConstraint

Array = NDArray[np.float64]

# A smaller share of an expert is none: merging it would cost its reading and change nothing.
_SMALLEST = 0.005
# How far a bound may be missed by rounding.
_TOLERANCE = 1e-7


def best_weights(
    problem: Problem, starts: Iterable[Choice], largest_sum: float | None = None
) -> Choice | None:
    """The weights that minimise the prediction; none where the bounds cannot be met.

    The series is no convex function in general: the search begins at each of the starts, and keeps
    the best.

    Args:
        starts: Subsets to begin at. Where the number of experts is bounded, only their experts take
            part.
        largest_sum: Of the weights, which may then sum to anything from 0 to this; `None` to keep
            the sum at 1.
    """
    best: tuple[float, Array] | None = None
    for start in starts:
        begin = np.array([start.weights.get(name, 0.0) for name in problem.law.experts])
        allowed = begin > 0
        if problem.largest_k == problem.n_experts:
            allowed[:] = True
        weights = _descend(problem, begin, allowed, largest_sum)
        weights = _without_crumbs(problem, weights, largest_sum)
        if problem.excess(weights[None], known=False)[0] > _TOLERANCE:
            continue
        cost = float(problem.costs(weights[None], known=False)[0])
        if best is None or cost < best[0]:
            best = cost, weights
    return None if best is None else choice_of(problem, best[1])


def _without_crumbs(problem: Problem, weights: Array, largest_sum: float | None) -> Array:
    """Leave out shares that are next to nothing, and settle the others anew."""
    kept = weights >= _SMALLEST * max(weights.sum(), _SMALLEST)
    if kept.all() or not kept.any():
        return weights
    begin = np.where(kept, weights, 0.0)
    begin *= weights.sum() / begin.sum()
    return _descend(problem, begin, kept, largest_sum)


def _descend(
    problem: Problem, begin: Array, allowed: NDArray[np.bool_], largest_sum: float | None
) -> Array:
    # Here, since its import takes as long as all that `suggest` does, which needs no weights.
    from scipy.optimize import Bounds, LinearConstraint, minimize

    # In units of the law's own spread, or the optimiser's tolerance is none for small differences.
    unit = float(np.std(problem.law.values)) or 1.0
    exact = problem.law.shrinkage == 1
    lowest, highest = (1.0, 1.0) if largest_sum is None else (0.0, largest_sum)
    conditions: list[LinearConstraint | NonlinearConstraint] = [
        LinearConstraint(np.ones(len(begin)), lowest, highest)
    ]
    conditions += [_condition(constraint, law) for constraint, law in problem.bounds]
    found = minimize(
        lambda w: problem.sign * problem.law.predict(w[None])[0] / unit,
        begin,
        jac=(lambda w: problem.sign * gradient(problem.law, w) / unit) if exact else None,
        method="SLSQP",
        bounds=Bounds(np.zeros(len(begin)), np.where(allowed, max(highest, 1.0), 0.0)),
        constraints=conditions,
        options={"ftol": 1e-10, "maxiter": 500},
    )
    weights: Array = np.maximum(found.x, 0.0)
    if largest_sum is None:
        weights /= weights.sum()
    return weights


def _condition(constraint: Constraint, law: SubsetLaw) -> "NonlinearConstraint":
    from scipy.optimize import NonlinearConstraint

    below = constraint.below
    return NonlinearConstraint(
        lambda w: law.predict(w[None])[0],
        -np.inf if below else constraint.limit,
        constraint.limit if below else np.inf,
        jac=(lambda w: gradient(law, w)[None]) if law.shrinkage == 1 else "2-point",
    )


def gradient(law: SubsetLaw, weights: Array) -> Array:
    """Change of the prediction with each weight, shape (n_experts,); for a shrinkage of 1."""
    series = law.series
    slope: Array = (
        series.linear
        + 2 * series.quadratic @ weights
        + 3 * np.einsum("ijl,j,l->i", series.cubic, weights, weights)
    )
    return slope
