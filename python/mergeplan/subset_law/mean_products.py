"""Covariances of the prior, averaged over all subsets of a size, in closed form for any pool.

A covariance of a merge α with another is Σ_d (αᵀβ)^d and a part that both have in common
(`form`). The mean of (αᵀβ)^d over all subsets of k follows from the share of them that hold one,
two or three given experts, and from the power sums of β: those of subsets of one size are alike.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mergeplan.subset_law.form import COMMON, HIGHEST_DEGREE, parts_of

Array = NDArray[np.float64]
Size = TypeVar("Size", float, Array)


@dataclass(frozen=True)
class Sizes:
    """All subsets of k, for several k.

    Attributes:
        ks: Shape (n_ks,).
        n_experts: In the pool.
        beside: What `form.points_of` has beside the weights: the root of the mean of u_α², and the
            power sums, shape (n_ks, 1 + HIGHEST_DEGREE).
    """

    ks: Array
    n_experts: int
    beside: Array

    @classmethod
    def of(cls, ks: Array, contrast: Array) -> "Sizes":
        """Of a pool.

        Args:
            ks: The sizes, shape (n_ks,).
            contrast: u of `form`, shape (n_experts,).

        Returns:
            The sizes, with what their subsets have beside weights.
        """
        one, two, _ = chances(ks, len(contrast))
        square = (one - two) * (contrast @ contrast) + two * contrast.sum() ** 2
        sums = [ks ** (1.0 - d) for d in range(1, HIGHEST_DEGREE + 1)]
        return cls(ks, len(contrast), np.column_stack([np.sqrt(square) / ks, *sums]))


def mean_products(sizes: Sizes, others: Array, degree: int) -> Array:
    """Mean covariances of unit variance of all subsets of each size with others.

    Args:
        others: Points of weightings without geometry, or `Sizes.beside`; shape (n, …).

    Returns:
        Shape (degree, n_ks, n).
    """
    one, two, three = (chance[:, None] for chance in chances(sizes.ks, sizes.n_experts))
    q1, q2, q3 = others[:, -HIGHEST_DEGREE:].T
    inner = (
        one * q1,
        one * q2 + two * (q1**2 - q2),
        one * q3 + 3 * two * (q1 * q2 - q3) + three * (q1**3 - 3 * q1 * q2 + 2 * q3),
    )
    ours, theirs = parts_of(sizes.beside)[1], parts_of(others)[1]
    return np.stack(
        [
            inner[d] / sizes.ks[:, None] ** (d + 1) + COMMON * ours[d] @ theirs[d].T
            for d in range(degree)
        ]
    )


def chances(k: Size, n_experts: int) -> tuple[Size, Size, Size]:
    """That one, two and three given experts are all in a random subset.

    Args:
        k: Of the subset; a number, or several, shape (n_ks,).
        n_experts: In the pool.

    Returns:
        As many numbers each as `k` has.
    """
    one = k / n_experts
    two = one * (k - 1) / max(n_experts - 1, 1)
    return one, two, two * (k - 2) / max(n_experts - 2, 1)
