"""Which subsets to measure: first to fit the form at all, then to find the best one.

The next ones are drawn by the law's own uncertainty (Thompson sampling): in how many of many draws
is a subset the best? The same draws say how sure the answer is. A uniform map would spend merges on
subsets that are known to be bad.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from mergeplan.pool.designs import Subset, choose_subsets
from mergeplan.selection.choices import Choice
from mergeplan.selection.draws import Draws

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Confidence:
    """How sure the answer is on this text, by joint draws.

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


def confidence_of(draws: Draws, chosen: Choice, *, count: int = 5) -> Confidence:
    """How sure a choice is, and what to measure next.

    Args:
        draws: Of the choice and of what else may be the best.
        count: How many subsets to name.
    """
    at = draws.place(chosen)
    wins = wins_of(draws.costs)
    # Of equals, the chosen one is as good as the best.
    lowest = draws.costs.min(1)
    order = [int(i) for i in np.lexsort((draws.expected, -wins)) if not draws.known[i]]
    experts = draws.problem.law.experts
    return Confidence(
        chance=float(np.mean(draws.costs[:, at] <= lowest)),
        regret=float(np.mean(draws.costs[:, at] - lowest)),
        next=tuple(names_of(experts, draws.weights[i]) for i in order[:count]),
    )


def wins_of(costs: Array) -> NDArray[np.int64]:
    """In how many draws each candidate is the lowest; costs of shape (draws, n)."""
    return np.asarray(np.bincount(costs.argmin(1), minlength=costs.shape[1]))


def names_of(experts: tuple[str, ...], weights: Array) -> Subset:
    """The experts that take part."""
    return tuple(name for name, share in zip(experts, weights, strict=True) if share > 0)
