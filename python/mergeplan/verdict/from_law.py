"""The verdict where no merge can be told from another: a number of experts."""

import math

from mergeplan.display.text import format_count
from mergeplan.law.curve import Fit
from mergeplan.law.recommendation import Candidate, Recommendation
from mergeplan.law.series import Series
from mergeplan.law.trend import alike
from mergeplan.verdict.contenders import Contender
from mergeplan.verdict.known import Merge
from mergeplan.verdict.lambdas import strength_of
from mergeplan.verdict.verdict import Kind, Verdict


def verdict_from_law(recommendation: Recommendation) -> Verdict:
    """The verdict of curves alone, as from a law file or a table that names no experts.

    It is a number of experts, unless the base or a single expert is known to be better than the
    mean merge of that many, and than every merge that the law has kept by name.
    """
    best = _best(recommendation)
    series = best.fit.series
    target = recommendation.goal.target_loss
    base = None if series.base_loss is None else _known(series, (), series.base_loss)
    expert = None
    if series.best_single is not None:
        expert = _known(series, (series.best_single[0],), series.best_single[1])
    named = [
        _known(series, point.best_subset, point.best_loss)
        for point in series.points
        if point.k > 1 and point.best_subset and point.best_loss is not None
    ]
    if expert is not None and not expert.merge.is_expert:
        named.append(expert)
    sign = series.scale.sign

    def cost(one: Contender | None) -> float:
        return math.inf if one is None else sign * one.value

    merge = min(named, key=lambda one: (cost(one), one.merge.k), default=None)
    k, mean = _k_that_pays(best, base)
    if best.no_trend:  # what was measured, and no draws around it
        mean = min(sign * point.loss for point in series.points)
    expected = best.fit.predict(k).loss
    lowest = min(mean, cost(merge))
    option = recommendation.cheapest
    where = "" if series.n_params is None else f" at {format_count(series.n_params)}"
    if best.k is None and option is not None:  # only a size that was not measured reaches it
        k, expected = option.k, option.loss
        where = f" at {format_count(option.n_params or 0)}, a size that was not measured"
    kind: Kind = "k"
    if base is not None and cost(base) <= lowest:
        kind = "base"
    elif expert is not None and expert.merge.is_expert and cost(expert) <= lowest:
        kind = "expert"
    chosen = {"base": base, "expert": expert}.get(kind, merge)
    reached = recommendation.reached if kind == "k" else _reaches(chosen, target, sign)
    enough = [one for one in named if _reaches(one, target, sign)]
    sinks = kind == "k" and base is not None and sign * expected >= cost(base)
    if enough and (not reached or (sinks and target is None)):
        # No mean reaches the target, or beats the base, and a merge that the law names does.
        if target is None:
            enough = [merge] if merge is not None else enough
        chosen = min(enough, key=lambda one: (one.merge.k, cost(one)))
        kind, reached = "merge", True
    return Verdict(
        kind=kind,
        aim=series.measured or "loss",
        higher=series.scale.higher,
        metric=series.scale.metric,
        target=target,
        chosen=chosen,
        base=base,
        expert=expert,
        best_merge=merge,
        reached=reached,
        lambda_to_try=(
            _half(best.fit) if kind in ("base", "expert") and not alike(series) else None
        ),
        k=k,
        pool_size=series.pool_size,
        expected=expected,
        method=series.method,
        where=where,
        notes=(
            *_notes(kind, merge, k, series),
            *([f"no k is to be chosen by its means: {best.no_trend}"] if best.no_trend else ()),
        ),
    )


def _best(recommendation: Recommendation) -> Candidate:
    """What is recommended; without a target, the size whose base is better than every mean and
    every merge that is kept by name, where there is one."""
    best, sign = recommendation.best, recommendation.best.fit.series.scale.sign
    if recommendation.goal.target_loss is not None:
        return best

    def lowest(one: Candidate) -> float:
        named = [point.best_loss for point in one.fit.series.points if point.best_loss is not None]
        pool = range(1, one.fit.series.pool_size + 1)
        return min(sign * value for value in (*named, *(one.fit.expect(k) for k in pool)))

    bases = [one for one in recommendation.candidates if one.fit.series.base_loss is not None]
    first = min(bases, key=lambda one: sign * (one.fit.series.base_loss or 0.0), default=best)
    base = first.fit.series.base_loss
    wins = base is not None and sign * base <= min(map(lowest, recommendation.candidates))
    return first if wins else best


def _k_that_pays(best: Candidate, base: Contender | None) -> tuple[int, float]:
    """The number that is recommended, or the least above it whose mean beats the base; and the best
    mean of any number, less being better."""
    fit, pool_size, sign = best.fit, best.fit.series.pool_size, best.fit.series.scale.sign
    k = best.k if best.k is not None else pool_size
    means = {x: sign * fit.expect(x) for x in range(1, pool_size + 1)}
    if base is not None and means[k] >= sign * base.value:
        k = next((x for x in range(k, pool_size + 1) if means[x] < sign * base.value), k)
    return k, min(means.values())


def _known(series: Series, subset: tuple[str, ...], loss: float) -> Contender:
    weights = {name: 1 / len(subset) for name in subset}
    merge = Merge(series.n_params, series.method if subset else "", series.options, weights)
    key = (series.n_params, merge.method, series.options, subset, "")
    return Contender(merge, loss, loss, loss, {series.domain: loss}, key)


def _reaches(chosen: Contender | None, target: float | None, sign: float) -> bool:
    return target is None or (chosen is not None and sign * chosen.value <= sign * target)


def _half(fit: Fit) -> float | None:
    strength = strength_of(fit.series.method, fit.series.options)
    return None if strength is None else round(strength / 2, 3)


def _notes(kind: Kind, merge: Contender | None, k: int, series: Series) -> tuple[str, ...]:
    found = []
    if kind == "k":
        found.append(
            "a number of experts, and no choice of them: a curve tells no two merges apart"
        )
    if merge is not None:
        found.append(
            f"the best merge that was measured is {merge.merge.name()} with {merge.value:.4f};"
            " the measurements themselves say more: `mergeplan suggest measurements.csv`"
        )
    largest = series.points[-1].k
    if kind == "k" and k > largest:
        found.append(f"no merge of more than {largest} experts was measured")
    return tuple(found)
