"""The best subset of each size: all listed, else searched with a bound."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from mergeplan.selection.problem import Problem, equal_weights
from mergeplan.selection.search import search
from mergeplan.subset_law.spread import NINE_IN_TEN

Array = NDArray[np.float64]
Members = NDArray[np.bool_]

# More subsets than these are searched, not listed. All of a pool of 20 are about as many, and took
# 8 s from 120 measured merges.
LISTED = 1_100_000
_CHUNK = 1 << 15


@dataclass(frozen=True)
class Choice:
    """One merge, and what is expected of it.

    Attributes:
        weights: By expert, only of those that take part.
        value: Measured where it was measured, else predicted.
        low, high: 90 % interval of a prediction; the value itself where it was measured.
        here: Of a metric whose items may move it, what was measured on the table's own items, and
            `value` is what others of their kind are expected to give; else `None`.
        gap: At most so much worse than the best of its kind, by the predictions; 0 where all were
            listed.
    """

    weights: dict[str, float]
    value: float
    low: float
    high: float
    measured: bool = False
    gap: float = 0.0
    here: float | None = None

    @property
    def subset(self) -> tuple[str, ...]:
        return tuple(sorted(self.weights))

    @property
    def k(self) -> int:
        return len(self.weights)

    @property
    def equal(self) -> bool:
        """Whether it is a plain subset, of equal shares that sum to 1."""
        return all(abs(weight * self.k - 1) < 1e-6 for weight in self.weights.values())


def choice_of(problem: Problem, weights: Array, gap: float = 0.0) -> Choice:
    """What is expected of one weighting, shape (n_experts,)."""
    law = problem.law
    value = float(problem.sign * problem.costs(weights[None])[0])
    measured = bool(np.isfinite(law.measured(weights[None])[0]))
    around = 0.0 if measured else NINE_IN_TEN * float(law.deviations(weights[None])[0])
    shares = {
        name: float(share) for name, share in zip(law.experts, weights, strict=True) if share > 0
    }
    return Choice(shares, value, value - around, value + around, measured, gap)


def best_by_size(problem: Problem) -> dict[int, Choice]:
    """The best subset of each k up to the most that may be merged; none where no subset will do."""
    n = problem.n_experts
    if sum(comb(n, k) for k in range(1, problem.largest_k + 1)) > LISTED:
        return {k: choice_of(problem, *found) for k, found in search(problem).items()}
    found = {}
    for k in range(1, problem.largest_k + 1):
        best = _best_listed(problem, k)
        if best is not None:
            found[k] = choice_of(problem, best)
    return found


def subsets_of_size(n_experts: int, k: int) -> Iterator[Members]:
    """Every subset of k as rows of booleans, in chunks of shape (n, n_experts)."""
    combinations = itertools.combinations(range(n_experts), k)
    while some := list(itertools.islice(combinations, _CHUNK)):
        members = np.zeros((len(some), n_experts), np.bool_)
        np.put_along_axis(members, np.array(some), True, axis=1)
        yield members


def _best_listed(problem: Problem, k: int) -> Array | None:
    best, lowest = None, np.inf
    for members in subsets_of_size(problem.n_experts, k):
        weights = equal_weights(members)
        costs = np.where(problem.excess(weights) > 0, np.inf, problem.costs(weights))
        at = int(np.argmin(costs))
        if costs[at] < lowest:
            best, lowest = weights[at], costs[at]
    return best
