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

Array = NDArray[np.float64]

# Experts from which on the sizes to begin with are spread from 2 up.
_LARGE = 12
# What is the best in fewer draws is no rival, and more rivals than these are not named.
_MAY_BE_BEST, _RIVALS = 0.02, 5
# Share of the likeliest one's chance from which on another may as well be the best.
_LIKELY = 0.1
# An expected regret below this share of the spread of the measured values is none.
_NEGLIGIBLE = 0.001
# Standard deviations that nine of ten draws of a normal variable stay below.
_ONE_SIDED = 1.2815515655446004
# More groups of documents than these part nothing.
_MOST_GROUPS = 100_000


@dataclass(frozen=True)
class Confidence:
    """How sure the answer is, by joint draws.

    Attributes:
        chance: That no other subset is better than the chosen one on this text; `None` for a
            metric whose values have errors: of that its law speaks on items of this kind.
        regret: Expected value of the chosen subset less that of the best on this text, 0 or more;
            of such a metric on items of this kind.
        next: Subsets that were not measured, the likeliest to be the best first.
        n_likely: How many of these are a tenth as likely as the first, or likelier.
        chance_on_texts: The same chance on texts, or items, of this kind; `None` where nothing
            tells it.
        unknown: Why it is not told.
        no_chance: Whether that is since nothing says how far a metric's items may move it: then no
            chance is said at all, lest that on this text be taken for more.
        rivals: Which others may be the best on texts of this kind, the likeliest first.
        groups_needed: Groups of documents a domain that would tell the first of them apart.
        items: Whether the chance is that of a metric's items.
        unpaired: Whether it is told as if no two merges had one in common.
    """

    chance: float | None
    regret: float
    next: tuple[Subset, ...]
    chance_on_texts: float | None = None
    unknown: str = ""
    no_chance: bool = False
    rivals: tuple[Subset, ...] = ()
    groups_needed: int | None = None
    items: bool = False
    unpaired: bool = False
    n_likely: int = 0

    def on_this_text(self, confidence: float, spread: float) -> bool:
        """Whether it is sure enough, or has nothing to lose, on this text.

        Args:
            confidence: That is asked for.
            spread: Standard deviation of the measured values.
        """
        return (self.chance or 0.0) >= confidence or self.regret <= _NEGLIGIBLE * spread

    def on_texts(self, confidence: float) -> bool:
        """Whether it is sure enough on texts, or items, of this kind."""
        return (self.chance_on_texts or 0.0) >= confidence


def first_subsets(experts: Sequence[str], count: int, *, seed: int = 0) -> list[Subset]:
    """Subsets to fit the form to: every single expert, all of them, and some of sizes between.

    A subset of a middle size holds the most pairs that no other has shown. On the real pool 30
    merges explain more of the variance with middle sizes than spread over all (0.87 and 0.80 for
    averages), and 60 no less. In a pool of a dozen and more the best subset is often smaller than
    those: sizes are spread from 2 up, which leaves less regret from 27 to 60 merges of 18 and 30
    experts. Within a size every expert takes part equally often.

    Where there is no room for some of sizes between beside the single experts, these are left out:
    single experts and all merged alone tell nothing about pairs.

    Args:
        count: How many; the base is measured beside them.

    >>> [len(subset) for subset in first_subsets("abcdef", 10)]
    [1, 1, 1, 1, 1, 1, 2, 3, 4, 6]
    >>> [len(subset) for subset in first_subsets("abcdef", 6)]
    [2, 2, 3, 4, 4, 6]
    """
    names = sorted(experts)
    n = len(names)
    third = round(n / 3)
    middle = range(max(third, 2) if n < _LARGE else 2, n - third + 1)
    outer = [k for k in range(2, n) if k not in middle]
    found: list[Subset] = [tuple(names)] if n > 1 else []
    sizes = (middle, outer, [1])
    if n == 1 or count >= with_singles(n):
        found += [(name,) for name in names]
        sizes = (middle, outer, [])
    # What the middle sizes have no room for comes from the others.
    for some in sizes:
        for k, share in _spread(n, some, count - len(found)).items():
            found += choose_subsets("balanced", names, k, share, seed=seed)
    return sorted(found[: max(count, 0)], key=lambda subset: (len(subset), subset))


