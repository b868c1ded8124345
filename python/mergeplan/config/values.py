"""The values of options in mergekit's YAML: plain, along a gradient, or chosen by a filter."""

import contextlib
import math
from dataclasses import dataclass

from mergeplan.config.methods import Option
from mergeplan.display.text import cut, shown
from mergeplan.errors import InputError, nearest


@dataclass(frozen=True)
class Conditional:
    """A value for the tensors whose name contains `filter`; `None` or `*` matches all."""

    value: "Gradient"
    filter: str | None = None

    def matches(self, tensor: str) -> bool:
        return self.filter is None or self.filter == "*" or self.filter in tensor


Scalar = bool | float
Gradient = Scalar | tuple[Scalar, ...]
Setting = Gradient | tuple[Conditional, ...]


def read_setting(value: object, where: str, option: Option) -> Setting:
    """Validate a value as YAML gives it.

    Args:
        where: Its place in the file, for messages.

    Raises:
        InputError: It is not of the option's type, or out of bounds.
    """
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return _scalar(value, where, option)
    if not value:
        raise InputError(f"`{where}`: an empty list has no value")
    if not any(isinstance(entry, dict) for entry in value):
        if option.kind is int:
            raise InputError(
                f"`{where}`: expected one whole number, found a gradient",
                "between whole numbers there is nothing to interpolate",
            )
        return tuple(_scalar(entry, f"{where}[{i}]", option) for i, entry in enumerate(value))
    conditions = []
    for number, entry in enumerate(value):
        here = f"{where}[{number}]"
        if not isinstance(entry, dict) or "value" not in entry:
            raise InputError(f"`{here}`: expected `value` and perhaps `filter`")
        for key in entry:
            if key not in ("value", "filter"):
                raise InputError(
                    f"unknown key `{here}.{key}`", nearest(str(key), ["value", "filter"])
                )
        inner = read_setting(entry["value"], f"{here}.value", option)
        if isinstance(inner, tuple) and isinstance(inner[0], Conditional):
            raise InputError(f"`{here}.value`: conditions cannot be nested")
        name = entry.get("filter")
        if name is not None and not isinstance(name, str):
            raise InputError(f"`{here}.filter`: expected part of a tensor's name")
        conditions.append(Conditional(inner, name))
    return tuple(conditions)


def _scalar(value: object, where: str, option: Option) -> Scalar:
    if option.kind is bool:
        if isinstance(value, bool) or value in (0, 1):
            return bool(value)
        raise InputError(f"`{where}`: expected true or false, found {kind_of(value)}")
    if isinstance(value, str):
        # YAML 1.1 reads `1e-5`, which has no dot, as text.
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"`{where}`: expected a number, found {kind_of(value)}")
    number = float(value) if abs(value) < 1e300 else math.inf
    low, high = option.minimum, option.maximum
    if not math.isfinite(number):
        raise InputError(f"`{where}`: expected a finite number, found {cut(value)}")
    if (low is not None and number < low) or (high is not None and number > high):
        raise InputError(f"`{where}`: expected a number {_range(low, high)}, found {cut(value)}")
    if option.kind is int:
        if not number.is_integer():
            raise InputError(f"`{where}`: expected a whole number, found {cut(value)}")
        return int(number)
    return number


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"from {low:g} to {high:g}"
    return f"of at least {low:g}" if low is not None else f"of at most {high:g}"


def kind_of(value: object) -> str:
    """What a value is, in the words of an error message."""
    if value is None:
        return "nothing"
    if isinstance(value, str | bool | int | float):
        return shown(value)
    names: dict[type, str] = {list: "a list", dict: "a mapping"}
    return names.get(type(value), type(value).__name__)
