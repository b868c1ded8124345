"""The law of single subsets, averaged over all subsets of each k: a second forecast of means."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb

import numpy as np

from mergeplan.law.correction import Merge
from mergeplan.subset_law.averages import mean_of_size
from mergeplan.subset_law.fit import fit_subset_law
from mergeplan.system.ranges import Magnitude, Number

# Where only these were measured whole, with k below the pool's size, is there anything to say.
_FEWEST_WHOLE = 3
# Merges at most: the law of more takes the time of their number cubed.
_MOST = 1000


@dataclass(frozen=True)
class Averaged:
    """What it says.

    Attributes:
        losses: Mean loss of each k from 1 to the pool's size, in nats, or of the metric.
        left_out: Root mean square error, in nats, of a merge that is left out.
    """

    losses: tuple[Number, ...]
    left_out: Magnitude


def averaged_of(losses: Mapping[Merge, float], pool_size: int) -> Averaged | None:
    """From the merges of one curve.

    Args:
        losses: Of all of them; those of the base, k = 0, are passed over.
        pool_size: Experts that there are.

    Returns:
        `None` but where three k or more below the pool's size were measured whole and by name, no k
        in part or without names, and some k not at all; and where merges are more than 1000.
    """
    if any(k > 0 and not subset for k, subset in losses):
        return None
    merges = {subset: loss for (k, subset), loss in losses.items() if k > 0}
    counts: dict[int, int] = {}
    for subset in merges:
        counts[len(subset)] = counts.get(len(subset), 0) + 1
    whole = sum(n == comb(pool_size, k) for k, n in counts.items())
    below = whole - (pool_size in counts)
    if whole < len(counts) or below < _FEWEST_WHOLE or whole == pool_size or len(merges) > _MOST:
        return None
    names = tuple(sorted({name for subset in merges for name in subset}))
    weights = np.array([[(name in s) / len(s) for name in names] for s in merges])
    law = fit_subset_law(weights, np.array(list(merges.values())), names)
    found = tuple(mean_of_size(law.series, k) for k in range(1, pool_size + 1))
    return Averaged(found, law.error) if min(found) > 0 else None
