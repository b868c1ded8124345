"""The law of the means: curves with their bands, and what every target asks for."""

from typing import Any

import numpy as np

from mergeplan.errors import InputError
from mergeplan.law.costs import CostModel
from mergeplan.law.curve import Fit, coefficients_text
from mergeplan.law.diagnose import diagnose, diagnosis_lines
from mergeplan.law.spread import item_variances, known_covariance
from mergeplan.law.trend import trendless
from mergeplan.reporting.source import Source, group_of
from mergeplan.verdict.verdict import Verdict

# Targets that can be dragged to, of what decides and of the others.
_STEPS, _FEWER_STEPS = 81, 31


def panel(source: Source) -> dict[str, Any] | None:
    """A curve for each group and target that has one, by `group:target`.

    Returns:
        `mean`, `low` and `high` by k from 1 to the pool's size, on this text, at 90 %; `law`, the
        fitted curve itself, which measured means may leave; `points`,
        the measured means; `targets`, a grid of what could be asked for, with k, the 90 % interval
        of the crossing, the k that is sure, and the chance of one random subset.
    """
    groups, verdict = source.groups, source.verdict
    # As for the commands: of fewer than five documents nothing is said of other texts.
    few = isinstance(verdict, Verdict) and verdict.few_documents
    curves, missing = {}, {}
    for number, target in enumerate(source.targets):
        found = source.curves.get(target.name)
        if found is None:
            missing[number] = "not on a run's own page; `mergeplan report` of its folder has it"
            continue
        if isinstance(found, InputError):
            missing[number] = found.message
            continue
        for fit in found.fits:
            series = fit.series
            group = group_of(series)
            if group in groups:
                steps = _FEWER_STEPS if number else _STEPS
                curve = _curve(fit, steps)
                if few and not series.scale.metric:
                    curve["text_error"] = None
                curves[f"{groups.index(group)}:{number}"] = curve
    return {"curves": curves, "missing": missing} if curves or missing else None


def _curve(fit: Fit, steps: int) -> dict[str, Any]:
    series = fit.series
    predicted = [fit.predict(k) for k in range(1, series.pool_size + 1)]
    costs = CostModel()
    n_billion = series.n_billion
    return {
        "mean": [one.loss for one in predicted],
        "low": [one.low for one in predicted],
        "high": [one.high for one in predicted],
        "law": [series.scale.own(fit.forecast.predict(k)) for k in range(1, series.pool_size + 1)],
        "points": [
            {
                "k": point.k,
                "mean": point.loss,
                "n": point.n_subsets,
                "of": point.n_possible,
                "error": error,
            }
            for point, error in zip(series.points, _errors(fit), strict=True)
        ],
        "words": coefficients_text(fit.forecast, series.scale),
        "r2": fit.r2,
        "text_error": series.loss_se or None,
        "pool_size": series.pool_size,
        "targets": _targets(fit, steps),
        "costs": None
        if n_billion is None
        else [costs.cost(n_billion, k) for k in range(1, series.pool_size + 1)],
        "cost_unit": costs.unit,
        "no_trend": trendless(series, fit.r2),
        "warnings": [
            *fit.warnings,
            *diagnosis_lines(diagnose(fit)),
            *([fit.voice] if fit.voice else []),
        ],
    }


def _errors(fit: Fit) -> list[float | None]:
    """Standard error of each measured mean, as the fit weighs them; `None` where it is unknown."""
    series = fit.series
    covariance = known_covariance(series, fit.spread)
    if covariance is None:
        return [0.0 if point.complete else None for point in series.points]
    k = np.array([point.k for point in series.points], np.float64)
    found: list[float | None] = np.sqrt(np.diag(covariance) + item_variances(series, k)).tolist()
    return found


def _targets(fit: Fit, steps: int) -> list[dict[str, Any]]:
    expected = np.array(fit.expected)
    margin = 0.15 * float(np.ptp(expected)) or 0.01 * abs(float(expected[0])) or 0.01
    low, high = float(expected.min()) - margin, float(expected.max()) + margin
    turned = fit.series.scale.turned
    found = []
    for value in np.linspace(low, high, steps).tolist():
        solution = fit.solve(value)
        at = solution.k
        chance = None
        if fit.spread is not None and at is not None:
            chance = fit.spread.chance(turned(value), turned(fit.expect(at)), at)
        found.append(
            {
                "value": value,
                "k": at,
                "exact": solution.exact,
                "low": solution.low,
                "high": solution.high,
                "sure": solution.confident,
                "chance": chance,
            }
        )
    return found
