"""The scale of what a law is of: a loss, or a metric turned so that less is better.

A share of which more is better is turned to 1 - value, the share that is missed: a floor is then
never below 0, which says that no merge is right on more than all items. Any other metric has no
such end; its zero lies far beyond the best measured value, so that no floor rests on it. There is
no link between value and law: logit, probit and log predict the published metrics no better
(docs/planner.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mergeplan.display.text import listed
from mergeplan.errors import InputError
from mergeplan.measurements.rows import Measurement
from mergeplan.system.ranges import Number

# How far the zero of a metric without an end lies beyond its best value, in ranges of its values.
_BEYOND = 10.0

Value = TypeVar("Value", float, NDArray[np.float64])


@dataclass(frozen=True)
class Scale:
    """Values as the table has them, and turned: never negative, and less is better.

    Attributes:
        metric: Its name; empty for losses.
        higher: Whether more is better.
        zero: The value that is turned to 0.
    """

    metric: str = ""
    higher: bool = False
    zero: Number = 0.0

    def turned(self, value: Value) -> Value:
        """
        >>> Scale("acc", higher=True, zero=1.0).turned(0.75)
        0.25
        """
        return self.zero - value if self.higher else value - self.zero

    def own(self, turned: Value) -> Value:
        """The value that is turned to this."""
        return self.zero - turned if self.higher else self.zero + turned

    def interval(self, low: float, high: float) -> tuple[float, float]:
        """The same of an interval, its lower end first."""
        ends = self.own(low), self.own(high)
        return (ends[1], ends[0]) if self.higher else ends

    @property
    def sign(self) -> float:
        return -1.0 if self.higher else 1.0

    @property
    def most(self) -> float:
        """The most that a turned value can be, as far as is known."""
        return 1.0 if self.higher and self.natural else np.inf

    @property
    def natural(self) -> bool:
        """Whether turned values are shares of something, as a loss is, and as a share missed."""
        return self.zero == (1.0 if self.higher else 0.0)

    def check(self, target: float, what: str = "target") -> None:
        """Refuse what no value can be.

        Args:
            what: Of it, for the message.

        Raises:
            InputError: It is beyond an end: a loss of 0, a share above 1, a value below 0 where
                none is.
        """
        if not self.metric:
            if target <= 0:
                raise InputError(f"a loss is above 0, and the {what} is {target:g}")
            return
        if "perplexity" in self.metric.lower() and not self.higher and target < 1:
            raise InputError(f"{self.name} is never below 1, and the {what} is {target:g}")
        if not self.natural or 0 <= self.turned(target) <= self.most:
            return
        ends = "a share from 0 to 1" if self.higher else "never below 0"
        raise InputError(
            f"{self.name} is {ends} in every row, and the {what} is {target:g}",
            "write 54.2 % as 0.542" if self.higher and 1 < target <= 100 else None,
        )

    @property
    def name(self) -> str:
        """For a sentence: `the mean …`."""
        return f"`{self.metric}`" if self.metric else "loss"

    @property
    def unit(self) -> str:
        """Behind a number."""
        return "" if self.metric else " nats"

    def formula(self, symbol: str) -> str:
        """What a law's formula is of: the symbol, and of a metric how it is turned."""
        if not self.higher:
            return symbol
        return f"{self.zero:g} - {symbol}"

    @property
    def best(self) -> str:
        """What the best of some values is."""
        return self.word("lowest", "highest")

    def word(self, lower: str, higher: str) -> str:
        """One of two words, by which way is better."""
        return higher if self.higher else lower

    @property
    def limit(self) -> str:
        """What ever more experts approach."""
        return self.word("floor", "ceiling")


def scale_of(rows: Sequence[Measurement]) -> Scale:
    """The scale of some rows, all of losses or of one metric.

    Raises:
        InputError: They are of several.
    """
    first = rows[0]
    if len(names := {row.metric for row in rows}) > 1:
        raise InputError(
            f"rows of several measures: {listed(sorted(name or 'losses' for name in names))}",
            "`load_measurements` takes one",
        )
    if not first.metric:
        return Scale()
    values = [row.loss_nats for row in rows]
    low, high = min(values), max(values)
    if low >= 0 and (not first.higher or high <= 1):
        return Scale(first.metric, first.higher, float(first.higher))
    far = _BEYOND * max(high - low, 1e-3 * max(abs(low), abs(high)))
    return Scale(first.metric, first.higher, high + far if first.higher else low - far)
