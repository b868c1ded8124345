"""One fitted curve: what it predicts, which k it recommends, and how sure both are."""

import itertools
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from mergeplan.display.summary import Summarized
from mergeplan.law.formulas import FromCoefficients, SizeLaw
from mergeplan.law.pool_means import PoolMeans, draw_means
from mergeplan.law.posterior import CONFIDENCE, DRAWS, LOWEST_OFFSET, central, shortest
from mergeplan.law.series import Series, name_of
from mergeplan.law.spread import SpreadLaw, known_covariance
from mergeplan.law.tails import TailScore, left_out_k
from mergeplan.system.ranges import Magnitude, Seed

Array = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class AtScale:
    """An interval at a base size that was not measured, under one prior of the sizes' effects.

    Attributes:
        scale: The prior's median of an effect, a standard deviation as a share of the loss.
    """

    scale: float
    low: float
    high: float


@dataclass(frozen=True)
class Prediction:
    """Mean loss on this text, in nats, of this pool's merges of k, with its interval at
    `confidence`.

    Measured values are exact on this text: what is open is how the mean departs from the law, and
    the subsets that were not measured.

    Attributes:
        extrapolated: Whether k or N lies beyond what was measured.
        scales: At a base size that was not measured, the interval at half the scale of the prior of
            the sizes' effects, at the scale itself, and at twice it.
    """

    loss: float
    low: float
    high: float
    confidence: float
    extrapolated: bool
    scales: tuple[AtScale, ...] = ()


