"""Decide: how many experts, at which base size, by which method, at what cost."""

import math
from dataclasses import replace

from mergeplan.display.text import format_count
from mergeplan.errors import InputError
from mergeplan.law.costs import CostModel
from mergeplan.law.curve import Fit, TargetK
from mergeplan.law.fit_result import FitResult
from mergeplan.law.recommendation import Candidate, CostedMerge, Goal, Recommendation
from mergeplan.law.series import Series
from mergeplan.law.trend import trendless
from mergeplan.system.blas import on_one_thread

# The paper's simplest method, and the share of the loss below which a better one is not worth it.
SIMPLE = "average"
WORTH_IT = 0.01


@on_one_thread
def recommend(
    result: FitResult,
    target_loss: float | None = None,
    *,
    goal: Goal | None = None,
    costs: CostModel | None = None,
    sizes: tuple[float, ...] = (),
) -> Recommendation:
    """The smallest merge that reaches a goal: its k, its base and its method.

    An unreachable goal is a result with reasons, not an exception.

    Args:
        target_loss: In nats per token, or on the scale of the metric; short for
            `goal=Goal(target_loss=…)`.
        costs: By default GPU hours as in the paper.
        sizes: Further base sizes, in parameters, that the joint law is asked about.

    Raises:
        InputError: A budget is given, and the bases' sizes are not known; or sizes are, and there
            is no law over sizes.
    """
    goal = goal or Goal(target_loss=target_loss)
    costs = costs or CostModel()
    scale = result.fits[0].series.scale
    if goal.target_loss is not None:
        scale.check(goal.target_loss)
    if goal.budget is not None and any(fit.series.n_params is None for fit in result.fits):
        raise InputError("a budget needs the sizes of the bases", "add a column `n_params`")
    options = [*_options(result, costs), *_forecasts(result, costs, sizes, goal.confidence)]
    asked = [option for option in options if option.n_params in sizes]
    priced = [option for option in options if option.cost is not None]
    most = math.inf if goal.budget is None else goal.budget
    affordable = [option for option in priced if (option.cost or 0.0) <= most]
    cheapest = within = None
    if goal.target_loss is not None:
        target = scale.sign * goal.target_loss
        enough = [option for option in affordable if scale.sign * option.loss <= target]
        cheapest = min(enough, key=lambda o: (o.cost, scale.sign * o.loss), default=None)
    if goal.budget is not None:
        within = min(affordable, key=lambda o: (scale.sign * o.loss, o.cost), default=None)
    candidates = [_candidate(fit, goal, costs) for fit in result.fits]
    candidates.sort(key=lambda candidate: _order(candidate, goal))
    candidates = _prefer_simple(candidates)
    return Recommendation(
        goal=goal,
        costs=costs,
        candidates=tuple(candidates),
        pareto=tuple(_pareto(priced, scale.sign)),
        within_budget=within,
        cheapest=cheapest,
        sharpen=sharpen_of(candidates[0]),
        warnings=tuple(_far_sizes(result, sizes)),
        asked=tuple(sorted(asked, key=lambda o: (sizes.index(o.n_params or 0.0), o.k))),
    )


def _order(candidate: Candidate, goal: Goal) -> tuple[bool, float, float, float]:
    """Reaching before not. For a target the cheapest first, which without costs has the fewest
    experts; else the best value, of every size."""
    series = candidate.fit.series
    n_params = series.n_params or 0.0
    loss = series.scale.sign * candidate.predicted.loss
    if candidate.k is None:
        return True, loss, n_params, 0.0
    if goal.target_loss is not None:
        cost = candidate.cost if candidate.cost is not None else float(candidate.k)
        return False, cost, n_params, loss
    return False, loss, n_params, 0.0


