"""How near a tensor is to a replay, and which elements a trim may keep or drop."""

import numpy as np
import pytest

from mergeplan.inspection.closeness import judge
from mergeplan.inspection.thresholds import at_thresholds, excused
from mergeplan.inspection.values import Side, grid_of, rounded, step


def side(values, dtype: str = "F32") -> Side:
    values = np.asarray(values, np.float32)
    if dtype == "BF16":
        return Side((values.view("<u4") >> 16).astype("<u2").view(np.uint8), dtype)
    return Side(values.astype({"F32": "<f4", "F16": "<f2"}[dtype]).view(np.uint8), dtype)


@pytest.mark.parametrize(("dtype", "bits"), [("F32", 23), ("F16", 10), ("BF16", 7)])
def test_steps_are_those_of_the_dtype(dtype, bits):
    values = np.array([1.0, -1.5, 1.999, 2.0, 0.25])
    expected = 2.0**-bits * np.array([1, 1, 1, 2, 0.25])
    assert np.array_equal(step(values, dtype), expected)
    smallest = 2.0**-24 if dtype == "F16" else 2.0 ** (-126 - bits)
    assert step(np.zeros(1), dtype)[0] == smallest
    on_it = rounded(np.random.default_rng(0).normal(size=999), dtype)
    assert np.array_equal(rounded(on_it, dtype), on_it)
    assert grid_of(side(on_it), 999) == dtype


def test_every_16_bit_value_is_on_its_grid_and_widened_exactly():
    every = np.arange(1 << 16, dtype="<u2")
    for dtype in ("F16", "BF16"):
        found = Side(every.view(np.uint8), dtype).values(0, 1 << 16)
        finite = np.isfinite(found)
        assert np.array_equal(rounded(found[finite], dtype), found[finite])
        again = side(found[finite], dtype).raw.view("<u2")
        assert np.array_equal(again, every[finite])


def test_free_choices_are_the_elements_at_a_threshold():
    delta = np.array([4.0, -3.0, 3.0, 2.0, 2.0, -2.0, 1.0, 0.0])
    # Of TIES: the largest two, and of two threes one is kept with two of the twos at a half.
    assert np.flatnonzero(at_thresholds(delta, 0.25, None)).tolist() == [1, 2]
    assert np.flatnonzero(at_thresholds(delta, 0.5, None)).tolist() == [3, 4, 5]
    assert not at_thresholds(delta, 0.375, None).any()
    assert not at_thresholds(delta, 1.0, None).any()
    # Of breadcrumbs: the largest two go, and the next two stay.
    assert np.flatnonzero(at_thresholds(delta, 0.25, 0.25)).tolist() == [1, 2, 3, 4, 5]


def test_what_differs_at_a_threshold_is_excused_if_it_is_little():
    r = side(np.ones(1000))
    free = np.zeros(1000, bool)
    free[:100] = True
    changed = np.ones(1000, np.float32)
    changed[:9] = 1.1
    mixed = excused(side(changed), r, free, most=0.2)
    assert mixed is not None
    assert np.array_equal(mixed.raw, r.raw)
    assert excused(side(changed), r, free, most=0.05) is None
    changed[:60] = 1.1
    assert excused(side(changed), r, free, most=0.2) is None
    changed[:] = 1
    changed[500] = 1.1
    assert excused(side(changed), r, free, most=0.2) is None


def test_without_a_base_nearness_decides():
    values = np.random.default_rng(0).normal(size=3000).astype(np.float32)
    near = judge(side(values * np.float32(1 + 2e-7)), side(values), None, None, "F32", None)
    assert (near.status, near.factor) == ("rounding", None)
    far = judge(side(values * np.float32(1.01)), side(values), None, None, "F32", None)
    assert (far.status, far.differing) == ("unknown", 3000)
    assert far.relative_l2 == pytest.approx(0.01, rel=1e-3)
    assert far.cosine == pytest.approx(1)


def test_what_is_not_finite_on_both_sides_is_no_difference():
    generator = np.random.default_rng(2)
    base = generator.normal(size=3000).astype(np.float32)
    merged = base + np.float32(0.1) * generator.normal(size=3000).astype(np.float32)
    merged[:3] = (np.nan, np.inf, -np.inf)
    near = merged * np.float32(1 + 2e-7)
    found = judge(side(near), side(merged), side(merged), side(base), "F32", None)
    assert found.status == "rounding"
    near[0] = 1
    found = judge(side(near), side(merged), side(merged), side(base), "F32", None)
    assert (found.status, found.relative_l2) == ("unknown", np.inf)


@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.3, 1.5, 40.0])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_another_strength_is_found_whatever_it_is(factor, dtype):
    generator = np.random.default_rng(1)
    base = rounded(0.02 * generator.normal(size=20_000), dtype)
    change = 1e-4 * generator.normal(size=20_000)
    x, r = (side(rounded(base + f * change, dtype), dtype) for f in (factor, 1))
    found = judge(x, r, side(base + change), side(base), dtype, None)
    assert found.status == ("strength" if factor else "not applied"), found
    if factor:
        assert found.factor == pytest.approx(factor, rel=5e-3)


@pytest.mark.parametrize("factor", [0.3, 0.5, 0.8, 1.5])
@pytest.mark.parametrize("change", [0.001, 0.004])
def test_a_strength_that_rounding_hides_in_most_elements_is_found(factor, change):
    """Norms are near 1, where a step of bfloat16 is 0.004 to 0.008: most changes round to none."""
    generator = np.random.default_rng(1)
    base = rounded(1 + 0.1 * generator.normal(size=20_000), "BF16")
    delta = change * generator.normal(size=20_000)
    x, r = (side(rounded(base + f * delta, "BF16"), "BF16") for f in (factor, 1))
    found = judge(x, r, side(base + delta), side(base), "BF16", None)
    if (factor, change) == (0.3, 0.001):
        assert found.status == "not applied"  # as it is: every element was rounded away
        return
    assert found.status == "strength"
    assert found.factor == pytest.approx(factor, abs=0.06)
