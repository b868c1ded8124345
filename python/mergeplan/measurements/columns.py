"""The columns of `measurements.csv`, in the order in which they are written: their one home."""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mergeplan.display.text import parse_count
from mergeplan.measurements.rows import LOSS_NAMES, Measurement, domain_name
from mergeplan.system.ranges import LARGEST_POOL, parse_options

# More than any benchmark has.
_LARGEST_COUNT = 10**12
# Beyond these a number is no loss of a language model, and arithmetic runs out of digits.
SMALLEST_LOSS, LARGEST_LOSS = 1e-6, 1e6


@dataclass(frozen=True)
class Column:
    """One column: what a cell must be, and how it is read and written.

    Attributes:
        field: The attribute of `Measurement`.
        expected: What a cell holds, in the words of a message.
        read: The value that a cell's text stands for; a `ValueError` where it stands for none.
            `None` where the cell is not read.
        write: The text of a value.
        about: `merge` for what was merged, `loss` and `metric` for what only rows of losses or of
            other metrics say, `text` for what it was measured on.
    """

    name: str
    field: str
    expected: str
    read: Callable[[str], Any] | None
    write: Callable[[Any], str]
    about: str

    def cell(self, row: Measurement) -> str:
        """The text that stands for a row's value; nothing where it has none."""
        value = getattr(row, self.field)
        elsewhere = self.about == ("loss" if row.metric else "metric")
        return "" if value is None or elsewhere else self.write(value)


def _whole(low: int, high: int = LARGEST_POOL) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError
        return number

    return read


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        number = float(text)
        if not low <= number <= high:
            raise ValueError
        return number

    return read


def _options(text: str) -> str:
    return json.dumps(parse_options(text), sort_keys=True)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split("+") if name.strip())


def _weights(text: str) -> tuple[float, ...]:
    weights = tuple(float(weight) for weight in text.split("+") if weight)
    if not all(math.isfinite(weight) for weight in weights):
        raise ValueError
    return weights


def _better(text: str) -> bool:
    if text not in ("lower", "higher"):
        raise ValueError
    return text == "higher"


def _metric(text: str) -> str:
    if text.lower() in LOSS_NAMES:
        raise ValueError
    return text


def direction(higher: bool) -> str:
    """What the column `better` says.

    >>> direction(True), direction(False)
    ('higher', 'lower')
    """
    return "higher" if higher else "lower"


def join_cell(parts: Iterable[object]) -> str:
    """Names or weights in one cell.

    >>> join_cell(("code", "math"))
    'code+math'
    """
    return "+".join(map(str, parts))


def write_se(se: float) -> str:
    """A standard error to six digits; nothing where it is not known.

    >>> write_se(0.0123456789), write_se(float("nan"))
    ('0.0123457', '')
    """
    return f"{se:.6g}" if math.isfinite(se) else ""


COLUMNS = tuple(
    Column(*column)
    for column in (
        ("n_params", "n_params", "a number of parameters", parse_count, "{:.0f}".format, "merge"),
        ("method", "method", "a label", str, str, "merge"),
        ("options", "options", "a JSON object", _options, str, "merge"),
        ("k", "k", "a whole number, 0 or more", _whole(0), str, "merge"),
        ("subset", "subset", "names joined by `+`", _names, join_cell, "merge"),
        ("weights", "weights", "finite numbers joined by `+`", _weights, join_cell, "merge"),
        (
            "pool_size",
            "pool_size",
            f"a whole number from 1 to {LARGEST_POOL}",
            _whole(1),
            str,
            "merge",
        ),
        ("domain", "domain", "a name", domain_name, str, "text"),
        (
            "loss_nats",
            "loss_nats",
            f"a loss in nats from {SMALLEST_LOSS:g} to {LARGEST_LOSS:,.0f}",
            _number(SMALLEST_LOSS, LARGEST_LOSS),
            "{:.8f}".format,
            "loss",
        ),
        (
            "loss_se",
            "loss_se",
            "a standard error in nats",
            _number(0, LARGEST_LOSS),
            write_se,
            "text",
        ),
        (
            "text_se",
            "text_se",
            "a standard error in nats",
            _number(0, LARGEST_LOSS),
            write_se,
            "loss",
        ),
        ("n_tokens", "n_tokens", "a whole number", None, str, "text"),
        (
            "metric",
            "metric",
            "the name of another measure than a loss, which stands in `loss_nats`",
            _metric,
            str,
            "metric",
        ),
        ("value", "loss_nats", "a number", _number(-LARGEST_LOSS, LARGEST_LOSS), repr, "metric"),
        (
            "value_se",
            "value_se",
            "a standard error of 0 or more",
            _number(0, LARGEST_LOSS),
            write_se,
            "metric",
        ),
        (
            "n_items",
            "n_items",
            "a whole number, 1 or more",
            _whole(1, _LARGEST_COUNT),
            str,
            "metric",
        ),
        ("better", "higher", "`lower` or `higher`", _better, direction, "metric"),
        ("seed", "seed", "a text", str, str, "merge"),
        ("pool_hash", "pool_hash", "a text", str, str, "text"),
        ("data_hash", "data_hash", "a text", str, str, "text"),
    )
)
