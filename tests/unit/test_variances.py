"""The variances of a law: found also where rounding leaves a part with negative eigenvalues."""

import numpy as np

from mergeplan.subset_law.variances import fit_variances


def test_a_part_that_rounding_left_below_zero_is_fitted() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 5))
    whole = points @ points.T / 5
    less = whole - 1e-10 * np.eye(40)  # of rank five: its other eigenvalues are now negative
    # Values without misfit, which draw its variance to the least.
    values = points @ rng.normal(size=5)
    expected = fit_variances(whole[None], values)
    assert np.allclose(fit_variances(less[None], values), expected, rtol=1e-3)
