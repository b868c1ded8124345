"""Means of the form over all subsets of a size, in closed form, for a pool of any size.

Over random subsets of k of n experts, r different ones are all inside with the chance
p_r = k(k-1)…/(n(n-1)…), r factors each. So the mean of Σ a_i, Σ Q_ij and Σ T_ijl over the members
needs only the sums of a, of Q and T over all experts, and over indices that coincide. The mean over
subsets without one expert, or with it, needs the same sums less its own terms.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergeplan.subset_law.form import Coefficients
from mergeplan.subset_law.mean_products import chances

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Sums:
    """Of a, Q_ii, Q, T_iii, T_iij and T over some experts; a number each, or one for each expert
    that is left out, shape (n,)."""

    a: Array
    q_own: Array
    q: Array
    t_own: Array
    t_pair: Array
    t: Array


def mean_of_size(series: Coefficients, k: int, shrinkage: float = 1.0) -> float:
    """Mean over all subsets of k experts, in the unit of the values.

    Args:
        series: Of the form.
        k: Experts in each subset.
        shrinkage: Power of k that a share is 1 over; see `fit.seen`.

    Returns:
        One number.
    """
    sums = _all(series)
    n = len(series.linear)
    by_degree = _means(sums, chances(k, n))
    return float(series.constant + _weigh(by_degree, k**-shrinkage))


def mean_changes(series: Coefficients, k: int, shrinkage: float = 1.0) -> Array:
    """Mean change as each expert joins a subset of k others, over all of those, shape (n,).

    Args:
        series: Of the form.
        k: Experts in a subset before one joins it.
        shrinkage: As for `mean_of_size`.

    Returns:
        In the unit of the values; below 0 where the expert takes something off.
    """
    rest = _without_each(series)
    inside = chances(k, len(series.linear) - 1)
    without = _means(rest, inside)
    with_it = _means_beside(series, rest, without, inside)
    return np.asarray(_weigh(with_it, (k + 1) ** -shrinkage) - _weigh(without, k**-shrinkage))


def _weigh(by_degree: tuple[Array, Array, Array], share: float) -> Array:
    a, q, t = by_degree
    return np.asarray(share * a + share**2 * q + share**3 * t)


def _means(sums: _Sums, inside: tuple[float, float, float]) -> tuple[Array, Array, Array]:
    one, two, three = inside
    different = sums.t - 3 * sums.t_pair + 2 * sums.t_own
    return (
        one * sums.a,
        one * sums.q_own + two * (sums.q - sums.q_own),
        one * sums.t_own + 3 * two * (sums.t_pair - sums.t_own) + three * different,
    )


def _means_beside(
    series: Coefficients,
    rest: _Sums,
    without: tuple[Array, Array, Array],
    inside: tuple[float, float, float],
) -> tuple[Array, Array, Array]:
    """The same of the subsets with each expert in addition, shape (n,) each."""
    one, two, _ = inside
    q, t = series.quadratic, series.cubic
    q_own, t_own = np.diagonal(q), np.einsum("iii->i", t)
    beside = q.sum(1) - q_own
    # Σ_j T_iij and Σ_j T_ijj over the others, and Σ_jl T_ijl over two different others.
    twice = np.einsum("iij->i", t) - t_own
    others = np.einsum("ijj->i", t) - t_own
    two_others = t.sum((1, 2)) - 2 * twice - others - t_own
    return (
        without[0] + series.linear,
        without[1] + q_own + 2 * one * beside,
        without[2] + t_own + 3 * one * (twice + others) + 3 * two * two_others,
    )


def _all(series: Coefficients) -> _Sums:
    q, t = series.quadratic, series.cubic
    return _Sums(
        series.linear.sum(),
        np.trace(q),
        q.sum(),
        np.einsum("iii->", t),
        np.einsum("iij->", t),
        t.sum(),
    )


def _without_each(series: Coefficients) -> _Sums:
    """Sums over all experts but one, for each that is left out, shape (n,) each."""
    whole, q, t = _all(series), series.quadratic, series.cubic
    q_own, t_own = np.diagonal(q), np.einsum("iii->i", t)
    twice, others = np.einsum("iij->i", t), np.einsum("ijj->i", t)  # Σ_j T_iij, Σ_j T_ijj
    return _Sums(
        whole.a - series.linear,
        whole.q_own - q_own,
        whole.q - 2 * q.sum(1) + q_own,
        whole.t_own - t_own,
        whole.t_pair - twice - others + t_own,
        whole.t - 3 * t.sum((1, 2)) + 3 * twice - t_own,
    )
