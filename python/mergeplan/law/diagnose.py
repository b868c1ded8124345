"""What the measurements say against the law, or against the merge: evidence and what to do."""

import itertools
import json
from dataclasses import dataclass

import numpy as np

from mergeplan.display.text import format_count
from mergeplan.law.curve import Fit
from mergeplan.law.fit_result import FitResult
from mergeplan.law.joint_draws import SIZE_EFFECT
from mergeplan.law.posterior import MAX_OFFSET
from mergeplan.law.series import name_of
from mergeplan.law.spread import known_covariance
from mergeplan.law.trend import alike, clearest_steps, trendless

# Differences below this many standard errors are taken for chance.
_CLEAR = 2.0
# How much better another tail must predict left-out k to be worth a word.
_BETTER_TAIL = 0.5
# A forecast's offsets between this and 0 are no alarm.
_SLIGHTLY_NEGATIVE = -0.3
# Standard deviations above the mean from which a single expert is an outlier.
_OUTLYING = 3.0
# Spread over subsets falls at least like k to this power, or it is said.
_SLOWEST_SPREAD = -0.25


@dataclass(frozen=True)
class Diagnosis:
    """One sign that something is not as the law has it.

    Attributes:
        sign: Short name, for programs.
        evidence: What was seen, with figures.
        advice: What to do.
    """

    sign: str
    evidence: str
    advice: str


def diagnose(fit: Fit) -> list[Diagnosis]:
    """All signs in one series."""
    checks = (_upturn, _against, _spread, _skew, _offset, _tail, _rising, _base, _transfer)
    return [found for check in checks if (found := check(fit)) is not None]


def diagnose_sizes(result: FitResult) -> list[Diagnosis]:
    """Signs that show only between base sizes: a floor that does not fall, a γ that is open."""
    found = []
    for joint in result.joints:
        fits = [
            fit
            for fit in result.fits
            if (fit.series.method, fit.series.options) == (joint.method, joint.options)
        ]
        fits.sort(key=lambda fit: fit.series.n_params or 0.0)
        for small, large in itertools.pairwise(fits):
            if large.law.floor >= small.law.floor:
                sizes = [format_count(fit.series.n_params or 0.0) for fit in (small, large)]
                scale = small.series.scale
                limits = [scale.own(fit.law.floor) for fit in (small, large)]
                moves = scale.word("fall", "rise")
                found.append(
                    Diagnosis(
                        f"{scale.limit} does not {moves} with N",
                        f"{joint.method}: {scale.limit} {limits[0]:.4f} at {sizes[0]},"
                        f" {limits[1]:.4f} at {sizes[1]}",
                        "check that both sizes were trained and measured alike",
                    )
                )
        if joint.unchecked:
            found.append(
                Diagnosis(
                    "law over sizes unchecked",
                    f"{joint.method}: three sizes, which L*, B and beta fit exactly",
                    "measure a fourth; until then the interval at another size rests on a prior,"
                    f" by which a size is off as a whole by {100 * SIZE_EFFECT:g} % of its loss",
                )
            )
        if not joint.gamma_identified:
            found.append(
                Diagnosis(
                    "gamma not identified",
                    f"{joint.method}: the data do not ask for a tail that changes with N;"
                    " gamma is set to 0",
                    "nothing to do: in the published fits it is 0 for most domains too",
                )
            )
    return found


def _errors(fit: Fit) -> dict[int, float]:
    """Standard error of each mean: sampling where it is known, else the lack of fit."""
    known = known_covariance(fit.series, fit.spread)
    points = fit.series.points
    if known is None:
        return {point.k: fit.lack_of_fit for point in points}
    return {p.k: float(np.sqrt(v)) for p, v in zip(points, np.diag(known), strict=True)}


def _upturn(fit: Fit) -> Diagnosis | None:
    points = fit.series.points
    if fit.series.scale.metric:
        return None  # `_against` speaks of those, whose items move them too
    lowest = min(points, key=lambda point: point.loss)
    last = points[-1]
    errors = _errors(fit)
    noise = float(np.hypot(errors[lowest.k], errors[last.k]))
    rise = last.loss - lowest.loss
    if last.k == lowest.k or len(points) < 3 or rise <= noise:
        return None
    return Diagnosis(
        "upturn",
        f"the loss rises from {lowest.loss:.4f} at k = {lowest.k} to {last.loss:.4f} at"
        f" k = {last.k}",
        f"merge at most {lowest.k}; for TIES at lambda 1, lambda 0.5 restores the monotone tail"
        + ("" if fit.law.can_rise else "; `--form interference` fits such curves"),
    )


def _against(fit: Fit) -> Diagnosis | None:
    """Means of a metric that do not all go the law's way, or that go no way."""
    worse, better = clearest_steps(fit.series)
    unknown = worse is not None and better is not None and worse.error is None
    if (why := trendless(fit.series, fit.r2)) and not unknown:
        advice = "do not choose a k by it: measure more items, or look at single subsets"
        advice += " by `select`"
        if alike(fit.series):
            advice = "measure what tells merges apart: harder or easier items, or more of them"
        return Diagnosis("no trend", why, advice)
    if worse is None or better is None:
        return None
    if worse.error is None:
        lacking = "a row for each subset" if fit.series.own_se else "`value_se` or `n_items`"
        advice = f"give {lacking}, to tell whether by more than chance"
    elif worse.clear and better.clear:
        advice = "both are more than their errors make: only a form that can turn back holds this"
    else:
        advice = "one of them is within its error, and no trend"
    return Diagnosis("better and worse with k", f"{better.text()}; {worse.text()}", advice)


