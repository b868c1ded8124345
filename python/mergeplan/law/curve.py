"""One fitted curve: what it predicts, which k it recommends, and how sure both are."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from mergeplan.display.summary import Summarized
from mergeplan.law.formulas import FromCoefficients, SizeLaw
from mergeplan.law.posterior import (
    CONFIDENCE,
    DRAWS,
    MAX_OFFSET,
    Axis,
    Observations,
    central,
    draw_posterior,
    shortest,
)
from mergeplan.law.series import Series, name_of
from mergeplan.law.spread import SpreadLaw, known_variance
from mergeplan.law.tails import TailScore
from mergeplan.system.ranges import Magnitude, Number, Seed

Array = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Prediction:
    """Expected loss, in nats, of this pool's merges of k, with its interval at `confidence`.

    Attributes:
        extrapolated: Whether k or N lies beyond what was measured.
    """

    loss: float
    low: float
    high: float
    confidence: float
    extrapolated: bool


@dataclass(frozen=True)
class TargetK:
    """The k that reaches a target.

    Attributes:
        k: Smallest whole number by the fitted curve, at most the pool's size; `None` for none.
        exact: The same before rounding up.
        low, high: Interval of `exact`; infinite where the target may never be reached.
        confident: Smallest k that reaches it with the chosen confidence.
    """

    k: int | None
    exact: float | None
    low: float
    high: float
    confident: int | None
    confidence: float


@dataclass(frozen=True)
class Draws:
    """The posterior: shape (draws,) each; `tau` is the lack of fit in nats."""

    floor: Array
    tail: Array
    offset: Array
    tau: Array
    noise: Array

    def law_at(self, k: float) -> Array:
        return self.floor + self.tail / (k + self.offset)


@dataclass(frozen=True, repr=False)
class Fit(Summarized):
    """The law of one series.

    Attributes:
        r2: Share of the variance of the mean losses that the law explains, in-sample, unweighted.
        offset_unbounded: The offset where negative ones are allowed; slightly below 0 is no alarm.
        lack_of_fit: Standard deviation of what the law leaves, in nats, beside sampling error.
        weighting: `variance` or `k`.
        tails: Other forms of the tail beside this one, by leaving out each k.
        spread: Scatter of single subsets; `None` where it was not measured.
    """

    series: Series
    law: Annotated[SizeLaw, FromCoefficients()]
    r2: Annotated[float, Ge(-1e12), Le(1)]
    offset_unbounded: Number
    lack_of_fit: Magnitude
    weighting: Literal["variance", "k"]
    tails: tuple[TailScore, ...] = ()
    spread: SpreadLaw | None = None
    warnings: tuple[str, ...] = ()
    seed: Seed = field(default=0, repr=False)

    def summary(self) -> str:
        """The coefficients and how well they fit; warnings."""
        law = self.law
        curve = f"floor {law.floor:.4f}, tail {law.tail:.4f}, offset {law.offset:.4g}"
        ks = ", ".join(str(point.k) for point in self.series.points)
        lines = [f"{name_of(self.series)}: {curve}, R² {self.r2:.5f}, from k = {ks}"]
        return "\n".join([*lines, *(f"  warning: {text}" for text in self.warnings)])

    @cached_property
    def draws(self) -> Draws | None:
        """Posterior draws; `None` for two k, which leave the offset open, and with interference."""
        if len(self.series.points) < 3 or self.law.can_rise:
            return None
        return _draws(self)

    def predict(self, k: float, confidence: float = CONFIDENCE) -> Prediction:
        """Mean loss over this pool's subsets of k, for a k that need not have been measured.

        Returns:
            In nats per token, with the interval that holds the mean with `confidence`; NaN where
            the fit has no posterior.
        """
        loss = self.law.predict(k)
        extrapolated = not self.series.points[0].k <= k <= self.series.points[-1].k
        if self.draws is None:
            return Prediction(loss, float("nan"), float("nan"), confidence, extrapolated)
        values = self._pool_means(k)
        low, high = shortest(values, confidence)
        low = max(0.0, min(low, loss))
        return Prediction(loss, low, max(high, loss), confidence, extrapolated)

    def another_pool(self, k: float, confidence: float = CONFIDENCE) -> Prediction | None:
        """The same for another pool like this one: as many experts, drawn from the same kind.

        A pool's mean varies around that of all pools with variance scale / M, this one's as well as
        the other's: their difference with twice that.
        """
        if self.draws is None or self.spread is None:
            return None
        rng = np.random.default_rng(self.seed + 1)
        between = np.sqrt(2 * self.spread.scale / self.series.pool_size)
        values = self._pool_means(k) + between * rng.standard_normal(DRAWS)
        low, high = shortest(values, confidence)
        return Prediction(self.law.predict(k), low, high, confidence, k > self.series.points[-1].k)

    def solve(self, target_loss: float, confidence: float = CONFIDENCE) -> TargetK:
        """The number of experts for a target loss, in nats."""
        ks = range(1, self.series.pool_size + 1)
        slack = 1e-12 * abs(target_loss)
        k = next((k for k in ks if self.law.predict(k) <= target_loss + slack), None)
        exact = self.law.solve(target_loss)
        if self.draws is None:
            return TargetK(k, exact, float("nan"), float("nan"), None, confidence)
        draws = self.draws
        shifted = target_loss + self._shared_error()
        with np.errstate(divide="ignore", invalid="ignore"):
            solutions = np.where(
                shifted > draws.floor, draws.tail / (shifted - draws.floor) - draws.offset, np.inf
            )
        low, high = central(np.maximum(solutions, 0.0), confidence)
        confident = next(
            (k for k in ks if float((self._pool_means(k) <= target_loss).mean()) >= confidence),
            None,
        )
        return TargetK(k, exact, low, high, confident, confidence)

    def intervals(self, confidence: float = CONFIDENCE) -> dict[str, Interval]:
        """Intervals of the coefficients, by name; empty where there are no draws."""
        if self.draws is None:
            return {}
        found = {}
        for name in ("floor", "tail", "offset"):
            value = getattr(self.law, name)
            values = getattr(self.draws, name)
            if name == "floor":
                values = values + self._shared_error()
            low, high = shortest(values, confidence)
            found[name] = (min(low, value), max(high, value))
        return found

    def _pool_means(self, k: float) -> Array:
        """Draws of this pool's mean at k: the curve, its lack of fit, and the texts' error.

        Outside the measured k the lack of fit grows in proportion.
        """
        assert self.draws is not None
        points = self.series.points
        reach = max(1.0, k / points[-1].k, points[0].k / k)
        misfit = self.draws.tau * self.draws.noise * reach
        return self.draws.law_at(k) + misfit + self._shared_error()

    def _shared_error(self) -> Array:
        """The evaluation text's error, shared by all rows: it moves every loss alike."""
        rng = np.random.default_rng(self.seed + 2)
        return np.asarray(self.series.loss_se * rng.standard_normal(DRAWS))


