"""Paths in files of JSON, which are text: of a byte that is no UTF-8 they have NUL, which no path
holds, and two hexadecimal digits; see `rust/core/src/plan/path_text.rs`."""

import re
from pathlib import Path

_BYTE = re.compile("[\udc80-\udcff]")
_ESCAPE = re.compile("\0([89a-f][0-9a-f])")


def path_text(path: str | Path) -> str:
    """A path as JSON takes it.

    >>> path_text(Path("caf\\udce9"))
    'caf\\x00e9'
    """
    return _BYTE.sub(lambda byte: f"\0{ord(byte[0]) - 0xDC00:02x}", str(path))


def path_of(text: str) -> Path:
    """The path that a text stands for.

    Raises:
        ValueError: It stands for none.
    """
    found = _ESCAPE.sub(lambda byte: chr(0xDC00 + int(byte[1], 16)), text)
    if "\0" in found:
        raise ValueError("a path")
    return Path(found)
