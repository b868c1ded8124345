"""Elements that a trim may keep or drop: their magnitude equals the threshold's.

In 16 bits many do. mergekit's sort is not stable and keeps any of them; mergeplan goes by index.
"""

from typing import Any

import numpy as np

from mergeplan.inspection.values import Side, Values, bits

Mask = np.ndarray[Any, np.dtype[np.bool_]]
# A larger share would excuse too much; of small tensors so many elements.
MOST, FEW = 0.05, 8


def at_thresholds(delta: Values, density: float, gamma: float | None) -> Mask:
    """Where any choice is free.

    Args:
        gamma: The share of the largest that are dropped (breadcrumbs); `None` where none is (TIES).
    """
    free = np.zeros(delta.size, bool)
    if not 0 < density < 1:
        return free
    magnitude = np.abs(delta)
    kept = int(density * delta.size)
    below = max(0, delta.size - kept - int(gamma * delta.size)) if gamma is not None else 0
    if gamma is None:
        kept = max(1, kept)
        below = delta.size - kept
    for place in (below, below + kept):
        if kept and 0 < place < delta.size:
            ordered = np.partition(magnitude, (place - 1, place))
            if ordered[place - 1] == ordered[place]:
                free |= magnitude == ordered[place]
    return free


def excused(x: Side, r: Side, free: Mask, most: float) -> Side | None:
    """The tensor with the replay's values where the choice is free.

    Args:
        most: No value may be farther off than this.

    Returns:
        `None` where too many differ, or one by too much.
    """
    kind = f"<u{bits(x.dtype) // 8}"
    found, expected = x.raw.view(kind), r.raw.view(kind)
    places = np.flatnonzero(free & (found != expected))
    if not 0 < places.size <= max(MOST * found.size, FEW):
        return None
    there = [
        Side(side[places].view(np.uint8), x.dtype).values(0, places.size)
        for side in (found, expected)
    ]
    if not np.abs(there[0] - there[1]).max() <= most:
        return None
    mixed = found.copy()
    mixed[places] = expected[places]
    return Side(mixed.view(np.uint8), x.dtype)
