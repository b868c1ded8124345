"""Which subsets to measure: first to fit the form at all, then to find the best one.

The next ones are drawn by the law's own uncertainty (Thompson sampling): in how many of many draws
is a subset the best? The same draws say how sure the answer is. A uniform map would spend merges on
subsets that are known to be bad.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, comb

import numpy as np
from numpy.typing import NDArray

from mergeplan.pool.designs import Subset, choose_subsets
from mergeplan.selection.choices import Choice
from mergeplan.selection.draws import Draws
from mergeplan.selection.texts import Texts, Unknown
from mergeplan.subset_law.law import NINE_IN_TEN

Array = NDArray[np.float64]

# What is the best in fewer draws is no rival, and more rivals than these are not named.
_MAY_BE_BEST, _RIVALS = 0.02, 5
# Standard deviations that nine of ten draws of a normal variable stay below.
_ONE_SIDED = 1.2815515655446004
# More groups of documents than these part nothing.
_MOST_GROUPS = 100_000


@dataclass(frozen=True)
class Confidence:
    """How sure the answer is, by joint draws.

    Attributes:
        chance: That no other subset is better than the chosen one on this text; `None` for a
            metric whose values have errors, of items that have no scores of their own.
        regret: Expected value of the chosen subset less that of the best on this text, 0 or more.
        next: Subsets that were not measured, the likeliest to be the best first.
        chance_on_texts: The same chance on texts of this kind; `None` where nothing tells it.
        unknown: Why it is not told.
        no_chance: Whether that is since a domain has too few documents, or a metric's items have
            no scores: then no chance is said at all, lest that on this text be taken for more.
        rivals: Which others may be the best on texts of this kind, the likeliest first.
        groups_needed: Groups of documents a domain that would tell the first of them apart.
        unpaired: For a metric with errors, the best other measured subset and what bounds the
            difference.
    """

    chance: float | None
    regret: float
    next: tuple[Subset, ...]
    chance_on_texts: float | None = None
    unknown: str = ""
    no_chance: bool = False
    rivals: tuple[Subset, ...] = ()
    groups_needed: int | None = None
    unpaired: "Unpaired | None" = None


@dataclass(frozen=True)
class Unpaired:
    """A difference of two values whose items were not compared one by one.

    Attributes:
        gain: By how much the chosen subset is better.
        around: Half of the 90 % interval, at most: what both have in common would narrow it.
    """

    rival: Subset
    gain: float
    around: float


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
    draws: Draws,
    chosen: Choice,
    *,
    texts: Texts | Unknown | None = None,
    errors: Array | None = None,
    count: int = 5,
) -> Confidence:
    """How sure a choice is, and what to measure next.

    Args:
        draws: Of the choice and of what else may be the best.
        texts: The measured rows on other texts of this kind.
        errors: Standard errors of the measured rows from their items, shape (n_rows,).
        count: How many subsets to name.
    """
    at = draws.place(chosen)
    wins = _wins(draws.costs)
    # Of equals, the chosen one is as good as the best.
    lowest = draws.costs.min(1)
    order = [int(i) for i in np.lexsort((draws.expected, -wins)) if not draws.known[i]]
    confidence = Confidence(
        chance=float(np.mean(draws.costs[:, at] <= lowest)),
        regret=float(np.mean(draws.costs[:, at] - lowest)),
        next=tuple(_names(draws, i) for i in order[:count]),
        unknown=texts.reason if isinstance(texts, Unknown) else "",
        no_chance=isinstance(texts, Unknown) and texts.no_chance,
    )
    if isinstance(texts, Texts):
        return _on_texts(confidence, draws, at, texts)
    if errors is not None and np.isfinite(errors).all():
        return replace(confidence, chance=None, unpaired=_unpaired(draws, at, errors))
    return confidence


def _on_texts(confidence: Confidence, draws: Draws, at: int, texts: Texts) -> Confidence:
    """The law's uncertainty and the texts' together."""
    shares = draws.problem.law.shares(draws.weights)  # (n, n_rows)
    moved = draws.problem.sign * texts.deviations @ shares.T  # (draws, n)
    costs = draws.costs + moved
    wins = _wins(costs)
    wins[at] = 0
    order = np.lexsort((draws.expected, -wins))
    rivals = [int(i) for i in order if wins[i] >= _MAY_BE_BEST * len(costs)][:_RIVALS]
    needed = None
    if rivals:
        apart = float(draws.expected[rivals[0]] - draws.expected[at])
        error = float(np.std(moved[:, rivals[0]] - moved[:, at]))
        needed = ceil(texts.n_groups * (_ONE_SIDED * error / apart) ** 2) if apart > 0 else None
    return replace(
        confidence,
        chance_on_texts=float(np.mean(costs[:, at] <= costs.min(1))),
        rivals=tuple(_names(draws, i) for i in rivals),
        groups_needed=needed if needed is not None and needed <= _MOST_GROUPS else None,
    )


def _unpaired(draws: Draws, at: int, errors: Array) -> Unpaired | None:
    others = np.flatnonzero(draws.known & (np.arange(len(draws.known)) != at))
    if not len(others):
        return None
    rival = int(others[np.argmin(draws.expected[others])])
    squares = draws.problem.law.shares(draws.weights[[at, rival]]) ** 2 @ errors**2
    return Unpaired(
        _names(draws, rival),
        float(draws.expected[rival] - draws.expected[at]),
        NINE_IN_TEN * float(np.sqrt(squares.sum())),
    )


def _wins(costs: Array) -> NDArray[np.int64]:
    """In how many draws each candidate is the lowest; costs of shape (draws, n)."""
    return np.asarray(np.bincount(costs.argmin(1), minlength=costs.shape[1]))


def _names(draws: Draws, i: int) -> Subset:
    experts = draws.problem.law.experts
    return tuple(n for n, share in zip(experts, draws.weights[i], strict=True) if share > 0)
