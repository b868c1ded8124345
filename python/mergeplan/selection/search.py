"""The best subset of each size of a pool that is too large to list: steps, and a bound.

Subsets grow and shrink by the best single change, and swap experts while that helps, from several
starts. Steps go by the form alone (`subset_law.changes`); what they end in is polished with
measured values in the place of predicted ones.
"""

import numpy as np
from numpy.typing import NDArray

from mergeplan.selection.bounds import lower_bound
from mergeplan.selection.problem import Problem, equal_weights
from mergeplan.subset_law.changes import Changes

Array = NDArray[np.float64]
Members = NDArray[np.bool_]

# A bound that is broken outweighs any value.
_PENALTY = 1e9
# Measured subsets of a size to start from.
_STARTS = 3


def search(problem: Problem) -> dict[int, tuple[Array, float]]:
    """The best found of each k that keeps the bounds.

    Args:
        problem: What is to be low, and within which bounds.

    Returns:
        By k, its weights of shape (n_experts,), and by how much a better one may be predicted lower
        at most.
    """
    law = problem.law
    found = {}
    for k, members in sorted(_best_of_sizes(problem).items()):
        weights = equal_weights(members[None])
        if problem.excess(weights)[0] > 0:
            continue
        cost = float(problem.costs(weights)[0])
        bound = lower_bound(law.series, k, sign=problem.sign, shrinkage=law.shrinkage)
        found[k] = weights[0], max(cost - bound, 0.0)
    return found


def _best_of_sizes(problem: Problem) -> dict[int, Members]:
    n, most = problem.n_experts, problem.largest_k
    steps = _Steps(problem)
    starts = {k: _nearest(problem, some) for k, some in _measured(problem).items()}
    best: dict[int, Members] = {}
    for order in (range(1, most + 1), range(most, 0, -1)):
        last = np.zeros(n, np.bool_)
        for k in order:
            tries = [*starts.get(k, []), *([best[k]] if k in best else [])]
            if last.any() or k == 1 or not tries:
                tries.append(steps.resized(last, k))
            improved = [steps.swapped(members) for members in tries]
            best[k] = last = improved[int(np.argmin(_scores(problem, np.array(improved))))]
    polished = {k: _polished(problem, members) for k, members in best.items()}
    return {k: _lowest(problem, [own, *starts.get(k, [])[:1]]) for k, own in polished.items()}


def _measured(problem: Problem) -> dict[int, list[Members]]:
    """Plain subsets that were measured, by size."""
    found: dict[int, list[Members]] = {}
    for row in problem.law.weights:
        if abs(row.sum() - 1) < 1e-6 and np.ptp(row[row > 0]) < 1e-6:
            found.setdefault(int((row > 0).sum()), []).append(row > 0)
    return found


def _nearest(problem: Problem, measured: list[Members]) -> list[Members]:
    """The best of the measured subsets, the best first."""
    order = np.argsort(_scores(problem, np.array(measured)), kind="stable")
    return [measured[i] for i in order[:_STARTS]]


def _lowest(problem: Problem, tries: list[Members]) -> Members:
    return tries[int(np.argmin(_scores(problem, np.array(tries))))]


def _scores(problem: Problem, members: Members) -> Array:
    weights = equal_weights(members)
    scores: Array = problem.costs(weights) + _PENALTY * problem.excess(weights)
    return scores


class _Steps:
    """Single changes by the forms of what is to be small and of what is bounded."""

    def __init__(self, problem: Problem) -> None:
        self._sign = problem.sign
        self._law = Changes(problem.law.series, problem.law.shrinkage)
        self._bounds = [
            (constraint, Changes(law.series, law.shrinkage)) for constraint, law in problem.bounds
        ]

    def resized(self, members: Members, k: int) -> Members:
        """Add or take away the expert that leaves the best subset, until there are k."""
        while members.sum() != k:
            add = bool(members.sum() < k)
            scores = self._scores("added" if add else "removed", members)
            scores[members == add] = np.inf
            members = members.copy()
            members[int(np.argmin(scores))] = add
        return members

    def swapped(self, members: Members) -> Members:
        """Exchange one member for one outsider while that helps."""
        lowest = np.inf
        while not members.all():
            scores = self._scores("swapped", members)
            # In the place of itself, a member leaves what there is.
            lowest = min(lowest, float(scores[np.argmax(members), np.argmax(members)]))
            scores[~members] = np.inf
            scores[:, members] = np.inf
            i, j = np.unravel_index(int(np.argmin(scores)), scores.shape)
            if scores[i, j] >= lowest - 1e-12:
                break
            members = members.copy()
            members[i], members[j] = False, True
        return members

    def _scores(self, change: str, members: Members) -> Array:
        scores = self._sign * getattr(self._law, change)(members)
        for constraint, law in self._bounds:
            over = getattr(law, change)(members) - constraint.limit
            scores += _PENALTY * np.maximum(over if constraint.below else -over, 0)
        return np.asarray(scores)


def _polished(problem: Problem, members: Members) -> Members:
    """Swap while that helps, with measured values where they are known."""
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