def _prefer_simple(candidates: list[Candidate]) -> list[Candidate]:
    """Take the average instead of the first candidate where the gap at that k is under 1 %."""
    best, scale = candidates[0], candidates[0].fit.series.scale
    if best.k is None or best.fit.series.method == SIMPLE or not scale.natural:
        return candidates
    for candidate in candidates[1:]:
        series = candidate.fit.series
        same_size = series.n_params == best.fit.series.n_params
        if series.method != SIMPLE or not same_size or candidate.k is None:
            continue
        loss = scale.turned(best.predicted.loss)
        gap = scale.turned(candidate.fit.expect(best.k)) - loss
        if gap < WORTH_IT * loss:
            rest = [other for other in candidates if other is not candidate]
            by = f"{gap:.4f}" if scale.metric else f"{100 * gap / loss:.2f} %"
            said = f"{best.fit.series.method} is only {by} better at k = {best.k}"
            reasons = (*candidate.reasons, f"{said}: the simpler average is taken")
            return [replace(candidate, reasons=reasons), *rest]
    return candidates


def _candidate(fit: Fit, goal: Goal, costs: CostModel) -> Candidate:
    series = fit.series
    pool = series.pool_size
    solution = None
    if goal.target_loss is not None:
        solution = fit.solve(goal.target_loss, goal.confidence)
        k = solution.k
    elif goal.budget is not None:
        k = _affordable(fit, goal.budget, costs)
    else:
        k = fit.reaching(goal.fraction)
    at = k if k is not None else pool
    n_billion = series.n_billion
    cost = None if n_billion is None else costs.cost(n_billion, at)
    too_dear = goal.budget is not None and cost is not None and cost > goal.budget
    chance = None
    if goal.target_loss is not None:
        chance = _chance(fit, goal.target_loss, at)
    reasons = _reasons(fit, goal, k, solution)
    if k is not None and too_dear:
        reasons.append(f"it costs {cost:.3g} {costs.unit}, more than the budget of {goal.budget:g}")
        k = None
    return Candidate(
        fit=fit,
        k=k,
        predicted=fit.predict(at, goal.confidence),
        solution=solution,
        measured=next((point for point in series.points if point.k == at), None),
        chance=chance,
        near_floor=None if goal.epsilon is None else fit.forecast.near_floor(goal.epsilon),
        k80=fit.reaching(0.8),
        k90=fit.reaching(0.9),
        next_gain=_gain(fit, at, at + 1),
        next_cost=None if n_billion is None else costs.cost(n_billion, at + 1) - (cost or 0.0),
        cost=cost,
        reasons=(*reasons, fit.voice) if fit.voice else tuple(reasons),
        warnings=(*fit.warnings, *(() if trendless(series, fit.r2) else _warnings(fit, goal, k))),
    )


def _chance(fit: Fit, target: float, k: int) -> float | None:
    """That one random subset of k meets a target: those that were measured as they were, the others
    by how subsets scatter around their mean; `None` where that is not known."""
    scale = fit.series.scale
    point = next((point for point in fit.series.points if point.k == k), None)
    met = [fit.reaches(value, target) for value in point.values] if point else []
    if point and met and point.complete:
        return sum(met) / len(met)
    if fit.spread is None:
        return None
    goal = scale.turned(target)
    # No share is beyond its end, whatever a normal law says.
    other = 1.0 if goal >= scale.most else fit.spread.chance(goal, scale.turned(fit.expect(k)), k)
    left = point.share_left if point and met else 1.0
    return other if not met else (1 - left) * sum(met) / len(met) + left * other


def _affordable(fit: Fit, budget: float, costs: CostModel) -> int | None:
    """The k of the best value that the budget allows."""
    n, sign = fit.series.n_billion or 0.0, fit.series.scale.sign
    within = [k for k in range(1, fit.series.pool_size + 1) if costs.cost(n, k) <= budget]
    return min(within, key=lambda k: sign * fit.expect(k), default=None)


def _gain(fit: Fit, few: int, many: int) -> float:
    """By how much the mean of many experts is expected to be better than that of few."""
    return fit.series.scale.sign * (fit.expect(few) - fit.expect(many))


