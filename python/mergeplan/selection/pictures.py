"""Pictures of a selection: predicted against measured, loss by k, synergy, and a front."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mergeplan.display.figure import COLOURS, drawing
from mergeplan.selection.front import FrontPoint
from mergeplan.selection.selection import Selection
from mergeplan.system.writing import write_durably

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A synergy matrix of more experts is not labelled.
_LABELLED = 25


def draw_selection(
    selection: Selection,
    out: Path,
    front: list[FrontPoint],
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
    rows = 2 if len(front) < 2 or len(names) < 2 else 3
    write = partial(write_durably, out, replace=replace)
    with drawing(out, write) as figure:
        figure.set_size_inches(9.0, 4.2 * rows)
        grid = figure.add_gridspec(rows, 2)
        _draw_predicted(figure.add_subplot(grid[0, 0]), selection)
        _draw_sizes(figure.add_subplot(grid[0, 1]), selection)
        _draw_synergy(figure.add_subplot(grid[1, 0]), selection)
        _draw_helps(figure.add_subplot(grid[1, 1]), selection)
        if rows == 3:
            _draw_front(figure.add_subplot(grid[2, :]), front, names)


def _draw_predicted(axes: "Axes", selection: Selection) -> None:
    law = selection.law
    k = (law.weights > 0).sum(1)
    dots = axes.scatter(law.left_out, law.values, c=k, cmap="viridis", s=14)
    both = [law.values.min(), law.values.max()]
    axes.plot(both, both, color="#444444", lw=0.8)
    axes.set_xlabel("predicted without the merge itself")
    axes.set_ylabel(f"measured, {law.name}")
    axes.set_title(f"R² {law.r2:.3f} of merges of two and more", loc="left", fontsize=10)
    axes.figure.colorbar(dots, ax=axes, label="k")


def _draw_sizes(axes: "Axes", selection: Selection) -> None:
    sizes, higher = selection.sizes, selection.law.higher
    k = [size.k for size in sizes]
    best = [size.highest if higher else size.lowest for size in sizes]
    worst = [size.lowest if higher else size.highest for size in sizes]
    axes.plot(k, worst, color=COLOURS[1], marker="v", ms=4, label="worst subset")
    axes.plot(k, [size.mean for size in sizes], color=COLOURS[6], marker="s", ms=4, label="mean")
    axes.plot(k, best, color=COLOURS[0], marker="o", ms=4, label="best subset")
    if selection.base is not None:
        axes.axhline(selection.base, color="#444444", ls=":", lw=1, label="base")
    axes.set_xlabel("experts merged, k")
    axes.set_ylabel(selection.law.name)
    axes.legend(frameon=False)


def _draw_synergy(axes: "Axes", selection: Selection) -> None:
    names, matrix = selection.law.experts, selection.synergy.copy()
    np.fill_diagonal(matrix, np.nan)
    axes.grid(False)
    image = axes.imshow(matrix, cmap="viridis_r")
    if len(names) <= _LABELLED:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_title("a pair against its experts alone", loc="left", fontsize=10)
    axes.figure.colorbar(image, ax=axes)


def _draw_helps(axes: "Axes", selection: Selection) -> None:
    """What each expert does to each domain in the chosen merge."""
    experts, domains = selection.experts, list(selection.laws)
    if not experts:
        axes.set_axis_off()
        return
    changes = np.array([[expert.helps[d] for d in domains] for expert in experts])
    most = float(np.abs(changes).max()) or 1.0
    axes.grid(False)
    image = axes.imshow(changes, cmap="RdBu_r", vmin=-most, vmax=most)
    if max(len(domains), len(experts)) <= _LABELLED:
        axes.set_xticks(range(len(domains)), domains, rotation=90, fontsize=7)
        axes.set_yticks(range(len(experts)), [expert.name for expert in experts], fontsize=7)
    axes.set_title("expert (row) on domain (column)", loc="left", fontsize=10)
    axes.figure.colorbar(image, ax=axes)


def _draw_front(axes: "Axes", front: list[FrontPoint], names: tuple[str, ...]) -> None:
    first, second = ([point.values[i] for point in front] for i in (0, 1))
    axes.plot(first, second, color=COLOURS[0], marker="o", ms=4, lw=0.8)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    axes.set_title("subsets that none beats on both", loc="left", fontsize=10)
