"""Whether the law of a smaller size helps, and by how much: by the merges that are left out.

The share that carries over is what the smaller size takes of the squared error with which a merge
that is left out is predicted: 1 - (error with it / error without)². Both are laws of the same
merges, with the same prior; only the one leans on the smaller size. Where the experts behind the
names differ, the share is chance, and may as well be below zero, which is said as 0.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mergeplan.subset_law.fit import FEWEST, fit_few, refuse_too_few
from mergeplan.subset_law.law import SubsetLaw, Transfer

Array = NDArray[np.float64]

# Below this share it is not used. With the names of one of two sizes permuted, 10 to 45 merges have
# more by chance in about one of ten pools (80 k to 270 k and 850 k, which set it).
_LEAST_SHARE = 0.25


def fit_with_smaller(
    weights: Array,
    values: Array,
    experts: tuple[str, ...],
    smaller: Mapping[float, SubsetLaw],
    *,
    name: str = "loss",
    higher: bool = False,
    gram: Array | None = None,
    shrinkages: tuple[float, ...] = (1.0,),
) -> SubsetLaw:
    """Fit one domain or metric, and lean on a smaller size where that predicts better.

    Args:
        weights, values, gram, shrinkages: As for `fit_subset_law`.
        smaller: Laws of the same experts at smaller sizes, by their parameters.

    Returns:
        The law; its `transfer` says what the best of the smaller sizes tells.

    Raises:
        InputError: Too few merges were measured, even with what the smaller size tells.
    """
    there = np.isfinite(values)
    weights, values = weights[there], values[there]
    if not smaller or len(values) < FEWEST:
        refuse_too_few(weights, experts, name)

    def fit(shrinkages: tuple[float, ...], small: SubsetLaw | None = None) -> SubsetLaw:
        return fit_few(
            weights, values, experts,
            name=name, higher=higher, gram=gram, shrinkages=shrinkages, smaller=small,
        )  # fmt: skip

    alone = fit(shrinkages)
    error = _error(alone)
    # The smaller size's deltas shrink with k as these do.
    leaning = {size: fit((law.shrinkage,), law) for size, law in smaller.items()}
    if not leaning:
        return alone
    size = min(leaning, key=lambda size: _error(leaning[size]))
    best = leaning[size]
    share = max(1 - (_error(best) / error) ** 2, 0.0) if error > 0 else 0.0
    used = share >= _LEAST_SHARE
    if not used:
        refuse_too_few(weights, experts, name)
    said = Transfer(size, share, best.factor, _error(best), error, used)
    return replace(best if used else alone, transfer=said)


def _error(law: SubsetLaw) -> float:
    """Of merges of two and more that are left out; of all where those are too few to tell."""
    k = (law.weights > 0).sum(1)
    which = k > 1 if (k > 1).sum() >= FEWEST else k > 0
    return float(np.sqrt(np.mean((law.left_out - law.values)[which] ** 2)))
