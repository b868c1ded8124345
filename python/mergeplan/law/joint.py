"""The joint law over base sizes: L* + B·N^-β + A0·N^-γ / (k + b), N in billions (Eq. 1)."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le, MinLen
from numpy.typing import NDArray

from mergeplan.law.formulas import JointLaw
from mergeplan.law.least_squares import aicc, huber, project
from mergeplan.law.posterior import (
    CONFIDENCE,
    DRAWS,
    LACK_OF_FIT_SCALE,
    MAX_OFFSET,
    NO_OFFSET,
    Axis,
    Observations,
    draw_posterior,
    shortest,
)
from mergeplan.law.series import Series
from mergeplan.law.spread import fit_spread, known_covariance
from mergeplan.system.ranges import Seed

Array = NDArray[np.float64]

MAX_BETA = 3.0
MAX_GAMMA = 2.0
# γ is kept at 0 unless AICc falls by more than this: the paper's own tables hardly identify it.
_GAMMA_GAIN = 6.0


@dataclass(frozen=True)
class JointFit:
    """The law of one method over all measured sizes.

    Attributes:
        gamma_identified: Whether the data ask for a tail that changes with N; else γ is 0.
        r2: In-sample, unweighted, over all (N, k).
    """

    method: str
    options: str
    law: JointLaw
    r2: Annotated[float, Ge(-1e12), Le(1)]
    gamma_identified: bool
    series: Annotated[tuple[Series, ...], MinLen(1)]
    seed: Seed = field(default=0, repr=False)

    @property
    def largest_k(self) -> int:
        return max(series.points[-1].k for series in self.series)

    @cached_property
    def draws(self) -> dict[str, Array]:
        """Posterior draws of each coefficient and of the lack of fit `tau`, shape (draws,)."""
        return _draws(self)

    def predict(
        self, k: float, n_params: float, confidence: float = CONFIDENCE
    ) -> tuple[float, float, float]:
        """Expected loss on this text at k for a base of `n_params`, and its interval, in nats.

        Beyond the measured sizes the lack of fit grows with the distance in log N.
        """
        n = n_params / 1e9
        loss = self.law.predict(k, n)
        d = self.draws
        curve = d["l_star"] + d["b_size"] * n ** -d["beta"]
        curve = curve + d["a_0"] * n ** -d["gamma"] / (k + d["offset"])
        moved = curve + d["tau"] * d["noise"] * self._reach(k, n)
        low, high = shortest(moved, confidence)
        return loss, max(0.0, min(low, loss)), max(high, loss)

    def intervals(self, confidence: float = CONFIDENCE) -> dict[str, tuple[float, float]]:
        """Intervals of the coefficients on this text; none for a gamma set to 0, not estimated."""
        found = {}
        for name in ("l_star", "b_size", "beta", "a_0", "gamma", "offset"):
            if name == "gamma" and not self.gamma_identified:
                continue
            value = getattr(self.law, name)
            low, high = shortest(self.draws[name], confidence)
            found[name] = (min(low, value), max(high, value))
        return found

    def _reach(self, k: float, n: float) -> float:
        sizes = [series.n_billion or 0.0 for series in self.series]
        span = np.log(max(sizes) / min(sizes))
        outside = max(np.log(n / max(sizes)), np.log(min(sizes) / n), 0.0)
        smallest_k = min(series.points[0].k for series in self.series)
        return float(max(1.0, k / self.largest_k, smallest_k / k) * (1 + outside / span))


def fit_joint(members: list[Series], seed: int = 0, robust: bool = False) -> JointFit:
    """Fit all sizes of one method together; three sizes or more.

    Args:
        robust: Weigh down means that lie far from the law (Huber's weights).
    """
    n, k, loss, variance = _table(members)
    weights = (
        k if variance is None else 1 / (variance + (LACK_OF_FIT_SCALE * np.ptp(loss)) ** 2 + 1e-30)
    )
    for _ in range(5 if robust else 0):
        rough, _ = _fit(n, k, loss, weights, free_gamma=False, seed=seed)
        predicted = np.array([rough.predict(a, b) for a, b in zip(k, n, strict=True)])
        weights = weights * huber((loss - predicted) * np.sqrt(weights))
    fixed, fixed_cost = _fit(n, k, loss, weights, free_gamma=False, seed=seed)
    law, cost = fixed, fixed_cost
    if len(loss) > 8:
        free, free_cost = _fit(n, k, loss, weights, free_gamma=True, seed=seed)
        if aicc(fixed_cost, len(loss), 5) - aicc(free_cost, len(loss), 6) > _GAMMA_GAIN:
            law, cost = free, free_cost
    residuals = loss - np.array([law.predict(a, b) for a, b in zip(k, n, strict=True)])
    total = float(((loss - loss.mean()) ** 2).sum())
    first = members[0]
    return JointFit(
        method=first.method,
        options=first.options,
        law=law,
        r2=1 - float((residuals**2).sum()) / total if total > 0 else 1.0,
        gamma_identified=cost < fixed_cost,
        series=tuple(sorted(members, key=lambda series: series.n_params or 0.0)),
        seed=seed,
    )


def _table(members: list[Series]) -> tuple[Array, Array, Array, Array | None]:
    """N in billions, k, loss and sampling variance of every point, shape (n_points,) each."""
    rows = [(series, point) for series in members for point in series.points]
    n = np.array([series.n_billion for series, _ in rows], np.float64)
    k = np.array([point.k for _, point in rows], np.float64)
    loss = np.array([point.loss for _, point in rows], np.float64)
    variances = []
    for series in members:
        known = known_covariance(series, fit_spread(series.points, series.pool_size))
        if known is None:
            return n, k, loss, None
        variances.append(np.diag(known))
    return n, k, loss, np.concatenate(variances)


def _fit(
    n: Array, k: Array, loss: Array, weights: Array, *, free_gamma: bool, seed: int
) -> tuple[JointLaw, float]:
    def design(shape: Array) -> Array:
        beta, offset = np.exp(shape[0]), np.expm1(shape[1])
        gamma = shape[2] if free_gamma else 0.0
        return np.stack([np.ones_like(n), n**-beta, n**-gamma / (k + offset)], axis=1)

    bounds = [(float(np.log(0.01)), float(np.log(MAX_BETA))), (0.0, float(np.log1p(MAX_OFFSET)))]
    if free_gamma:
        bounds.append((0.0, MAX_GAMMA))
    found = project(design, loss, weights, bounds, seed)
    l_star, b_size, a_0 = map(float, found.linear)
    gamma = float(found.shape[2]) if free_gamma else 0.0
    beta, offset = float(np.exp(found.shape[0])), float(np.expm1(found.shape[1]))
    offset = offset if offset > NO_OFFSET else 0.0
    return JointLaw(l_star, b_size, beta, a_0, gamma, offset), found.cost


def _draws(fitted: JointFit) -> dict[str, Array]:
    n, k, loss, variance = _table(list(fitted.series))
    data = Observations.of(
        loss,
        np.zeros_like(k) if variance is None else variance,
        k.mean() / k if variance is None else np.ones_like(k),
    )
    low_n, high_n, last = n.min(), n.max(), k.max()

    def parts(beta: Array, offset: Array, gamma: Array) -> tuple[Array, Array]:
        """What the coefficients of the two drops stand for, in natural units."""
        by_size = low_n**-beta - high_n**-beta
        by_k = high_n**-gamma * (1 / (1 + offset) - 1 / (last + offset))
        return by_size, by_k

    def design(values: list[Array]) -> Array:
        beta, offset = np.exp(values[0])[:, None], np.expm1(values[1])[:, None]
        gamma = values[2][:, None] if len(values) > 2 else np.zeros_like(beta)
        by_size, by_k = parts(beta, offset, gamma)
        size = (n**-beta - high_n**-beta) / by_size
        tail = (n**-gamma / (k + offset) - high_n**-gamma / (last + offset)) / by_k
        return np.stack([np.ones_like(size), size, tail], axis=-1)

    axes = [
        Axis(float(np.log(0.01)), float(np.log(MAX_BETA)), 17, lambda u: u),
        Axis(0.0, float(np.log1p(MAX_OFFSET)), 17, lambda u: -u),
    ]
    if fitted.gamma_identified:
        axes.append(Axis(0.0, MAX_GAMMA, 9, lambda g: np.zeros_like(g)))
    rng = np.random.default_rng(fitted.seed)
    names = ("l_star", "b_size", "beta", "a_0", "gamma", "offset", "tau")
    kept: list[Array] = []
    while sum(part.shape[1] for part in kept) < DRAWS and len(kept) < 10:
        values, linear, tau = draw_posterior(design, axes, data, 2 * DRAWS, rng)
        beta, offset = np.exp(values[0]), np.expm1(values[1])
        gamma = values[2] if len(values) > 2 else np.zeros_like(beta)
        by_size, by_k = parts(beta, offset, gamma)
        b_size, a_0 = linear[:, 1] / by_size, linear[:, 2] / by_k
        l_star = linear[:, 0] - b_size * high_n**-beta - a_0 * high_n**-gamma / (last + offset)
        possible = (l_star >= 0) & (b_size >= 0) & (a_0 >= 0)
        kept.append(np.stack([l_star, b_size, beta, a_0, gamma, offset, tau])[:, possible])
    table = np.concatenate(kept, axis=1)[:, :DRAWS]
    if table.shape[1] == 0:
        point = [getattr(fitted.law, name) for name in names[:-1]]
        table = np.array([*point, 0.0])[:, None]
    table = table[:, np.arange(DRAWS) % table.shape[1]]
    found = dict(zip(names, table, strict=True))
    return {**found, "noise": rng.standard_normal(DRAWS)}
