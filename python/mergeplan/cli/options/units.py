"""Option types with units, and options that several commands have."""

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class ByteCount(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A number of bytes such as `5GB`, `512MiB` or mergekit's `5B`."""

    name = "BYTES"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        from mergeplan.display.text import BYTE_UNITS, parse_quantity

        try:
            number, unit = parse_quantity(str(value))
            count = number * BYTE_UNITS[unit.lower()]
        except (ValueError, KeyError):
            self.fail(f"expected bytes such as 5GB or 512MiB, found `{value}`", param, ctx)
        if not 1 <= count < 2**63:
            self.fail(f"expected 1 byte to 8 EiB, found `{value}`", param, ctx)
        return int(count)


class NumberRange(click.FloatRange):
    """A range in which NaN is not: of it click finds neither end wrong."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail("expected a number, found NaN", param, ctx)
        return number


class DeviceName(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A device as `parse_device` takes it."""

    name = "cuda|cuda:N|auto|cpu"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        from mergeplan.errors import InputError
        from mergeplan.system.devices import parse_device

        try:
            parse_device(str(value))
        except InputError as error:
            self.fail(str(error), param, ctx)
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem

        return [CompletionItem(n) for n in ("auto", "cpu", "cuda") if n.startswith(incomplete)]


BYTES = ByteCount()
DEVICE = DeviceName()
SEED = click.IntRange(0, 2**64 - 1)


def threads_option(*aliases: str, what: str = "Worker threads.") -> Callable[[Any], Any]:
    """`--threads`, `None` where it is not given."""
    text = f"{what} [default: one for each core it may use]"
    return click.option("-j", "--threads", *aliases, type=click.IntRange(1, 1024), help=text)


class Finite(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A finite number."""

    name = "NUMBER"
    expected = "a number"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not self.holds(number):
            self.fail(f"expected {self.expected}, found `{value}`", param, ctx)
        return number

    def holds(self, number: float) -> bool:
        """Whether it may be given."""
        return abs(number) < 1e300


class Positive(Finite):
    """A finite number above zero."""

    expected = "a number above 0"

    def holds(self, number: float) -> bool:
        """Whether it may be given."""
        return 0 < number < 1e300


class CountList(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Numbers of parameters, joined by commas."""

    name = "COUNTS"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        from mergeplan.display.text import parse_count

        if isinstance(value, tuple):
            return value
        try:
            return tuple(parse_count(part) for part in str(value).split(","))
        except ValueError as error:
            self.fail(f"{error}", param, ctx)


class Integers(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Whole numbers within bounds, joined by commas."""

    name = "NUMBERS"

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        # Longer than six digits is out of any bounds here, and need not be parsed.
        numbers = tuple(int(part) for part in parts if re.fullmatch(r"\s*[0-9]{1,6}\s*", part))
        if len(numbers) != len(parts) or not all(self._low <= n <= self._high for n in numbers):
            self.fail(
                f"expected numbers from {self._low} to {self._high} such as 2,4,8, found `{value}`",
                param,
                ctx,
            )
        return tuple(dict.fromkeys(numbers))
