"""The picture of fits: a panel for each series, all methods of a size together, sizes, lambdas."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergeplan.display.figure import (
    BAD,
    COLOURS,
    GOOD,
    INK,
    MARKERS,
    WIDTH,
    check_picture,
    drawing,
)
from mergeplan.display.labels import plain
from mergeplan.law.curve import Fit
from mergeplan.law.fit_result import FitResult
from mergeplan.law.loading import fits_of, is_table
from mergeplan.law.merges import singles_of
from mergeplan.law.panels import Look, draw_residuals, draw_series, measure_of
from mergeplan.law.scans import scans_of
from mergeplan.law.together import draw_scans, draw_sizes, draw_together, name_beside
from mergeplan.measurements.file import load_measurements
from mergeplan.measurements.rows import MACRO, Measurement, Measurements
from mergeplan.system.writing import write_durably

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Panels of single series that are drawn, of which there is no end.
_MOST = 12
# A bracket: a line between two bars.
_BRACKET = ((-0.3, 1), (0.3, 1), (0, 1), (0, -1), (-0.3, -1), (0.3, -1))
_LINES = ("-", "--", "-.", ":")


def plot(
    source: FitResult | str | Path,
    out: str | Path,
    target_loss: float | None = None,
    *,
    measurements: Measurements | None = None,
    replace: bool = True,
) -> None:
    """Draw fits: expected means with their 90 % band on this text, measured means and merges,
    residuals, floors and tails over N, and scans of lambda.

    Args:
        source: Fits, or a file of measurements or of a law.
        out: `.png`, `.pdf` or `.svg`.
        target_loss: Or value of the metric, drawn as a line, with the k that reaches it.
        measurements: What was fitted, whose single merges and scans are drawn; those of a file of
            measurements by default.
        replace: Whether a file may be there.

    Raises:
        InputError: Another kind of file, or matplotlib is not installed.
        SurroundingsError: It cannot be written, or something is in the way.
    """
    path = Path(out)
    check_picture(path)
    # A pipe is read once, to be fitted.
    if measurements is None and not isinstance(source, FitResult) and is_table(source):
        measurements = load_measurements(source)
    rows = () if measurements is None else measurements.rows
    write = partial(write_durably, path, replace=replace)
    draw_law(fits_of(source), path, target_loss, write, rows)


def draw_law(
    result: FitResult,
    out: Path,
    target_loss: float | None,
    write: Callable[[bytes], object],
    rows: Sequence[Measurement] = (),
) -> None:
    """The picture that `plot` draws, given to `write`; `out` says of which kind it is."""
    if target_loss is not None:
        result.fits[0].series.scale.check(target_loss)
    with drawing(out, write) as figure:
        fill_law(figure, result, target_loss, rows)


def fill_law(
    figure: "Figure",
    result: FitResult,
    target: float | None = None,
    rows: Sequence[Measurement] = (),
) -> None:
    """Draw into a figure, and give it its height."""
    fits = result.fits[:_MOST]
    looks = _looks(result.fits)
    shared = [fits for fits in _by_size(result.fits) if len(fits) > 1]
    methods = {fit.series.method for fit in result.fits}
    domain = result.fits[0].series.domain or MACRO
    scans = [scan for scan in scans_of(rows, domain) if scan.method in methods]
    columns = 1 if len(fits) == 1 else 2
    heights = _heights(shared, -(-len(fits) // columns), bool(result.joints), bool(scans))
    figure.set_size_inches(WIDTH, 0.7 + sum(heights))
    lines = iter(figure.add_gridspec(len(heights), 1, height_ratios=heights))
    for some in shared:
        draw_together(figure.add_subplot(next(lines)), some, [looks[id(fit)] for fit in some])
    _draw_each(figure, lines, columns, fits, looks, target, rows)
    if result.joints:
        pair = next(lines).subgridspec(1, 2)
        for place, what in enumerate(("floor", "tail")):
            draw_sizes(figure.add_subplot(pair[0, place]), result, what)
    if scans:
        draw_scans(figure.add_subplot(next(lines)), scans, result)
    _head(figure, result, len(result.fits) - len(fits))


def _heights(shared: Sequence[Sequence[Fit]], rows: int, sizes: bool, scans: bool) -> list[float]:
    """Inches of each line of panels; methods that share one need room for their names beside."""
    named = [sum(name_beside(fit).count("\n") + 1 for fit in fits) for fits in shared]
    together = [max(2.3, 1.0 + 0.14 * (lines + 2)) for lines in named]
    return together + [3.4] * rows + [2.0] * sizes + [2.2] * scans


def _draw_each(
    figure: "Figure",
    lines: Any,
    columns: int,
    fits: Sequence[Fit],
    looks: dict[int, Look],
    target: float | None,
    rows: Sequence[Measurement],
) -> None:
    """Each series with its residuals below it."""
    for first in range(0, len(fits), columns):
        grid = next(lines).subgridspec(2, columns, height_ratios=(3, 1))
        for column, fit in enumerate(fits[first : first + columns]):
            series, look = fit.series, looks[id(fit)]
            what = (series.method, series.options, series.n_params, series.domain)
            upper = figure.add_subplot(grid[0, column])
            lower = figure.add_subplot(grid[1, column], sharex=upper)
            draw_series(upper, fit, singles_of(rows, *what), look, target)
            draw_residuals(lower, fit, look)
            upper.tick_params(labelbottom=False)
            if column == 0:
                upper.set_ylabel(measure_of(fit))


def _head(figure: "Figure", result: FitResult, left_out: int) -> None:
    """What all panels show, and a key to their marks."""
    series = result.fits[0].series
    scale = series.scale
    domain = f" ({plain(series.domain, 24)})" if series.domain else ""
    better = scale.word("less", "more")
    title = f"mean {plain(scale.metric, 24) or 'loss'}{domain} of merges of k experts on this text;"
    more = f"; {left_out} more series are not drawn" if left_out else ""
    figure.suptitle(f"{title} {better} is better{more}", x=0.01, ha="left", fontsize=10)
    figure.legend(handles=_key(result, figure), loc="outside lower left", ncols=3)


def _key(result: FitResult, figure: "Figure") -> list[Any]:
    """The marks that are there, and what they mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def mark(label: str, **look: Any) -> Line2D:
        return Line2D([], [], label=label, **{"color": INK, "ls": "", "marker": "o", **look})

    key: list[Any] = [mark("expected mean", ls="-", marker=""), mark("measured mean", ms=5)]
    if _has(figure, "predicted"):
        key.append(mark("of a k not measured", mfc="white", ms=4.5))
    if any(fit.draws is not None for fit in result.fits):
        key.append(Patch(color=INK, alpha=0.25, lw=0, label="90 % of the mean on this text"))
    if any(fit.series.loss_se for fit in result.fits):
        label = "90 % of the text's error, which moves all merges alike"
        key.append(mark(label, marker=_BRACKET, ms=8))
    best, worst = ("^", "v") if result.fits[0].series.scale.higher else ("v", "^")
    some = (
        ("singles", mark("one measured merge", ms=2, alpha=0.6)),
        ("spread", mark("spread of merges, 1 SD", marker="|", ms=8)),
        ("best", mark("best measured of a k", marker=best, mfc="none", mec=GOOD, ms=4)),
        ("worst", mark("worst measured of a k", marker=worst, mfc="none", mec=BAD, ms=4)),
    )
    key += [one for label, one in some if _has(figure, label)]
    return key


def _has(figure: "Figure", label: str) -> bool:
    lines = (line for axes in figure.axes for line in axes.lines)
    return any(line.get_label() == label and len(line.get_path()) for line in lines)


def _looks(fits: Iterable[Fit]) -> dict[int, Look]:
    """One for each method and its options, the same at every size."""
    names: dict[tuple[str, str], Look] = {}
    found = {}
    for fit in fits:
        number = len(names)
        look = Look(
            COLOURS[number % 7], MARKERS[(number + number // 7) % 7], _LINES[number // 7 % 4]
        )
        found[id(fit)] = names.setdefault((fit.series.method, fit.series.options), look)
    return found


def _by_size(fits: Iterable[Fit]) -> list[list[Fit]]:
    sizes: dict[float | None, list[Fit]] = {}
    for fit in fits:
        sizes.setdefault(fit.series.n_params, []).append(fit)
    return list(sizes.values())
