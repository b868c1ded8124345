"""Fits and recommendations in words and tables, for people."""

import math

from mergeplan.display.table import align_columns
from mergeplan.display.text import format_count
from mergeplan.law.curve import Fit
from mergeplan.law.fit import FitResult
from mergeplan.law.recommend import Candidate, CostedMerge, Recommendation
from mergeplan.law.series import name_of


def fit_text(result: FitResult) -> str:
    """One line for each series, and one for each law over sizes."""
    rows = [["floor", "tail", "offset", "R²", "domain", "method and size"]]
    for fit in result.fits:
        law = fit.law
        numbers = f"{law.floor:.5f}", f"{law.tail:.5f}", f"{law.offset:.4g}", f"{fit.r2:.5f}"
        rows.append([*numbers, fit.series.domain or "-", name_of(fit.series)])
    head, *table = align_columns(rows, left=0, words=2)
    lines = [head]
    for fit, line in zip(result.fits, table, strict=True):
        law, series = fit.law, fit.series
        lines.append(line)
        if remark := law.remark():
            lines.append(f"         {remark}")
        ranges = fit.intervals()
        if ranges:
            cells = [f"{low:.4g} to {high:.4g}" for low, high in ranges.values()]
            names = ", ".join(f"{n} {c}" for n, c in zip(ranges, cells, strict=True))
            lines.append(f"         90 %: {names}")
        if fit.spread is not None:
            one = fit.spread.deviation(1)
            lines.append(f"         single subsets: standard deviation {one:.4f} at k = 1, as")
            lines[-1] += f" the root of 1/k - 1/{series.pool_size} from there on"
        if fit.tails:
            errors = ", ".join(f"{score.name} {score.left_out:.2g}" for score in fit.tails)
            lines.append(f"         error at a k that is left out: {errors}")
    for joint in result.joints:
        whole = joint.law
        lines += [
            "",
            f"{joint.method} over {len(joint.series)} sizes, N in billions (R² {joint.r2:.4f}):",
            f"  L(N,k) = {whole.l_star:.4f} + {whole.b_size:.4f}·N^-{whole.beta:.3f}"
            f" + {whole.a_0:.4f}·N^-{whole.gamma:.3f}/(k + {whole.offset:.3g})",
        ]
    return "\n".join(lines)


def recommendation_text(recommendation: Recommendation) -> str:
    """The recommendation: what, why, how sure, and what would sharpen it."""
    best = recommendation.best
    series = best.fit.series
    goal = recommendation.goal
    where = f"`{series.domain}`" if series.domain else "the text"
    if goal.target_loss is None and goal.budget is not None:
        wish = f"for the lowest loss on {where} that {goal.budget:g} buys"
    elif goal.target_loss is None:
        wish = f"for {100 * goal.fraction:.0f} % of the improvement on {where}"
    else:
        wish = f"for a loss of {goal.target_loss:g} nats on {where}"
    if best.k is not None:
        size = "" if series.n_params is None else f" of {format_count(series.n_params)} parameters"
        by = f" by {series.method}" if series.method else ""
        head = f"{wish}, merge {best.k} of {series.pool_size} experts{size}{by}"
    else:
        head = f"no measured size is enough {wish}"
    lines = [head, *(f"  {reason}" for reason in best.reasons), *_certainty(best), ""]
    lines += _curve(best.fit)
    lines.append(f"  k80 {best.k80}, k90 {best.k90}" + _near_floor(best, goal.epsilon))
    if best.cost is not None:
        unit = recommendation.costs.unit
        lines.append(f"  cost {best.cost:.3g} {unit}; the next expert {best.next_cost:.3g} more")
    lines += _alternatives(recommendation)
    if len(recommendation.candidates) > 1:
        lines += ["", "k      expected  cost      method and size"]
        for candidate in recommendation.candidates:
            k = "-" if candidate.k is None else str(candidate.k)
            cost = "-" if candidate.cost is None else f"{candidate.cost:.3g}"
            name = name_of(candidate.fit.series)
            lines.append(f"{k:6} {candidate.predicted.loss:.4f}    {cost:9} {name}")
    lines += ["", f"to be surer: {recommendation.sharpen}"]
    return "\n".join(lines)


def _alternatives(recommendation: Recommendation) -> list[str]:
    """Other answers by cost: within the budget, cheapest for the target, and the Pareto set."""
    lines = []
    if recommendation.cheapest is not None:
        lines.append(f"  cheapest for the target: {_option(recommendation.cheapest)}")
    if recommendation.within_budget is not None:
        lines.append(f"  best within the budget: {_option(recommendation.within_budget)}")
    elif recommendation.goal.budget is not None:
        lines.append("  nothing is within the budget")
    sizes = {option.n_params for option in recommendation.pareto}
    if len(sizes) > 1:
        lines.append("  no option is both cheaper and better than these:")
        lines += [f"    {_option(option)}" for option in recommendation.pareto]
    return lines


def _option(option: CostedMerge) -> str:
    size = "" if option.n_params is None else f" at {format_count(option.n_params)}"
    by = f" by {option.method}" if option.method else ""
    settings = "" if option.options == "{}" else f" {option.options}"
    note = ""
    if option.forecast:
        note = f" (size not measured; {option.low:.4f} to {option.high:.4f})"
    return f"k = {option.k}{size}{by}{settings}: {option.loss:.4f} for {option.cost:.3g}{note}"


def _certainty(best: Candidate) -> list[str]:
    lines = []
    predicted = best.predicted
    percent = f"{100 * predicted.confidence:.0f} %"
    if not math.isnan(predicted.low):
        lines.append(
            f"  {percent} interval of this pool's mean: {predicted.low:.4f} to {predicted.high:.4f}"
        )
    solution = best.solution
    if solution is not None and not math.isnan(solution.low):
        low, high = (
            "never" if math.isinf(x) else f"{x:.2f}" for x in (solution.low, solution.high)
        )
        lines.append(f"  {percent} interval of k: {low if low == high else f'{low} to {high}'}")
        if solution.confident is None:
            lines.append(f"  no k of the pool reaches it with {percent} confidence")
        else:
            lines.append(f"  with {percent} confidence: k = {solution.confident}")
    if best.chance is not None:
        lines.append(
            f"  one random subset of that size meets it with a chance of {best.chance:.0%}"
        )
    if best.fit.spread is not None:
        other = best.fit.another_pool(best.k or best.fit.series.pool_size)
        if other is not None:
            lines.append(f"  another pool like this one: {other.low:.4f} to {other.high:.4f}")
    return lines


def _curve(fit: Fit) -> list[str]:
    law, series = fit.law, fit.series
    curve = f"floor {law.floor:.4f}, tail {law.tail:.4f}, offset {law.offset:.4g}"
    ks = ", ".join(str(point.k) for point in series.points)
    lines = [f"{name_of(series)}: {curve}", f"  R² {fit.r2:.5f} in-sample, from k = {ks}"]
    if series.base_loss is not None:
        lines.append(f"  base (k = 0): {series.base_loss:.4f}")
    if series.best_single is not None:
        name, loss = series.best_single
        lines.append(f"  best single expert: `{name}`, {loss:.4f}")
    return lines


def _near_floor(best: Candidate, epsilon: float | None) -> str:
    if best.near_floor is None:
        return ""
    pool = best.fit.series.pool_size
    beyond = f", more than the pool's {pool}" if best.near_floor > pool else ""
    return f"; within {epsilon:g} of the floor from k = {best.near_floor}{beyond}"
