"""The share of a product of parameters that runs by default; `MERGEPLAN_FULL=1` runs all of it."""

from collections.abc import Sequence
from itertools import product
from typing import Any

from tests.support.settings import FULL


def paired(first: Sequence[Any], *others: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Each of `first` with one of each of the others, in turn; the long run takes the product."""
    if FULL:
        return list(product(first, *others))
    # Each list turns once more than the one before it on every pass: none keeps step with another.
    return [
        (
            value,
            *(
                other[(number + turn * (number // len(other))) % len(other)]
                for turn, other in enumerate(others)
            ),
        )
        for number, value in enumerate(first)
    ]


def spread(cases: Sequence[Any], most: int) -> list[Any]:
    """At most so many cases, evenly from all of them; the long run takes every one."""
    if FULL or len(cases) <= most:
        return list(cases)
    return [cases[number * len(cases) // most] for number in range(most)]
