"""Draws of this pool's mean loss at each k: one set, from which every answer of a fit comes.

The mean over all subsets of k is m_k = law(k) + rise(k) + d_k. The rise, in proportion to k - 1, is
what experts that disturb one another add: never negative, small unless the means bend up, since its
scale is estimated, and drawn where all experts were measured. The lack of fit d has standard
deviation τ and changes smoothly with log k, as means over overlapping subsets do, but for a share
of its own at each k. What was measured is y_k = m_k + e_k with known variance v_k of the sampling
error e. Given a draw of the law, the rise and τ, m is Gaussian: at a measured k between y_k and
law(k) + rise(k), as v_k and τ² have it, and y_k itself where v_k = 0, since every subset was
measured. That is the only way to an interval of no width.

Beyond the measured k the lack of fit grows in proportion.

What of a metric is no more than single items that flip is rough in k: a part of m_k of its own at
each k, with a known variance, the larger the fewer subsets there are of k.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mergeplan.law.posterior import (
    DRAWS,
    LACK_OF_FIT_SCALE,
    Observations,
    draw_posterior,
    offset_axis,
    rise_axis,
)

Array = NDArray[np.float64]

# Distance in log k over which the lack of fit changes, and the share of it that each k has alone.
_LENGTH = 1.0
_OWN = 0.1
# Of the prior of τ, relative to the drop: what complete pools have left beside a rise is less.
_LACK_OF_FIT = 0.01
# So many draws are made for each that is wanted: half and more have a negative coefficient.
_SPARE = 8
# Of a pool up to this size every k is drawn.
_ALL = 128


@dataclass(frozen=True)
class PoolMeans:
    """Draws from the posterior.

    Attributes:
        floor, tail, offset: Of the law; shape (draws,).
        rise: What interference adds to the mean of all experts, in nats; shape (draws,).
        tau: Lack of fit in nats; shape (draws,).
        ks: Every k from 1 to M; of a large pool only some, the measured ones among them.
        means: Mean over all subsets of these k, in nats; shape (draws, n_ks).
        noise: Standard normal, for k beyond the pool; shape (draws,).
    """

    floor: Array
    tail: Array
    offset: Array
    rise: Array
    tau: Array
    ks: Array
    means: Array
    noise: Array

    def law_at(self, k: float) -> Array:
        """The law and the rise at k, without lack of fit, shape (draws,)."""
        risen = _rise(np.array(k), float(self.ks[-1]))
        return np.asarray(self.floor + self.tail / (k + self.offset) + self.rise * risen)

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
            left = target - self._misfit(-1) - self.floor - self.rise
            outside = np.where(left > 0, self.tail / left - self.offset, np.inf)
        found = np.where(first == n_ks, np.maximum(outside, self.ks[-1]), inside)
        return np.where(first == 0, 1.0, found)

    def _misfit(self, place: int) -> Array:
        return np.asarray(self.means[:, place] - self.law_at(self.ks[place]))


def draw_means(
    k: Array,
    loss: Array,
    covariance: Array | None,
    size: int,
    seed: int,
    rough: Callable[[Array], Array | float] = lambda _: 0.0,
) -> PoolMeans:
    """Draw the law and the pool's means.

    Args:
        k, loss: What was measured, in nats; shape (n,) with three different k or more, in order.
        covariance: Of the means' sampling errors, shape (n, n); `None` where it is not known.
        size: Experts in the pool, M.
        rough: Variance of what is each k's own, by k.
    """
    rng = np.random.default_rng(seed)
    unknown = covariance is None
    everywhere = _whole(size, k)  # (n_ks,)
    # Weights proportional to k say that the variance falls with it.
    data = Observations.of(
        loss,
        np.zeros_like(k) if covariance is None else np.diag(covariance),
        k.mean() / k if unknown else np.ones_like(k),
    )
    own = np.diag(data.misfit) if unknown else _correlation(k, k)
    error = np.zeros((len(k), len(k))) if covariance is None else covariance / data.drop**2
    error = error + np.diag(np.zeros_like(k) + rough(k) / data.drop**2)
    rotation, rotated = _independent(own, error, data)
    law = _draw_law(k, float(everywhere[-1]), rotation, rotated, rng)
    draws = PoolMeans(*law, everywhere, np.empty((DRAWS, 0)), rng.standard_normal(DRAWS))
    reach = np.maximum(np.maximum(1.0, everywhere / k[-1]), k[0] / everywhere)
    prior = _correlation(everywhere, everywhere) * np.outer(reach, reach)
    # Where sampling errors are not known, residuals do not tell them from the lack of fit.
    across = (
        np.zeros((len(everywhere), len(k)))
        if unknown
        else _correlation(everywhere, k) * reach[:, None]
    )
    single = np.zeros_like(everywhere) + rough(everywhere) / data.drop**2  # (n_ks,)
    at_measured = single[:, None] * (everywhere[:, None] == k)
    residual = (loss - np.stack([draws.law_at(x) for x in k], axis=1)) / data.drop  # (draws, n)
    misfit = np.empty((DRAWS, len(everywhere)))
    tau = draws.tau / data.drop
    noise = rng.standard_normal((DRAWS, len(everywhere)))
    for value in np.unique(tau):
        rows = tau == value
        shared = value**2 * across + at_measured
        gain = np.linalg.solve(value**2 * own + error, shared.T).T  # (n_ks, n)
        left = value**2 * prior + np.diag(single) - gain @ shared.T
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


def _independent(own: Array, error: Array, data: Observations) -> tuple[Array, Observations]:
    """A rotation T of the means after which errors V + τ²R are independent for every τ.

    With R⁻½ V R⁻½ = U Λ Uᵀ and T = Uᵀ R⁻½ they have the variances Λ + τ².
    """
    values, vectors = np.linalg.eigh(own)
    inverse_root = vectors / np.sqrt(values) @ vectors.T
    variances, axes = np.linalg.eigh(inverse_root @ error @ inverse_root)
    rotation = axes.T @ inverse_root  # (n, n)
    variances = np.maximum(variances, 0.0)
    return rotation, replace(
        data, loss=rotation @ data.loss, variance=variances, misfit=np.ones_like(variances)
    )


def _root(covariance: Array) -> Array:
    """A square root of a covariance that may be singular, shape (n, n)."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def _rise(k: Array, last: float) -> Array:
    """Shape of the rise: in proportion to the experts beyond the first, level beyond the pool."""
    return np.asarray((np.minimum(k, last) - 1) / max(last - 1, 1.0))


