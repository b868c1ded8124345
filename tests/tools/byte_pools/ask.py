"""Measure what the trial of large pools asks for, and look for the best subset there is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mergeplan.pool.geometry.file import load_grams
from tests.tools.byte_pools.measure import Judge, Subset, random_subsets
from tests.tools.trial.large import Scores, judge_pool
from tests.tools.trial.pools import KnownPool
from tests.tools.trial.trained import StandIn

# Measured in each round of the search, of the lowest that are expected.
_ROUND, _ROUNDS, _STARTS = 12, 6, 60


class _Live:
    """A pool's rule that measures."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def of(self, experts: list[int]) -> float:
        return self._judge.loss(self._judge.names[i] for i in experts)


def ask(judge: Judge, geometry: Path, seeds: Sequence[int], scores: Scores) -> None:
    """All designs and their choices, without a lowest loss: `search` comes after it."""
    known = {(): judge.loss(())}
    pool = KnownPool(f"trained, M = {len(judge.names)}", judge.names, {}, known, _Live(judge))
    judge_pool(pool, gram_of(geometry, judge.names), 0.0, seeds, scores)


def gram_of(geometry: Path, names: Sequence[str]) -> np.ndarray:
    (gram,) = load_grams(geometry)
    order = [gram.experts.index(name) for name in names]
    return gram.matrix[np.ix_(order, order)]


def search(judge: Judge, gram: np.ndarray) -> float:
    """The lowest loss that local search finds: it measures the lowest neighbours, by a polynomial
    through all that was measured, of the best ones, until none is better."""
    names = judge.names
    for _ in range(_ROUNDS):
        known = {subset: loss for subset, loss in judge.known.items() if subset}
        best = sorted(known, key=lambda subset: known[subset])[:_STARTS]
        tries = {one for subset in best for one in _neighbours(subset, names)} - set(known)
        tries |= set(random_subsets(names, 500, seed=len(known))) - set(known)
        some = sorted(tries)
        weights = np.array([[(name in s) / len(s) for name in names] for s in some])
        expected = StandIn(names, known, gram).expected(weights)
        asked = [some[i] for i in np.argsort(expected)[:_ROUND]]
        found = min(map(judge.loss, asked))
        print(f"lowest {min(known.values()):.5f}, found {found:.5f}", flush=True)
        if found >= min(known.values()):
            break
    return min(loss for subset, loss in judge.known.items() if subset)


def _neighbours(subset: Subset, names: Sequence[str]) -> set[Subset]:
    """With one expert more, less, or another."""
    inside = set(subset)
    found = {tuple(sorted(inside ^ {name})) for name in names}
    found |= {
        tuple(sorted(inside - {old} | {new})) for old in inside for new in set(names) - inside
    }
    return {one for one in found if one}
