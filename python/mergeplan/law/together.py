"""Several series in one panel of a picture: methods beside each other, over sizes, over lambda."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mergeplan.config.labels import in_words
from mergeplan.display.figure import COLOURS, INK, MARKERS, whole_ticks
from mergeplan.display.labels import joined, plain, write_beside
from mergeplan.display.text import counted, format_count
from mergeplan.law.curve import Fit
from mergeplan.law.fit_result import FitResult
from mergeplan.law.panels import Look, band_of, intervals_of, measure_of, words_of
from mergeplan.law.scans import Scan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STEPS = 60
# Scans that can be told apart.
_SCANS = 5


def draw_together(axes: "Axes", fits: Sequence[Fit], looks: Sequence[Look]) -> None:
    """The methods of one base size; bands only of those that no other band touches."""
    apart = bands_apart(fits)
    for fit, look, alone in zip(fits, looks, apart, strict=True):
        band = band_of(fit)
        axes.plot(band.k, band.middle, color=look.colour, ls=look.line, lw=1.5)
        points = fit.series.points
        axes.plot(
            [point.k for point in points], [point.loss for point in points], ls="",
            marker=look.marker, ms=5, color=look.colour, mec="white", mew=0.6,
        )  # fmt: skip
        if alone:
            axes.fill_between(
                band.k, band.low, band.high, color=look.colour, alpha=0.25, lw=0, label="band"
            )
        write_beside(axes, float(band.middle[-1]), name_beside(fit), look.colour)
    series = fits[0].series
    size = "" if series.n_params is None else f" of {format_count(series.n_params)}"
    bases = {fit.series.base_loss for fit in fits} - {None}
    for value in bases:
        assert value is not None
        axes.axhline(value, color=INK, lw=1, ls=":")
        write_beside(axes, value, f"base{size}: {value:#.4g}", INK)
    hidden = len(fits) - sum(apart)
    without = "" if not hidden else "; bands that meet others are left to the panels below"
    axes.set_title(f"all methods{size and ', base'}{size}{without}", fontsize=8)
    axes.set_ylabel(measure_of(fits[0]))
    axes.set_xlabel("experts merged, k")
    whole_ticks(axes)


def name_beside(fit: Fit) -> str:
    """What stands beside its line."""
    return words_of(fit, 26, size=False)


def bands_apart(fits: Sequence[Fit]) -> list[bool]:
    """Of each series whether its 90 % intervals meet no other's at any k."""
    bands = [
        {} if fit.draws is None else {k: (one.low, one.high) for k, one in intervals_of(fit)}
        for fit in fits
    ]

    def meet(one: dict[int, tuple[float, float]], other: dict[int, tuple[float, float]]) -> bool:
        both = one.keys() & other.keys()
        return any(one[k][0] <= other[k][1] and other[k][0] <= one[k][1] for k in both)

    return [
        not any(meet(one, other) for j, other in enumerate(bands) if j != i)
        for i, one in enumerate(bands)
    ]


def draw_sizes(axes: "Axes", result: FitResult, what: str) -> None:
    """Floors or tails against N, with the law over sizes."""
    scale = result.fits[0].series.scale
    # Of a metric of which more is better the floor is a ceiling; a tail is what is missed.
    shown = scale.own if what == "floor" else float
    for number, joint in enumerate(result.joints):
        colour = COLOURS[number % 7]
        fits = [
            fit
            for fit in result.fits
            if (fit.series.method, fit.series.options) == (joint.method, joint.options)
        ]
        n = np.array([fit.series.n_params or 0.0 for fit in fits])
        own = [getattr(fit.forecast, what) for fit in fits]
        values = np.array([shown(value) for value in own])
        ends = [fit.intervals().get(what, (v, v)) for fit, v in zip(fits, own, strict=True)]
        ranges = np.array([[shown(end) for end in pair] for pair in ends])
        axes.errorbar(
            n, values, yerr=np.abs(ranges.T - values), fmt=MARKERS[number % 7], color=colour, ms=5,
            capsize=2,
        )  # fmt: skip
        line = np.geomspace(n.min(), n.max(), _STEPS)
        law = [shown(getattr(joint.law.at(x / 1e9), what)) for x in line]
        axes.plot(line, law, color=colour, lw=1.5)
        name = "\n".join(plain(in_words(joint.method, joint.options), 60).split(", "))
        write_beside(axes, law[-1], name, colour)
    axes.set_xscale("log")
    sizes = sorted({fit.series.n_params for fit in result.fits if fit.series.n_params})
    axes.set_xticks(sizes, [format_count(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("parameters of the base, N")
    axes.set_ylabel(f"{scale.limit if what == 'floor' else what}{scale.unit and ', nats'}")
    axes.set_title("points: each size alone, 90 %; line: the law over sizes", fontsize=8)


def draw_scans(axes: "Axes", scans: Sequence[Scan], result: FitResult) -> None:
    """Merges of one subset by lambda, the best of each ringed, and the base they start from."""
    some = sorted(scans, key=lambda scan: (-len(scan.losses), -scan.k))[:_SCANS]
    for number, scan in enumerate(some):
        colour, marker = COLOURS[number % 7], MARKERS[number % 7]
        strengths, losses = list(scan.losses), list(scan.losses.values())
        axes.plot(strengths, losses, color=colour, marker=marker, ms=5, lw=0.8, ls=":")
        axes.plot(
            [scan.best], [scan.losses[scan.best]], ls="", marker="o", ms=11, mfc="none",
            mec=colour, mew=1.4,
        )  # fmt: skip
        name = f"{plain(in_words(scan.method, scan.options), 40)},\n{_whose(scan)}"
        write_beside(axes, losses[-1], name, colour)
    sizes = {scan.n_params for scan in some}
    bases = {fit.series.n_params: fit.series.base_loss for fit in result.fits}
    for size in sizes & bases.keys():
        value = bases[size]
        if value is not None:
            axes.axhline(value, color=INK, lw=1, ls=":")
            named = "" if size is None else f" of {format_count(size)}"
            write_beside(axes, value, f"base{named}: {value:#.4g}", INK)
    few = f" ({len(some)} of {len(scans)})" if len(some) < len(scans) else ""
    axes.set_title(f"one subset by λ{few}; a ring is its best", fontsize=8)
    axes.set_xlabel("λ")
    axes.set_ylabel(measure_of(result.fits[0]))


def _whose(scan: Scan) -> str:
    """Its experts, or how many where they are many."""
    count = counted(scan.k, "experts")
    return joined(scan.subset, 30) if scan.subset and len("+".join(scan.subset)) <= 30 else count
