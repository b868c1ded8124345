"""Trained pools of many experts, of which thousands of merges were measured but not all.

`tests.tools.byte_pools` trained them, and measured everything that the designs and choices of the
trial asked for when its figures were taken. What a later state asks for beside that comes from a
stand-in: a polynomial of degree three in the experts' own geometry through all measured merges
(kernel ridge regression). `StandIn.error` says how far it is off where it was left out.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mergeplan.measurements.file import load_measurements
from mergeplan.pool.geometry.file import load_grams
from tests.support.settings import DATA
from tests.tools.trial.pools import KnownPool, Subset

Array = NDArray[np.float64]

SIZES = (18, 30)
_RIDGES = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4)


class StandIn:
    """Says what a merge that was not measured would have; a `KnownPool`'s rule."""

    def __init__(self, names: Subset, losses: dict[Subset, float], gram: Array) -> None:
        self._names, self._losses = names, losses
        self._gram = gram / np.mean(np.diag(gram))
        self.asked: set[Subset] = set()

    def of(self, experts: list[int]) -> float:
        self.asked.add(tuple(self._names[i] for i in experts))
        return self.expected(self._weights([experts]))[0]

    def expected(self, weights: Array) -> list[float]:
        """Of weightings, shape (n, n_experts)."""
        points, duals, mean, _ = self._fitted
        return (mean + _kernel(weights, points, self._gram) @ duals).tolist()

    @property
    def error(self) -> float:
        """Root mean square of what merges of two and more would be off, each left out, in nats."""
        return self._fitted[3]

    @cached_property
    def _fitted(self) -> tuple[Array, Array, float, float]:
        """Points, their duals, the mean, and the error by the ridge that makes it least."""
        place = {name: i for i, name in enumerate(self._names)}
        points = self._weights([[place[name] for name in subset] for subset in self._losses])
        values = np.array(list(self._losses.values()))
        mean = float(values.mean())
        merged = (points > 0).sum(1) > 1
        own = _kernel(points, points, self._gram)
        tried = []
        for ridge in _RIDGES:
            inverse = np.linalg.inv(own + ridge * np.eye(len(own)))
            duals = inverse @ (values - mean)
            error = float(np.sqrt(np.mean((duals / np.diag(inverse))[merged] ** 2)))
            tried.append((error, duals))
        error, duals = min(tried, key=lambda one: one[0])
        return points, duals, mean, error

    def _weights(self, subsets: list[list[int]]) -> Array:
        weights = np.zeros((len(subsets), len(self._names)))
        for row, subset in zip(weights, subsets, strict=True):
            row[subset] = 1 / max(len(subset), 1)
        return weights


def _kernel(left: Array, right: Array, gram: Array) -> Array:
    """Of all coefficients up to degree three, in the experts' geometry."""
    return (1 + left @ gram @ right.T) ** 3


def trained_pool(size: int) -> tuple[KnownPool, Array, StandIn]:
    """A pool with what was measured of it, its Gram matrix, and what stands in for the rest."""
    rows = load_measurements(DATA / f"byte_pool_{size}.csv").rows
    losses = {row.subset: row.loss_nats for row in rows}
    (gram,) = load_grams(DATA / f"byte_pool_{size}.json")
    names = max(losses, key=len)
    order = [gram.experts.index(name) for name in names]
    matrix = gram.matrix[np.ix_(order, order)]
    rule = StandIn(names, losses, matrix)
    return KnownPool(f"trained, M = {size}", names, {}, losses, rule), matrix, rule
