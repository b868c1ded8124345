"""Which subsets of k experts to measure, where there are too many to measure all.

| design | what it is | why |
|---|---|---|
| `all` | every subset | the mean has no sampling error |
| `balanced` | each expert equally often, then each pair | a mean free of the experts' own effects |
| `uniform` | drawn at random, without repetition | the plain estimate of the paper's mean |
| `permutations` | prefixes of diverse orders, Algorithm 1 of arXiv 2509.24244 | as the paper did |

All are seeded, do not depend on the order of the names, and grow: `have` is kept, and what is new
completes it. Where `have` is balanced or random, so is the whole.
"""

import itertools
import random
from collections.abc import Collection, Iterable, Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray

Subset = tuple[str, ...]
Counts = NDArray[np.int64]

DESIGNS = ("auto", "all", "balanced", "uniform", "permutations")
# Where all subsets are at most this much more than asked for, `auto` takes them all.
NEARLY_ALL = 1.5
# Algorithm 1 draws this many shuffles for each order.
_SHUFFLES = 1000
# More subsets than these are not listed: candidates are drawn instead.
_LISTED = 5000
_DRAWN = 1000
_STARTS, _STARTS_DRAWN = 10, 2


def choose_subsets(
    design: str,
    names: Iterable[str],
    k: int,
    count: int,
    *,
    seed: int = 0,
    have: Collection[Subset] = (),
) -> list[Subset]:
    """Subsets of one size: what there is, and what is new.

    Args:
        design: One of `DESIGNS`; `auto` takes all where they are few, else a balanced design.
        count: How many in the end, at most all; for `permutations` the number of orders, whose
            prefixes may coincide.
        have: Subsets of k that are measured already; they stay.

    Returns:
        Sorted subsets of sorted names.

    >>> choose_subsets("balanced", "abcd", 2, 2)
    [('a', 'b'), ('c', 'd')]
    """
    pool = sorted(names)
    kept = {tuple(sorted(subset)) for subset in have}
    possible = comb(len(pool), k)
    if design == "auto":
        design = "all" if possible <= NEARLY_ALL * count else "balanced"
    if design == "permutations":
        orders = diverse_orders(pool, count, seed=seed)
        return sorted(kept | {tuple(sorted(order[:k])) for order in orders})
    missing = min(count, possible) - len(kept)
    if design == "all" or (missing > 0 and missing + len(kept) == possible):
        return list(itertools.combinations(pool, k))
    if missing <= 0:
        return sorted(kept)
    if design == "uniform":
        return sorted(kept | set(_uniform(pool, k, missing, seed, kept)))
    if design == "balanced":
        return sorted(kept | set(_balanced(pool, k, missing, seed, kept)))
    raise ValueError(f"unknown design `{design}`, expected one of {', '.join(DESIGNS)}")


def _uniform(
    pool: Sequence[str], k: int, count: int, seed: int, kept: Collection[Subset]
) -> list[Subset]:
    rng = random.Random(f"uniform {seed} {k}")
    found: dict[Subset, None] = {}
    while len(found) < count:
        subset = tuple(sorted(rng.sample(pool, k)))
        if subset not in kept:
            found[subset] = None
    return list(found)


def diverse_orders(names: Iterable[str], count: int, *, seed: int = 0) -> list[Subset]:
    """Orders of all experts that are far from each other: Algorithm 1.

    The first is alphabetical, the second its reverse; each further one has, of a thousand shuffles,
    the largest smallest Hamming distance to those before.
    """
    first = sorted(names)
    rng = random.Random(f"permutations {seed}")
    orders = [np.arange(len(first)), np.arange(len(first))[::-1]][:count]
    while len(orders) < count:
        shuffles = np.array(
            [rng.sample(range(len(first)), len(first)) for _ in range(_SHUFFLES)]
        )  # (S, M)
        distance = (shuffles[:, None, :] != np.stack(orders)).sum(-1).min(-1)  # (S,)
        orders.append(shuffles[int(distance.argmax())])
    return [tuple(first[i] for i in order) for order in orders]


def _balanced(
    pool: Sequence[str], k: int, count: int, seed: int, kept: Collection[Subset]
) -> list[Subset]:
    """Greedy choice, then swaps, from several starts; the most even result.

    Evenness is the sum of squares of the experts' counts, and then of the pairs'.
    """
    place = {name: i for i, name in enumerate(pool)}
    fixed = np.zeros((len(kept), len(pool)), np.int64)
    for row, subset in zip(fixed, sorted(kept), strict=True):
        row[[place[name] for name in subset]] = 1
    best: tuple[tuple[int, int], list[Subset]] | None = None
    listed = comb(len(pool), k) <= _LISTED
    for start in range(_STARTS if listed else _STARTS_DRAWN):
        rng = np.random.default_rng([seed, k, start])
        chosen = _Balance(fixed, k, listed, rng).choose(count)  # (kept + count, M)
        together = chosen.T @ chosen
        experts = int((np.diagonal(together) ** 2).sum())
        score = experts, int((together**2).sum()) - experts
        if best is None or score < best[0]:
            rows = chosen[len(fixed) :]
            found = [tuple(pool[i] for i in np.flatnonzero(row).tolist()) for row in rows]
            best = score, found
    assert best is not None
    return best[1]


