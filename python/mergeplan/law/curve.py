"""One fitted curve: what it predicts, which k it recommends, and how sure both are."""

import itertools
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from mergeplan.display.summary import Summarized
from mergeplan.law.formulas import FromCoefficients, SizeLaw
from mergeplan.law.pool_means import PoolMeans, draw_means
from mergeplan.law.posterior import CONFIDENCE, DRAWS, LOWEST_OFFSET, central, shortest
from mergeplan.law.scale import Scale
from mergeplan.law.series import Series, name_of
from mergeplan.law.spread import SpreadLaw, item_variances, known_covariance
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
    """Mean loss on this text, in nats, of this pool's merges of k, or mean of a metric on its own
    scale, with its interval at `confidence`.

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
        law: In the paper's form, whose offset b is not negative; of a metric, of its turned values
            (see `scale`). All else is on the metric's own scale.
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
        curve = coefficients_text(self.forecast, self.series.scale)
        ks = ", ".join(str(point.k) for point in self.series.points)
        lines = [f"{name_of(self.series)}: {curve}, R² {self.r2:.5f}, from k = {ks}, on this text"]
        return "\n".join([*lines, *(f"  warning: {text}" for text in self.warnings)])

    def records(self) -> list[dict[str, Any]]:
        """A row for each k that was measured."""
        names = ("k", "loss", "n_subsets", "n_possible", "spread", "best_loss")
        return [
            {
                **{name: getattr(point, name) for name in names},
                "best_subset": "+".join(point.best_subset),
                "expected": self.expect(point.k),
            }
            for point in self.series.points
        ]

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
        """Root mean square error of the curve at a k that is left out."""
        k, turned = measured_means(self.series)
        return left_out_k(k, turned, self.tails)

    @cached_property
    def subsets_speak(self) -> bool:
        """Whether the averaged law of single subsets forecasts the means, and not the curve.

        It does where it predicts a merge that is left out with less error than the curve a k that
        is left out, and of four k or more its means lie in the curve's 90 % intervals: what bends
        with k alone is not in its form. Three k any curve passes through, which then is no judge:
        of TIES on a byte pool, all of k = 1, 2 and 4, the curve's intervals held none of the later
        means.
        """
        averaged, drawn = self.series.averaged, self._drawn
        if averaged is None or drawn is None or averaged.left_out >= self.curve_left_out:
            return False
        if len(self.series.points) == 3:
            return True
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
        error = f"{averaged.left_out:.5f}{self.series.scale.unit}"
        errors = (
            f"a merge that is left out is predicted to {error} by it, a k that"
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
        """The averaged law at the draws' k, turned, shape (n_ks,); measured means as they are."""
        assert self.series.averaged is not None
        assert self._drawn is not None
        measured = {point.k: point.loss for point in self.series.points}
        losses = self.series.averaged.losses
        found = np.array([measured.get(int(k), losses[int(k) - 1]) for k in self._drawn.ks])
        return self.series.scale.turned(found)

    @cached_property
    def _drawn(self) -> PoolMeans | None:
        """Draws of the curve."""
        series = self.series
        if len(series.points) < 3 or self.law.can_rise:
            return None
        return draw_means(
            *measured_means(series),
            known_covariance(series, self.spread),
            series.pool_size,
            self.seed,
            lambda ks: item_variances(series, ks),
        )

    @cached_property
    def expected(self) -> tuple[float, ...]:
        """Expected mean of each k from 1 to the pool's size on this text.

        The measured mean where every subset was measured; else the middle of the draws, or, where
        no sampling error is known that would weigh the means against the law, the forecast.
        """
        whole = range(1, self.series.pool_size + 1)
        own = self.series.scale.own
        complete = {point.k: point.loss for point in self.series.points if point.complete}
        if self.draws is None or self.weighting == "k":
            return tuple(complete.get(k, own(self.forecast.predict(k))) for k in whole)
        # Between the k that were drawn, of which a large pool has only some, along 1/(k + b).
        steps = -1 / (np.array(whole) + self.forecast.offset)
        drawn = -1 / (self.draws.ks + self.forecast.offset)
        middle = np.interp(steps, drawn, np.median(self.draws.means, axis=0))
        return tuple(complete.get(k, own(float(middle[k - 1]))) for k in whole)

    def expect(self, k: float) -> float:
        """The same for any k, whole or not, of this pool or beyond it."""
        size = self.series.pool_size
        if 1 <= k <= size and k == int(k):
            return self.expected[int(k) - 1]
        if self.draws is None or self.weighting == "k":
            return self.series.scale.own(self.forecast.predict(k))
        return self.series.scale.own(float(np.median(self.draws.at(k))))

    @property
    def largest_measured(self) -> int:
        return self.series.points[-1].k

    def reaching(self, fraction: float) -> int:
        """Smallest k with this share of the improvement from one expert to the best k (4.4)."""
        first, last = self.expected[0], self.expected[self.best_k - 1]
        return self.first(first - fraction * (first - last)) or self.best_k

    @property
    def best_k(self) -> int:
        """The k with the best expected mean; all experts, but where the curve turns back."""
        size, sign = self.series.pool_size, self.series.scale.sign
        return min(range(size, 0, -1), key=lambda k: sign * self.expected[k - 1])

    def first(self, target_loss: float) -> int | None:
        """Smallest k of the pool whose expected mean reaches a target."""
        found = zip(itertools.count(1), self.expected, strict=False)
        return next((k for k, value in found if self.reaches(value, target_loss)), None)

    def reaches(self, value: float, target: float) -> bool:
        """Whether a value is as good as a target.

        Args:
            value, target: On the scale of the table.
        """
        return self.series.scale.sign * (value - target) <= 1e-12 * abs(target)

    def predict(self, k: float, confidence: float = CONFIDENCE) -> Prediction:
        """Mean loss over this pool's subsets of k, for a k that need not have been measured.

        Returns:
            In nats per token, or the metric, with the interval that holds the mean on this text
            with `confidence`, of no width where every subset of k was measured; NaN where the fit
            has no posterior.
        """
        loss = self.expect(k)
        extrapolated = not self.series.points[0].k <= k <= self.largest_measured
        low = high = float("nan")
        if self.draws is not None:
            low, high = self._around(loss, self.draws.at(k), confidence)
        return Prediction(loss, low, high, confidence, extrapolated)

    def _around(self, value: float, draws: Array, confidence: float) -> Interval:
        """The interval of turned draws, with a value in it, on the scale of the table."""
        scale = self.series.scale
        low, high = shortest(draws, confidence)
        if low == high:  # measured whole: no other digits than the table's
            return value, value
        ends = np.clip((low, high), 0.0, scale.most).tolist()
        low, high = scale.interval(*ends)
        return min(low, value), max(high, value)

    def another_pool(self, k: float, confidence: float = CONFIDENCE) -> Prediction | None:
        """The same for another pool like this one: as many experts, drawn from the same kind.

        A pool's mean varies around that of all pools with variance scale / M, this one's as well as
        the other's: their difference with twice that.
        """
        if self.spread is None:
            return None
        return self._wider(k, confidence, np.sqrt(2 * self.spread.scale / self.series.pool_size))

    def on_other_texts(self, k: float, confidence: float = CONFIDENCE) -> Prediction | None:
        """The same on texts or items of this kind: with the texts' error, which is shared by all
        rows and moves every loss alike; `None` where the table does not say it."""
        return self._wider(k, confidence, self.series.loss_se) if self.series.loss_se else None

    def _wider(self, k: float, confidence: float, deviation: float) -> Prediction | None:
        if self.draws is None:
            return None
        own = self.predict(k, confidence)
        noise = np.random.default_rng(self.seed + 1).standard_normal(DRAWS)
        low, high = self._around(own.loss, self.draws.at(k) + deviation * noise, confidence)
        return replace(own, low=low, high=high)

    def solve(self, target_loss: float, confidence: float = CONFIDENCE) -> TargetK:
        """The number of experts for a target loss, in nats on this text, or a value to reach."""
        turned = self.series.scale.turned(target_loss)
        k, exact = self.first(target_loss), self._crossing(turned)
        if self.draws is None:
            return TargetK(k, exact, float("nan"), float("nan"), None, confidence)
        low, high = central(self.draws.crossing(turned), confidence)
        confident = self._sure(turned + 1e-12 * abs(target_loss), confidence)
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
        """Where the expected means reach a turned target, joined as the draws are."""
        law = self.forecast
        if law.can_rise:
            return law.solve(target)
        floor, tail, offset, none = np.array([[law.floor], [law.tail], [law.offset], [0.0]])
        ks = np.arange(1.0, self.series.pool_size + 1)
        expected = self.series.scale.turned(np.array([self.expected]))
        means = PoolMeans(floor, tail, offset, none, none, ks, expected, none)
        found = means.crossing(target)[0]
        return float(found) if np.isfinite(found) else None

    def intervals(self, confidence: float = CONFIDENCE) -> dict[str, Interval]:
        """Intervals of the forecast's coefficients on this text, of a metric those of its turned
        values; empty where there are no draws."""
        if self.draws is None:
            return {}
        found = {}
        for name in ("floor", "tail", "offset"):
            value = getattr(self.forecast, name)
            low, high = shortest(getattr(self.draws, name), confidence)
            found[name] = (min(low, value), max(high, value))
        return found


def measured_means(series: Series) -> tuple[Array, Array]:
    """The measured k and their means, turned, shape (n_k,) each."""
    k = np.array([point.k for point in series.points], np.float64)
    return k, series.scale.turned(np.array([point.loss for point in series.points]))


def coefficients_text(law: SizeLaw, scale: Scale, digits: int = 4) -> str:
    """Floor, tail and offset; of a metric of which more is better the ceiling less the tail."""
    limit = scale.own(law.floor)
    return f"{scale.limit} {limit:.{digits}f}, tail {law.tail:.{digits}f}, offset {law.offset:.4g}"


def _middle(draws: PoolMeans) -> Array:
    """Medians of the drawn means, shape (n_ks,)."""
    return np.asarray(np.median(draws.means, axis=0))
