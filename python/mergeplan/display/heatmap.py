"""A table of signed numbers as colours about zero, with its bar beside it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mergeplan.display.figure import BAD, GOOD, INK
from mergeplan.display.labels import CELL, short_names, unit_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

Array = NDArray[np.float64]

# Larger tables have no number in their cells, and of still larger ones not every name is written.
_NUMBERED, _NAMED = 24, 60
# Inches of a row of letters.
_ROW = 0.125


@dataclass(frozen=True)
class Signs:
    """What the two sides of zero say.

    Attributes:
        below, above: In words.
        good_above: Whether blue, which is good, is above zero.
        unit: Behind the numbers; empty for none.
        scaled: Whether small numbers are written in a unit of their own, such as 0.001.
    """

    below: str
    above: str
    good_above: bool = False
    unit: str = ""
    scaled: bool = True


def height_of(rows: int) -> float:
    """Inches that a table's panel needs for its names."""
    return max(2.9, 1.5 + _ROW * min(rows, _NAMED))


def draw_map(
    axes: "Axes",
    values: Array,
    rows: Sequence[str],
    columns: Sequence[str],
    signs: Signs,
    title: str,
    chosen: Collection[str] = (),
) -> None:
    """Draw a table on a scale that diverges about zero.

    Args:
        values: Shape (rows, columns); NaN cells stay empty.
        chosen: Rows whose names are bold, and columns where they are the same.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    finite = np.abs(values[np.isfinite(values)])
    most = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    # Whole numbers, where their unit lets them be.
    factor, power = unit_for(most / 10) if signs.scaled else (1.0, "")
    shades = Normalize(-factor * most, factor * most)
    colours = "RdBu" if signs.good_above else "RdBu_r"
    axes.imshow(factor * values, cmap=colours, norm=shades, aspect="auto")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    _name(axes, rows, columns, chosen)
    if max(values.shape) <= _NUMBERED:
        digits = 0 if factor * most >= 10 else 1 if factor * most >= 1 else 2
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "white" if abs(value) > 0.6 * most else INK
                text = signed(factor * value, digits)
                axes.text(
                    column,
                    row,
                    text,
                    ha="center",
                    va="center",
                    color=colour,
                    fontsize=6,
                    label=CELL,
                )
    bar = axes.inset_axes((1.03, 0.0, 0.035, 1.0))
    axes.figure.colorbar(ScalarMappable(shades, colours), cax=bar)
    unit = " ".join(filter(None, (power, signs.unit)))
    said = f"{signs.below} ← 0 → {signs.above}{unit and ', '}{unit}"
    bar.set_ylabel(said, fontsize=7)
    # None at the ends, where a title is.
    bar.yaxis.set_major_locator(MaxNLocator(6, prune="both"))
    bar.tick_params(labelsize=7)
    axes.set_title(title, fontsize=8)


def draw_bars(
    axes: "Axes",
    values: Array,
    rows: Sequence[str],
    signs: Signs,
    title: str,
    chosen: Collection[str] = (),
) -> None:
    """Draw one column of such a table as bars.

    Args:
        values: Shape (rows,).
        rows, signs, title, chosen: As for `draw_map`.
    """
    factor, power = unit_for(float(np.abs(values).max()) / 10)
    good = (values > 0) == signs.good_above
    colours = [GOOD if one else BAD for one in good]
    axes.barh(range(len(values)), factor * values, color=colours, height=0.6)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_ylim(len(values) - 0.4, -0.6)
    _name_axis(axes.yaxis, rows, chosen)
    axes.tick_params(axis="y", length=0)
    unit = " ".join(filter(None, (power, signs.unit)))
    axes.set_xlabel(f"{signs.below} ← 0 → {signs.above}{unit and ', '}{unit}")
    axes.set_title(title, fontsize=8)


def signed(value: float, digits: int) -> str:
    """
    >>> signed(-3.14, 1), signed(0.2, 0)
    ('−3.1', '0')
    """
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else "0"


def _name(
    axes: "Axes", rows: Sequence[str], columns: Sequence[str], chosen: Collection[str]
) -> None:
    """The names on both sides, or every so many of them."""
    _name_axis(axes.yaxis, rows, chosen)
    _name_axis(axes.xaxis, columns, chosen if list(columns) == list(rows) else ())
    axes.tick_params(axis="x", rotation=90, length=0)
    axes.tick_params(axis="y", length=0)


def _name_axis(axis: "Axis", names: Sequence[str], bold: Collection[str]) -> None:
    step = -(-len(names) // _NAMED)
    axis.set_ticks(range(0, len(names), step), short_names(names)[::step], fontsize=7)
    for label, name in zip(axis.get_ticklabels(), names[::step], strict=True):
        label.set_fontweight("bold" if name in bold else "normal")