def _reasons(fit: Fit, goal: Goal, k: int | None, solution: TargetK | None) -> list[str]:
    pool, expect, scale = fit.series.pool_size, fit.expect, fit.series.scale
    target = goal.target_loss
    if target is None and goal.budget is not None:
        if k is None:
            return [f"not even one expert is within the budget of {goal.budget:g}"]
        what = f"{scale.best} {scale.name}"
        return [f"k = {k} has the {what} that a budget of {goal.budget:g} allows"]
    if target is None:
        at = fit.reaching(goal.fraction)
        whole = _gain(fit, 1, fit.best_k)
        share = _gain(fit, 1, at) / whole if whole > 0 else 1.0
        most = f"all {pool}" if fit.best_k == pool else f"{fit.best_k}"
        return [f"k = {at} has {100 * share:.0f} % of what {most} experts gain"]
    reasons = []
    exact = solution.exact if solution else None
    if k is not None:
        reasons.append(f"the expected {scale.name} at k = {k} is {expect(k):.4f}")
        if exact is not None and k > 1:
            reasons.append(f"it crosses the target at k = {exact:.2f}")
        if k < pool:
            does = scale.word("take off", "add")
            reasons.append(f"one more expert would {does} another {_gain(fit, k, k + 1):.4f}")
        if k > 1:
            fewer = [scale.turned(expect(x)) for x in range(1, k)]
            low, high = scale.interval(scale.turned(expect(k)), min(fewer))
            reasons.append(f"any target from {low:.4f} to {high:.4f} would give the same k")
        return reasons
    floor = fit.forecast.floor
    if scale.turned(target) <= floor:
        side = f"{scale.word('above', 'below')} the {scale.limit}"
        reasons.append(f"the target is not {side} of any merge, {scale.own(floor):.4f}")
    else:
        needed = "more experts than any pool has" if exact is None else f"k = {exact:.1f}"
        reasons.append(f"the target needs {needed}; the pool has {pool}")
    lowest = fit.best_k
    said = f"with all {pool} experts" if lowest == pool else f"with {lowest} experts"
    reasons.append(f"the best to be had is {expect(lowest):.4f}, {said}")
    return reasons


def _warnings(fit: Fit, goal: Goal, k: int | None) -> list[str]:
    series, target = fit.series, goal.target_loss
    found = []
    at = k if k is not None else series.pool_size
    measured = next((point for point in series.points if point.k == at), None)
    misses = measured is not None and target is not None and _worse(series, measured.loss, target)
    if k is not None and measured is not None and misses:
        side = series.scale.word("above", "below")
        found.append(
            f"the measured mean at k = {k} is {measured.loss:.4f}, {side} the target: that of all"
            " subsets is expected to reach it, this one does not"
        )
    smallest, largest = series.points[0].k, fit.largest_measured
    if not smallest <= at <= largest:
        found.append(f"k = {at} is outside the measured k, {smallest} to {largest}: extrapolated")
    if series.base_loss is not None and not _worse(series, series.base_loss, fit.expect(at)):
        found.append(_base_wins(fit, series.base_loss))
    if k is not None and series.best_single is not None:
        name, loss = series.best_single
        if not _worse(series, loss, fit.expect(k)):
            no = _no_worse(series)
            found.append(
                f"the single expert `{name}` alone has {loss:.4f}, {no} the mean of k = {k}"
            )
    return found


def _worse(series: Series, one: float, other: float) -> bool:
    return series.scale.turned(one) > series.scale.turned(other)


def _no_worse(series: Series) -> str:
    return f"no {series.scale.word('more', 'less')} than"


def _base_wins(fit: Fit, base_loss: float) -> str:
    series, pool = fit.series, fit.series.pool_size
    said = f"the base itself has {base_loss:.4f}, {_no_worse(series)} the mean over subsets"
    if not _worse(series, base_loss, fit.expect(pool)):
        return f"{said}: at these options merging does not pay; try a smaller lambda"
    beats = next(k for k in range(1, pool + 1) if _worse(series, base_loss, fit.expect(k)))
    return f"{said}; merges of k = {beats} and more beat it"