def _draws(fitted: Fit) -> Draws:
    series = fitted.series
    k = np.array([point.k for point in series.points], np.float64)  # (n_k,)
    loss = np.array([point.loss for point in series.points])
    variance = known_variance(series, fitted.spread)
    unknown = variance is None
    data = Observations(
        loss,
        np.zeros_like(k) if variance is None else variance,
        # Weights proportional to k say that the variance falls with it.
        k.mean() / k if unknown else np.ones_like(k),
    )
    last = float(max(series.pool_size, k.max()))

    def design(values: list[Array]) -> Array:
        offset = np.expm1(values[0])[:, None]  # (G, 1)
        whole = 1 / (1 + offset) - 1 / (last + offset)
        drop = (1 / (k + offset) - 1 / (last + offset)) / whole
        return np.stack([np.ones_like(drop), drop], axis=-1)  # (G, n_k, 2)

    rng = np.random.default_rng(fitted.seed)
    axis = Axis(0.0, float(np.log1p(MAX_OFFSET)), 41, lambda u: -u)
    kept: list[Array] = []
    # Draws with a negative coefficient have no prior mass: draw until enough are left.
    while sum(len(part[0]) for part in kept) < DRAWS and len(kept) < 20:
        (u,), linear, tau = draw_posterior(design, [axis], data, 2 * DRAWS, rng)
        offset = np.expm1(u)
        tail = linear[:, 1] / (1 / (1 + offset) - 1 / (last + offset))
        floor = linear[:, 0] - tail / (last + offset)
        possible = (tail >= 0) & (floor >= 0)
        kept.append(np.stack([floor, tail, offset, tau])[:, possible])
    floor, tail, offset, tau = np.concatenate(kept, axis=1)[:, :DRAWS]
    if len(floor) < DRAWS:  # nearly all mass on impossible values: repeat what there is
        again = rng.integers(max(len(floor), 1), size=DRAWS)
        if len(floor) == 0:
            law = fitted.law
            floor, tail, offset, tau = (
                np.full(1, x) for x in (law.floor, law.tail, law.offset, fitted.lack_of_fit)
            )
        floor, tail, offset, tau = floor[again], tail[again], offset[again], tau[again]
    return Draws(floor, tail, offset, tau, rng.standard_normal(DRAWS))
