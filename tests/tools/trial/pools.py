"""Pools whose every merge is known: measured sweeps, and simulated ones that are hard.

A simulated pool is a cloud of task vectors v around the base, and a loss of their mean: φ of a
quadratic form, with φ a soft saturation, so that the mean over subsets of k is near 1/(k + b) and
not on it. `rough` adds to each merge a deviation of its own, `upturn` a rise with k alone.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from math import comb
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mergeplan.measurements.file import load_measurements
from mergeplan.measurements.rows import MACRO, Measurement, Measurements
from tests.support.settings import DATA, DEMO_POOL

Array = NDArray[np.float64]
Subset = tuple[str, ...]

# A pool up to this size is enumerated; of a larger one the means come from random orders.
ENUMERATED = 12
_ORDERS = 3000
_DIMENSIONS = 30


@dataclass(frozen=True)
class KnownPool:
    """A pool, its merges' losses, and the mean at each k.

    Attributes:
        losses: Of every merge whose loss is known; those of a large simulated pool are computed.
        means: True mean loss over all subsets of k, by k, where it is known.
        loss_se: Said in the table as the texts' error of every loss.
    """

    name: str
    names: Subset
    means: dict[int, float]
    losses: dict[Subset, float] = field(repr=False)
    rule: "Rule | None" = field(default=None, repr=False)
    loss_se: float | None = None

    @property
    def size(self) -> int:
        return len(self.names)

    def loss(self, subset: Subset) -> float:
        if subset in self.losses:
            return self.losses[subset]
        assert self.rule is not None
        return self.rule.of([self.names.index(name) for name in subset])

    def measured(self, subsets: Iterable[Subset]) -> Measurements:
        """A table of these merges."""
        rows = [
            Measurement(
                row=number + 2,
                k=len(subset),
                loss_nats=self.loss(subset),
                method="average",
                domain=MACRO,
                subset=subset,
                pool_size=self.size,
                loss_se=self.loss_se,
            )
            for number, subset in enumerate(subsets)
        ]
        return Measurements(tuple(rows), "")


class Rule(Protocol):
    """Says the loss of a merge that is in no table."""

    def of(self, experts: list[int]) -> float:
        """Loss in nats of the average of some experts, by their places."""


class SimulatedLoss:
    """Loss of a merge in nats, from its experts' places in the pool.

    Args:
        vectors: Of the experts, shape (n_experts, n_dimensions).
        curvature: Diagonal of the Hessian, shape (n_dimensions,).
        gradient: At the base, shape (n_dimensions,).
        rough: Standard deviation of a merge's own deviation, in nats, which falls like 1/√k.
        upturn: What a merge of all experts has more than the form without it.
        after: k up to which there is no upturn.
        salt: Of this pool's deviations.
    """

    def __init__(
        self,
        vectors: Array,
        curvature: Array,
        gradient: Array,
        *,
        rough: float = 0.0,
        upturn: float = 0.0,
        after: int = 0,
        salt: int = 0,
    ) -> None:
        self.vectors, self.curvature, self.gradient = vectors, curvature, gradient
        self.rough, self.upturn, self.after, self.salt = rough, upturn, after, salt

    def of(self, experts: list[int]) -> float:
        k = len(experts)
        value = float(self.by_k(self.vectors[experts].mean(0)[None], np.array([k]))[0])
        if self.rough:
            own = np.random.default_rng([self.salt, *sorted(experts)]).standard_normal()
            value += self.rough * float(own) / k**0.5
        return value

    def by_k(self, means: Array, k: Array) -> Array:
        """Losses at points, shape (n, n_dimensions), of merges of k, shape (n,)."""
        quadratic = self.quadratic(means)
        late = np.maximum(k - self.after, 0) / max(len(self.vectors) - self.after, 1)
        return np.asarray(2.0 + 3 * np.log1p(np.maximum(quadratic, -2.5) / 3) + self.upturn * late)

    def quadratic(self, means: Array) -> Array:
        return np.asarray(means @ self.gradient + 0.5 * means**2 @ self.curvature)


def simulated(name: str, size: int, rule: SimulatedLoss, loss_se: float | None = None) -> KnownPool:
    """A simulated pool with its true means."""
    names = tuple(f"e{number:02d}" for number in range(size))
    losses: dict[Subset, float] = {}
    means = {}
    if size <= ENUMERATED:
        for k in range(1, size + 1):
            found = {
                tuple(names[i] for i in chosen): rule.of(list(chosen))
                for chosen in combinations(range(size), k)
            }
            losses |= found
            means[k] = float(np.mean(list(found.values())))
        return KnownPool(name, names, means, losses, loss_se=loss_se)
    return KnownPool(name, names, _means_of_large(rule), losses, rule, loss_se)


def _means_of_large(rule: SimulatedLoss) -> dict[int, float]:
    """Means over prefixes of random orders, with the quadratic form, whose mean over all subsets
    is known, as control variate."""
    vectors = rule.vectors
    size = len(vectors)
    rng = np.random.default_rng(11)
    orders = np.stack([rng.permutation(size) for _ in range(_ORDERS)])
    sums = np.cumsum(vectors[orders], axis=1)  # (orders, size, n_dimensions)
    centre, spread = vectors.mean(0), vectors.var(0)
    means = {}
    for k in range(1, size + 1):
        at = sums[:, k - 1] / k
        losses, quadratic = rule.by_k(at, np.full(len(at), k)), rule.quadratic(at)
        exact = float(rule.quadratic(centre[None])[0])
        exact += 0.5 * float(rule.curvature @ spread) * (size - k) / (size - 1) / k
        if k == 1:
            everyone = rule.by_k(vectors, np.ones(size))
            own = [rule.of([i]) for i in range(size)] if rule.rough else everyone
            means[k] = float(np.mean(own))
        elif k == size:
            means[k] = rule.of(list(range(size)))
        else:
            slope = np.cov(losses, quadratic)[0, 1] / max(float(quadratic.var()), 1e-300)
            means[k] = float(losses.mean() + slope * (exact - quadratic.mean()))
    return means


def _cloud(size: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Task vectors, curvature and gradient whose single experts lose about 0.1 to 0.3 nats."""
    vectors = 0.1 * rng.standard_normal((size, _DIMENSIONS)) + 0.05
    curvature = rng.gamma(1.0, 1.0, _DIMENSIONS)
    gradient = 0.1 * rng.standard_normal(_DIMENSIONS)
    return vectors, curvature, gradient


