"""Kernels against each other: Rust against the reference to the bit, both against mergekit.

`MERGEPLAN_FULL=1` runs 4,500 cases instead of 360.
"""

import numpy as np
import pytest

from backends import by_mergekit, by_native, by_reference
from cases import Case, all_cases
from compare import scale_of, threshold_elements, ulp, undecided_signs
from conftest import FULL

CASES = all_cases(rounds=50 if FULL else 4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_native_equals_the_reference(case: Case, tmp_path):
    expected, found = by_reference(case, seed=3), by_native(case, tmp_path, seed=3)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize("case", [case for case in CASES if case.class_a], ids=str)
def test_class_a_equals_mergekit(case: Case):
    expected, found = by_mergekit(case), by_reference(case)
    for name, values in expected.items():
        equal = found[name] == values
        if case.method == "ties":
            equal |= threshold_elements(case, name)
        if len(case.weights) > 4:
            # torch sums five terms and more in another order.
            near = 2 * ulp(scale_of(case, name, values), case.dtype)
            equal |= np.abs(found[name] - values) <= near
            if case.method == "ties":
                equal |= undecided_signs(case, name)
        assert equal.all(), f"{name}: {found[name][~equal][:3]} is not {values[~equal][:3]}"


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.method == "ties" and case.parameters["rescale"]],
    ids=str,
)
def test_class_b_is_near_mergekit(case: Case):
    expected, found = by_mergekit(case), by_reference(case)
    for name, values in expected.items():
        scale = scale_of(case, name, values)
        near = 1e-6 * scale if case.dtype == "float32" else ulp(scale, case.dtype)
        equal = (np.abs(found[name] - values) <= near) | threshold_elements(case, name)
        assert equal.all(), f"{name}: {found[name][~equal][:3]} is not {values[~equal][:3]}"


@pytest.mark.parametrize("case", [case for case in CASES if case.method == "ties"], ids=str)
def test_trimming_keeps_exactly_n_kept(case: Case):
    from backends import values
    from mergeplan.reference import trim

    for name, base in case.base.items():
        for expert, density in zip(case.experts, case.densities, strict=True):
            # Apart from zero everywhere: the count then is the mask's.
            delta = values(expert[name]) - values(base) + 10.0
            kept = np.count_nonzero(trim(delta, density))
            full = density >= 1
            n_kept = base.numel() if full else max(1, int(density * base.numel()))
            assert kept == (0 if density <= 0 or base.numel() == 0 else n_kept)
