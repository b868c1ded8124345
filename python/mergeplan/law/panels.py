"""One series in a picture: its merges, their means, the law, and what the law leaves."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.config.labels import in_words
from mergeplan.display.figure import BAD, FAINT, GOOD, INK, whole_ticks
from mergeplan.display.labels import joined, plain, unit_for, write_beside
from mergeplan.display.text import format_count
from mergeplan.law.curve import Fit, Prediction
from mergeplan.law.merges import Single
from mergeplan.law.spread import item_variances, known_covariance
from mergeplan.subset_law.spread import NINE_IN_TEN

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_STEPS = 80  # of a curve
# A pool of more experts has no marker at every k that was predicted, and no interval at every k.
_MARKED, _WHOLE = 20, 60
# A level that lies further from what is drawn, in heights of it, is named at the edge instead.
_FAR = 1.0
# Points beyond which dots are one image in an .svg or .pdf.
_MANY = 1500
# Points from a panel's edge to what is named beside it, with a bracket between them or without.
_BRACKET, _EDGE = 14.0, 5.0


@dataclass(frozen=True)
class Look:
    """How a series is told from the others."""

    colour: str
    marker: str
    line: str = "-"


def words_of(fit: Fit, width: int = 48, *, size: bool = True) -> str:
    """Method, options and base size, on as many lines as they need."""
    series = fit.series
    words = plain(in_words(series.method, series.options), 60)
    if size and series.n_params is not None:
        words += f", base of {format_count(series.n_params)}"
    return "\n".join(textwrap.wrap(words, width))


def measure_of(fit: Fit) -> str:
    """What its values are of, for an axis."""
    return plain(fit.series.scale.metric, 24) or "loss, nats per token"


def intervals_of(fit: Fit) -> list[tuple[int, Prediction]]:
    """The expected mean at whole k, with its 90 % on this text where the fit has draws."""
    size = fit.series.pool_size
    ks = np.unique(np.geomspace(1, size, _WHOLE).round()) if size > _WHOLE else range(1, size + 1)
    return [(int(k), fit.predict(int(k))) for k in ks]


@dataclass(frozen=True)
class Band:
    """The expected means and their intervals, shape (n,) each; of no width where they have none.

    Means are of whole k. Between them all three go along the law's tail, so that the line lies in
    its band: what the law misses of a mean, the residuals show.
    """

    k: Array
    middle: Array
    low: Array
    high: Array


def band_of(fit: Fit) -> Band:
    """What is drawn of a fit between k = 1 and all experts."""
    found = intervals_of(fit)
    whole = np.array([float(at) for at, _ in found])
    k = np.union1d(whole, np.geomspace(1, fit.series.pool_size, _STEPS))

    def tail(at: Array) -> Array:
        return -1 / (at + fit.forecast.offset)

    def between(values: list[float]) -> Array:
        return np.asarray(np.interp(tail(k), tail(whole), np.array(values)))

    middle = between([one.loss for _, one in found])
    if fit.draws is None:
        return Band(k, middle, middle, middle)
    return Band(
        k, middle, between([one.low for _, one in found]), between([one.high for _, one in found])
    )


def draw_series(
    axes: "Axes", fit: Fit, singles: Sequence[Single], look: Look, target: float | None
) -> None:
    """The expected means with their band on this text, measured ones, merges, and levels."""
    series = fit.series
    if singles:
        _draw_singles(axes, singles, series.scale.higher, look)
    else:
        _draw_spread(axes, fit, look)
    band = band_of(fit)
    axes.fill_between(
        band.k, band.low, band.high, color=look.colour, alpha=0.25, lw=0, label="band"
    )
    axes.plot(band.k, band.middle, color=look.colour, lw=1.6)
    measured = {point.k for point in series.points}
    if series.pool_size <= _MARKED:
        open_ks = [k for k in range(1, series.pool_size + 1) if k not in measured]
        values = [fit.expect(k) for k in open_ks]
        axes.plot(
            open_ks,
            values,
            ls="",
            marker=look.marker,
            ms=4.5,
            mfc="white",
            mec=look.colour,
            label="predicted",
        )
    means = [point.loss for point in series.points]
    axes.plot(
        [point.k for point in series.points], means, ls="", marker=look.marker, ms=5,
        color=look.colour, mec="white", mew=0.6,
    )  # fmt: skip
    _draw_levels(axes, fit, target)
    _draw_text_error(axes, fit)
    axes.set_title("\n".join(_head(fit, singles, target)), fontsize=8)
    margin = 0.3 + 0.02 * series.pool_size
    axes.set_xlim(1 - margin, series.pool_size + margin)
    whole_ticks(axes)


def _head(fit: Fit, singles: Sequence[Single], target: float | None) -> list[str]:
    """What it is, the best measured merge, and where the target is reached."""
    lines, scale = [words_of(fit)], fit.series.scale
    named = [one for one in singles if one.subset]
    if named:
        best = min(named, key=lambda one: (scale.turned(one.loss), one.subset))
        every = best.k == fit.series.pool_size
        who = f"all {best.k} experts" if every else joined(best.subset, 24)
        lines.append(f"best of {len(singles)}: {best.loss:#.4g}, {who}")
    if target is not None:
        found = fit.solve(target)
        if found.k is None:
            return [*lines, f"mean of no k here reaches {target:g}"]
        low, high = (f"{end:.3g}" for end in (found.low, found.high))
        around = "" if low == high else f" (90 %: {low} to {high})"
        lines.append(f"mean reaches {target:g} from k = {found.k}{around}")
    return lines


def _draw_singles(axes: "Axes", singles: Sequence[Single], higher: bool, look: Look) -> None:
    """Every measured merge as a dot beside its k, and the best and worst of each k."""
    by_k: dict[int, list[float]] = {}
    for one in singles:
        by_k.setdefault(one.k, []).append(one.loss)
    several = {k: losses for k, losses in by_k.items() if len(losses) > 1}
    x, y = [], []
    for k, losses in several.items():
        # By turns left and right of the middle: no two neighbours of the table share a place.
        shifts = (0.5 + 0.618 * np.arange(len(losses))) % 1 - 0.5
        x += list(k + 0.34 * shifts)
        y += losses
    axes.plot(
        x, y, ls="", marker="o", ms=2, color=look.colour, alpha=0.35, mew=0,
        rasterized=len(x) > _MANY, label="singles",
    )  # fmt: skip
    for choose, marker in ((min, "v"), (max, "^")):
        colour = GOOD if (choose is min) != higher else BAD
        ends = [choose(losses) for losses in several.values()]
        axes.plot(
            list(several), ends, ls="", marker=marker, ms=4, mfc="none", mec=colour,
            label="best" if colour == GOOD else "worst",
        )  # fmt: skip


def _draw_spread(axes: "Axes", fit: Fit, look: Look) -> None:
    """What a law's file knows of single merges: their spread, and the best of each k."""
    points = [point for point in fit.series.points if point.spread]
    ends = [(point.k, point.loss, point.spread or 0.0) for point in points]
    for k, mean, spread in ends:
        axes.plot([k, k], [mean - spread, mean + spread], lw=0.8, color=look.colour, label="spread")
    best = [(point.k, point.best_loss) for point in points if point.best_loss is not None]
    marker = "^" if fit.series.scale.higher else "v"
    axes.plot(
        [k for k, _ in best], [loss for _, loss in best], ls="", marker=marker, ms=4, mfc="none",
        mec=GOOD, label="best",
    )  # fmt: skip


