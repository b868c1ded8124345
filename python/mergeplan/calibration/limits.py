"""When to stop, as a user says it, and what it may take."""

import re
from dataclasses import dataclass

from mergeplan.display.text import MULTIPLES, parse_quantity
from mergeplan.errors import InputError

# Beyond this a limit is none.
_MOST = 1e24
_PLURAL = {"merge": "merges", "token": "tokens"}
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Budget:
    """The most that a calibration may take; `None` is no limit. Tokens are those scored, three
    times over where slopes are measured with them."""

    merges: int | None = None
    tokens: float | None = None
    seconds: float | None = None

    def less(self, spent: "Spending") -> "Budget":
        """What is left of it; merges that are measured twice count once.

        >>> Budget(9, 100.0).less(Spending(1, 120.0, 5.0))
        Budget(merges=9, tokens=0.0, seconds=None)
        """
        tokens = None if self.tokens is None else max(self.tokens - spent.tokens, 0.0)
        seconds = None if self.seconds is None else max(self.seconds - spent.seconds, 0.0)
        return Budget(self.merges, tokens, seconds)


@dataclass(frozen=True)
class Spending:
    """What the measurements took so far, those that were measured before among them."""

    merges: int = 0
    tokens: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class SpendingRange:
    """What a calibration takes.

    Attributes:
        least: With the first round alone.
        most: Until every subset is measured or the budget is spent.
    """

    least: Spending
    most: Spending


def parse_until(text: str) -> int:
    """How near the active k must lie to the one decided on.

    Raises:
        InputError: Not of this form.

    >>> parse_until("k +- 1"), parse_until("k±0")
    (1, 0)
    """
    match = re.fullmatch(r"\s*k\s*(?:\+-|\+/-|±)\s*(\d{1,4})\s*", text)
    if not match:
        raise InputError(f"--until: expected `k +- 1`, found `{text}`")
    return int(match[1])


def parse_budget(text: str) -> Budget:
    """Limits joined by commas, each a number with `merges`, `tokens`, `s`, `min` or `h`.

    Raises:
        InputError: Not of this form, or one kind of limit twice.

    >>> parse_budget("60 merges, 2M tokens, 1.5h")
    Budget(merges=60, tokens=2000000.0, seconds=5400.0)
    >>> parse_budget("1 merge").merges
    1
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        try:
            number, behind = parse_quantity(part)
        except ValueError:
            number, behind = 0.0, ""
        match = re.fullmatch(r"([kMBT]?) *([a-z]+)", behind)
        unit = match[2] if match else ""
        kind = "seconds" if unit in _SECONDS else _PLURAL.get(unit, unit)
        if not match or kind not in ("merges", "tokens", "seconds") or kind in found:
            raise InputError(
                f"--budget: expected such as `60 merges, 2M tokens, 1h`, found `{text}`"
            )
        found[kind] = min(number * MULTIPLES[match[1].lower()], _MOST) * _SECONDS.get(unit, 1.0)
    merges = found.get("merges")
    return Budget(
        None if merges is None else int(merges), found.get("tokens"), found.get("seconds")
    )


def affordable(budget: Budget, spent: Spending) -> int | None:
    """How many more merges the budget allows; `None` where nothing limits them.

    Each is taken to cost what the mean one did; where none was measured yet, one is allowed, to
    find out.
    """
    left = []
    if budget.merges is not None:
        left.append(budget.merges - spent.merges)
    for limit, used in ((budget.tokens, spent.tokens), (budget.seconds, spent.seconds)):
        if limit is None:
            continue
        if used >= limit:
            left.append(0)
        elif spent.merges == 0:
            left.append(1)
        elif used > 0:
            left.append(int((limit - used) / (used / spent.merges)))
    return max(0, min(left)) if left else None


def most_merges(budget: Budget, every: int, first: Spending) -> int:
    """How many of some merges a budget allows from the beginning.

    Args:
        every: How many there are.
        first: What one takes.
    """
    limit = affordable(budget, first)
    if limit is None:
        return every
    return min(every, 1 + limit, every if budget.merges is None else budget.merges)
