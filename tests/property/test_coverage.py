"""Do the intervals hold what they say? A seeded pool simulator knows the truth.

A pool of M task vectors, a quadratic loss: the mean over subsets of k is exactly Linf + A/k. An
offset b scales each subset's distance to the floor by k / (k + b). With misfit, each k's mean is
moved by 2 % of the drop. `MERGEPLAN_FULL=1` runs 24 cases instead of 3, of
400 pools each instead of 30.
"""

from itertools import combinations
from math import comb

import numpy as np
import pytest

from mergeplan.law.fit import fit_series
from mergeplan.law.series import Point, Series
from tests.support.settings import FULL
from tests.support.shares import spread

POOLS = 400 if FULL else 30
DIMENSIONS = 40
MISFIT = 0.02
CASES = [
    (pool, ks, offset, misfit, subsets)
    for pool, ks in ((9, (1, 2, 3, 4, 6, 9)), (16, (1, 2, 4, 8, 16)))
    for offset in (0, 1)
    for misfit in (False, True)
    for subsets in (None, 8, 30)
]


class SimulatedPool:
    """Task vectors, and the loss of any subset of them."""

    def __init__(self, size: int, offset: float, misfit: bool, rng: np.random.Generator) -> None:
        self.size, self.offset, self.rng = size, offset, rng
        self.vectors = rng.standard_normal((size, DIMENSIONS)) * 0.1 + 0.05
        self.curvature = rng.gamma(1.0, 1.0, DIMENSIONS)
        self.gradient = rng.standard_normal(DIMENSIONS) * 0.3
        mean = self.vectors.mean(0)
        trace = float((self.curvature * self.vectors.var(0)).sum())
        # Drawing without replacement: covariance Σ/k · (M − k)/(M − 1).
        self.tail = 0.5 * trace * size / (size - 1)
        quadratic = float(self.gradient @ mean + 0.5 * self.curvature @ mean**2)
        self.floor = 3.0 + quadratic - 0.5 * trace / (size - 1)
        drop = self.law(1) - self.law(size)
        self.moved = rng.standard_normal(size) * (MISFIT * drop if misfit else 0.0)

    def law(self, k: float) -> float:
        return self.floor + self.tail / (k + self.offset)

    def mean(self, k: int) -> float:
        return self.law(k) + float(self.moved[k - 1])

    def loss(self, subset: tuple[int, ...]) -> float:
        k = len(subset)
        v = self.vectors[list(subset)].mean(0)
        plain = 3.0 + float(self.gradient @ v + 0.5 * self.curvature @ v**2)
        scaled = self.floor + (plain - self.floor) * k / (k + self.offset)
        return scaled + float(self.moved[k - 1])

    def measure(self, k: int, subsets: int | None) -> Point:
        possible = comb(self.size, k)
        if subsets is None or subsets >= possible:
            return Point(k, self.mean(k), possible, possible)
        chosen: set[tuple[int, ...]] = set()
        while len(chosen) < subsets:
            drawn = self.rng.choice(self.size, k, replace=False)
            chosen.add(tuple(sorted(int(i) for i in drawn)))
        losses = np.array([self.loss(subset) for subset in sorted(chosen)])
        return Point(k, float(losses.mean()), subsets, possible, float(losses.std(ddof=1)))


def test_the_simulator_has_the_mean_that_it_says():
    rng = np.random.default_rng(0)
    for offset in (0, 1):
        pool = SimulatedPool(9, offset, True, rng)
        for k in (1, 3, 8, 9):
            losses = [pool.loss(subset) for subset in combinations(range(9), k)]
            assert np.mean(losses) == pytest.approx(pool.mean(k), abs=1e-12)


@pytest.mark.parametrize(("size", "ks", "offset", "misfit", "subsets"), spread(CASES, 3))
def test_ninety_percent_intervals_hold_the_truth(size, ks, offset, misfit, subsets):
    held: dict[str, list[bool]] = {"loss": [], "floor": [], "k": []}
    for seed in range(POOLS):
        pool = SimulatedPool(size, offset, misfit, np.random.default_rng([seed, size, offset]))
        points = tuple(pool.measure(k, subsets) for k in ks)
        fit = fit_series(Series("m", "{}", None, "", size, points), seed=seed)
        low, high = fit.intervals(0.9)["floor"]
        held["floor"].append(low - 1e-7 <= pool.floor <= high + 1e-7)
        for k in set(range(1, size + 1)) - set(ks):
            predicted = fit.predict(k, 0.9)
            held["loss"].append(predicted.low - 1e-7 <= pool.mean(k) <= predicted.high + 1e-7)
        target = pool.law(size / 2)
        solution = fit.solve(target, 0.9)
        held["k"].append(solution.low - 1e-4 <= size / 2 <= solution.high + 1e-4)
    shares = {name: float(np.mean(values)) for name, values in held.items()}
    # A share of 90 % over 30 pools has a standard error of 5 %.
    smallest = 0.85 - (0.02 if FULL else 0.08)
    print(size, ks, f"b={offset}", f"misfit={misfit}", f"subsets={subsets}", shares)
    assert min(shares.values()) >= smallest, shares
