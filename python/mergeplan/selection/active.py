"""Which subsets to measure: first to fit the form at all, then to find the best one.

The next ones are drawn by the law's own uncertainty (Thompson sampling): in how many of many draws
from its posterior is a subset the best? The same draws say how sure the answer is. A uniform map
would spend merges on subsets that are known to be bad.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from mergeplan.pool.designs import Subset, choose_subsets
from mergeplan.selection.choices import Choice, subsets_of_size
from mergeplan.selection.fit import NINE_IN_TEN
from mergeplan.selection.problem import Problem, equal_weights

Array = NDArray[np.float64]

_DRAWS = 1000
# Subsets that may be the best: those whose interval reaches lowest, at most so many.
_CANDIDATES = 400
# More subsets than these are not listed: neighbours of the best of each size stand for them.
_LISTED = 70_000


@dataclass(frozen=True)
class Confidence:
    """How sure the answer is, by draws from the posterior.

    Attributes:
        chance: That no other subset is better than the chosen one.
        regret: Expected value of the chosen subset less that of the best, 0 or more.
        next: Subsets that were not measured, the likeliest to be the best first.
    """

    chance: float
    regret: float
    next: tuple[Subset, ...]


def first_subsets(experts: Sequence[str], count: int, *, seed: int = 0) -> list[Subset]:
    """Subsets to fit the form to: every single expert, all of them, and some of middle sizes.

    A subset of a middle size holds the most pairs that no other has shown. On the real pool 30
    merges explain more of the variance with middle sizes than spread over all (0.87 and 0.80 for
    averages), and 60 no less. Within a size every expert takes part equally often.

    Args:
        count: How many; the base is measured beside them.

    >>> [len(subset) for subset in first_subsets("abcdef", 10)]
    [1, 1, 1, 1, 1, 1, 2, 3, 4, 6]
    """
    names = sorted(experts)
    n = len(names)
    found: list[Subset] = [(name,) for name in names]
    if n > 1:
        found.append(tuple(names))
    middle = range(max(round(n / 3), 2), n - round(n / 3) + 1)
    # What the middle third has no room for comes from the outer sizes.
    for sizes in (middle, [k for k in range(2, n) if k not in middle]):
        room = {k: comb(n, k) for k in sizes if k < n}
        share = dict.fromkeys(room, 0)
        left = min(max(count - len(found), 0), sum(room.values()))
        while left:
            k = min((k for k in room if share[k] < room[k]), key=lambda k: share[k])
            share[k] += 1
            left -= 1
        for k, some in share.items():
            if some:
                found += choose_subsets("balanced", names, k, some, seed=seed)
    return sorted(found[:count], key=lambda subset: (len(subset), subset))


def confidence_of(
    problem: Problem, chosen: Choice, others: Sequence[Choice] = (), *, count: int = 5
) -> Confidence:
    """How sure a choice is, and what to measure next.

    Args:
        others: Further good subsets; where the pool is too large to list, their neighbours compete.
        count: How many subsets to name.
    """
    law = problem.law
    weights = _candidates(problem, [chosen, *others])
    own = np.array([chosen.weights.get(name, 0.0) for name in law.experts])
    weights = np.vstack([own, weights[np.abs(weights - own).max(1) > 1e-9]])
    known = np.isfinite(law.measured(weights))
    expected = problem.costs(weights)
    covariance = law.covariances(weights)
    # A measured subset is as good as its measurement.
    covariance[known] = 0.0
    covariance[:, known] = 0.0
    values, vectors = np.linalg.eigh(covariance)
    # The symmetric root: eigenvectors of equal eigenvalues, which rounding turns, do not matter.
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    normal = np.random.default_rng(0).standard_normal((_DRAWS, len(expected)))
    draws = expected + normal @ root  # (draws, candidates)
    wins = np.bincount(draws.argmin(1), minlength=len(expected))
    order = [int(i) for i in np.lexsort((expected, -wins)) if not known[i]]
    return Confidence(
        chance=float(wins[0]) / _DRAWS,
        regret=float(np.mean(draws[:, 0] - draws.min(1))),
        next=tuple(_names(law.experts, weights[i]) for i in order[:count]),
    )


def _candidates(problem: Problem, good: Sequence[Choice]) -> Array:
    n = problem.n_experts
    if 2**n <= _LISTED:
        sizes = range(1, problem.largest_k + 1)
        members = np.vstack([chunk for k in sizes for chunk in subsets_of_size(n, k)])
    else:
        members = _neighbours(problem, good)
    weights = equal_weights(members)
    weights = weights[problem.excess(weights) <= 0]
    if not len(weights):
        return weights
    spread = problem.law.deviations(weights)
    lowest = problem.costs(weights) - NINE_IN_TEN * spread
    chosen: Array = weights[np.argsort(lowest, kind="stable")[:_CANDIDATES]]
    return chosen


def _neighbours(problem: Problem, good: Sequence[Choice]) -> NDArray[np.bool_]:
    """Subsets one change away from a good one, and the good ones."""
    found = set()
    for choice in good:
        members = tuple(name in choice.weights for name in problem.law.experts)
        found.add(members)
        for i in range(problem.n_experts):
            changed = (*members[:i], not members[i], *members[i + 1 :])
            if 0 < sum(changed) <= problem.largest_k:
                found.add(changed)
    return np.array(sorted(found), np.bool_)


def _names(experts: tuple[str, ...], weights: Array) -> Subset:
    return tuple(name for name, share in zip(experts, weights, strict=True) if share > 0)
