"""What the measured merges of a metric are expected to be on other items of their kind."""

import numpy as np
from numpy.typing import NDArray

from mergeplan.subset_law.law import SubsetLaw

Array = NDArray[np.float64]


def expected_rows(law: SubsetLaw) -> tuple[Array, Array]:
    """Values of a noisy law's rows and their standard deviations, both (n,).

    Over the laws `alike`: the likeliest variances may have no misfit, and then say that nothing but
    its experts tells a merge from another.

    Args:
        law: Whose rows have errors from their items.
    """
    means = np.array([one.predict(law.weights) for one in law.alike])  # (laws, n)
    variances = np.array([one.deviations(law.weights) ** 2 for one in law.alike])
    return means.mean(0), np.sqrt(variances.mean(0) + means.var(0))
