"""The picture of a selection: how far predictions hold, the best by k, pairs, domains, a front."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mergeplan.config.labels import in_words
from mergeplan.display.figure import INK, WIDTH, drawing
from mergeplan.display.heatmap import Signs, draw_bars, draw_map, height_of
from mergeplan.display.labels import plain
from mergeplan.display.text import format_count
from mergeplan.selection.front import FrontPoint
from mergeplan.selection.insight import pair_surprise
from mergeplan.selection.panels import draw_front, draw_predicted, draw_sizes, unit_of
from mergeplan.selection.selection import Selection
from mergeplan.system.writing import write_durably

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Maps of more experts or domains have a line each.
_BESIDE = 14


def draw_selection(
    selection: Selection,
    out: Path,
    front: Sequence[FrontPoint],
    names: tuple[str, ...] = (),
    *,
    replace: bool = True,
) -> None:
    """Draw a selection.

    Args:
        out: `.png`, `.pdf` or `.svg`.
        front: Drawn by its first two domains where it is not empty.
        names: Of the domains.
        replace: Whether a file may be there.

    Raises:
        InputError: Another kind of file, or matplotlib is not installed.
        SurroundingsError: It cannot be written, or something is in the way.
    """
    with drawing(out, partial(write_durably, out, replace=replace)) as figure:
        fill_selection(figure, selection, front, names)


def fill_selection(
    figure: "Figure",
    selection: Selection,
    front: Sequence[FrontPoint] = (),
    names: tuple[str, ...] = (),
) -> None:
    """Draw into a figure, and give it its height."""
    experts, domains = len(selection.law.experts), len(selection.laws)
    beside = max(experts, domains) <= _BESIDE
    has_front = len(front) > 1 and len(names) > 1
    map_rows = [height_of(experts)] * (1 if beside else 2)
    heights = [3.1, *map_rows, *([2.8] if has_front else [])]
    figure.set_size_inches(WIDTH, 0.7 + sum(heights))
    lines = iter(figure.add_gridspec(len(heights), 1, height_ratios=heights))
    first = next(lines).subgridspec(1, 2)
    draw_predicted(figure.add_subplot(first[0, 0]), selection)
    draw_sizes(figure.add_subplot(first[0, 1]), selection)
    second: Any = next(lines)
    if beside:
        pair = second.subgridspec(1, 2)
        places = [pair[0, 0], pair[0, 1]]
    else:
        places = [second, next(lines)]
    _draw_pairs(figure.add_subplot(places[0]), selection)
    _draw_helps(figure.add_subplot(places[1]), selection)
    if has_front:
        draw_front(figure.add_subplot(next(lines)), selection, front, names)
    _head(figure, selection)


def _order(selection: Selection) -> list[str]:
    """The most welcome first in the chosen merge, for both maps."""
    return [expert.name for expert in selection.experts] or list(selection.law.experts)


def _chosen(selection: Selection) -> tuple[str, ...]:
    return selection.best.subset if selection.best is not None else ()


def _draw_pairs(axes: "Axes", selection: Selection) -> None:
    law, order = selection.law, _order(selection)
    if len(order) < 2:
        _say(axes, "one expert: there are no pairs")
        return
    at = [law.experts.index(name) for name in order]
    matrix, title = selection.synergy, "a pair against the mean of its two alone"
    if len(order) > 3:
        matrix, title = pair_surprise(matrix), "pairs, beyond what each gives any pair"
    matrix = matrix[np.ix_(at, at)].copy()
    np.fill_diagonal(matrix, np.nan)
    words = ("worse together", "better") if law.higher else ("better together", "worse")
    signs = Signs(*words, good_above=law.higher, unit=unit_of(selection))
    draw_map(axes, matrix, order, order, signs, title, _chosen(selection))


def _draw_helps(axes: "Axes", selection: Selection) -> None:
    """What each expert does to each domain in the chosen merge."""
    domains = list(selection.laws)
    if not selection.experts:
        _say(axes, "no merge keeps the bounds")
        return
    changes = np.array([[expert.helps[d] for d in domains] for expert in selection.experts])
    title = "what an expert does to the choice"
    ways = {law.higher for law in selection.laws.values()}
    higher = selection.law.higher
    if len(ways) > 1:
        # In one direction, so that one colour is good everywhere.
        higher, title = False, f"{title}; + is worse"
        changes *= np.array([-1.0 if selection.laws[d].higher else 1.0 for d in domains])
    words = ("harms", "helps") if higher else ("helps", "harms")
    signs = Signs(*words, good_above=higher, unit=unit_of(selection))
    if len(domains) == 1:
        draw_bars(axes, changes[:, 0], _order(selection), signs, title, _chosen(selection))
        return
    draw_map(axes, changes, _order(selection), domains, signs, title, _chosen(selection))


def _say(axes: "Axes", text: str) -> None:
    axes.set_axis_off()
    axes.set_title(text, fontsize=8)


def _head(figure: "Figure", selection: Selection) -> None:
    from matplotlib.lines import Line2D

    table, law = selection.table, selection.law
    size = "" if table.n_params is None else f", base of {format_count(table.n_params)}"
    better = "more" if law.higher else "less"
    words = plain(in_words(table.method, table.options), 60)
    figure.suptitle(
        f"{plain(law.name, 30)} by {words}{size}; {better} is better",
        x=0.01,
        ha="left",
        fontsize=10,
    )

    def mark(label: str, **look: Any) -> Line2D:
        return Line2D([], [], label=label, **{"color": INK, "ls": "", "marker": "o", **look})

    key = [
        mark("measured", ms=5),
        mark("predicted, with its 90 %", mfc="white", ms=5),
        mark("one measured merge", ms=2, alpha=0.6),
    ]
    if selection.best is not None:
        key.append(mark("the choice; its experts in bold", marker="*", ms=10, mfc="none"))
    figure.legend(handles=key, loc="outside lower left", ncols=4)
