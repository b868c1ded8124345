"""Panels of a selection's picture: predictions held against measured merges, sizes, a front."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mergeplan.display.figure import BAD, GOOD, INK, whole_ticks
from mergeplan.display.labels import joined, plain, write_beside
from mergeplan.display.text import format_count
from mergeplan.selection.front import FrontPoint
from mergeplan.selection.selection import Selection

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_MANY = 1500  # points beyond which dots are one image in an .svg or .pdf
_LISTED = 13  # points of a front that are named
_APART = (0.035, 0.06)  # how far numbers are from each other, as shares of the panel
# Fewer merges of a kind have no R² that says anything.
_FEWEST = 3


def unit_of(selection: Selection) -> str:
    """Of the values, where it is known."""
    targets = [selection.table.targets.get(name) for name in selection.laws]
    losses = all(target is not None and not target.metric for target in targets)
    return "nats" if losses else ""


def r2_of(predicted: Array, measured: Array) -> float | None:
    """Share of the variance that predictions explain; `None` for few, or for none to explain."""
    total = float(np.sum((measured - measured.mean()) ** 2)) if len(measured) else 0.0
    if len(measured) < _FEWEST or total == 0:
        return None
    return 1 - float(np.sum((predicted - measured) ** 2)) / total


def draw_predicted(axes: "Axes", selection: Selection) -> None:
    """Every measured merge against what the others predict of it; single experts are apart."""
    from matplotlib.ticker import MaxNLocator

    law = selection.law
    k = (law.weights > 0).sum(1)
    axes.axline((law.values[0], law.values[0]), slope=1, color=INK, lw=0.8)
    dots = axes.scatter(
        law.left_out[k > 1], law.values[k > 1], c=k[k > 1], cmap="cividis", s=14, label="merges",
        rasterized=len(k) > _MANY, vmin=2, vmax=max(3, len(law.experts)), ec=INK, lw=0.3,
    )  # fmt: skip
    axes.plot(
        law.left_out[k == 1], law.values[k == 1], ls="", marker="^", ms=6, mfc="none", mec=BAD,
        label="single experts",
    )  # fmt: skip
    axes.plot(law.left_out[k == 0], law.values[k == 0], ls="", marker="x", ms=6, mec=INK)
    lines = ["each measured merge, predicted from the others"]
    for words, some in (("merges of two and more", k > 1), ("△ single experts", k == 1)):
        share = r2_of(law.left_out[some], law.values[some])
        if some.any():
            told = "" if share is None else f": R² {share:.3f}".replace("-", "−")
            lines.append(f"{words}{told}")
    if (k == 0).any():
        lines[-1] += "; × the base"
    axes.set_title("\n".join(lines), fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("measured")
    if (k > 1).any():
        bar = axes.inset_axes((1.03, 0.0, 0.035, 1.0))
        axes.figure.colorbar(dots, cax=bar, ticks=MaxNLocator(8, integer=True))
        bar.set_ylabel("experts merged, k", fontsize=7)
        bar.tick_params(labelsize=7)


def plain_merges(selection: Selection) -> tuple[Array, Array]:
    """k and value of the measured plain subsets, shape (n,) each."""
    law = selection.law
    k = (law.weights > 0).sum(1)
    equal = (np.abs(law.weights.max(1) * np.maximum(k, 1) - 1) < 1e-6) & (k > 0)
    equal &= np.abs(law.weights.sum(1) - 1) < 1e-6
    return k[equal].astype(np.float64), law.values[equal]


def draw_sizes(axes: "Axes", selection: Selection) -> None:
    """Best, mean and worst of each k: filled where measured, hollow with an interval elsewhere."""
    law, sizes = selection.law, selection.sizes
    ks, values = plain_merges(selection)
    # By turns left and right of the middle.
    shifts = 0.3 * ((0.5 + 0.618 * np.arange(len(ks))) % 1 - 0.5)
    axes.plot(
        ks + shifts, values, ls="", marker="o", ms=2, color=INK, alpha=0.3, mew=0, label="measured",
        rasterized=len(ks) > _MANY,
    )  # fmt: skip
    k = [size.k for size in sizes]
    worst = [size.lowest if law.higher else size.highest for size in sizes]
    means = [size.mean for size in sizes]
    seen = {(int(at), round(value, 12)) for at, value in zip(ks, values, strict=True)}
    known = [(at, round(value, 12)) in seen for at, value in zip(k, worst, strict=True)]
    _line(axes, k, worst, known, BAD, "^" if not law.higher else "v")
    counted = [int((ks == at).sum()) for at in k]
    possible = [np.prod([(len(law.experts) - i) / (i + 1) for i in range(at)]) for at in k]
    whole = [have >= round(all_) for have, all_ in zip(counted, possible, strict=True)]
    _line(axes, k, means, whole, INK, "s")
    best = selection.by_size
    low = [best[at].low for at in best]
    high = [best[at].high for at in best]
    chosen = [choice.value for choice in best.values()]
    told = [choice.measured or choice.here is not None for choice in best.values()]
    axes.vlines(list(best), low, high, color=GOOD, lw=1)
    _line(axes, list(best), chosen, told, GOOD, "v" if not law.higher else "^")
    if selection.best is not None:
        one = selection.best
        axes.plot(
            [one.k], [one.value], ls="", marker="*", ms=15, mfc="none", mec=INK, label="choice"
        )
        write_beside(axes, one.value, f"★ choice\n{one.value:#.4g}", INK, shift=5)
    if selection.base is not None:
        n = selection.table.n_params
        axes.axhline(selection.base, color=INK, ls=":", lw=1)
        size = "" if n is None else f" {format_count(n)}"
        write_beside(axes, selection.base, f"base{size}\n{selection.base:#.4g}", INK, shift=5)
    lower, upper = ("worst", "best") if law.higher else ("best", "worst")
    axes.set_title(f"▼ {lower}, ■ mean, ▲ {upper} subset of each k", fontsize=8)
    axes.set_xlabel("experts merged, k")
    unit = unit_of(selection)
    axes.set_ylabel(f"{plain(law.name, 24)}{unit and ', '}{unit}")
    whole_ticks(axes)


def _line(
    axes: "Axes", k: Sequence[float], values: Sequence[float], measured: Sequence[bool],
    colour: str, marker: str,
) -> None:  # fmt: skip
    axes.plot(k, values, color=colour, lw=0.8)
    for known, face in ((True, colour), (False, "white")):
        some = [i for i, one in enumerate(measured) if one == known]
        axes.plot(
            [k[i] for i in some], [values[i] for i in some], ls="", marker=marker, ms=5, mfc=face,
            mec=colour,
        )  # fmt: skip


def draw_front(
    axes: "Axes", selection: Selection, front: Sequence[FrontPoint], names: Sequence[str]
) -> None:
    """The front as steps: between two of its subsets nothing is attained. Some are named beside."""
    first, second = ([point.values[i] for point in front] for i in (0, 1))
    axes.step(first, second, where="post", color=GOOD, lw=0.8)
    known = [_measured(selection, point, names) for point in front]
    for measured, face in ((True, GOOD), (False, "white")):
        some = [i for i, one in enumerate(known) if one == measured]
        axes.plot(
            [first[i] for i in some], [second[i] for i in some], ls="", marker="o", ms=5, mfc=face,
            mec=GOOD,
        )  # fmt: skip
    chosen = selection.best.subset if selection.best is not None else None
    own = [i for i, point in enumerate(front) if point.subset == chosen]
    axes.plot(
        [first[i] for i in own], [second[i] for i in own], ls="", marker="*", ms=15, mfc="none",
        mec=INK,
    )  # fmt: skip
    listed = _far_apart(first, second, own)
    lines = []
    for number, i in enumerate(listed, 1):
        lines.append(f"{number}  {joined(front[i].subset, 30)}")
        axes.annotate(
            str(number), (first[i], second[i]), (4, 4), textcoords="offset points", fontsize=6,
            label="number",
        )  # fmt: skip
    axes.text(
        1.02, 1.0, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=7, linespacing=1.3
    )
    more = f"; {len(listed)} of {len(front)} are named" if len(listed) < len(front) else ""
    axes.set_title(f"subsets that none beats on both{more}", fontsize=8)
    axes.set_xlabel(plain(names[0], 40))
    axes.set_ylabel(plain(names[1], 24))


def _far_apart(x: Sequence[float], y: Sequence[float], own: Sequence[int]) -> list[int]:
    """Points that a number can stand at each: the ends, the choice, and some between."""
    at = np.stack([(np.array(one) - min(one)) / (np.ptp(one) or 1.0) for one in (x, y)], axis=1)
    kept: list[int] = []
    for i in dict.fromkeys((0, len(x) - 1, *own, *range(len(x)))):
        far = (np.abs(at[kept] - at[i]) > _APART).any(1) if kept else np.ones(1, np.bool_)
        if far.all() and len(kept) < _LISTED:
            kept.append(i)
    return sorted(kept)


def _measured(selection: Selection, point: FrontPoint, names: Sequence[str]) -> bool:
    """Whether a subset was measured on both domains."""
    experts = selection.law.experts
    share = np.array([[(name in point.subset) / len(point.subset) for name in experts]])
    laws = [selection.table.laws.get(name) for name in names[:2]]
    return all(law is not None and bool(np.isfinite(law.measured(share)[0])) for law in laws)
