"""Draws of this pool's mean loss at each k: one set, from which every answer of a fit comes.

The mean over all subsets of k is m_k = law(k) + d_k. The lack of fit d has standard deviation τ and
changes smoothly with log k, as means over overlapping subsets do, but for a share of its own at
each k. What was measured is y_k = m_k + e_k with known variance v_k of the sampling error e. Given
a draw of the law and of τ, m is Gaussian: at a measured k between y_k and law(k), as v_k and τ²
have it, and y_k itself where v_k = 0, since every subset was measured. That is the only way to an
interval of no width.

Beyond the measured k the lack of fit grows in proportion.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mergeplan.law.posterior import DRAWS, Observations, draw_posterior, offset_axis

Array = NDArray[np.float64]

# Distance in log k over which the lack of fit changes, and the share of it that each k has alone.
_LENGTH = 1.0
_OWN = 0.1
# Of a pool up to this size every k is drawn.
_ALL = 128


@dataclass(frozen=True)
class PoolMeans:
    """Draws from the posterior.

    Attributes:
        floor, tail, offset: Of the law; shape (draws,).
        tau: Lack of fit in nats; shape (draws,).
        ks: Every k from 1 to M; of a large pool only some, the measured ones among them.
        means: Mean over all subsets of these k, in nats; shape (draws, n_ks).
        noise: Standard normal, for k beyond the pool; shape (draws,).
    """

    floor: Array
    tail: Array
    offset: Array
    tau: Array
    ks: Array
    means: Array
    noise: Array

    def law_at(self, k: float) -> Array:
        """The law alone at k, shape (draws,)."""
        return np.asarray(self.floor + self.tail / (k + self.offset))

    def at(self, k: float) -> Array:
        """The pool's mean at k, shape (draws,); between `ks` the lack of fit is interpolated."""
        size = self.ks[-1]
        if k > size:
            more = self.tau * self.noise * (k / size - 1)
            return np.asarray(self.law_at(k) + self._misfit(-1) + more)
        place = int(np.searchsorted(self.ks, k))
        if self.ks[place] == k:
            return np.asarray(self.means[:, place])
        low, high = self.ks[place - 1], self.ks[place]
        part = (k - low) / (high - low)
        misfit = (1 - part) * self._misfit(place - 1) + part * self._misfit(place)
        return np.asarray(self.law_at(k) + misfit)

    def crossing(self, target: Array | float) -> Array:
        """The k, not rounded, at which the mean first is at or below a target, shape (draws,).

        Between `ks` the means are joined along 1/(k + b); beyond the pool the law goes on from
        the mean of all experts. At least 1; infinite where the target is never reached.
        """
        draws, n_ks = self.means.shape
        target = np.broadcast_to(np.asarray(target, np.float64), (draws,))
        reached = self.means <= (target + 1e-12 * np.abs(target))[:, None]  # (draws, M)
        first = np.where(reached.any(1), reached.argmax(1), n_ks)
        rows = np.arange(draws)
        before, at = np.maximum(first - 1, 0), np.minimum(first, n_ks - 1)
        high, low = self.means[rows, before], self.means[rows, at]
        far, near = 1 / (self.ks[before] + self.offset), 1 / (self.ks[at] + self.offset)
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.clip((high - target) / (high - low), 0.0, 1.0)
            inside = 1 / (far + part * (near - far)) - self.offset
            left = target - self._misfit(-1) - self.floor
            outside = np.where(left > 0, self.tail / left - self.offset, np.inf)
        found = np.where(first == n_ks, np.maximum(outside, self.ks[-1]), inside)
        return np.where(first == 0, 1.0, found)

    def _misfit(self, place: int) -> Array:
        return np.asarray(self.means[:, place] - self.law_at(self.ks[place]))


