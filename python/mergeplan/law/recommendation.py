"""What is asked for, what can be done about it, and how that reads."""

import math
from dataclasses import dataclass
from typing import Any

from mergeplan.config.labels import in_words
from mergeplan.display.summary import Summarized
from mergeplan.display.table import align_columns
from mergeplan.display.text import chance_text, format_count
from mergeplan.law.costs import CostModel
from mergeplan.law.curve import AtScale, Fit, Prediction, TargetK, coefficients_text
from mergeplan.law.posterior import CONFIDENCE
from mergeplan.law.series import Point, name_of
from mergeplan.law.trend import trendless
from mergeplan.system.ranges import check_number


@dataclass(frozen=True)
class Goal:
    """What is asked for.

    Attributes:
        target_loss: In nats per token, or on the scale of the metric; without one, `fraction`
            decides.
        fraction: Share of the whole improvement from one expert to all of them.
        epsilon: Distance to the floor, in nats, for one more answer.
        budget: Most that a merge may cost.
        confidence: Of all intervals.
    """

    target_loss: float | None = None
    fraction: float = 0.9
    epsilon: float | None = None
    budget: float | None = None
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        """Raises `InputError` for a number out of its range."""
        for name in ("epsilon", "budget"):
            if (value := getattr(self, name)) is not None:
                check_number(value, name, 1e-12, 1e12)
        if self.target_loss is not None:
            check_number(self.target_loss, "target_loss", -1e12, 1e12)
        check_number(self.fraction, "fraction", 1e-6, 1)
        check_number(self.confidence, "confidence", 0.01, 0.999)


@dataclass(frozen=True)
class CostedMerge:
    """One (N, k) of one method, with what it is expected to give and to cost.

    Attributes:
        cost: In the cost model's unit; `None` where N is not known.
        forecast: Whether the size was not measured, and the joint law stands in for its curve.
        low, high: Interval of a forecast loss.
        scales: The same at half and twice the scale of the prior of the sizes' effects, and at it.
    """

    method: str
    n_params: float | None
    k: int
    loss: float
    cost: float | None
    options: str = "{}"
    forecast: bool = False
    low: float | None = None
    high: float | None = None
    scales: tuple[AtScale, ...] = ()

    def text(self) -> str:
        """What it merges, what that is expected to give, and to cost.

        Returns:
            One line for people.
        """
        size = "" if self.n_params is None else f" at {format_count(self.n_params)}"
        by = f" by {in_words(self.method, self.options)}" if self.method else ""
        note = ""
        if self.forecast:
            note = f" (size not measured; {self.low:.4f} to {self.high:.4f})"
        return f"k = {self.k}{size}{by}: {self.loss:.4f} for {self.cost:.3g}{note}"


@dataclass(frozen=True, repr=False)
class Candidate(Summarized):
    """What one method at one base size can do about the goal.

    Attributes:
        k: Experts to merge; `None` where the goal cannot be reached.
        predicted: Expected loss, or value of the metric, at k, or with the whole pool where k is
            `None`.
        solution: For a target: the same question with intervals and at a confidence.
        chance: That one random subset of k, not their mean, meets the target; where the spread is
            known.
        near_floor: Smallest k within `epsilon` of the floor, which may exceed the pool.
        k80, k90: Smallest k with 80 and 90 % of the improvement.
        next_gain, next_cost: By how much one more expert would make it better, and its cost.
    """

    fit: Fit
    k: int | None
    predicted: Prediction
    solution: TargetK | None
    measured: Point | None
    chance: float | None
    near_floor: int | None
    k80: int
    k90: int
    next_gain: float
    next_cost: float | None
    cost: float | None
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def no_trend(self) -> str | None:
        """Why no k is to be chosen by its means; then none is told to people."""
        return trendless(self.fit.series, self.fit.r2)

    def summary(self) -> str:
        """What it would merge, what that is expected to give, and why."""
        if self.no_trend:
            return f"{name_of(self.fit.series)}: no k is told, {self.no_trend}"
        k = f"k = {self.k}" if self.k is not None else "not reached"
        scale = self.fit.series.scale
        loss = f"{self.predicted.loss:.4f}{scale.unit} expected on this text"
        lines = [f"{name_of(self.fit.series)}: {k}, {loss}", *(f"  {why}" for why in self.reasons)]
        return "\n".join([*lines, *(f"  warning: {text}" for text in self.warnings)])

    def records(self) -> list[dict[str, Any]]:
        """One row."""
        predicted = self.predicted
        return [
            {
                **self.fit.series.names(),
                "k": self.k,
                "expected": predicted.loss,
                "low": predicted.low,
                "high": predicted.high,
                "cost": self.cost,
                "chance": self.chance,
            }
        ]