@dataclass(frozen=True)
class TargetK:
    """The k at which this pool's mean loss on this text reaches a target.

    Attributes:
        k: Smallest whole number whose expected mean does, at most the pool's size; `None` for none.
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


@dataclass(frozen=True, repr=False)
class Fit(Summarized):
    """The law of one series, and what it says of this pool's mean loss at each k on this text.

    Attributes:
        law: In the paper's form, whose offset b is not negative.
        forecast: The same with b down to -0.5; expectations, k and intervals come from it.
        r2: Share of the variance of the mean losses that the law explains, in-sample, unweighted.
        lack_of_fit: Standard deviation of what the law leaves, in nats, beside sampling error.
        weighting: `variance` or `k`.
        tails: Other forms of the tail beside this one, by leaving out each k.
        spread: Scatter of single subsets; `None` where it was not measured.
    """

    series: Series
    law: Annotated[SizeLaw, FromCoefficients()]
    forecast: Annotated[SizeLaw, FromCoefficients(LOWEST_OFFSET)]
    r2: Annotated[float, Ge(-1e12), Le(1)]
    lack_of_fit: Magnitude
    weighting: Literal["variance", "k"]
    tails: tuple[TailScore, ...] = ()
    spread: SpreadLaw | None = None
    warnings: tuple[str, ...] = ()
    seed: Seed = field(default=0, repr=False)

    def summary(self) -> str:
        """The forecast's coefficients and how well they fit on this text; warnings."""
        law = self.forecast
        curve = f"floor {law.floor:.4f}, tail {law.tail:.4f}, offset {law.offset:.4g}"
        ks = ", ".join(str(point.k) for point in self.series.points)
        lines = [f"{name_of(self.series)}: {curve}, R² {self.r2:.5f}, from k = {ks}, on this text"]
        return "\n".join([*lines, *(f"  warning: {text}" for text in self.warnings)])

    @cached_property
    def draws(self) -> PoolMeans | None:
        """Posterior draws; `None` for two k, which leave the offset open, and with interference.

        Around the averaged law of single subsets, where that speaks.
        """
        drawn = self._drawn
        if drawn is None or not self.subsets_speak:
            return drawn
        return replace(drawn, means=np.maximum(drawn.means + self._averaged - _middle(drawn), 0.0))

    @cached_property
    def curve_left_out(self) -> float:
        """Root mean square error of the curve at a k that is left out, in nats."""
        points = self.series.points
        k, loss = ([getattr(p, name) for p in points] for name in ("k", "loss"))
        return left_out_k(np.array(k, np.float64), np.array(loss), self.tails)

    @cached_property
    def subsets_speak(self) -> bool:
        """Whether the averaged law of single subsets forecasts the means, and not the curve.

        It does where it predicts a merge that is left out with less error than the curve a k that
        is left out, and its means lie in the curve's 90 % intervals: what bends with k alone is not
        in its form.
        """
        averaged, drawn = self.series.averaged, self._drawn
        if averaged is None or drawn is None or averaged.left_out >= self.curve_left_out:
            return False
        intervals = [shortest(drawn.at(k), CONFIDENCE) for k in drawn.ks]
        low, high = np.array(intervals).T
        whole = low == high
        inside = (low <= self._averaged) & (self._averaged <= high)
        return bool(np.all(inside | whole))

    @property
    def voice(self) -> str | None:
        """Which of the two forecasts speaks and why; `None` where there is one only."""
        averaged = self.series.averaged
        if averaged is None or self._drawn is None:
            return None
        errors = (
            f"a merge that is left out is predicted to {averaged.left_out:.5f} nats by it, a k that"
            f" is left out to {self.curve_left_out:.5f} by the curve"
        )
        if self.subsets_speak:
            return f"the law of single subsets, averaged, forecasts the means: {errors}"
        missing = {point.k for point in self.series.points}
        said = ", ".join(
            f"{loss:.4f} at k = {k}"
            for k, loss in enumerate(averaged.losses, 1)
            if k not in missing
        )
        outside = averaged.left_out < self.curve_left_out
        why = ", but it leaves the curve's interval" if outside else ""
        return (
            f"the curve forecasts the means; the law of single subsets, averaged, says {said}:"
            f" {errors}{why}"
        )

    @property
    def _averaged(self) -> Array:
        """The averaged law at the draws' k, shape (n_ks,); measured means as they are."""
        assert self.series.averaged is not None
        assert self._drawn is not None
        measured = {point.k: point.loss for point in self.series.points}
        losses = self.series.averaged.losses
        return np.array([measured.get(int(k), losses[int(k) - 1]) for k in self._drawn.ks])

    @cached_property
    def _drawn(self) -> PoolMeans | None:
        """Draws of the curve."""
        series = self.series
        if len(series.points) < 3 or self.law.can_rise:
            return None
        return draw_means(
            np.array([point.k for point in series.points], np.float64),
            np.array([point.loss for point in series.points]),
            known_covariance(series, self.spread),
            series.pool_size,
            self.seed,
        )

    @cached_property
    def expected(self) -> tuple[float, ...]:
        """Expected mean loss of each k from 1 to the pool's size, in nats on this text.

        The measured mean where every subset was measured; else the middle of the draws, or, where
        no sampling error is known that would weigh the means against the law, the forecast.
        """
        whole = range(1, self.series.pool_size + 1)
        complete = {point.k: point.loss for point in self.series.points if point.complete}
        if self.draws is None or self.weighting == "k":
            return tuple(complete.get(k, self.forecast.predict(k)) for k in whole)
        # Between the k that were drawn, of which a large pool has only some, along 1/(k + b).
        steps = -1 / (np.array(whole) + self.forecast.offset)
        drawn = -1 / (self.draws.ks + self.forecast.offset)
        middle = np.interp(steps, drawn, np.median(self.draws.means, axis=0))
        return tuple(complete.get(k, float(middle[k - 1])) for k in whole)

    def expect(self, k: float) -> float:
        """The same for any k, whole or not, of this pool or beyond it."""
        size = self.series.pool_size
        if 1 <= k <= size and k == int(k):
            return self.expected[int(k) - 1]
        if self.draws is None or self.weighting == "k":
            return self.forecast.predict(k)
        return float(np.median(self.draws.at(k)))

    @property
    def largest_measured(self) -> int:
        return self.series.points[-1].k

    def reaching(self, fraction: float) -> int:
        """Smallest k with this share of the improvement from one expert to the best k (4.4)."""
        first, last = self.expected[0], self.expected[self.best_k - 1]
        return self.first(first - fraction * (first - last)) or self.best_k

    @property
    def best_k(self) -> int:
        """The k with the lowest expected mean: all experts, but where the curve turns up."""
        size = self.series.pool_size
        return min(range(size, 0, -1), key=lambda k: self.expected[k - 1])

    def first(self, target_loss: float) -> int | None:
        """Smallest k of the pool whose expected mean reaches a target."""
        enough = target_loss + 1e-12 * abs(target_loss)
        ks = itertools.count(1)
        return next((k for k, loss in zip(ks, self.expected, strict=False) if loss <= enough), None)

    def predict(self, k: float, confidence: float = CONFIDENCE) -> Prediction:
        """Mean loss over this pool's subsets of k, for a k that need not have been measured.

        Returns:
            In nats per token, with the interval that holds the mean on this text with `confidence`,
            of no width where every subset of k was measured; NaN where the fit has no posterior.
        """
        loss = self.expect(k)
        extrapolated = not self.series.points[0].k <= k <= self.largest_measured
        low = high = float("nan")
        if self.draws is not None:
            low, high = shortest(self.draws.at(k), confidence)
            low, high = max(0.0, min(low, loss)), max(high, loss)
        return Prediction(loss, low, high, confidence, extrapolated)

    def another_pool(self, k: float, confidence: float = CONFIDENCE) -> Prediction | None:
        """The same for another pool like this one: as many experts, drawn from the same kind.

        A pool's mean varies around that of all pools with variance scale / M, this one's as well as
        the other's: their difference with twice that.
        """
        if self.spread is None:
            return None
        return self._wider(k, confidence, np.sqrt(2 * self.spread.scale / self.series.pool_size))

    def on_other_texts(self, k: float, confidence: float = CONFIDENCE) -> Prediction | None:
        """The same on texts of this kind: with the texts' error, which is shared by all rows and
        moves every loss alike; `None` where the table has no `loss_se`."""
        return self._wider(k, confidence, self.series.loss_se) if self.series.loss_se else None

    def _wider(self, k: float, confidence: float, deviation: float) -> Prediction | None:
        if self.draws is None:
            return None
        own = self.predict(k, confidence)
        noise = np.random.default_rng(self.seed + 1).standard_normal(DRAWS)
        low, high = shortest(self.draws.at(k) + deviation * noise, confidence)
        return replace(own, low=max(0.0, min(low, own.loss)), high=max(high, own.loss))

    def solve(self, target_loss: float, confidence: float = CONFIDENCE) -> TargetK:
        """The number of experts for a target loss, in nats on this text."""
        k, exact = self.first(target_loss), self._crossing(target_loss)
        if self.draws is None:
            return TargetK(k, exact, float("nan"), float("nan"), None, confidence)
        low, high = central(self.draws.crossing(target_loss), confidence)
        confident = self._sure(target_loss + 1e-12 * abs(target_loss), confidence)
        if exact is not None:
            low, high = min(low, exact), max(high, exact)
        return TargetK(k, exact, low, high, confident, confidence)

    def _sure(self, target: float, confidence: float) -> int | None:
        """Smallest k whose mean is at or below a target in this share of the draws."""
        assert self.draws is not None
        draws = self.draws
        sure = np.flatnonzero((draws.means <= target).mean(0) >= confidence)
        if len(sure) == 0:
            return None
        before, at = (int(draws.ks[place]) for place in (max(sure[0] - 1, 0), sure[0]))
        between = range(before + 1, at)
        return next((k for k in between if (draws.at(k) <= target).mean() >= confidence), at)

    def _crossing(self, target: float) -> float | None:
        """Where the expected means reach a target, joined as the draws are."""
        law = self.forecast
        if law.can_rise:
            return law.solve(target)
        floor, tail, offset, none = np.array([[law.floor], [law.tail], [law.offset], [0.0]])
        ks = np.arange(1.0, self.series.pool_size + 1)
        means = PoolMeans(floor, tail, offset, none, none, ks, np.array([self.expected]), none)
        found = means.crossing(target)[0]
        return float(found) if np.isfinite(found) else None

    def intervals(self, confidence: float = CONFIDENCE) -> dict[str, Interval]:
        """Intervals of the forecast's coefficients on this text; empty where there are no draws."""
        if self.draws is None:
            return {}
        found = {}
        for name in ("floor", "tail", "offset"):
            value = getattr(self.forecast, name)
            low, high = shortest(getattr(self.draws, name), confidence)
            found[name] = (min(low, value), max(high, value))
        return found


def _middle(draws: PoolMeans) -> Array:
    """Medians of the drawn means, shape (n_ks,)."""
    return np.asarray(np.median(draws.means, axis=0))