class _Balance:
    """The rows chosen so far, shape (n, M), and what they add up to."""

    def __init__(self, fixed: Counts, k: int, listed: bool, rng: np.random.Generator) -> None:
        self._fixed, self._k, self._rng = len(fixed), k, rng
        self._rows = list(fixed)
        self._taken = {row.tobytes() for row in fixed}
        # Where row i and column j stand together in chosen subsets; the diagonal counts experts.
        self._together = fixed.T @ fixed  # (M, M)
        self._listed: Counts | None = None
        if listed:
            size = fixed.shape[1]
            every = np.array(list(itertools.combinations(range(size), k)))  # (C, k)
            self._listed = np.zeros((len(every), size), np.int64)
            np.put_along_axis(self._listed, rng.permutation(every), 1, axis=1)

    def choose(self, count: int) -> Counts:
        for _ in range(count):
            row = self._most_even()
            self._rows.append(row)
            self._taken.add(row.tobytes())
            self._together = self._together + np.outer(row, row)
        while self._exchange():
            pass
        return np.array(self._rows)

    def _exchange(self) -> bool:
        """Let pairs of new subsets swap two experts where that evens the pairs' counts.

        Experts' counts stay. Replacing whole subsets would not help: where the experts are even,
        the only subset that keeps them so is the one that was taken out.
        """
        improved = False
        for i, j in itertools.combinations(range(self._fixed, len(self._rows)), 2):
            first, second = self._rows[i], self._rows[j]
            gone, came = np.flatnonzero(first > second), np.flatnonzero(second > first)
            if len(gone) < 2 or len(came) < 2:
                continue  # the swap would only rename the two
            pairs = self._together - np.diag(np.diagonal(self._together))
            toward = pairs @ (first - second)  # (M,)
            # Half of what swapping a for b adds to the pairs' sum of squares, (gone, came).
            change = toward[came] - toward[gone][:, None] - 2 * pairs[np.ix_(gone, came)]
            change += len(gone) + len(came) - 2
            a, b = np.unravel_index(int(change.argmin()), change.shape)
            if change[a, b] >= 0:
                continue
            swap = np.zeros_like(first)
            swap[gone[a]], swap[came[b]] = -1, 1
            new = first + swap, second - swap
            if any(row.tobytes() in self._taken for row in new):
                continue
            for row in (first, second):
                self._taken.remove(row.tobytes())
                self._together = self._together - np.outer(row, row)
            self._rows[i], self._rows[j] = new
            for row in new:
                self._taken.add(row.tobytes())
                self._together = self._together + np.outer(row, row)
            improved = True
        return improved

    def _most_even(self) -> Counts:
        """The subset, of those not chosen, that leaves the counts the most even."""
        candidates = self._listed if self._listed is not None else self._drawn()
        order = np.argsort(self._cost(candidates), kind="stable")
        free = (row for row in candidates[order] if row.tobytes() not in self._taken)
        found: Counts | None = next(free, None)
        while found is None:
            # Every candidate drawn is taken: any subset that is not will do.
            row = self._rng.permutation(candidates[0])
            found = None if row.tobytes() in self._taken else row
        return found

    def _drawn(self) -> Counts:
        """Candidates made of the experts that were chosen least often, else at random."""
        counts = np.diagonal(self._together)
        noise = self._rng.random((_DRAWN, len(counts)))
        picked = np.argsort(counts + noise, axis=1)[:, : self._k]  # (S, k)
        rows = np.zeros((_DRAWN, len(counts)), np.int64)
        np.put_along_axis(rows, picked, 1, axis=1)
        return rows

    def _cost(self, rows: Counts) -> NDArray[np.float64]:
        """How much each row, shape (n, M), adds to the squares: experts first, then pairs."""
        # In float64, which holds these whole numbers and has a fast product where int64 has none.
        chosen, together = rows.astype(np.float64), self._together.astype(np.float64)
        experts = chosen @ np.diagonal(together)  # (n,)
        pairs = ((chosen @ together) * chosen).sum(-1) - experts
        # No sum over pairs comes near the unit of the experts' sum.
        return np.asarray(experts * 2**32 + pairs)
