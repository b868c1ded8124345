"""The picture of a pool's geometry: cosines, what trimming keeps, layers, and kinds of modules."""

import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.display.figure import BAD, COLOURS, FAINT, GOOD, INK, WIDTH, drawing, whole_ticks
from mergeplan.display.heatmap import Signs, draw_map, height_of
from mergeplan.display.labels import plain, short_names, write_beside
from mergeplan.display.text import counted, format_count
from mergeplan.pool.geometry.geometry import Geometry, TensorGroup, mean_of_pairs
from mergeplan.system.writing import write_durably

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Matrix = Callable[[TensorGroup], Array]

# A map of more experts has a line of its own.
_BESIDE = 14
_FEW_LAYERS = 60
_SHAPES = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"), ("P", "✚"))


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
        fill_geometry(figure, geometry)


def fill_geometry(figure: "Figure", geometry: Geometry) -> None:
    """Draw into a figure, and give it its height."""
    experts = len(geometry.experts)
    pairs, beside = experts > 1, experts <= _BESIDE
    heights = [height_of(experts)] * (1 if beside or not pairs else 2)
    by_layer, by_kind = pairs and bool(geometry.by_layer), pairs and bool(geometry.by_kind)
    heights += [2.3] * by_layer + [0.9 + 0.25 * len(geometry.by_kind)] * by_kind
    figure.set_size_inches(WIDTH, 0.5 + sum(heights))
    lines: Any = iter(figure.add_gridspec(len(heights), 1, height_ratios=heights))
    first = next(lines)
    places = [first]
    if pairs:
        places = list(first.subgridspec(1, 2)) if beside else [first, next(lines)]
        _draw_cosines(figure.add_subplot(places[0]), geometry)
    _draw_kept(figure.add_subplot(places[-1]), geometry)
    for there, draw in ((by_layer, _draw_layers), (by_kind, _draw_kinds)):
        if there:
            two = list(next(lines).subgridspec(1, 2))
            for place, what in zip(two, (_COSINE, _SIGNS), strict=True):
                draw(figure.add_subplot(place), geometry, *what)
    many = f"{counted(experts, 'experts')} of a base of {format_count(geometry.n_params)}"
    figure.suptitle(f"deltas (expert − base) of {many} parameters", x=0.01, ha="left", fontsize=10)


def _draw_cosines(axes: "Axes", geometry: Geometry) -> None:
    cosines = geometry.whole.cosines.copy()
    np.fill_diagonal(cosines, np.nan)
    signs = Signs("opposed", "alike", scaled=False)
    names = geometry.experts
    draw_map(axes, cosines, names, names, signs, "cosines; 0: unrelated")


def normal_share(density: float) -> float:
    """Share of the squared norm in the largest entries of a normal delta.

    >>> round(normal_share(0.1), 3), normal_share(1.0)
    (0.439, 1.0)
    """
    if density >= 1:
        return 1.0
    normal = NormalDist()
    cut = normal.inv_cdf(1 - density / 2)
    return density + 2 * cut * normal.pdf(cut)


def _draw_kept(axes: "Axes", geometry: Geometry) -> None:
    """A row for each expert, a mark for each density, and where a normal delta's were."""
    kept = geometry.whole.kept  # (experts, densities)
    rows = np.arange(len(kept))
    axes.hlines(rows, kept.min(1), kept.max(1), color=FAINT, lw=0.6)
    said = []
    for number, density in enumerate(geometry.densities):
        marker, shape = _SHAPES[number % len(_SHAPES)]
        colour = COLOURS[number % len(COLOURS)]
        axes.axvline(normal_share(density), color=colour, lw=1, ls=":", label="normal")
        axes.plot(kept[:, number], rows, ls="", marker=marker, ms=5, color=colour)
        said.append(f"{shape}\N{NO-BREAK SPACE}{100 * density:.3g}")
    for row, norm in enumerate(geometry.whole.norms):
        axes.text(
            1.02, row, f"{norm:.3g}", transform=axes.get_yaxis_transform(), va="center", fontsize=7
        )
    axes.set_yticks(rows, short_names(geometry.experts), fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("share of the squared norm")
    words = f"kept by the largest {', '.join(said)} %; dotted: of a normal delta; right: its norm"
    axes.set_title("\n".join(textwrap.wrap(words, 34)), fontsize=8)


def _pairs(matrix: Array) -> Array:
    """Numbers of the pairs that have one, shape (n,)."""
    values = matrix[np.triu_indices(len(matrix), 1)]
    return np.asarray(values[np.isfinite(values)])


def _ranges(groups: Sequence[TensorGroup], of: Matrix, factor: float) -> tuple[Array, Array, Array]:
    """Mean, lowest and highest over pairs, shape (n_groups,) each; NaN for none."""
    found = [_pairs(of(group)) for group in groups]
    means = factor * np.array([mean_of_pairs(of(group)) for group in groups])
    low, high = ([float(end(one)) if len(one) else np.nan for one in found] for end in (min, max))
    return means, factor * np.array(low), factor * np.array(high)


# What is drawn of layers and of kinds: matrix, its factor, its name, chance, and how that reads.
_What = tuple[Matrix, float, str, float, str, str]
_COSINE: _What = (lambda group: group.cosines, 1.0, "cosine", 0.0, "unrelated\n0", GOOD)
_SIGNS: _What = (lambda group: group.agreement, 100.0, "same sign, %", 50.0, "chance\n50 %", BAD)


def _draw_layers(
    axes: "Axes", geometry: Geometry, of: Matrix, factor: float, name: str, chance: float,
    said: str, colour: str,
) -> None:  # fmt: skip
    layers = list(geometry.by_layer)
    means, low, high = _ranges(list(geometry.by_layer.values()), of, factor)
    axes.axhline(chance, color=INK, lw=1, ls=":", label="chance")
    few = len(layers) <= _FEW_LAYERS
    axes.vlines(layers, low, high, color=colour, lw=1 if few else 0.4, alpha=0.5)
    axes.plot(layers, means, ls="", marker="o", ms=4 if few else 2, color=colour, label="means")
    write_beside(axes, chance, said, INK, shift=5)
    axes.set_xlim(min(layers) - 0.5, max(layers) + 0.5)
    whole_ticks(axes)
    axes.set_xlabel("layer")
    axes.set_title(f"{name}: mean and range over pairs", fontsize=8)


def _draw_kinds(
    axes: "Axes", geometry: Geometry, of: Matrix, factor: float, name: str, chance: float,
    said: str, colour: str,
) -> None:  # fmt: skip
    kinds = list(geometry.by_kind)
    means, low, high = _ranges(list(geometry.by_kind.values()), of, factor)
    rows = range(len(kinds))
    axes.axvline(chance, color=INK, lw=1, ls=":", label="chance")
    axes.hlines(rows, low, high, color=colour, lw=1, alpha=0.5)
    axes.plot(means, rows, ls="", marker="o", ms=5, color=colour, label="means")
    named = [
        plain(kind, 16) + ("" if np.isfinite(mean) else ", no delta")
        for kind, mean in zip(kinds, means, strict=True)
    ]
    axes.set_yticks(rows, named)
    axes.set_ylim(len(kinds) - 0.4, -0.6)
    axes.set_xlabel(f"{name}; dotted: {said.replace(chr(10), ', ')}")
