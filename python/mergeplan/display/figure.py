"""How every picture begins and ends, and the one style that all have."""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergeplan.display.labels import families, put_in_place
from mergeplan.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = (".png", ".pdf", ".svg")
# Okabe and Ito's colours, which people with colour-blindness can tell apart, without yellow, which
# is faint on white. Their greys are near each other: markers differ too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, FAINT = "#333333", "#6E6E6E"
GOOD, BAD = COLOURS[0], COLOURS[1]
# Inches: 1,080 pixels.
WIDTH = 7.2
# Letters of a size that can be read at 1,000 pixels.
_STYLE: dict[str, Any] = {
    # Names are text: none of their characters starts a formula.
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.edgecolor": INK,
    "font.size": 8,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    # Text stays text, and the file is the same on every run.
    "svg.fonttype": "none",
    "svg.hashsalt": "mergeplan",
    "pdf.fonttype": 42,
}


def check_picture(out: Path) -> None:
    """Refuse a file that cannot be drawn, before anything is computed.

    Raises:
        InputError: Another kind of file than `KINDS`, or matplotlib is not installed.
    """
    if out.suffix.lower() not in KINDS:
        raise InputError(
            f"cannot draw `{out}`", f"name a file that ends in {', '.join(KINDS[:-1])} or .svg"
        )
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(
            "drawing needs matplotlib", "install it: pip install 'mergeplan[plot]'"
        ) from error


@contextmanager
def canvas() -> Iterator["Figure"]:
    """A figure in the one style; who draws sets its height, and calls `put_in_place` at the end."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {**_STYLE, "font.family": families()}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # What no font has is written by its code (`labels.plain`).
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield Figure(figsize=(WIDTH, WIDTH), layout="constrained", dpi=150)


@contextmanager
def drawing(out: Path, write: Callable[[bytes], object]) -> Iterator["Figure"]:
    """A figure to draw in, which is written at the end.

    Args:
        out: Of one of `KINDS`.
        write: Takes the file's content.

    Raises:
        InputError: Another kind of file, or matplotlib is not installed.
    """
    check_picture(out)
    kind = out.suffix.lower().removeprefix(".")
    with canvas() as figure:
        yield figure
        put_in_place(figure)
        # Of no date, so that the same numbers give the same file.
        undated: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
        content = io.BytesIO()
        figure.savefig(content, format=kind, metadata=undated.get(kind, {}))
    write(content.getvalue())


def whole_ticks(axes: "Axes") -> None:
    """An axis of k or of layers has whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
