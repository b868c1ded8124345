"""Kernels against each other: Rust and torch against the reference, and all against mergekit.

`MERGEPLAN_FULL=1` runs 14,100 cases instead of 104.
"""

import dataclasses

import numpy as np
import pytest

from mergeplan import reference
from tests.support.backends import FAST, by_mergekit, by_reference, values
from tests.support.cases import Case, all_cases
from tests.support.compare import (
    EXACT,
    conditioning,
    group_tolerance,
    mergekits_selection,
    n_kept_and_below,
    scale_of,
    threshold_elements,
    ulp,
    undecided_fusion,
    undecided_signs,
    with_selection,
)
from tests.support.settings import FULL

CASES = all_cases(rounds=50 if FULL else 0)
GROUPS = [case for case in CASES if case.group]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fast_paths_equal_the_reference(case: Case, tmp_path):
    expected = by_reference(case, seed=3)
    for backend, run in FAST.items():
        found = run(case, tmp_path / backend, seed=3)
        assert found.keys() == expected.keys()
        for name, results in expected.items():
            np.testing.assert_array_equal(found[name], results, err_msg=f"{backend}, {name}")


@pytest.mark.parametrize("case", [case for case in CASES if case.class_a], ids=str)
def test_class_a_equals_mergekit(case: Case):
    expected, found = by_mergekit(case), by_reference(case)
    for name, results in expected.items():
        equal = found[name] == results
        if case.info.sparsify in ("magnitude", "outliers"):
            equal |= threshold_elements(case, name)
        if case.k > 4:
            # torch sums five terms and more in another order.
            near = 2 * ulp(scale_of(case, name, results), case.dtype)
            equal |= np.abs(found[name] - results) <= near
            if case.info.consensus:
                equal |= undecided_signs(case, name)
        assert equal.all(), f"{name}: {found[name][~equal][:3]} is not {results[~equal][:3]}"


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in CASES
        if case.info.family == "delta" and case.parameters["rescale"] and not case.random_mask
    ],
    ids=str,
)
def test_rescaled_deltas_are_near_mergekits(case: Case):
    expected, found = by_mergekit(case), by_reference(case)
    for name, results in expected.items():
        scale = scale_of(case, name, results)
        near = 1e-6 * scale if case.dtype == "float32" else ulp(scale, case.dtype)
        equal = (np.abs(found[name] - results) <= near) | threshold_elements(case, name)
        if case.k > 4 and case.info.consensus:
            equal |= undecided_signs(case, name)
        assert equal.all(), f"{name}: {found[name][~equal][:3]} is not {results[~equal][:3]}"


def mergekit_fails(case: Case, name: str) -> bool:
    """Where mergekit stops on a valid tensor, see `test_edges`."""
    if case.experts[0][name].numel() > 0:
        return False
    return case.method == "arcee_fusion" or (case.method == "multislerp" and case.k > 2)


def mergekit_gives_nan(case: Case) -> bool:
    """Where mergekit divides zero by zero, because its small constants are zero in float16."""
    if case.dtype != "float16":
        return False
    return case.method == "multislerp" or (case.method == "nearswap" and case.parameters["t"] == 0)


@pytest.mark.parametrize("case", GROUPS, ids=str)
def test_class_b_is_near_mergekit(case: Case):
    for name in case.experts[0]:
        if mergekit_fails(case, name):
            continue
        expected = by_mergekit(case, [name])[name]
        mask = mergekits_selection(case, name)
        found = with_selection(case, name, mask)
        assert np.isfinite(found).all()
        if np.isnan(expected).any() and mergekit_gives_nan(case):
            continue
        near = group_tolerance(case, name, expected)
        equal = np.abs(found - expected) <= near
        if case.base:
            equal |= undecided_fusion(case, name, mask)
        assert equal.all(), f"{name}: {found[~equal][:3]} is not {expected[~equal][:3]}"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_group_methods_equal_mergekits_but_for_few_elements(dtype):
    cases = [case for case in GROUPS if case.dtype == dtype]
    n_elements, n_different = 0, 0
    for case in cases:
        for name in case.experts[0]:
            if case.experts[0][name].numel() == 0:
                continue
            expected = by_mergekit(case, [name])[name]
            if np.isnan(expected).any():
                continue
            found = with_selection(case, name, mergekits_selection(case, name))
            n_elements += expected.size
            n_different += np.count_nonzero(found != expected)
    # Where a norm lies within mergekit's float32 error of a boundary between two 16-bit numbers, it
    # is rounded the other way, and a whole tensor moves.
    assert n_different <= 3e-3 * n_elements


@pytest.mark.parametrize(
    "case",
    [c for c in GROUPS if c.dtype == "float32" and c.method not in ("sce", "arcee_fusion")],
    ids=str,
)
def test_float32_group_methods_are_near_the_mathematics(case: Case):
    exact, found = by_reference(dataclasses.replace(case, dtype="float64")), by_reference(case)
    for name, results in exact.items():
        if case.method in ("ram", "ramplus_tl"):
            # A delta that equals `epsilon` up to rounding counts or does not.
            base = values(case.base[name])
            deltas = [np.abs(values(expert[name]) - base) for expert in case.experts]
            if np.any(np.abs(np.asarray(deltas) - case.parameters["epsilon"]) < 1e-8):
                continue
        largest = np.abs(results).max(initial=0.0)
        for expert in case.experts:
            largest = max(largest, np.abs(values(expert[name])).max(initial=0.0))
        near = EXACT * largest * conditioning(case, name)
        assert (np.abs(found[name] - results) <= near).all(), name


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.info.sparsify in ("magnitude", "outliers")], ids=str
)
def test_trimming_keeps_exactly_n_kept(case: Case):
    for name, base in case.base.items():
        n = base.numel()
        for number, (expert, density) in enumerate(zip(case.experts, case.densities, strict=True)):
            # Apart from zero everywhere: the count then is the mask's.
            delta = values(expert[name]) - values(base) + 10.0
            if case.info.sparsify == "magnitude":
                kept = np.count_nonzero(reference.trim(delta, density))
            else:
                gamma = case.per_input["gamma"][number]
                kept = np.count_nonzero(reference.trim_outliers(delta, density, gamma))
            n_kept = n if density >= 1 else n_kept_and_below(case, number, n)[0]
            assert kept == (0 if density <= 0 or n == 0 else n_kept)