def _options(result: FitResult, costs: CostModel) -> list[CostedMerge]:
    found = []
    for fit in result.fits:
        series = fit.series
        for k in range(1, series.pool_size + 1):
            n = series.n_billion
            cost = None if n is None else costs.cost(n, k)
            loss = fit.expect(k)
            found.append(CostedMerge(series.method, series.n_params, k, loss, cost, series.options))
    return found


def _forecasts(
    result: FitResult, costs: CostModel, sizes: tuple[float, ...], confidence: float
) -> list[CostedMerge]:
    """Options at sizes that were not measured, by the joint law of each method."""
    unknown = [n for n in sizes if n not in {fit.series.n_params for fit in result.fits}]
    if unknown and not result.joints:
        result.refuse_unmeasured(unknown[0])
    found = []
    for joint in result.joints:
        pool = max(series.pool_size for series in joint.series)
        measured = {series.n_params for series in joint.series}
        for n_params in sizes:
            if n_params in measured:
                continue
            n = n_params / 1e9
            for k in range(1, pool + 1):
                loss, low, high = joint.predict(k, n_params, confidence)
                one = CostedMerge(joint.method, n_params, k, loss, costs.cost(n, k), joint.options)
                scales = joint.at_scales(k, n_params, confidence)
                found.append(replace(one, forecast=True, low=low, high=high, scales=scales))
    return found


def _far_sizes(result: FitResult, sizes: tuple[float, ...]) -> list[str]:
    """A word on each size that lies outside those that its law was fitted to, as on such a k."""
    found: dict[str, None] = {}
    for joint in result.joints:
        measured = [series.n_params or 0.0 for series in joint.series]
        low, high = min(measured), max(measured)
        for n in sizes:
            factor = max(n / high, low / n)
            if factor > 1:
                found[
                    f"a base of {format_count(n)} is {'above' if n > high else 'below'} the"
                    f" measured sizes, {format_count(low)} to {format_count(high)}, by a factor of"
                    f" {_rounded(factor)}: extrapolated"
                ] = None
    return list(found)


def _rounded(factor: float) -> str:
    """
    >>> _rounded(1.4), _rounded(14.28), _rounded(300000.0)
    ('1.4', '14', '300,000')
    """
    return f"{float(f'{factor:.2g}'):,g}" if factor < 100 else f"{float(f'{factor:.2g}'):,.0f}"


def _pareto(priced: list[CostedMerge], sign: float) -> list[CostedMerge]:
    """Options that no cheaper or equally cheap one beats, cheapest first; sign -1 where more is
    better."""
    front: list[CostedMerge] = []
    for option in sorted(priced, key=lambda o: (o.cost, sign * o.loss)):
        if not front or sign * (option.loss - front[-1].loss) < -1e-12:
            front.append(option)
    return front


def sharpen_of(best: Candidate) -> str:
    """Where one more measurement would narrow the answer most: the widest gap that matters."""
    series = best.fit.series
    measured = [point.k for point in series.points]
    at = best.k if best.k is not None else series.pool_size
    noisy = [point for point in series.points if not point.complete]
    if series.pool_size not in measured:
        return f"measure all {series.pool_size} experts merged: one merge, and it pins the far end"
    if at not in measured:
        return f"measure at k = {at}, where the decision lies"
    if 1 not in measured:
        return "measure the single experts: they pin the near end"
    if noisy:
        worst = max(
            noisy, key=lambda point: (point.spread or math.inf) / math.sqrt(point.n_subsets)
        )
        more = "single experts" if worst.k == 1 else f"subsets of {worst.k}"
        if worst.n_subsets == 1 and not worst.best_subset:
            return f"give all measured {more} rows: a mean alone does not say how certain it is"
        return f"measure more {more}: their mean is the least certain"
    missing = [k for k in range(1, series.pool_size + 1) if k not in measured]
    if missing:
        near = min(missing, key=lambda k: abs(k - at))
        return f"measure at k = {near}, the nearest that is missing"
    return "nothing: every subset was measured"
