"""Names in pictures: short, each its own, never taken for markup, and never over each other."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from mergeplan.display.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_UNITS = {0: "", 3: "0.001", 6: "10⁻⁶", 9: "10⁻⁹"}
# Mark the texts beside a panel, which give way to each other, and in the cells of a table.
_BESIDE, CELL = "beside", "cell"
_OTHER_SCRIPTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
)
_LINE = 1.25  # heights of a letter from one line to the next


def plain(text: str, most: int = 40) -> str:
    """A text from a file for a picture, on one line; a long one loses its middle.

    Characters that the picture's font lacks are written by their code, so that names stay
    different.

    >>> plain("a" * 30 + "_v2", 12)
    'aaaaaa…aa_v2'
    """
    text = printable(text)
    text = "".join(c if ord(c) in _glyphs() else f"\\u{ord(c):04x}" for c in text)
    return text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - most // 2 + 1 :]}"


def short_names(names: Sequence[str], most: int = 20) -> list[str]:
    """The same of several, which stay different.

    >>> short_names(["code", "c" * 12 + "1" + "d" * 12, "c" * 12 + "2" + "d" * 12], 9)
    ['code', 'cccc…ddd', 'cccc…dd 2']
    """
    found: list[str] = []
    for name in names:
        text, again = plain(name, most), 1
        while text in found:
            again += 1
            mark = f" {again}"
            text = plain(name, most)[: most - len(mark)] + mark
        found.append(text)
    return found


def joined(names: Sequence[str], most: int = 48) -> str:
    """A subset on one line; of a long one how many more there are.

    >>> joined(["js", "json", "python"], 10), joined([], 9)
    ('js+json+1 more', '')
    """
    text, left = "", list(names)
    while left and len(text) + len(plain(left[0], 24)) <= most:
        text += ("+" if text else "") + plain(left.pop(0), 24)
    return f"{text}+{len(left)} more" if left else text


def unit_for(most: float) -> tuple[float, str]:
    """By what numbers are multiplied to be read with few zeros, and the unit that they are in.

    Args:
        most: The largest of them, without its sign.

    >>> unit_for(0.5), unit_for(0.0031)
    ((1.0, ''), (1000.0, '0.001'))
    """
    power = next((power for power in _UNITS if most * 10**power >= 0.1), max(_UNITS))
    return float(10**power), _UNITS[power]


@cache
def families() -> list[str]:
    """The picture's font, which matplotlib brings, and installed ones of other scripts."""
    from matplotlib.font_manager import get_font_names

    installed = set(get_font_names())
    return ["DejaVu Sans", *(name for name in _OTHER_SCRIPTS if name in installed)]


@cache
def _glyphs() -> frozenset[int]:
    """What those can write."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    fonts = [get_font(findfont(FontProperties(family=name))) for name in families()]
    return frozenset(code for font in fonts for code in font.get_charmap())


def write_beside(axes: "Axes", y: float, text: str, colour: str, *, shift: float = 6.0) -> None:
    """Name what ends at the right of a panel, beside it; see `put_in_place`.

    Args:
        y: Where it ends, in data units.
        shift: From the panel's edge, in points.
    """
    axes.annotate(
        text,
        (1.0, y),
        (shift, 0.0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        ha="left",
        color=colour,
        fontsize=8,
        label=_BESIDE,
        annotation_clip=False,
        arrowprops={
            "arrowstyle": "-",
            "color": colour,
            "lw": 0.6,
            "shrinkA": 1,
            "shrinkB": 0,
            "relpos": (0, 0.5),
        },
    )


def put_in_place(figure: "Figure") -> None:
    """Lay the figure out once and for all, move names apart that stand beside a panel, and leave
    out the numbers of a table whose cells are too narrow for them."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        # The solver rounds as its variables lie in memory; the same numbers give the same file.
        left, bottom, width, height = (round(edge, 6) for edge in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))
        _spread(axes)
        _leave_out(axes)


def _leave_out(axes: "Axes") -> None:
    cells = [text for text in axes.texts if text.get_label() == CELL]
    if cells:
        (left, _), (right, _) = axes.transData.transform([(0, 0), (1, 0)])
        widest = max(text.get_window_extent().width for text in cells)
        for text in cells:
            text.set_visible(bool(widest < right - left))


def _spread(axes: "Axes") -> None:
    # Annotations all, of which the list of texts does not say so.
    texts: list[Any] = [text for text in axes.texts if text.get_label() == _BESIDE]
    if not texts:
        return
    points = 72 / axes.figure.dpi
    wanted = [axes.transData.transform((0, text.xy[1]))[1] * points for text in texts]
    heights = [text.get_fontsize() * _LINE * (1 + text.get_text().count("\n")) for text in texts]
    box = axes.get_window_extent()
    places = apart(wanted, heights, box.y0 * points, box.y1 * points)
    for text, place, own in zip(texts, places, wanted, strict=True):
        text.set_position((text.get_position()[0], place - own))


def apart(
    wanted: Sequence[float], heights: Sequence[float], low: float, high: float
) -> list[float]:
    """Places near those wanted at which labels of some heights do not lie over each other.

    Args:
        low, high: The room there is, which is left where it is too small for all.

    >>> apart([0.0, 1.0, 9.0], [2.0, 2.0, 2.0], -5.0, 10.0)
    [-0.5, 1.5, 9.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    # Groups that touch: their labels, and where the middle of the first one is.
    groups: list[tuple[list[int], float]] = []
    for i in order:
        members, start = [i], wanted[i]
        start = min(max(start, low + heights[i] / 2), high - heights[i] / 2)
        while groups and _end(groups[-1], heights) > start - heights[members[0]] / 2:
            members = groups.pop()[0] + members
            start = _start(members, wanted, heights, low, high)
        groups.append((members, start))
    found = [0.0] * len(wanted)
    for members, start in groups:
        at = start - heights[members[0]] / 2
        for i in members:
            found[i] = at + heights[i] / 2
            at += heights[i]
    return found


def _end(group: tuple[list[int], float], heights: Sequence[float]) -> float:
    members, start = group
    return start - heights[members[0]] / 2 + sum(heights[i] for i in members)


def _start(
    members: list[int], wanted: Sequence[float], heights: Sequence[float], low: float, high: float
) -> float:
    """Where the first of some labels goes so that all together are nearest to what they want."""
    offset, offsets = 0.0, []
    for i in members:
        offsets.append(offset + heights[i] / 2)
        offset += heights[i]
    lowest = sum(wanted[i] - at for i, at in zip(members, offsets, strict=True)) / len(members)
    lowest = max(min(lowest, high - offset), min(low, high - offset))
    return lowest + heights[members[0]] / 2