def with_singles(n: int) -> int:
    """The fewest merges that have room for every one of n experts alone.

    Args:
        n: Experts in the pool.

    Returns:
        How many, without the base.
    """
    return n + 1 + max(3, ceil(n / 4))


def _spread(n: int, sizes: Sequence[int], count: int) -> dict[int, int]:
    """How many subsets of each size: evenly, as far as there are so many."""
    room = {k: comb(n, k) for k in sizes if k <= n}
    count = min(count, sum(room.values()))
    share = dict.fromkeys(room, 0)
    for place in range(count if room else 0):
        # The middle of each of so many equal parts of the range.
        wanted = sizes[0] - 0.5 + (place + 0.5) / count * len(sizes)
        free = [k for k in room if share[k] < room[k]]
        share[min(free, key=lambda k: (abs(k - wanted), share[k]))] += 1
    return {k: some for k, some in share.items() if some}


def confidence_of(
    draws: Draws,
    chosen: Choice,
    *,
    texts: Texts | Unknown | None = None,
    count: int = 5,
) -> Confidence:
    """How sure a choice is, and what to measure next.

    Args:
        draws: Of the choice and of what else may be the best.
        texts: The measured rows on other texts of this kind.
        count: How many subsets to name.
    """
    at = draws.place(chosen)
    wins = _wins(draws.costs)
    # Of equals, the chosen one is as good as the best.
    lowest = draws.costs.min(1)
    order = [int(i) for i in np.lexsort((draws.expected, -wins)) if not draws.known[i]]
    confidence = Confidence(
        chance=float(np.mean(draws.costs[:, at] <= lowest)),
        regret=draws.regret(at),
        next=tuple(_names(draws, i) for i in order[:count]),
        n_likely=sum(wins[i] >= _LIKELY * wins[order[0]] > 0 for i in order[:count]),
        unknown=texts.reason if isinstance(texts, Unknown) else "",
        no_chance=isinstance(texts, Unknown) and texts.no_chance,
    )
    if isinstance(texts, Texts):
        return _on_texts(confidence, draws, at, texts)
    return confidence


def confidence_on_items(
    draws: Draws, chosen: Choice, count: int = 5, *, unpaired: bool = True
) -> Confidence:
    """The same of a metric whose rows have errors of their own, and whose draws are of other items.

    Args:
        draws, chosen, count: As for `confidence_of`.
        unpaired: Whether no item's scores tell what merges have in common.
    """
    law = draws.problem.law
    measured = replace(draws, known=np.array([law.is_row(one) for one in draws.weights]))
    found = confidence_of(measured, chosen, count=count)
    at = draws.place(chosen)
    return replace(
        found,
        chance=None,
        chance_on_texts=found.chance,
        rivals=tuple(_names(draws, i) for i in _may_be_best(draws, at, draws.costs)),
        items=True,
        unpaired=unpaired,
    )


def _on_texts(confidence: Confidence, draws: Draws, at: int, texts: Texts) -> Confidence:
    """The law's uncertainty and the texts' together."""
    shares = draws.problem.law.shares(draws.weights)  # (n, n_rows)
    moved = draws.problem.sign * texts.deviations @ shares.T  # (draws, n)
    costs = draws.costs + moved
    rivals = _may_be_best(draws, at, costs)
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


def _may_be_best(draws: Draws, at: int, costs: Array) -> list[int]:
    """Which others may be the best by some costs, of shape (draws, n), the likeliest first."""
    wins = _wins(costs)
    wins[at] = 0
    order = np.lexsort((draws.expected, -wins))
    return [int(i) for i in order if wins[i] >= _MAY_BE_BEST * len(costs)][:_RIVALS]


def _wins(costs: Array) -> NDArray[np.int64]:
    """In how many draws each candidate is the lowest; costs of shape (draws, n)."""
    return np.asarray(np.bincount(costs.argmin(1), minlength=costs.shape[1]))


def _names(draws: Draws, i: int) -> Subset:
    experts = draws.problem.law.experts
    return tuple(n for n, share in zip(experts, draws.weights[i], strict=True) if share > 0)
