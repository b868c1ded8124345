"""Types of numbers with their ranges, for dataclasses that are read from files (see `strict`)."""

import json
from typing import Annotated

from annotated_types import Ge, Gt, Le

# Beyond these arithmetic in float64 runs out of range; no loss and no model is near them.
_LARGEST = 1e12

Number = Annotated[float, Ge(-_LARGEST), Le(_LARGEST)]
Magnitude = Annotated[float, Ge(0), Le(_LARGEST)]
Positive = Annotated[float, Gt(0), Le(_LARGEST)]
# Of parameters.
Params = Annotated[float, Ge(1), Le(1e18)]
Count = Annotated[int, Ge(0)]
Experts = Annotated[int, Ge(1), Le(10_000)]
Seed = Annotated[int, Ge(0), Le(2**64 - 1)]


def is_json_object(text: str) -> bool:
    """For a `Predicate`.

    Raises:
        ValueError: The text is no JSON object.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError("a JSON object")
    return True
