"""Files of a known shape, read strictly: every field's type and range, by pydantic.

The shape is a dataclass; ranges stand in its annotations (`Annotated[int, Ge(0)]`, or a `Predicate`
that says in a `ValueError` what it expects). pydantic costs 0.2 s to import, so it is loaded here,
where a file is read, and nowhere else.
"""

import dataclasses
import json
import math
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from mergeplan.display.text import cut, shown
from mergeplan.errors import InputError, nearest, raise_all
from mergeplan.system.jsontext import loads, whole
from mergeplan.system.reading import Kind, read_text

Shape = TypeVar("Shape")

# For dataclasses that refuse keys which they do not know.
CLOSED: dict[str, Any] = {"extra": "forbid"}

# Digits of how many subsets of 5,000 there are in the largest pool, and some.
_LONGEST_COUNT = 3_100
# What pydantic calls a key that a shape does not have.
_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
_WORDS = {
    "bool": "true or false",
    "dataclass": "a mapping",
    "dict": "a mapping",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "string": "a text",
    "tuple": "a list",
}


def load_strictly(
    path: Path, shape: type[Shape], kind: Kind, hint: str | None = None, *, given: bool = False
) -> Shape:
    """Read a JSON file as a dataclass.

    Args:
        hint: What to do where it does not fit.
        given: Whether the user names it, so that it may be a pipe.

    Raises:
        MissingInputError: There is no such file.
        InputError: It is no JSON, or does not fit; the message names the field.
    """
    text = read_text(path, kind, hint, given=given)
    return parse_strictly(text, shape, f"{kind.word} `{path}`".lstrip(), hint)


def parse_strictly(text: str, shape: type[Shape], where: str, hint: str | None = None) -> Shape:
    """Read JSON text as a dataclass; see `load_strictly`.

    Raises:
        InputError: As there.
    """
    try:
        # What JSON parsers let pass: NaN, numbers beyond all types, keys that stand twice.
        loads(
            text,
            parse_int=lambda digits: whole(digits, _LONGEST_COUNT),
            parse_constant=_no_number,
            parse_float=lambda digits: None if math.isfinite(float(digits)) else _no_number(digits),
            object_pairs_hook=_once,
        )
    except ValueError as error:
        raise InputError(f"cannot read {where}: {error}", hint) from error
    return _validated(text, shape, where, hint)


def fit_strictly(data: Any, shape: type[Shape], where: str, hint: str | None = None) -> Shape:
    """Data of YAML, which a person wrote, as a dataclass.

    Raises:
        InputError: It does not fit; the message names the field, and every one that does not.
    """
    try:
        if (key := next(_odd_keys(data), None)) is not None:
            raise InputError(f"{where}: expected words as keys, found {shown(key)}", hint)
        text = json.dumps(data)
    except InputError:
        raise
    except (RecursionError, ValueError) as error:
        raise InputError(f"{where}: a value holds itself, or a number is too long", hint) from error
    except TypeError as error:
        raise InputError(f"{where}: expected texts and numbers: {error}", hint) from error
    return _validated(text, shape, where, hint, several=True)


def _odd_keys(data: Any) -> Iterator[object]:
    """Keys that are no texts, and that JSON would turn into some."""
    if isinstance(data, dict):
        yield from (key for key in data if not isinstance(key, str))
    if isinstance(data, dict | list):
        for entry in data.values() if isinstance(data, dict) else data:
            yield from _odd_keys(entry)


def _no_number(digits: str) -> None:
    raise ValueError(f"{shown(digits, 40)} is no number that fits")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {shown(key)} stands twice")
        found[key] = value
    return found


# pydantic's reader of each shape, made once.
_readers: dict[object, Any] = {}


def _validated(
    text: str, shape: type[Shape], where: str, hint: str | None, *, several: bool = False
) -> Shape:
    from pydantic import TypeAdapter, ValidationError

    if shape not in _readers:
        _readers[shape] = TypeAdapter(shape)
    try:
        found: Shape = _readers[shape].validate_json(text, strict=True)
    except ValidationError as error:
        # A misspelt key is what makes another one missing.
        faults = sorted(
            error.errors(include_url=False), key=lambda fault: fault["type"] not in _UNKNOWN
        )
        told = [_fault(fault, shape) for fault in _own(faults)[: None if several else 1]]
        raise_all([InputError(f"{where}: {message}", own or hint) for message, own in told])
    return found


def _own(faults: list[Any]) -> list[Any]:
    """Without a list that is too short for want of entries which have faults themselves."""
    around = {fault["loc"][:end] for fault in faults for end in range(len(fault["loc"]))}
    return [fault for fault in faults if fault["loc"] not in around]


def _fault(error: Any, shape: type) -> tuple[str, str | None]:
    """The first fault in our words, and a hint where there is one."""
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    # pydantic marks a key that does not fit so.
    location = error["loc"][:-2] if error["loc"][-1:] == ("[key]",) else error["loc"]
    # Of a union it names the kind that it tried.
    if location and location[-1] in ("int", "str", "float", "bool"):
        location = location[:-1]
    place = _place(location)
    if kind == "missing":
        return f"`{place}` is missing", None
    if kind == "json_invalid":
        return f"it is no JSON: {context['error']}", None
    if kind in _UNKNOWN:
        known = _fields_at(shape, error["loc"][:-1])
        hint = nearest(str(error["loc"][-1]), known) or f"known: {', '.join(known)}"
        return f"unknown key `{_place(error['loc'])}`", hint
    if kind == "value_error":
        expected = str(context["error"])
    elif kind in ("too_short", "too_long"):
        many = "at least" if kind == "too_short" else "at most"
        count = context.get("min_length", context.get("max_length"))
        expected = f"{many} {count} {'entry' if count == 1 else 'entries'}"
        found = context["actual_length"]
    elif kind == "literal_error":
        expected = str(context["expected"])
    elif kind.startswith(("greater_than", "less_than")):
        word = {
            "greater_than": "more than",
            "greater_than_equal": "at least",
            "less_than": "less than",
            "less_than_equal": "at most",
        }[kind]
        expected = f"a number of {word} {next(iter(context.values())):g}"
    else:
        expected = _WORDS.get(kind.split("_")[0], kind.replace("_", " "))
    named = f"`{place}`: " if place else ""
    return f"{named}expected {expected}, found {cut(repr(found))}", None


def _place(location: tuple[str | int, ...]) -> str:
    """A place in a document.

    >>> _place(("fits", 0, "law", "floor"))
    'fits[0].law.floor'
    """
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{cut(part)}"
    return text.removeprefix(".")


def _fields_at(shape: Any, location: tuple[str | int, ...]) -> list[str]:
    """The fields of the dataclass at a place of another."""
    for part in location:
        if dataclasses.is_dataclass(shape):
            # The name of an entry, in a list or a mapping, is no field.
            shape = typing.get_type_hints(shape).get(str(part), shape)
        while shape is not None and not dataclasses.is_dataclass(shape):
            inner = [a for a in typing.get_args(shape) if a not in (str, type(None), Ellipsis)]
            shape = inner[0] if inner else None
    return [f.name for f in dataclasses.fields(shape)] if dataclasses.is_dataclass(shape) else []
