"""Whether the means of measured subsets are corrected for which experts are in them."""

from collections.abc import Mapping

import numpy as np

from mergeplan.subset_law.means import CorrectedMeans, corrected_means

# k, and the subset, which is empty where the file names none.
Merge = tuple[int, tuple[str, ...]]


def correction_of(losses: Mapping[Merge, float], pool_size: int) -> CorrectedMeans | None:
    """Means over all subsets of each k, where the law of single subsets helps to tell them.

    It does where it predicts a subset that is left out better than the mean of the others of its k.

    Args:
        losses: Of the merges of one curve; those of the base, k = 0, are passed over, and those
            without names of a k that was measured whole are left out by the caller.

    Returns:
        `None` where the plain means stand: also where subsets are without names.
    """
    if any(k > 0 and not subset for k, subset in losses):
        return None
    merges = {subset: loss for (k, subset), loss in losses.items() if k > 0 and subset}
    names = sorted({name for subset in merges for name in subset})
    if len(names) > pool_size:
        return None
    # An expert that was never measured is one more of the same kind.
    weights = np.zeros((len(merges), pool_size))
    for row, subset in enumerate(merges):
        weights[row, [names.index(name) for name in subset]] = 1 / len(subset)
    found = corrected_means(weights, np.array(list(merges.values())))
    if found is None or found.left_out >= found.plain or found.values.min() <= 0:
        return None
    return found