def _with_prior(matrix: Array, log_scale: Array) -> Array:
    """The rise's normal prior as one more observation of variance 1: a rise of 0 in units of its
    scale. From shape (G, n, 3) to (G, n + 1, 3)."""
    prior = np.zeros((len(matrix), 1, 3))
    prior[:, 0, 2] = np.exp(-log_scale)
    return np.concatenate([matrix, prior], axis=1)


def _draw_law(
    k: Array, last: float, rotation: Array, data: Observations, rng: np.random.Generator
) -> tuple[Array, Array, Array, Array, Array]:
    """Floor, tail, offset, rise and τ, shape (draws,) each."""
    # Short of all experts a rise would only lift the forecast, by as much as its prior says.
    seen = bool(k[-1] == last)

    def design(values: list[Array]) -> Array:
        offset = np.expm1(values[0])[:, None]  # (G, 1)
        whole = 1 / (1 + offset) - 1 / (last + offset)
        drop = (1 / (k + offset) - 1 / (last + offset)) / whole
        columns = [np.ones_like(drop), drop]
        if seen:
            columns.append(np.broadcast_to(_rise(k, last), drop.shape))
        matrix = np.einsum("mn,gnp->gmp", rotation, np.stack(columns, axis=-1))  # (G, n_k, p)
        return _with_prior(matrix, values[1]) if seen else matrix

    axes, lack_of_fit = [offset_axis()], LACK_OF_FIT_SCALE
    if seen:
        axes, lack_of_fit = [*axes, rise_axis()], _LACK_OF_FIT
        data = replace(
            data,
            loss=np.append(data.loss, 0.0),
            variance=np.append(data.variance, 1.0),
            misfit=np.append(data.misfit, 0.0),
        )
    kept: list[Array] = []
    # Draws with a negative coefficient have no prior mass: draw until enough are left.
    while sum(part.shape[1] for part in kept) < DRAWS and len(kept) < 20:
        wanted = (_SPARE if seen else 2) * DRAWS
        (u, *_), linear, tau = draw_posterior(design, axes, data, wanted, rng, lack_of_fit)
        offset = np.expm1(u)
        tail = linear[:, 1] / (1 / (1 + offset) - 1 / (last + offset))
        floor = linear[:, 0] - tail / (last + offset)
        rise = linear[:, 2] if seen else np.zeros_like(floor)
        possible = (tail >= 0) & (floor >= 0) & (rise >= 0)
        kept.append(np.stack([floor, tail, offset, rise, tau])[:, possible])
    table = np.concatenate(kept, axis=1)[:, :DRAWS]
    if table.shape[1] == 0:  # no mass on possible values: a level line, all else lack of fit
        level = data.level + data.drop / 2
        table = np.array([[level], [0.0], [0.0], [0.0], [data.drop]])
    if table.shape[1] < DRAWS:
        table = table[:, rng.integers(table.shape[1], size=DRAWS)]
    floor, tail, offset, rise, tau = table
    return floor, tail, offset, rise, tau
