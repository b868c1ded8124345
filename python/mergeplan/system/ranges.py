"""Types of numbers with their ranges, for dataclasses that are read from files (see `strict`)."""

import numbers
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from mergeplan.display.text import cut, shown
from mergeplan.errors import InputError
from mergeplan.system.jsontext import loads

# Beyond these arithmetic in float64 runs out of range; no loss and no model is near them.
LARGEST = 1e12

LARGEST_POOL = 10_000

Number = Annotated[float, Ge(-LARGEST), Le(LARGEST)]
Magnitude = Annotated[float, Ge(0), Le(LARGEST)]
Positive = Annotated[float, Gt(0), Le(LARGEST)]
# Of parameters.
Params = Annotated[float, Ge(1), Le(1e18)]
Count = Annotated[int, Ge(0)]
Experts = Annotated[int, Ge(1), Le(LARGEST_POOL)]
Seed = Annotated[int, Ge(0), Le(2**64 - 1)]


def within(values: Iterable[float]) -> list[float | None]:
    """As a file holds numbers: `None` where one is no `Number`.

    >>> within((1.5, float("inf"), float("nan"), -1e13))
    [1.5, None, None, None]
    """
    return [value if abs(value) <= LARGEST else None for value in values]


def check_number(value: object, name: str, low: float, high: float, *, whole: bool = False) -> None:
    """Refuse what is no number of a range.

    Args:
        name: Of the argument, for the message.
        whole: Whether it has to be an int.

    Raises:
        InputError: It is of another type, or out of range.
    """
    kind = numbers.Integral if whole else numbers.Real
    # What numpy calls a number is one too.
    found: Any = value if isinstance(value, kind) and not isinstance(value, bool) else None
    if found is not None and low <= found <= high:
        return
    what = "a whole number" if whole else "a number"
    told = cut(value if isinstance(value, int) else repr(value), 40)
    raise InputError(f"`{name}`: expected {what} from {low:g} to {high:g}, found {told}")


def check_seed(seed: object) -> None:
    """Refuse what is no seed.

    Raises:
        InputError: As for `check_number`.
    """
    check_number(seed, "seed", 0, 2**64 - 1, whole=True)


def check_several(values: object, name: str) -> None:
    """Refuse one text where several are meant: it would be taken letter by letter.

    Raises:
        InputError: It is a text.
    """
    if isinstance(values, str):
        raise InputError(f"`{name}`: expected several, found {shown(values)}", "write a tuple")


def parse_options(text: str) -> dict[str, Any]:
    """A method's options: a JSON object whose numbers fit a float.

    Raises:
        ValueError: It is none.

    >>> parse_options('{"lambda": 0.4}')
    {'lambda': 0.4}
    """
    try:
        found = loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(map(_fits, found.values())):
        raise ValueError("a JSON object")
    return found


def _fits(value: object) -> bool:
    return not isinstance(value, int | float) or abs(value) <= LARGEST


def is_json_object(text: str) -> bool:
    """For a `Predicate`.

    Raises:
        ValueError: The text is no JSON object.
    """
    parse_options(text)
    return True


def version_is(version: int, words: str) -> Callable[[int], bool]:
    """For a `Predicate`: only this version of a file can be read."""

    def check(found: int) -> bool:
        if found != version:
            raise ValueError(words)
        return True

    return check