@dataclass(frozen=True, repr=False)
class Recommendation(Summarized):
    """The candidates, the one to take first; where none reaches the goal, the nearest first.

    Attributes:
        pareto: Options that no other beats in both cost and loss, cheapest first.
        within_budget: The best expected loss that the budget allows.
        cheapest: The cheapest option that is as good as the target.
        sharpen: Which measurement would tell most.
        warnings: What speaks against the answers at sizes that were not measured.
        asked: Every k at the sizes that were asked for, whether another option is better or not.
    """

    goal: Goal
    costs: CostModel
    candidates: tuple[Candidate, ...]
    pareto: tuple[CostedMerge, ...]
    within_budget: CostedMerge | None
    cheapest: CostedMerge | None
    sharpen: str
    warnings: tuple[str, ...] = ()
    asked: tuple[CostedMerge, ...] = ()

    @property
    def best(self) -> Candidate:
        """The candidate to take; its `k` is `None` where nothing reaches the goal."""
        return self.candidates[0]

    @property
    def reached(self) -> bool:
        """Whether a measured size reaches the goal, or by the law over sizes another does."""
        return self.best.k is not None or self.cheapest is not None

    def records(self) -> list[dict[str, Any]]:
        """A row for each candidate, the one to take first."""
        return [record for candidate in self.candidates for record in candidate.records()]

    def summary(self, *, warnings: bool = True, other_texts: bool = True) -> str:
        """What, why, how sure, and what would sharpen it.

        Args:
            warnings: Also what speaks against it.
            other_texts: Whether there are documents enough to speak of other texts.
        """
        best = self.best
        series = best.fit.series
        goal = self.goal
        where, scale = f"`{series.measured}`" if series.measured else "the text", series.scale
        if goal.target_loss is None and goal.budget is not None:
            what = "best value of" if scale.metric else "lowest loss on"
            wish = f"for the {what} {where} that {goal.budget:g} buys"
        elif goal.target_loss is None:
            wish = f"for {100 * goal.fraction:.0f} % of the improvement on {where}"
        elif scale.metric:
            wish = f"for {where} of {goal.target_loss:g}"
        else:
            wish = f"for a loss of {goal.target_loss:g} nats on {where}"
        if best.no_trend:
            return f"no number of experts is told {wish}: {best.no_trend}"
        if best.k is not None:
            size = (
                "" if series.n_params is None else f" of {format_count(series.n_params)} parameters"
            )
            by = f" by {series.method}" if series.method else ""
            experts = f"{best.k} of {series.pool_size} experts"
            head = f"{wish} the mean over subsets asks for {experts}{size}{by}"
        else:
            head = f"the mean over subsets of no measured size is enough {wish}"
        lines = [
            head,
            *(f"  {reason}" for reason in best.reasons),
            *_certainty(best, other_texts),
            "",
        ]
        lines += _curve(best.fit)
        shares = f"  80 % of the improvement at k = {best.k80}, 90 % at k = {best.k90}"
        lines.append(shares + _near_floor(best, goal.epsilon))
        if best.cost is not None:
            unit = self.costs.unit
            lines.append(
                f"  cost {best.cost:.3g} {unit}; the next expert {best.next_cost:.3g} more"
            )
        lines += _alternatives(self)
        if len(self.candidates) > 1:
            rows = [("k", "expected", "cost", "method and size")]
            for candidate in self.candidates:
                k = "-" if candidate.k is None else str(candidate.k)
                cost = "-" if candidate.cost is None else f"{candidate.cost:.3g}"
                expected = f"{candidate.predicted.loss:.4f}"
                rows.append((k, expected, cost, name_of(candidate.fit.series)))
            lines += ["", *align_columns(rows, left=0, words=1)]
        lines += ["", f"to be surer: {self.sharpen}"]
        if warnings:
            lines += [f"warning: {text}" for text in (*self.warnings, *best.warnings)]
        return "\n".join(lines)


def _alternatives(recommendation: Recommendation) -> list[str]:
    """Other answers by cost: within the budget, cheapest for the target, and the Pareto set."""
    lines = []
    if recommendation.cheapest is not None:
        lines.append(f"  cheapest for the target: {recommendation.cheapest.text()}")
        lines += _at_scales(recommendation.cheapest)
    if recommendation.within_budget is not None:
        lines.append(f"  best within the budget: {recommendation.within_budget.text()}")
        lines += _at_scales(recommendation.within_budget)
    elif recommendation.goal.budget is not None:
        lines.append("  nothing is within the budget")
    sizes = {option.n_params for option in recommendation.pareto}
    if len(sizes) > 1:
        lines.append("  no option is both cheaper and better than these:")
        lines += [f"    {option.text()}" for option in recommendation.pareto]
        forecasts = [option for option in recommendation.pareto if option.forecast]
        lines += [line for option in forecasts[-1:] for line in _at_scales(option)]
    if recommendation.asked:
        lines.append("  expected at the sizes that were asked for:")
        lines += [f"    {option.text()}" for option in recommendation.asked]
    return lines


