"""JSON from anywhere, without what Python's parser lets pass and nothing of ours could take."""

import json
import re
from collections.abc import Iterator
from typing import Any

from mergeplan.display.text import shown
from mergeplan.errors import InputError

# Deeper than any file that is known, and far from where Python's stack ends.
DEEPEST = 100
# Digits of a whole number: all of 64 bits and more.
LONGEST_NUMBER = 40
# What a number that does not fit has in it, where every digit is a zero and every E an e.
_LARGE = (b"0" * 20, b"e000", b"e+000")
_ALIKE = bytes.maketrans(b"123456789E", b"000000000e")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str | bytes, where: str, hint: str | None = None) -> Any:
    """What JSON text says; infinity and NaN are taken, as Python writes them.

    Args:
        where: What is read, for messages.
        hint: What to do where it cannot be read.

    Raises:
        InputError: It is no JSON, or holds what no file of this kind does.
    """
    try:
        return loads(text)
    except ValueError as error:
        raise InputError(f"cannot read {where}: {error}", hint) from error


def loads(text: str | bytes, **hooks: Any) -> Any:
    """The same, with hooks of `json.loads`; those of numbers see all where one may be too large.

    Raises:
        ValueError: In words for people.
    """
    try:
        text = text if isinstance(text, str) else text.decode("utf-8-sig")
        hooks = {"parse_int": whole, **hooks}
        if not _has_large_numbers(text):
            # Called for each number, they would take most of the time.
            del hooks["parse_int"]
            hooks.pop("parse_float", None)
        found = json.loads(text, **hooks)
    except UnicodeDecodeError as error:
        raise ValueError(f"expected UTF-8, found byte 0x{error.object[error.start]:02x}") from error
    except RecursionError as error:
        raise ValueError(f"nested more than {DEEPEST} deep") from error
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(found)
    if "\\u" in text and _SURROGATE.search(text):
        _check_texts(found)
    return found


def _has_large_numbers(text: str) -> bool:
    """False only where no number can have more than 64 bits or be infinite."""
    digits = text.encode(errors="surrogatepass").translate(_ALIKE)
    return any(part in digits for part in _LARGE)


def whole(digits: str, most: int = LONGEST_NUMBER) -> int:
    """A whole number of no more digits than a number has.

    Raises:
        ValueError: It has more.
    """
    if len(digits) > most:
        raise ValueError(f"expected a number that fits, found {shown(digits)}")
    return int(digits)


def _check_depth(found: Any) -> None:
    level = [found]
    for _ in range(DEEPEST):
        level = [one for outer in level for one in _inside(outer)]
        if not level:
            return
    raise ValueError(f"nested more than {DEEPEST} deep")


def _inside(outer: Any) -> Iterator[Any]:
    if isinstance(outer, dict | list):
        for one in outer.values() if isinstance(outer, dict) else outer:
            if isinstance(one, dict | list):
                yield one


def _check_texts(found: Any) -> None:
    """No half of a surrogate pair: it could be neither written nor printed."""
    if isinstance(found, str):
        check_text(found)
    elif isinstance(found, dict | list):
        for one in (*found, *found.values()) if isinstance(found, dict) else found:
            _check_texts(one)


def check_text(text: str) -> None:
    """Refuse half of a surrogate pair, which is no character.

    Raises:
        ValueError: The text has one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = shown(text)
        raise ValueError(f"expected characters, found half a surrogate pair: {found}") from error