def _spread(fit: Fit) -> Diagnosis | None:
    inside = [
        point
        for point in fit.series.points
        if point.spread and point.n_subsets > 2 and point.k < fit.series.pool_size
    ]
    if len(inside) < 3:
        return None
    k = np.log([point.k for point in inside])
    slope = float(np.polyfit(k, np.log([point.spread or 1.0 for point in inside]), 1)[0])
    if slope < _SLOWEST_SPREAD:
        return None
    return Diagnosis(
        "spread does not shrink",
        f"the standard deviation over subsets goes like k to the {slope:.2f}; the law has -0.5 or"
        " less",
        "the pool is heterogeneous: look at single subsets rather than the mean",
    )


def _skew(fit: Fit) -> Diagnosis | None:
    """One expert far above the others, which a few random subsets hold too seldom or too often."""
    series = fit.series
    first, size = series.points[0], series.pool_size
    sampled = [point.k for point in series.points if not point.complete]
    if first.k != 1 or not first.complete or not first.spread or size < 4 or not sampled:
        return None
    if series.worst_single is None:
        return None
    name, loss = series.worst_single
    sign = series.scale.sign
    # No deviation of one among n is above (n - 1)/√n of their own standard deviation.
    far = min(_OUTLYING, 0.9 * (size - 1) / size**0.5)
    deviations = sign * (loss - first.loss) / first.spread
    if deviations < far:
        return None
    return Diagnosis(
        "skewed pool",
        f"`{name}` alone has {loss:.4f}, {deviations:.1f} standard deviations"
        f" {series.scale.word('above', 'below')} the mean of"
        f" single experts: the mean of a few subsets of {sampled[0]} hangs on how often it is in",
        "measure balanced subsets and all experts, or leave it out: without them an interval of"
        " the mean, and a k that is sure, hold less often than they say",
    )


def _offset(fit: Fit) -> Diagnosis | None:
    offset, pool = fit.law.offset, fit.series.pool_size
    if offset > MAX_OFFSET - 1e-6:
        return Diagnosis(
            "offset at its bound",
            f"b = {offset:g}: the measured k do not bend",
            "measure at k = 1 and at the largest k; forecasts beyond the measured k are not to be"
            " trusted",
        )
    if offset <= 1:
        return None
    far = "far from" if offset > pool / 2 else "more than"
    return Diagnosis(
        "large offset",
        f"b = {offset:.3g}, {far} the published fits' (up to 1.2) with a pool of {pool}",
        "the elbow lies later than k = 5 to 6; the interval of k tells how sure it is",
    )


def _tail(fit: Fit) -> Diagnosis | None:
    scores = {score.name: score for score in fit.tails}
    if not scores:
        return None
    best = fit.tails[0]
    own = min(scores["1/k"].left_out, scores["1/(k+b)"].left_out)
    spread = np.ptp([point.loss for point in fit.series.points])
    if best.left_out >= _BETTER_TAIL * own or own < 0.005 * spread:
        return None
    if _SLIGHTLY_NEGATIVE < fit.forecast.offset < 0:
        return None  # a bound that only just holds explains it
    return Diagnosis(
        "tail is not 1/k",
        f"a tail that is {best.name} predicts a left-out k to {best.left_out:.5f}"
        f"{fit.series.scale.unit}, 1/(k + b)"
        f" to {own:.5f}",
        "trust the curve between the measured k; forecasts of the floor less",
    )


def _rising(fit: Fit) -> Diagnosis | None:
    scale = fit.series.scale
    if fit.law.tail > 0 or alike(fit.series):
        return None
    return Diagnosis(
        "no gain from merging",
        f"the mean {scale.name} does not {scale.word('fall', 'rise')} with k",
        "merge one expert, or try another method or a smaller lambda",
    )


def _base(fit: Fit) -> Diagnosis | None:
    base, pool = fit.series.base_loss, fit.series.pool_size
    if base is None or fit.reaches(fit.expect(pool), base):  # as good is not better
        return None
    lambda_ = _lambda(fit)
    return Diagnosis(
        "the base is better",
        f"the base has {base:.4f}, all {pool} experts merged {fit.expect(pool):.4f}",
        f"merging does not pay at lambda = {lambda_:g}; try a smaller one",
    )


def _lambda(fit: Fit) -> float:
    found = json.loads(fit.series.options).get("lambda", 1.0)
    return float(found) if isinstance(found, int | float) else 1.0


def _transfer(fit: Fit) -> Diagnosis | None:
    scale = fit.series.scale
    harmful = [e for e in fit.series.effects if scale.sign * e.effect > _CLEAR * e.standard_error]
    if not harmful:
        return None
    names = ", ".join(f"`{e.expert}` ({e.effect:+.4f} ± {e.standard_error:.4f})" for e in harmful)
    return Diagnosis(
        "negative transfer",
        f"adding these experts {scale.word('raises', 'lowers')} the mean {scale.name}: {names}",
        "leave them out, or give them less weight",
    )


def diagnosis_lines(diagnoses: list[Diagnosis], name: str = "") -> list[str]:
    """Lines for people."""
    head = f"{name}: " if name else ""
    return [f"{head}{d.sign}: {d.evidence}; {d.advice}" for d in diagnoses]


def all_signs(result: FitResult) -> list[str]:
    """Every sign in a file, one line each."""
    lines = []
    for fit in result.fits:
        lines += diagnosis_lines(diagnose(fit), name_of(fit.series) if len(result.fits) > 1 else "")
    return lines + diagnosis_lines(diagnose_sizes(result))