def _at_scales(option: CostedMerge) -> list[str]:
    """How much of a forecast's interval is the prior of how far off a size is."""
    if not option.scales:
        return []
    half, own, twice = option.scales
    percent = [f"{100 * at.scale:g} %" for at in (half, own, twice)]
    return [
        f"      the interval of k = {option.k} at {format_count(option.n_params or 0)} is of sizes"
        f" that are off as a whole by {percent[1]} of their loss; of {percent[0]}:"
        f" {half.low:.4f} to {half.high:.4f}, of {percent[2]}: {twice.low:.4f} to {twice.high:.4f}"
    ]


def _certainty(best: Candidate, other_texts: bool) -> list[str]:
    """How sure it is; every line says which question it answers."""
    lines = []
    fit, predicted = best.fit, best.predicted
    at = best.k or fit.series.pool_size
    percent = f"{100 * predicted.confidence:.0f} %"
    if not math.isnan(predicted.low):
        lines.append(f"  on this text, mean of all subsets of {at}: {_within(predicted)}")
        other = fit.on_other_texts(at, predicted.confidence)
        if other is not None and (other_texts or fit.series.scale.metric):
            kind = (
                "items of this kind, at most" if fit.series.scale.metric else "texts of this kind"
            )
            lines.append(f"  on {kind}: {_within(other)}")
    solution = best.solution
    if solution is not None and not math.isnan(solution.low):
        low, high = (
            "never" if math.isinf(x) else f"{x:.2f}" for x in (solution.low, solution.high)
        )
        lines.append(
            f"  {percent} interval of k on this text: {low if low == high else f'{low} to {high}'}"
        )
        if solution.confident is None:
            lines.append(f"  no k of the pool reaches it with {percent} confidence on this text")
        else:
            unseen = unseen_beyond(solution.confident, fit.largest_measured)
            lines.append(
                f"  with {percent} confidence on this text: k = {solution.confident}{unseen}"
            )
    measured = best.measured
    if best.chance is not None and measured is not None and measured.values and measured.complete:
        n = len(measured.values)
        meet = f"{round(best.chance * n)} of {n} {'meets' if n == 1 else 'meet'} it"
        lines.append(f"  of the subsets of that size, all measured, {meet}")
    elif best.chance is not None:
        lines.append(
            f"  one random subset of that size meets it with a chance of {chance_text(best.chance)}"
        )
    another = fit.another_pool(at, predicted.confidence)
    if another is not None:
        lines.append(f"  another pool like this one, on this text: {_within(another)}")
    return lines


def _within(predicted: Prediction) -> str:
    if predicted.low == predicted.high:
        return f"{predicted.loss:.4f}, all measured"
    percent = f"{100 * predicted.confidence:.0f} %"
    return f"{predicted.low:.4f} to {predicted.high:.4f} with {percent} confidence"


def unseen_beyond(k: int, largest_measured: int) -> str:
    """What a confidence leaves out, for a k that is larger than any that was measured.

    >>> unseen_beyond(7, 9)
    ''
    """
    if k <= largest_measured:
        return ""
    return (
        f", if the curve goes on: nothing beyond k = {largest_measured} was seen, where the mean"
        " may turn up"
    )


def _curve(fit: Fit) -> list[str]:
    series = fit.series
    curve = coefficients_text(fit.forecast, series.scale)
    ks = ", ".join(str(point.k) for point in series.points)
    lines = [f"{name_of(series)}: {curve}", f"  R² {fit.r2:.5f} in-sample, from k = {ks}"]
    if series.base_loss is not None:
        lines.append(f"  base (k = 0): {series.base_loss:.4f}")
    if series.best_single is not None:
        name, loss = series.best_single
        first = series.points[0]
        some = "" if first.complete else f", of {first.n_subsets} measured"
        lines.append(f"  best single expert: `{name}`, {loss:.4f}{some}")
    return lines


def _near_floor(best: Candidate, epsilon: float | None) -> str:
    if best.near_floor is None:
        return ""
    pool = best.fit.series.pool_size
    beyond = f", more than the pool's {pool}" if best.near_floor > pool else ""
    limit = best.fit.series.scale.limit
    return f"; within {epsilon:g} of the {limit} from k = {best.near_floor}{beyond}"