def draw_means(k: Array, loss: Array, variance: Array | None, size: int, seed: int) -> PoolMeans:
    """Draw the law and the pool's means.

    Args:
        k, loss: What was measured, in nats; shape (n,) with three different k or more, in order.
        variance: Of each mean's sampling error; `None` where it is not known.
        size: Experts in the pool, M.
    """
    rng = np.random.default_rng(seed)
    unknown = variance is None
    everywhere = _whole(size, k)  # (n_ks,)
    # Weights proportional to k say that the variance falls with it.
    data = Observations.of(
        loss,
        np.zeros_like(k) if variance is None else variance,
        k.mean() / k if unknown else np.ones_like(k),
    )
    own = np.diag(data.misfit) if unknown else _correlation(k, k)
    rotation, rotated = _independent(own, data)
    law = _draw_law(k, float(max(size, k[-1])), rotation, rotated, rng)
    draws = PoolMeans(*law, everywhere, np.empty((DRAWS, 0)), rng.standard_normal(DRAWS))
    reach = np.maximum(np.maximum(1.0, everywhere / k[-1]), k[0] / everywhere)
    prior = _correlation(everywhere, everywhere) * np.outer(reach, reach)
    # Where sampling errors are not known, residuals do not tell them from the lack of fit.
    across = (
        np.zeros((len(everywhere), len(k)))
        if unknown
        else _correlation(everywhere, k) * reach[:, None]
    )
    residual = (loss - np.stack([draws.law_at(x) for x in k], axis=1)) / data.drop  # (draws, n)
    misfit = np.empty((DRAWS, len(everywhere)))
    tau = draws.tau / data.drop
    noise = rng.standard_normal((DRAWS, len(everywhere)))
    for value in np.unique(tau):
        rows = tau == value
        covariance = value**2 * own + np.diag(data.variance)
        gain = np.linalg.solve(covariance, value**2 * across.T).T  # (n_ks, n)
        left = value**2 * prior - gain @ (value**2 * across.T)
        misfit[rows] = residual[rows] @ gain.T + noise[rows] @ _root(left).T
    means = np.stack([draws.law_at(x) for x in everywhere], axis=1) + data.drop * misfit
    if not unknown:
        exact = data.variance == 0
        means[:, np.searchsorted(everywhere, k[exact])] = loss[exact]
    return replace(draws, means=np.maximum(means, 0.0))


def _whole(size: int, measured: Array) -> Array:
    """Every k of a pool; of a large one even steps in log k, and what was measured."""
    if size <= _ALL:
        return np.arange(1, size + 1, dtype=np.float64)
    some = np.unique(np.geomspace(1, size, _ALL).round())
    return np.union1d(some, measured)


def _correlation(left: Array, right: Array) -> Array:
    """Of the lack of fit between two lists of k, shape (n, m)."""
    distance = np.log(left)[:, None] - np.log(right)[None]
    smooth = np.exp(-0.5 * (distance / _LENGTH) ** 2)
    return np.asarray((1 - _OWN) * smooth + _OWN * (distance == 0))


def _independent(own: Array, data: Observations) -> tuple[Array, Observations]:
    """A rotation T of the means after which errors V + τ²R are independent for every τ.

    With R⁻½ V R⁻½ = U Λ Uᵀ and T = Uᵀ R⁻½ they have the variances Λ + τ².
    """
    values, vectors = np.linalg.eigh(own)
    inverse_root = vectors / np.sqrt(values) @ vectors.T
    variances, axes = np.linalg.eigh(inverse_root @ np.diag(data.variance) @ inverse_root)
    rotation = axes.T @ inverse_root  # (n, n)
    variances = np.maximum(variances, 0.0)
    return rotation, replace(
        data, loss=rotation @ data.loss, variance=variances, misfit=np.ones_like(variances)
    )


def _root(covariance: Array) -> Array:
    """A square root of a covariance that may be singular, shape (n, n)."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def _draw_law(
    k: Array, last: float, rotation: Array, data: Observations, rng: np.random.Generator
) -> tuple[Array, Array, Array, Array]:
    """Floor, tail, offset and τ, shape (draws,) each."""

    def design(values: list[Array]) -> Array:
        offset = np.expm1(values[0])[:, None]  # (G, 1)
        whole = 1 / (1 + offset) - 1 / (last + offset)
        drop = (1 / (k + offset) - 1 / (last + offset)) / whole
        matrix = np.stack([np.ones_like(drop), drop], axis=-1)  # (G, n_k, 2)
        return np.asarray(np.einsum("mn,gnp->gmp", rotation, matrix))

    kept: list[Array] = []
    # Draws with a negative coefficient have no prior mass: draw until enough are left.
    while sum(part.shape[1] for part in kept) < DRAWS and len(kept) < 20:
        (u,), linear, tau = draw_posterior(design, [offset_axis()], data, 2 * DRAWS, rng)
        offset = np.expm1(u)
        tail = linear[:, 1] / (1 / (1 + offset) - 1 / (last + offset))
        floor = linear[:, 0] - tail / (last + offset)
        possible = (tail >= 0) & (floor >= 0)
        kept.append(np.stack([floor, tail, offset, tau])[:, possible])
    table = np.concatenate(kept, axis=1)[:, :DRAWS]
    if table.shape[1] == 0:  # no mass on possible values: a level line, all else lack of fit
        level = data.level + data.drop / 2
        table = np.array([[level], [0.0], [0.0], [data.drop]])
    if table.shape[1] < DRAWS:
        table = table[:, rng.integers(table.shape[1], size=DRAWS)]
    floor, tail, offset, tau = table
    return floor, tail, offset, tau
