"""How every picture begins and ends, and which colours it has."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergeplan.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Okabe and Ito's colours, which people with colour-blindness can tell apart; markers differ too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


@contextmanager
def drawing(
    out: Path, size: tuple[float, float], write: Callable[[bytes], object]
) -> Iterator["Figure"]:
    """A figure to draw in, which is written at the end.

    Args:
        out: `.png` or `.svg`.
        size: Width and height, in inches.
        write: Takes the file's content.

    Raises:
        InputError: Another kind of file, or matplotlib is not installed.
    """
    if out.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"cannot draw `{out}`", "name a file that ends in .png or .svg")
    try:
        import matplotlib
    except ImportError as error:
        raise InputError(
            "drawing needs matplotlib", "install it: pip install 'mergeplan[plot]'"
        ) from error
    from matplotlib.figure import Figure

    # Text stays text in an SVG, and the file is the same on every run.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mergeplan"}):
        figure = Figure(figsize=size, layout="constrained", dpi=150)
        yield figure
        kind = out.suffix.lower().removeprefix(".")
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
        content = io.BytesIO()
        figure.savefig(content, format=kind, metadata=metadata)
    write(content.getvalue())


def tidy(axes: "Axes") -> None:
    """A light grid, and no frame where nothing is read off."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, lw=0.6)
