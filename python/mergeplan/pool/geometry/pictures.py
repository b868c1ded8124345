"""A picture of a pool's geometry: cosines, norms, and how alike its layers and modules are."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mergeplan.display.figure import COLOURS, drawing
from mergeplan.pool.geometry.geometry import Geometry, mean_of_pairs
from mergeplan.system.writing import write_durably

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A matrix of more experts is not labelled.
_LABELLED = 25


def draw_geometry(geometry: Geometry, out: Path, *, replace: bool = True) -> None:
    """Draw one base's experts.

    Args:
        out: `.png`, `.pdf` or `.svg`.
        replace: Whether a file may be there.

    Raises:
        InputError: Another kind of file, or matplotlib is not installed.
        SurroundingsError: It cannot be written, or something is in the way.
    """
    with drawing(out, partial(write_durably, out, replace=replace)) as figure:
        figure.set_size_inches(9.0, 7.6)
        grid = figure.add_gridspec(2, 2)
        _draw_cosines(figure.add_subplot(grid[0, 0]), geometry)
        _draw_kept(figure.add_subplot(grid[0, 1]), geometry)
        _draw_layers(figure.add_subplot(grid[1, 0]), geometry)
        _draw_kinds(figure.add_subplot(grid[1, 1]), geometry)


def _draw_cosines(axes: "Axes", geometry: Geometry) -> None:
    names, cosines = geometry.experts, geometry.whole.cosines.copy()
    np.fill_diagonal(cosines, np.nan)
    axes.grid(False)
    image = axes.imshow(cosines, cmap="viridis")
    if len(names) <= _LABELLED:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_title("cosines of the deltas", loc="left", fontsize=10)
    axes.figure.colorbar(image, ax=axes)


def _draw_kept(axes: "Axes", geometry: Geometry) -> None:
    for number, name in enumerate(geometry.experts):
        axes.plot(
            [0.0, *geometry.densities, 1.0],
            [0.0, *geometry.whole.kept[number], 1.0],
            color=COLOURS[number % len(COLOURS)],
            lw=1.2,
            label=name if len(geometry.experts) <= _LABELLED else None,
        )
    axes.set_xlabel("density")
    axes.set_title("share of the squared norm that trimming keeps", loc="left", fontsize=10)
    if len(geometry.experts) <= _LABELLED:
        axes.legend(frameon=False, fontsize=7, ncols=2)


def _draw_layers(axes: "Axes", geometry: Geometry) -> None:
    layers = list(geometry.by_layer)
    groups = geometry.by_layer.values()
    named = (("cosine", COLOURS[0], "o"), ("same sign", COLOURS[1], "s"))
    lines = (
        [mean_of_pairs(group.cosines) for group in groups],
        [mean_of_pairs(group.agreement) for group in groups],
    )
    for (label, colour, marker), values in zip(named, lines, strict=True):
        axes.plot(layers, values, color=colour, marker=marker, ms=4, label=label)
    axes.set_xlabel("layer")
    axes.set_title("means over pairs", loc="left", fontsize=10)
    axes.legend(frameon=False)


def _draw_kinds(axes: "Axes", geometry: Geometry) -> None:
    kinds = list(geometry.by_kind)
    cosines = [mean_of_pairs(geometry.by_kind[kind].cosines) for kind in kinds]
    axes.barh(kinds, cosines, color=COLOURS[0], height=0.6)
    axes.set_xlabel("cosine, mean over pairs")
    axes.invert_yaxis()
