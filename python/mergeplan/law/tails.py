"""Curves Linf + A·φ(k): fitting one, and asking whether 1/(k + b) is the right φ.

All candidates have one searched coefficient at most, so that a grid that narrows around its best
node finds the optimum without starting values, all nodes at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mergeplan.law.least_squares import aicc
from mergeplan.law.posterior import MAX_OFFSET
from mergeplan.system.ranges import Magnitude, Number

Array = NDArray[np.float64]

_NODES = 401


TailName = Literal["1/k", "1/(k+b)", "power", "exponential"]


@dataclass(frozen=True)
class Tail:
    """A family of φ(k; s).

    Attributes:
        phi: From k, shape (n,), and s, shape (G, 1), to shape (G, n).
        low, high: Bounds of s, on a scale of even steps; equal where nothing is searched.
    """

    name: TailName
    phi: Callable[[Array, Array], Array]
    low: float
    high: float

    @property
    def coefficients(self) -> int:
        return 2 if self.low == self.high else 3


def _hyperbolic(k: Array, s: Array) -> Array:
    return np.asarray(1 / (k + np.expm1(s)))


TAILS = (
    Tail("1/k", _hyperbolic, 0.0, 0.0),
    Tail("1/(k+b)", _hyperbolic, 0.0, float(np.log1p(MAX_OFFSET))),
    Tail("exponential", lambda k, s: np.asarray(np.exp(-k / np.exp(s))), -1.5, 4.0),
    Tail("power", lambda k, s: np.asarray(k ** -np.exp(s)), -3.0, 1.6),
)
HYPERBOLIC = TAILS[1]


@dataclass(frozen=True)
class Curve:
    """A fitted Linf + A·φ(k; s); neither Linf nor A is negative."""

    family: Tail
    s: float
    floor: float
    tail: float
    cost: float

    def predict(self, k: Array) -> Array:
        phi = self.family.phi(k, np.array([[self.s]]))[0]
        return np.asarray(self.floor + self.tail * phi)


@dataclass(frozen=True)
class TailScore:
    """How a family fares.

    Attributes:
        left_out: Root mean square error, in nats, at each k when it is left out of the fit.
        aicc: Akaike's criterion for small samples; `None` without enough k.
    """

    name: TailName
    left_out: Magnitude
    aicc: Number | None


def fit_curve(
    family: Tail, k: Array, loss: Array, weights: Array, low: float | None = None
) -> Curve:
    """Least squares over one family.

    Args:
        k, loss, weights: Shape (n,).
        low: Another lower bound of the searched coefficient.
    """
    a, b = family.low if low is None else low, family.high
    nodes = np.linspace(a, b, _NODES if b > a else 1)
    while True:
        floor, tail, cost = _solve(family.phi(k, nodes[:, None]), loss, weights)
        best = int(np.argmin(cost))
        found = Curve(family, float(nodes[best]), floor[best], tail[best], float(cost[best]))
        left, right = nodes[max(best - 1, 0)], nodes[min(best + 1, len(nodes) - 1)]
        if right - left <= 4e-16 * max(1.0, abs(left)):
            return found
        nodes = np.linspace(left, right, 21)


def _solve(phi: Array, loss: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Floor, tail and cost for each row of φ, shape (G, n); non-negative."""
    total = weights.sum()
    mean_phi = phi @ weights / total  # (G,)
    mean_loss = float(loss @ weights / total)
    centred = phi - mean_phi[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = np.nan_to_num((centred * weights) @ (loss - mean_loss) / (centred**2 @ weights))
        through_zero = np.nan_to_num((phi * weights) @ loss / (phi**2 @ weights))
    tail = np.maximum(tail, 0.0)
    floor = mean_loss - tail * mean_phi
    tail = np.where(floor < 0, through_zero, tail)
    floor = np.maximum(floor, 0.0)
    cost = (loss - floor[:, None] - tail[:, None] * phi) ** 2 @ weights
    return floor, tail, cost


def compare_tails(k: Array, loss: Array, weights: Array) -> tuple[TailScore, ...]:
    """Score every family, the best first; empty with fewer than four k."""
    n = len(k)
    if n < 4:
        return ()
    scores = []
    for family in TAILS:
        p = family.coefficients
        enough = n > p + 2
        criterion = aicc(fit_curve(family, k, loss, weights).cost, n, p) if enough else None
        scores.append(TailScore(family.name, _left_out(family, k, loss, weights), criterion))
    return tuple(sorted(scores, key=lambda score: score.left_out))


def left_out_k(k: Array, loss: Array, tails: tuple[TailScore, ...]) -> float:
    """Error of the law at a k that is left out; of three k, at b = 0.

    Args:
        k, loss: Shape (n_k,), with three different k or more.
        tails: As `compare_tails` scores them.

    Returns:
        Root mean square, in nats.
    """
    for score in tails:
        if score.name == HYPERBOLIC.name:
            return score.left_out
    return _left_out(TAILS[0], k, loss, np.ones(len(k)))


def _left_out(family: Tail, k: Array, loss: Array, weights: Array) -> float:
    """Root mean square error, in nats, of a family at each k when it is left out."""
    errors = []
    for left in range(len(k)):
        kept = np.arange(len(k)) != left
        curve = fit_curve(family, k[kept], loss[kept], weights[kept])
        errors.append(float(curve.predict(k[left : left + 1])[0] - loss[left]))
    return float(np.sqrt(np.mean(np.square(errors))))
