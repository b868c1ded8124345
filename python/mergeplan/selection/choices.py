"""The best subset of each size: every subset where they can be listed, else search with a bound."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from mergeplan.selection.bounds import lower_bound
from mergeplan.selection.problem import Problem, equal_weights
from mergeplan.subset_law.law import NINE_IN_TEN

Array = NDArray[np.float64]
Members = NDArray[np.bool_]

# More subsets than these are searched, not listed. All of a pool of 20 are about as many, and took
# 8 s from 120 measured merges.
LISTED = 1_100_000
_CHUNK = 1 << 15
# A bound that is broken outweighs any value.
_PENALTY = 1e9


@dataclass(frozen=True)
class Choice:
    """One merge, and what is expected of it.

    Attributes:
        weights: By expert, only of those that take part.
        value: Measured where it was measured, else predicted.
        low, high: 90 % interval of a prediction; the value itself where it was measured.
        gap: At most so much worse than the best of its kind, by the predictions; 0 where all were
            listed.
    """

    weights: dict[str, float]
    value: float
    low: float
    high: float
    measured: bool = False
    gap: float = 0.0

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
        return _search(problem)
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


def _search(problem: Problem) -> dict[int, Choice]:
    """Grow and shrink by the best single change, then swap while it helps, from several starts."""
    n, most = problem.n_experts, problem.largest_k
    starts: dict[int, list[Members]] = {k: [] for k in range(1, n + 1)}
    for row in problem.law.weights:
        if abs(row.sum() - 1) < 1e-6 and np.ptp(row[row > 0]) < 1e-6:
            starts[int((row > 0).sum())].append(row > 0)
    best: dict[int, Members] = {}
    orders = [range(1, most + 1), range(most, 0, -1)]
    for order in orders:
        last: Members | None = None
        for k in order:
            tries = [*_nearest(problem, starts[k]), *([best[k]] if k in best else [])]
            if last is not None:
                tries.append(_changed(problem, last, k))
            elif k == 1 or not tries:
                tries.append(_changed(problem, np.zeros(n, np.bool_), k))
            improved = [_swap(problem, members) for members in tries]
            scores = _scores(problem, np.array(improved))
            best[k] = improved[int(np.argmin(scores))]
            last = best[k]
    found = {}
    for k, members in sorted(best.items()):
        weights = equal_weights(members[None])
        if problem.excess(weights)[0] > 0:
            continue
        cost = float(problem.costs(weights)[0])
        law = problem.law
        bound = lower_bound(law.series, k, sign=problem.sign, shrinkage=law.shrinkage)
        found[k] = choice_of(problem, weights[0], max(cost - bound, 0.0))
    return found


def _nearest(problem: Problem, measured: list[Members]) -> list[Members]:
    """The three best of the measured subsets."""
    if not measured:
        return []
    order = np.argsort(_scores(problem, np.array(measured)))
    return [measured[i] for i in order[:3]]


def _scores(problem: Problem, members: Members) -> Array:
    weights = equal_weights(members)
    scores: Array = problem.costs(weights) + _PENALTY * problem.excess(weights)
    return scores


def _changed(problem: Problem, members: Members, k: int) -> Members:
    """Add or take away the expert that leaves the best subset, until there are k."""
    while members.sum() != k:
        add = members.sum() < k
        tries = []
        for i in np.flatnonzero(members != add):
            changed = members.copy()
            changed[i] = add
            tries.append(changed)
        members = tries[int(np.argmin(_scores(problem, np.array(tries))))]
    return members


def _swap(problem: Problem, members: Members) -> Members:
    """Exchange one member for one outsider while that helps."""
    score = _scores(problem, members[None])[0]
    while True:
        inside, outside = np.flatnonzero(members), np.flatnonzero(~members)
        if not len(outside):
            return members
        tries = np.repeat(members[None], len(inside) * len(outside), axis=0)
        rows = np.arange(len(tries))
        tries[rows, np.repeat(inside, len(outside))] = False
        tries[rows, np.tile(outside, len(inside))] = True
        scores = _scores(problem, tries)
        at = int(np.argmin(scores))
        if scores[at] >= score - 1e-12:
            return members
        members, score = tries[at], scores[at]
