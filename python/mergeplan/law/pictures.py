"""Pictures of fits: the curves with bands and points, residuals, and floors and tails against N."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mergeplan.display.figure import COLOURS, drawing, tidy
from mergeplan.display.text import format_count
from mergeplan.law.curve import Fit
from mergeplan.law.fit_result import FitResult
from mergeplan.law.loading import fits_of
from mergeplan.law.series import name_of
from mergeplan.system.writing import write_durably

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_STEPS = 60


def plot(
    source: FitResult | str | Path,
    out: str | Path,
    target_loss: float | None = None,
    *,
    replace: bool = True,
) -> None:
    """Draw fits: curves with 90 % bands, measured means, residuals, floors and tails over N.

    Args:
        source: Fits, or a file of measurements or of a law.
        out: `.png` or `.svg`.
        target_loss: Or value of the metric, drawn as a line, with the k that reaches it.
        replace: Whether a file may be there.

    Raises:
        InputError: Another kind of file, or matplotlib is not installed.
        SurroundingsError: It cannot be written, or something is in the way.
    """
    path = Path(out)
    draw_law(fits_of(source), path, target_loss, partial(write_durably, path, replace=replace))


def draw_law(
    result: FitResult, out: Path, target_loss: float | None, write: Callable[[bytes], object]
) -> None:
    """The picture that `plot` draws, given to `write`; `out` says of which kind it is."""
    if target_loss is not None:
        result.fits[0].series.scale.check(target_loss)
    sizes = bool(result.joints)
    with drawing(out, (7.2, 8.6 if sizes else 6.2), write) as figure:
        grid = figure.add_gridspec(
            3 if sizes else 2, 2, height_ratios=[3, 1, 1.6][: 3 if sizes else 2]
        )
        curves = figure.add_subplot(grid[0, :])
        _draw_curves(curves, result, target_loss)
        _draw_residuals(figure.add_subplot(grid[1, :], sharex=curves), result)
        if sizes:
            _draw_sizes(figure.add_subplot(grid[2, 0]), result, "floor")
            _draw_sizes(figure.add_subplot(grid[2, 1]), result, "tail")


def _draw_curves(axes: "Axes", result: FitResult, target: float | None) -> None:
    many = len(result.fits) > 1
    bases: set[float] = set()
    for number, fit in enumerate(result.fits):
        colour, marker = COLOURS[number % 7], MARKERS[number % 7]
        series = fit.series
        # Both of the means, which whole k have, and joined alike: between k = 1 and 2 the law is
        # far from a straight band. What it misses of a mean, the residuals show.
        whole = range(1, series.pool_size + 1)
        means = [fit.predict(k) for k in whole]
        axes.plot(whole, [mean.loss for mean in means], color=colour, lw=1.8)
        if fit.draws is not None:
            low, high = [mean.low for mean in means], [mean.high for mean in means]
            axes.fill_between(whole, low, high, color=colour, alpha=0.18, lw=0)
        axes.plot(
            [point.k for point in series.points],
            [point.loss for point in series.points],
            ls="",
            marker=marker,
            ms=6,
            color=colour,
            label=name_of(series).replace("$", r"\$") if many else "measured mean",
        )
        _draw_spread(axes, fit, colour)
        if series.base_loss is not None and series.base_loss not in bases:
            bases.add(series.base_loss)
            axes.axhline(series.base_loss, color=colour, lw=1, ls=":")
            # Outside the frame: inside, every place may hold a curve.
            axes.annotate(
                "base",
                (1.0, series.base_loss),
                (4, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                color=colour,
            )
        if target is not None:
            chosen = fit.solve(target).k
            if chosen is not None:
                axes.plot(
                    [chosen],
                    [fit.expect(chosen)],
                    marker=marker,
                    ms=13,
                    mfc="none",
                    mec=colour,
                    mew=1.8,
                    ls="",
                )
                axes.annotate(
                    f"k = {chosen}",
                    (chosen, fit.expect(chosen)),
                    (8, 8),
                    textcoords="offset points",
                    color=colour,
                )
    if target is not None:
        axes.axhline(target, color="#444444", lw=1, ls="--")
        axes.annotate(f"target {target:g}", (1, target), (0, 3), textcoords="offset points")
    first = result.fits[0].series
    scale, domain = first.scale, f" ({first.domain})" if first.domain else ""
    measure = scale.metric.replace("$", r"\$") or "loss"
    better = scale.word("less", "more")
    axes.set_ylabel(
        f"{measure}{domain}, {better} is better"
        if scale.metric
        else f"loss, nats per token{domain}"
    )
    axes.set_title(
        f"mean {measure} of merges of k experts on this text, with 90 % bands", loc="left"
    )
    axes.legend(frameon=False, loc="lower right" if scale.higher else "upper right")
    tidy(axes)


def _draw_spread(axes: "Axes", fit: Fit, colour: str) -> None:
    """Thin bars: one standard deviation over single subsets."""
    scattered = [point for point in fit.series.points if point.spread]
    axes.errorbar(
        [point.k for point in scattered],
        [point.loss for point in scattered],
        yerr=[point.spread or 0.0 for point in scattered],
        fmt="none",
        ecolor=colour,
        elinewidth=0.8,
        alpha=0.6,
    )


def _draw_residuals(axes: "Axes", result: FitResult) -> None:
    for number, fit in enumerate(result.fits):
        points = fit.series.points
        axes.plot(
            [point.k for point in points],
            [
                1000 * (point.loss - fit.series.scale.own(fit.forecast.predict(point.k)))
                for point in points
            ],
            color=COLOURS[number % 7],
            marker=MARKERS[number % 7],
            ms=4,
            lw=0.8,
        )
    axes.axhline(0, color="#444444", lw=0.8)
    axes.set_ylabel(f"measured − law,\n0.001{result.fits[0].series.scale.unit}")
    axes.set_xlabel("experts merged, k")
    tidy(axes)


def _draw_sizes(axes: "Axes", result: FitResult, what: str) -> None:
    for number, joint in enumerate(result.joints):
        colour = COLOURS[number % 7]
        fits = [
            fit
            for fit in result.fits
            if (fit.series.method, fit.series.options) == (joint.method, joint.options)
        ]
        n = np.array([fit.series.n_params or 0.0 for fit in fits])
        scale = fits[0].series.scale
        # Of a metric of which more is better the floor is a ceiling; a tail is what is missed.
        shown = scale.own if what == "floor" else float
        values = np.array([shown(getattr(fit.forecast, what)) for fit in fits])
        ranges = np.array(
            [
                [
                    shown(end)
                    for end in fit.intervals().get(what, (getattr(fit.forecast, what),) * 2)
                ]
                for fit in fits
            ]
        )
        axes.errorbar(
            n,
            values,
            yerr=np.abs(ranges.T - values),
            fmt=MARKERS[number % 7],
            color=colour,
            ms=5,
            label=joint.method,
            capsize=2,
        )
        line = np.geomspace(n.min(), n.max(), _STEPS)
        law = [shown(getattr(joint.law.at(x / 1e9), what)) for x in line]
        axes.plot(line, law, color=colour, lw=1.5)
    axes.set_xscale("log")
    sizes = sorted({fit.series.n_params for fit in result.fits if fit.series.n_params})
    axes.set_xticks(sizes, [format_count(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("parameters of the base, N")
    scale = result.fits[0].series.scale
    axes.set_ylabel(f"{scale.limit if what == 'floor' else what}{scale.unit and ', nats'}")
    axes.legend(frameon=False)
    tidy(axes)