def _draw_levels(axes: "Axes", fit: Fit, target: float | None) -> None:
    """Base, best single expert and target, named beside the panel."""
    series = fit.series
    base = "base" if series.n_params is None else f"base {format_count(series.n_params)}"
    levels: list[tuple[float | None, str, Any, str]] = [
        (series.base_loss, base, ":", INK),
        (target, "target", "--", INK),
    ]
    if series.best_single is not None:
        name, loss = series.best_single
        levels.append((loss, f"best single\n{plain(name, 14)}", (0, (5, 2, 1, 2)), FAINT))
    low, high = axes.get_ylim()
    room = _FAR * (high - low)
    shift = _BRACKET if series.loss_se else _EDGE
    for value, name, line, colour in levels:
        if value is None:
            continue
        text, at = f"{name}\n{value:#.4g}" if "\n" not in name else f"{name} {value:#.4g}", value
        if low - room <= value <= high + room:
            axes.axhline(value, color=colour, lw=1, ls=line)
        else:
            at = low if value < low else high
            text = f"{'↓' if value < low else '↑'} {text}"
        write_beside(axes, at, text, colour, shift=shift)


def _draw_text_error(axes: "Axes", fit: Fit) -> None:
    """A bracket beside the panel: what other texts move all merges by alike, no doubt of shape."""
    error = NINE_IN_TEN * fit.series.loss_se
    if not error:
        return
    low, high = axes.get_ylim()
    middle = fit.expected[-1]
    ends = max(middle - error, low), min(middle + error, high)
    cut = ends != (middle - error, middle + error)
    axes.annotate(
        "", (1.015, ends[0]), (1.015, ends[1]), xycoords=axes.get_yaxis_transform(),
        annotation_clip=False, label="text error",
        arrowprops={"arrowstyle": "<->" if cut else "|-|,widthA=0.25,widthB=0.25", "color": INK,
                    "lw": 1, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8},
    )  # fmt: skip
    axes.set_ylim(low, high)
    which = "these items" if fit.series.scale.metric else "this text"
    write_beside(axes, middle, f"± {error:.2g}\n{which}", INK, shift=_BRACKET)


def residuals_of(fit: Fit) -> tuple[Array, Array, Array | None]:
    """k, measured mean less law, and the 90 % error of the mean where it is known, (n_k,) each."""
    series = fit.series
    k = np.array([point.k for point in series.points], np.float64)
    law = [series.scale.own(fit.forecast.predict(x)) for x in k]
    left = np.array([point.loss for point in series.points]) - law
    covariance = known_covariance(series, fit.spread)
    if covariance is None:
        return k, left, None
    return k, left, NINE_IN_TEN * np.sqrt(np.diag(covariance) + item_variances(series, k))


def draw_residuals(axes: "Axes", fit: Fit, look: Look) -> None:
    """Points with the error that the merges which were not measured leave to a mean."""
    k, left, error = residuals_of(fit)
    most = float(np.abs(left).max() + (0 if error is None else error.max()))
    # What is left of a curve through all points is rounding.
    most = most if most > 1e-9 else 1e-3
    factor, power = unit_for(most)
    axes.axhline(0, color=INK, lw=0.8)
    axes.errorbar(
        k, factor * left, yerr=None if error is None else factor * error, fmt=look.marker, ms=4,
        color=look.colour, elinewidth=1, capsize=2,
    )  # fmt: skip
    axes.set_ylim(-1.15 * factor * most, 1.15 * factor * most)
    unit = " ".join(filter(None, (power, fit.series.scale.unit.strip())))
    unknown = "; error unknown" if error is None else ""
    axes.set_title(f"measured mean less law{unit and ', '}{unit}{unknown}", fontsize=8)
    axes.set_xlabel("experts merged, k")
    whole_ticks(axes)
