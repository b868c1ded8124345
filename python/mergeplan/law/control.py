"""Single experts as control variate for the mean over all subsets of k.

A subset's loss goes with x, the mean of its members' own losses. Over all subsets of k the mean of
x is known, since every single expert was measured: it is theirs. So a sample that happens to hold a
harmful expert too often, or not at all, is corrected by β·(x̄ - μ), and only the scatter around β·x
is left as sampling error (Cochran, Sampling Techniques, chapter 7). β is pooled over all k.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Of so many subsets of k at least the scatter around the line is told.
_FEWEST = 3


@dataclass(frozen=True)
class Controlled:
    """The mean over all subsets of k, in nats, and the deviation of single ones that is left."""

    mean: float
    rest: float


def controlled_means(
    losses: Mapping[int, Mapping[tuple[str, ...], float]], pool_size: int
) -> dict[int, Controlled]:
    """Means of those k of which some subsets were measured and not all.

    Args:
        losses: Of each subset, by k.

    Returns:
        Empty where a single expert is missing, or their losses do not differ.
    """
    singles = {subset[0]: loss for subset, loss in losses.get(1, {}).items()}
    sampled = {
        k: merges
        for k, merges in losses.items()
        if k > 1 and _FEWEST <= len(merges) < comb(pool_size, k)
    }
    if len(singles) < pool_size or not sampled:
        return {}
    cells: dict[int, tuple[Array, Array]] = {}
    for k, merges in sampled.items():
        members = [fmean(singles[name] for name in subset) for subset in merges]
        cells[k] = np.array(members), np.array(list(merges.values()))  # (n,) each
    square = sum(float(((x - x.mean()) ** 2).sum()) for x, _ in cells.values())
    if square <= 1e-18:
        return {}
    slope = sum(float((x - x.mean()) @ y) for x, y in cells.values()) / square
    centre = fmean(singles.values())
    found = {}
    for k, (x, y) in cells.items():
        n, rest = len(y), y - slope * x
        off = float(x.mean()) - centre
        variance = float(((rest - rest.mean()) ** 2).sum()) / max(n - 1 - 1 / len(cells), 1.0)
        # What β itself leaves open counts with the distance that it bridges.
        bridged = off**2 / square * n / (1 - n / comb(pool_size, k))
        mean = float(y.mean()) - slope * off
        found[k] = Controlled(mean, float(np.sqrt(variance * (1 + bridged))))
    return {k: one for k, one in found.items() if one.mean > 0}
