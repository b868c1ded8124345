"""Fit the law to mean losses, or means of another metric turned so that less is better.

The paper fits by least squares with weights proportional to k (Sections 3.1 and J.1). Those weights
stand in for a variance that falls like 1/k; where subsets were measured one by one, the variance of
each mean is known, and takes their place, with a lack of fit that is estimated.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergeplan.errors import InputError, nearest
from mergeplan.evaluation.item_scores import with_item_scores
from mergeplan.law.curve import Fit, measured_means
from mergeplan.law.fit_result import FitResult
from mergeplan.law.formulas import FORMS, Coefficients, HyperbolicLaw, SizeLaw, through_three_points
from mergeplan.law.joint import fit_joint
from mergeplan.law.least_squares import huber, project
from mergeplan.law.one_pool import names_at, unlike
from mergeplan.law.posterior import LACK_OF_FIT_SCALE, LOWEST_OFFSET, MAX_OFFSET, NO_OFFSET
from mergeplan.law.scans import FEWEST_LAMBDAS
from mergeplan.law.series import Series, name_of, series_of
from mergeplan.law.spread import fit_spread, item_variances, known_covariance
from mergeplan.law.tails import HYPERBOLIC, TAILS, compare_tails, fit_curve
from mergeplan.law.trend import bend_of
from mergeplan.measurements.file import load_measurements
from mergeplan.measurements.rows import Measurements
from mergeplan.system.blas import on_one_thread
from mergeplan.system.files import expanded

Array = NDArray[np.float64]

# Why a table has no curve that nobody expects one of.
ONLY_A_SCAN = "nothing to fit: only lambda is scanned, at one k, and a curve takes two different k"


@on_one_thread
def fit(
    data: Measurements | str | Path,
    *,
    domain: str | None = None,
    method: str | None = None,
    pool_size: int | None = None,
    form: str = FORMS[0],
    robust: bool = False,
    seed: int = 0,
    metric: str | None = None,
    anyway: bool = False,
) -> FitResult:
    """Fit the law to every method and base size in a file, and to all sizes together.

    E[L | N, k] = L* + B·N^-β + A0·N^-γ / (k + b) of arXiv 2509.24244, Eq. 1; at one base size
    Linf + A / (k + b).

    Args:
        data: Measurements, or the path of a CSV file.
        domain: Which domain; by default the macro mean.
        method: Only this label.
        pool_size: Number of experts there are, M.
        form: `hyperbolic`, or `interference` for curves that turn up again.
        robust: Weigh down means that lie far from the curve (Huber's weights).
        seed: Of the posterior draws.
        metric: What of a file is fitted; `None` for the losses, or for the only metric of a file
            without any. `perplexity` is made of losses where no row is of it.
        anyway: Fit a metric too whose means become better and worse with k by more than their
            error; its signs say so.

    Returns:
        A fit for each series with two different k, and one over sizes for each method measured at
        three sizes or more. Losses are in nats per token, a metric is on its own scale.

    Raises:
        InputError: The file is at fault, the metric is not there or has to be named, merges were
            scored on a part of the text, no series has two different k, or the means of a metric
            fall and rise with k by more than their error.

    Example:
        >>> import mergeplan
        >>> law = mergeplan.fit("pool/measurements.csv", method="average")
        >>> round(law.predict(4).loss, 4)
        1.9405
    """
    if not isinstance(data, Measurements):
        path = expanded(data)
        data = load_measurements(path, metric)
        data = replace(data, rows=with_item_scores(path, data.rows))
    elif metric is not None:
        raise InputError("`metric` is chosen when measurements are read", "`load_measurements`")
    if data.partial:
        raise InputError(
            f"nothing to fit: {data.partial} rows with a `text_se` are of merges that were scored"
            " on a part of the text, and the others were scored on all of it because they may be"
            " the best: a mean of these is no mean of all merges of its k",
            "for a curve measure with `--tokens all`, in a folder of its own; `select` and the"
            " verdict of `suggest` read this table",
        )
    all_series = series_of(data, domain=domain, method=method, pool_size=pool_size)
    fits, skipped, hint = [], [], "measure at k = 1, 2 and 4"
    scanned = False
    if data.unequal:
        skipped.append(f"{data.unequal} rows of unequal weights are left out")
    for series in all_series:
        if len(series.points) < 2:
            if _is_of_a_scan(series, all_series):
                scanned = True
            else:
                skipped.append(f"{name_of(series)}: needs losses at two different k or more")
        elif form == FORMS[0] and not anyway and (bend := bend_of(series)):
            skipped.append(f"{name_of(series)}: no law of the means: {bend}")
            hint = "`select` predicts single subsets, whatever their means do"
        else:
            fits.append(fit_series(series, form=form, robust=robust, seed=seed))
    if not fits and scanned and not skipped:
        raise InputError(ONLY_A_SCAN, hint)
    if not fits:
        raise InputError(f"nothing to fit: {'; '.join(skipped)}", hint)
    joints = []
    groups: dict[tuple[str, str], list[Series]] = {}
    for entry in fits:
        groups.setdefault((entry.series.method, entry.series.options), []).append(entry.series)
    names = names_at(data.rows)
    for members in groups.values():
        pools = {one.n_params: one.pool_size for one in members if one.n_params is not None}
        label = members[0].method or "all rows"
        if len(pools) < 3:
            continue
        if not members[0].scale.natural:
            skipped.append(
                f"{label}: no law over sizes, which takes a loss or a share that is missed:"
                f" {members[0].scale.name} has no zero of that kind"
            )
        elif form != "hyperbolic":
            skipped.append(f"{label}: no law over sizes, which the form `{form}` has not")
        elif reason := unlike(pools, names):
            skipped.append(f"{label}: no law over sizes, which takes one pool: {reason}")
        elif len(pools) == len(members):
            joints.append(fit_joint(members, seed=seed, robust=robust))
    return FitResult(tuple(fits), data.sha256, tuple(joints), tuple(skipped))


def _is_of_a_scan(series: Series, every: Sequence[Series]) -> bool:
    """Whether it is one lambda of several at one k, which are to have no curve: beside the curve of
    its method, or as one of a scan of its own."""

    def rest(one: Series) -> tuple[object, ...]:
        options = json.loads(one.options)
        # An average at less strength is recorded as task arithmetic.
        kept = {name: value for name, value in options.items() if name not in ("lambda", "method")}
        return one.method, one.n_params, one.domain, kept

    alike = [one for one in every if rest(one) == rest(series)]
    at_its_k = [one for one in alike if [p.k for p in one.points] == [p.k for p in series.points]]
    return len(at_its_k) >= FEWEST_LAMBDAS or any(len(one.points) > 1 for one in alike)


def fit_series(series: Series, *, form: str = FORMS[0], robust: bool = False, seed: int = 0) -> Fit:
    """Fit one series, which has losses at two different k or more."""
    k, loss = measured_means(series)
    spread = fit_spread(series.points, series.pool_size)
    covariance = known_covariance(series, spread)
    variance = None  # (n_k,)
    if covariance is not None:
        variance = np.diag(covariance) + item_variances(series, k)
    warnings = list(series.warnings)
    weights = k if variance is None else 1 / (variance + _first_lack_of_fit(loss) ** 2)
    if form not in FORMS:
        raise InputError(
            f"unknown form `{form}`", nearest(form, list(FORMS)) or f"one of: {', '.join(FORMS)}"
        )
    law = _FITS[form](k, loss, weights, robust)
    left = _lack_of_fit(k, loss, law, variance)
    if variance is not None and len(k) > 3:
        weights = 1 / (variance + left**2)
        law = _FITS[form](k, loss, weights, robust)
        left = _lack_of_fit(k, loss, law, variance)
    if len(k) == 2:
        warnings.append("two different k only: the offset b is set to 0, and the fit is unchecked")
    elif len(k) == 3:
        warnings.append(
            "three different k only: R² says nothing about the fit, and the intervals rest on"
            " stated priors for b and the lack of fit"
        )
    forecast = law
    if len(k) > 2 and not law.can_rise:
        forecast = _fit_hyperbolic(k, loss, weights, robust, lowest=LOWEST_OFFSET)
    residuals = loss - np.array([law.predict(x) for x in k])
    total = float(((loss - loss.mean()) ** 2).sum())
    return Fit(
        series=series,
        law=law,
        forecast=forecast,
        r2=1 - float((residuals**2).sum()) / total if total > 0 else 1.0,
        lack_of_fit=left,
        weighting="k" if variance is None else "variance",
        tails=compare_tails(k, loss, weights),
        spread=spread,
        warnings=tuple(warnings),
        seed=seed,
    )


def fit_law(k: Array, loss: Array, weights: Array, lowest: float = 0.0) -> HyperbolicLaw:
    """The law with the least weighted sum of squares, offset in [lowest, 50].

    Args:
        k, loss, weights: Shape (n_k,), with three different k or more.
    """
    curve = fit_curve(HYPERBOLIC, k, loss, weights, low=float(np.log1p(lowest)))
    offset = float(np.expm1(curve.s))
    offset = offset if abs(offset) > NO_OFFSET else 0.0
    return HyperbolicLaw(float(curve.floor), float(curve.tail), offset)


def _fit_hyperbolic(
    k: Array, loss: Array, weights: Array, robust: bool, lowest: float = 0.0
) -> HyperbolicLaw:
    if len(k) == 2:
        curve = fit_curve(TAILS[0], k, loss, weights)
        return HyperbolicLaw(float(curve.floor), float(curve.tail), 0.0)
    if len(k) == 3:
        exact = through_three_points(tuple(k.tolist()), tuple(loss.tolist()))
        if exact is not None and exact.floor >= 0 and lowest <= exact.offset <= MAX_OFFSET:
            return exact
    law = fit_law(k, loss, weights, lowest)
    for _ in range(20 if robust else 0):
        predicted = np.array([law.predict(x) for x in k])
        weighed = weights * huber((loss - predicted) * np.sqrt(weights))
        law = fit_law(k, loss, weighed, lowest)
    return law


def fit_interference(k: Array, loss: Array, weights: Array, robust: bool = False) -> SizeLaw:
    """The bounded non-monotone form, with b in [0, 50] and q in [0.5, 200].

    Raises:
        InputError: Fewer than six different k: five coefficients would pass through anything.
    """
    if len(k) < 6:
        raise InputError(f"the form `interference` needs six different k, found {len(k)}")

    def design(shape: Array) -> Array:
        offset, saturation = np.expm1(shape[0]), np.exp(shape[1])
        return np.stack([np.ones_like(k), 1 / (k + offset), k / (k + saturation)], axis=1)

    bounds = [(0.0, float(np.log1p(MAX_OFFSET))), (float(np.log(0.5)), float(np.log(200.0)))]
    found = project(design, loss, weights, bounds)
    floor, tail, interference = map(float, found.linear)
    offset, saturation = float(np.expm1(found.shape[0])), float(np.exp(found.shape[1]))
    return Coefficients(floor, tail, offset, interference, saturation).law()


# What fits each form of the law.
_FITS: dict[str, Callable[[Array, Array, Array, bool], SizeLaw]] = dict(
    zip(FORMS, (_fit_hyperbolic, fit_interference), strict=True)
)


def _first_lack_of_fit(loss: Array) -> float:
    return max(LACK_OF_FIT_SCALE * float(np.ptp(loss)), 1e-12)


def _lack_of_fit(k: Array, loss: Array, law: SizeLaw, variance: Array | None) -> float:
    """Standard deviation that brings the residuals' chi-square to their degrees of freedom."""
    squares = (loss - np.array([law.predict(x) for x in k])) ** 2
    smallest, largest = 1e-9 * float(np.ptp(loss)) + 1e-15, float(np.ptp(loss)) + 1e-12
    freedom = len(k) - 3
    if freedom < 1:
        return _first_lack_of_fit(loss)
    known = np.zeros_like(squares) if variance is None else variance
    low, high = np.log(smallest), np.log(largest)
    for _ in range(60):
        middle = (low + high) / 2
        if float((squares / (known + np.exp(2 * middle))).sum()) > freedom:
            low = middle
        else:
            high = middle
    return float(np.exp(high))
