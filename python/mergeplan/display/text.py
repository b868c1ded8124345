"""How numbers and names look in messages and tables, and how counts are read."""

import math
import re
from collections.abc import Iterable
from typing import Any

# Multiples of a count, in lower case.
MULTIPLES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
# Bytes, as disks are sold and as memory is made; mergekit writes `5B` for five billion.
BYTE_UNITS = {
    **MULTIPLES,
    "g": 1e9,
    **{f"{letter}b": 1e3**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}ib": 1024.0**power for power, letter in enumerate("kmgt", 1)},
}
_SMALLEST_COUNT = 10_000
_LARGEST_COUNT = 1e18


def printable(name: str) -> str:
    """A name from a file, safe to print: control characters and lone surrogates are escaped.

    >>> printable("a\\x1b[2J")
    'a\\\\x1b[2J'
    """
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


_HALVES = re.compile("[\ud800-\udfff]")


def is_unicode(text: str) -> bool:
    """Whether a text can stand in a file: names that are no UTF-8 have halves of surrogate pairs.

    >>> is_unicode("café"), is_unicode("caf\\udce9")
    (True, False)
    """
    return _HALVES.search(text) is None


_SHOWN = 80


def shown(value: object, most: int = _SHOWN) -> str:
    """A value from a file or a caller for a message, in backticks; see `cut`.

    >>> shown("9" * 4000, 12), shown([1, 2])
    ('`999999999...`', '`[1, 2]`')
    """
    return f"`{cut(value, most)}`"


def cut(value: object, most: int = _SHOWN) -> str:
    """A value on one line, safe to print, and cut where it is long."""
    try:
        # No more of a text than is shown is looked at.
        text = printable(value[: most + 1] if isinstance(value, str) else str(value))
    except ValueError:
        # Python writes no whole number of thousands of digits.
        text = f"a number too long to write ({type(value).__name__})"
    return text if len(text) <= most else text[: most - 3] + "..."


def listed(names: Iterable[object], most: int = 10) -> str:
    """Names for a message, the first of them.

    >>> listed(["a", "b", "c"], 2), listed([])
    ('`a`, `b` and 1 more', 'nothing')
    """
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(shown(name, 40) for name in every[:most]) + more or "nothing"


def chance_text(chance: float) -> str:
    """A share of draws, never more certain than so many draws can tell.

    >>> chance_text(0.5), chance_text(1.0), chance_text(0.0)
    ('50 %', 'over 99 %', 'under 1 %')
    """
    if chance > 0.99:
        return "over 99 %"
    return "under 1 %" if chance < 0.01 else f"{100 * chance:.0f} %"


def format_count(n_params: float) -> str:
    """Parameters for people.

    >>> format_count(80592.0)
    '80.6k'
    """
    for factor, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n_params >= factor:
            return f"{n_params / factor:.3g}{unit}"
    return f"{n_params:.0f}"


def counted(count: int, what: str) -> str:
    """A number of things, of which the word is in the plural.

    >>> counted(1, "merges"), counted(1200, "other documents")
    ('1 merge', '1,200 other documents')
    """
    return f"{count:,} {what.removesuffix('s') if count == 1 else what}"


def format_bytes(count: float) -> str:
    """Bytes for people, in decimal units as disks are sold.

    >>> format_bytes(1_234_567)
    '1.23 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def parse_quantity(text: str) -> tuple[float, str]:
    """A number and the unit behind it.

    Raises:
        ValueError: It does not begin with a number of 0 or more, or is too large for a float.

    >>> parse_quantity("1.5 GiB"), parse_quantity("3e5"), parse_quantity("2M tokens")
    ((1.5, 'GiB'), (300000.0, ''), (2.0, 'M tokens'))
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([a-zA-Z][a-zA-Z ]*)?", text)
    number = float(match[1]) if match else math.inf
    if match is None or math.isinf(number):
        raise ValueError(f"expected a number with a unit, found `{text}`")
    return number, (match[2] or "").strip()


def parse_count(text: str, *, smallest: int = _SMALLEST_COUNT) -> float:
    """A number of parameters: a plain count, or a number with a unit.

    Args:
        smallest: What a plain count is at least: 1 in what this package wrote, which writes no
            units; people mean billions by a small number.

    Raises:
        ValueError: Not a number, or a small one without a unit, which could mean anything.

    >>> parse_count("0.5B"), parse_count("80592")
    (500000000.0, 80592.0)
    """
    try:
        number, unit = parse_quantity(text)
        count = number * MULTIPLES[unit.lower()]
    except (ValueError, KeyError) as error:
        raise ValueError("write a count such as 494032768, or 0.5B") from error
    if not 1 <= count <= _LARGEST_COUNT:
        raise ValueError(f"no model has {text} parameters")
    if not unit and count < smallest:
        raise ValueError(f"a number below {smallest} needs a unit: {text}B or {text}k?")
    return count


def finite(data: Any) -> Any:
    """JSON knows neither infinity nor NaN: they become null."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