def _plain(size: int, rng: np.random.Generator) -> SimulatedLoss:
    return SimulatedLoss(*_cloud(size, rng))


def _clusters(size: int, rng: np.random.Generator) -> SimulatedLoss:
    vectors, curvature, gradient = _cloud(size, rng)
    centres = 0.15 * rng.standard_normal((3, _DIMENSIONS))
    return SimulatedLoss(0.3 * vectors + centres[rng.integers(3, size=size)], curvature, gradient)


def _harmful(size: int, rng: np.random.Generator) -> SimulatedLoss:
    vectors, curvature, gradient = _cloud(size, rng)
    vectors[rng.integers(size)] *= 5
    return SimulatedLoss(vectors, curvature, gradient)


def _duplicates(size: int, rng: np.random.Generator) -> SimulatedLoss:
    vectors, curvature, gradient = _cloud(size, rng)
    kinds = rng.integers(max(2, size // 3), size=size)
    return SimulatedLoss(vectors[kinds], curvature, gradient)


def _correlated(size: int, rng: np.random.Generator) -> SimulatedLoss:
    vectors, curvature, gradient = _cloud(size, rng)
    directions = rng.standard_normal((3, _DIMENSIONS))
    vectors = 0.4 * vectors + 0.08 * rng.standard_normal((size, 3)) @ directions
    return SimulatedLoss(vectors, curvature, gradient)


def _heavy(size: int, rng: np.random.Generator) -> SimulatedLoss:
    vectors, curvature, gradient = _cloud(size, rng)
    lengths = np.minimum(np.abs(rng.standard_t(2, size)) + 0.3, 8.0)
    return SimulatedLoss(vectors * lengths[:, None], curvature, gradient)


def _noisy(size: int, rng: np.random.Generator) -> SimulatedLoss:
    return SimulatedLoss(*_cloud(size, rng), rough=0.02, salt=int(rng.integers(2**31)))


def _upturn(size: int, rng: np.random.Generator) -> SimulatedLoss:
    return SimulatedLoss(*_cloud(size, rng), upturn=0.04)


def _late_upturn(size: int, rng: np.random.Generator) -> SimulatedLoss:
    return SimulatedLoss(*_cloud(size, rng), upturn=0.04, after=size // 2)


KINDS = {
    "plain": _plain,
    "clusters": _clusters,
    "harmful": _harmful,
    "duplicates": _duplicates,
    "correlated": _correlated,
    "heavy tails": _heavy,
    "noise": _noisy,
    "noise, loss_se": _noisy,
    "upturn": _upturn,
    "late upturn": _late_upturn,
}


def hard_pools(sizes: Iterable[int], each: int, seed: int) -> Iterator[KnownPool]:
    """Simulated pools of every kind and size; `each` of one kind and size."""
    for kind, make in KINDS.items():
        for size in sizes:
            for number in range(each):
                rng = np.random.default_rng([seed, size, number, sum(map(ord, kind))])
                loss_se = 0.02 if kind.endswith("loss_se") else None
                yield simulated(f"{kind}, M = {size}", size, make(size, rng), loss_se)


def sweeps() -> list[KnownPool]:
    """The committed sweeps: byte-level pools, and a language model's where it is there."""
    found = [*_swept("80k", DEMO_POOL / "measurements.csv")]
    found += [p for p in _swept("", DATA / "real_pools.csv") if "80,592" not in p.name]
    language = DATA / "real_lm_pool.csv"
    return [*found, *(_swept("language model", language) if language.exists() else [])]


def _swept(name: str, path: object) -> Iterator[KnownPool]:
    """The pools of one table, one for each method and base size, by the macro mean."""
    cells: dict[tuple[str, str, float | None], dict[Subset, dict[str, float]]] = {}
    for row in load_measurements(path).rows:  # type: ignore[arg-type]
        if row.k:
            pool = cells.setdefault((row.method, row.options, row.n_params), {})
            pool.setdefault(row.subset, {})[row.domain] = row.loss_nats
    for (method, _, n_params), merges in cells.items():
        losses = {
            subset: by_domain.get(MACRO, float(np.mean(list(by_domain.values()))))
            for subset, by_domain in merges.items()
        }
        names = max(losses, key=len)
        by_k: dict[int, list[float]] = {}
        for subset, loss in losses.items():
            by_k.setdefault(len(subset), []).append(loss)
        means = {
            k: float(np.mean(values))
            for k, values in sorted(by_k.items())
            if len(values) == comb(len(names), k)
        }
        said = name or f"{n_params:,.0f} parameters"
        yield KnownPool(f"{said}, {method}", names, means, losses)
