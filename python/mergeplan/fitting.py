"""Fit the law to mean losses: weighted least squares, linear coefficients solved exactly.

The paper fits by weighted least squares with weights proportional to k (the variance of a mean
over subsets falls like 1/k) and names neither solver nor bounds (Sections 3.1 and J.1). Here floor
and tail are solved in closed form, non-negative, for each offset, and the offset is searched on
[0, 50]: one dimension, no starting values.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergeplan.errors import InputError
from mergeplan.laws import SizeLaw
from mergeplan.measurements import Measurements, Series, load_measurements, series_of

MAX_OFFSET = 50.0
_GRID = 201
_AT_BOUND = 1e-6

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """The law of one series.

    Attributes:
        r2: Share of the variance of the mean losses that the law explains, in-sample, unweighted.
    """

    series: Series
    law: SizeLaw
    r2: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class FitResult:
    """All fits of a file. `skipped` says which series had too few points, and why."""

    fits: tuple[Fit, ...]
    data_sha256: str
    skipped: tuple[str, ...] = ()


def fit(
    data: Measurements | str | Path,
    *,
    domain: str | None = None,
    method: str | None = None,
    pool_size: int | None = None,
) -> FitResult:
    """Fit `Linf + A / (k + b)` to every method and base size in a file.

    Args:
        data: Measurements, or the path of a CSV file.
        domain: Which domain; by default the macro mean.
        method: Only this label.
        pool_size: Number of experts there are, M.

    Raises:
        InputError: The file is at fault, or no series has two different k.

    Example:
        >>> import mergeplan
        >>> mergeplan.fit("measurements.csv").fits[0].law.predict(4)  # doctest: +SKIP
    """
    if not isinstance(data, Measurements):
        data = load_measurements(Path(data))
    fits, skipped = [], []
    for series in series_of(data, domain=domain, method=method, pool_size=pool_size):
        if len(series.points) < 2:
            skipped.append(f"{name_of(series)}: needs losses at two different k or more")
        else:
            fits.append(fit_series(series))
    if not fits:
        raise InputError(f"nothing to fit: {'; '.join(skipped)}", "measure at k = 1, 2 and 4")
    return FitResult(tuple(fits), data.sha256, tuple(skipped))


def name_of(series: Series) -> str:
    """How messages call a series."""
    label = series.method or "all rows"
    options = "" if series.options == "{}" else f" {series.options}"
    size = "" if series.n_params is None else f" at {format_count(series.n_params)}"
    return f"{label}{options}{size}"


def format_count(n_params: float) -> str:
    """Parameters for people.

    >>> format_count(80592.0)
    '80.6k'
    """
    for factor, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n_params >= factor:
            return f"{n_params / factor:.3g}{unit}"
    return f"{n_params:.0f}"


def fit_series(series: Series) -> Fit:
    """Fit one series with weights proportional to k."""
    k = np.array([point.k for point in series.points], np.float64)  # (n_k,)
    loss = np.array([point.loss for point in series.points])  # (n_k,)
    warnings = list(series.warnings)
    if len(k) == 2:
        law = SizeLaw(*_linear(k, loss, k, 0.0), 0.0)
        warnings.append("two different k only: the offset b is set to 0, and the fit is unchecked")
    else:
        law = fit_law(k, loss, weights=k)
        if len(k) == 3:
            warnings.append("three different k only: R² says nothing about the fit")
    if law.tail == 0:
        warnings.append("the loss does not fall with k: merging more experts does not help")
    elif law.offset > MAX_OFFSET - _AT_BOUND:
        bound = f"the offset b is at its bound, {MAX_OFFSET:g}"
        warnings.append(f"{bound}: the curve is not of this form")
    residuals = loss - np.array([law.predict(x) for x in k])
    spread = float(((loss - loss.mean()) ** 2).sum())
    r2 = 1 - float((residuals**2).sum()) / spread if spread > 0 else 1.0
    return Fit(series, law, r2, tuple(warnings))


def fit_law(k: Array, loss: Array, weights: Array) -> SizeLaw:
    """The law with the least weighted sum of squares.

    Args:
        k, loss, weights: Shape (n_k,), with three different k or more.
    """
    from scipy.optimize import minimize_scalar

    def cost(scale: float) -> float:
        offset = float(np.expm1(scale))
        floor, tail = _linear(k, loss, weights, offset)
        return float((weights * (loss - floor - tail / (k + offset)) ** 2).sum())

    # Equal steps in log(1 + b): fine where b is small and matters most.
    grid = np.linspace(0.0, np.log1p(MAX_OFFSET), _GRID)
    best = int(np.argmin([cost(scale) for scale in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
    found = minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    scale = min((float(found.x), low, high), key=cost)
    offset = float(np.expm1(scale))
    return SizeLaw(*_linear(k, loss, weights, offset), offset)


def _linear(k: Array, loss: Array, weights: Array, offset: float) -> tuple[float, float]:
    """Floor and tail, neither negative, that fit best at this offset."""
    x = 1.0 / (k + offset)  # (n_k,)
    total = weights.sum()
    mean_x, mean_loss = (weights * x).sum() / total, (weights * loss).sum() / total
    slope = float((weights * (x - mean_x) * (loss - mean_loss)).sum())
    tail = slope / float((weights * (x - mean_x) ** 2).sum())
    if tail <= 0:
        return float(mean_loss), 0.0
    floor = float(mean_loss - tail * mean_x)
    if floor < 0:
        return 0.0, float((weights * x * loss).sum() / (weights * x**2).sum())
    return floor, tail
