"""The joint law over base sizes: L* + B·N^-β + A0·N^-γ / (k + b), N in billions (Eq. 1)."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le, MinLen
from numpy.typing import NDArray

from mergeplan.law.curve import AtScale, measured_means
from mergeplan.law.formulas import JointLaw
from mergeplan.law.joint_draws import (
    MAX_BETA,
    MAX_GAMMA,
    MIN_BETA,
    SIZE_EFFECT,
    JointDraws,
    Rows,
    draw_joint,
)
from mergeplan.law.least_squares import aicc, huber, project
from mergeplan.law.posterior import CONFIDENCE, LACK_OF_FIT_SCALE, MAX_OFFSET, NO_OFFSET, shortest
from mergeplan.law.series import Series
from mergeplan.law.spread import fit_spread, item_variances, known_covariance
from mergeplan.system.ranges import Seed

Array = NDArray[np.float64]

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

    @property
    def unchecked(self) -> bool:
        """Whether L*, B and β fit the sizes exactly, so that nothing tells how far off they are."""
        return len(self.series) <= 3

    def draws(self, scale: float = SIZE_EFFECT) -> JointDraws:
        """Posterior draws.

        Args:
            scale: Median of the prior of the sizes' effects, as a share of the loss.
        """
        if scale not in self._drawn:
            rows = _rows(list(self.series))
            self._drawn[scale] = draw_joint(
                rows, free_gamma=self.gamma_identified, scale=scale, seed=self.seed
            )
        return self._drawn[scale]

    @cached_property
    def _drawn(self) -> dict[float, JointDraws]:
        return {}

    def predict(
        self,
        k: float,
        n_params: float,
        confidence: float = CONFIDENCE,
        scale: float = SIZE_EFFECT,
    ) -> tuple[float, float, float]:
        """Expected loss on this text at k for a base of `n_params`, and its interval, in nats; of a
        metric its value.

        A size that was not measured has an effect of its own, as every size has. Beyond the
        measured ones the lack of fit grows with the distance in log N.

        Args:
            scale: As for `draws`.
        """
        n = n_params / 1e9
        drawn = self.draws(scale)
        d = drawn.coefficients
        curve = d["l_star"] + d["b_size"] * n ** -d["beta"]
        curve = curve + d["a_0"] * n ** -d["gamma"] / (k + d["offset"])
        sizes = [series.n_params for series in self.series]
        if n_params in sizes:
            effect = drawn.effects[:, sizes.index(n_params)]
            loss = float(np.median(curve + effect))
        else:
            effect = d["sigma"] * drawn.size_noise * curve
            loss = self.law.predict(k, n)
        moved = curve + effect + d["tau"] * drawn.noise * self._reach(k, n)
        low, high = shortest(moved, confidence)
        own = self.series[0].scale
        return own.own(loss), *own.interval(
            max(0.0, min(low, loss)), min(max(high, loss), own.most)
        )

    def at_scales(
        self, k: float, n_params: float, confidence: float = CONFIDENCE
    ) -> tuple[AtScale, ...]:
        """The interval at half the prior's scale, at the scale itself, and at twice it.

        Args:
            k, n_params, confidence: As for `predict`.

        Returns:
            Three, by ascending scale; losses in nats.
        """
        scales = (SIZE_EFFECT / 2, SIZE_EFFECT, 2 * SIZE_EFFECT)
        return tuple(AtScale(s, *self.predict(k, n_params, confidence, s)[1:]) for s in scales)

    def intervals(self, confidence: float = CONFIDENCE) -> dict[str, tuple[float, float]]:
        """Intervals of the coefficients on this text; none for a gamma set to 0, not estimated."""
        found = {}
        for name in ("l_star", "b_size", "beta", "a_0", "gamma", "offset"):
            if name == "gamma" and not self.gamma_identified:
                continue
            value = getattr(self.law, name)
            low, high = shortest(self.draws().coefficients[name], confidence)
            found[name] = (min(low, value), max(high, value))
        return found

    def size_effect(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Interval of a size's effect, a standard deviation as a share of its losses.

        Args:
            confidence: Of the interval, between 0 and 1.

        Returns:
            Its low and high end.
        """
        return shortest(self.draws().coefficients["sigma"], confidence)

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
    n, k, loss, covariance = _table(members)
    weights = k
    if covariance is not None:
        variance = np.diag(covariance)
        weights = 1 / (variance + (LACK_OF_FIT_SCALE * np.ptp(loss)) ** 2 + 1e-30)
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
    """N in billions, k and loss of every point, shape (n_points,) each, and the covariance of their
    sampling errors, which sizes do not share."""
    rows = [(series, point) for series in members for point in series.points]
    n = np.array([series.n_billion for series, _ in rows], np.float64)
    k = np.array([point.k for _, point in rows], np.float64)
    loss = np.concatenate([measured_means(series)[1] for series in members])
    covariance = np.zeros((len(rows), len(rows)))
    last = 0
    for series in members:
        known = known_covariance(series, fit_spread(series.points, series.pool_size))
        if known is None:
            return n, k, loss, None
        first, last = last, last + len(known)
        covariance[first:last, first:last] = known
        items = item_variances(series, measured_means(series)[0])
        covariance[range(first, last), range(first, last)] += items
    return n, k, loss, covariance


def _fit(
    n: Array, k: Array, loss: Array, weights: Array, *, free_gamma: bool, seed: int
) -> tuple[JointLaw, float]:
    def design(shape: Array) -> Array:
        beta, offset = np.exp(shape[0]), np.expm1(shape[1])
        gamma = shape[2] if free_gamma else 0.0
        return np.stack([np.ones_like(n), n**-beta, n**-gamma / (k + offset)], axis=1)

    bounds = [
        (float(np.log(MIN_BETA)), float(np.log(MAX_BETA))),
        (0.0, float(np.log1p(MAX_OFFSET))),
    ]
    if free_gamma:
        bounds.append((0.0, MAX_GAMMA))
    found = project(design, loss, weights, bounds, seed)
    l_star, b_size, a_0 = map(float, found.linear)
    gamma = float(found.shape[2]) if free_gamma else 0.0
    beta, offset = float(np.exp(found.shape[0])), float(np.expm1(found.shape[1]))
    offset = offset if offset > NO_OFFSET else 0.0
    return JointLaw(l_star, b_size, beta, a_0, gamma, offset), found.cost


def _rows(members: list[Series]) -> Rows:
    """Every mean, by ascending size."""
    members = sorted(members, key=lambda series: series.n_billion or 0.0)
    n, k, loss, covariance = _table(members)
    sizes, size = np.unique(n, return_inverse=True)
    return Rows(sizes, size, k, loss, covariance)
