"""Steps on a device against exact arithmetic, and its random words against numpy's."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from mergeplan.merging.torch import philox
from mergeplan.merging.torch.arithmetic import (
    Steps,
    all_finite,
    exact_multiply_add,
    float32,
    fused_multiply_add,
)
from mergeplan.merging.torch.largest import Largest, Threshold, count, count_apart
from mergeplan.reference import philox as rng
from mergeplan.reference import round_to

CPU = torch.device("cpu")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def nearest_float32(exact: Fraction) -> float:
    """Rounded once, to nearest, ties to even."""
    guess = np.float32(float(exact))  # rounded twice: right, or a neighbour
    near = [
        guess,
        np.nextafter(guess, np.float32(np.inf)),
        np.nextafter(guess, -np.float32(np.inf)),
    ]
    best = min(abs(Fraction(float(one)) - exact) for one in near)
    found = [one for one in near if abs(Fraction(float(one)) - exact) == best]
    return float(next(one for one in found if len(found) == 1 or one.view(np.uint32) % 2 == 0))


@pytest.mark.parametrize("device", DEVICES)
def test_a_multiply_add_is_rounded_once(device):
    generator = np.random.default_rng(0)
    sums = generator.standard_normal(3000).astype(np.float32)
    values = generator.standard_normal(3000).astype(np.float32)
    factor = float32(1 / 3)
    exact = [
        nearest_float32(Fraction(float(s)) + Fraction(factor) * Fraction(float(v)))
        for s, v in zip(sums, values, strict=True)
    ]
    tensors = [torch.from_numpy(array).to(device) for array in (sums, values)]
    for method in (exact_multiply_add, fused_multiply_add):
        np.testing.assert_array_equal(method(*tensors, factor).cpu().numpy(), np.float32(exact))


@pytest.mark.parametrize("device", DEVICES)
def test_two_roundings_are_not_one(device):
    """The case that the odd bit is for: half a unit and a crumb beyond float64's reach."""
    sums = torch.tensor([2.0**24 + 2, 2.0**24 + 2], device=device)
    values = torch.tensor([1 + 2.0**-20, 1 - 2.0**-20], device=device)
    factor = float32(1 - 2**-20)
    exact = [
        nearest_float32(Fraction(float(s)) + Fraction(factor) * Fraction(float(v)))
        for s, v in zip(sums, values, strict=True)
    ]
    assert exact_multiply_add(sums, values, factor).tolist() == exact


@pytest.mark.parametrize("name", DTYPES)
def test_steps_round_as_the_reference_does(name):
    steps = Steps(DTYPES[name])
    generator = np.random.default_rng(1)
    a, b = (round_to(generator.standard_normal(5000), name) for _ in range(2))
    x, y = (torch.from_numpy(v).to(DTYPES[name]) for v in (a, b))
    third = float32(1 / 3)
    for found, exact in [
        (steps.subtract(x, y), a - b),
        (steps.add(x, y), a + b),
        (steps.multiply(x, y), a * b),
        (steps.scale(x, third), a * third),
        (steps.divide(x, third), a / third),
        (steps.divide(x, y), a / b),
    ]:
        expected = round_to(round_to(exact, "float32"), name)
        np.testing.assert_array_equal(found.double().numpy(), expected)
    assert steps.number(0.1) == float(round_to(round_to(0.1, "float32"), name))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("start", [0, 1, 511, 512, 70_001])
def test_random_words_are_those_of_the_reference(device, start):
    ids = [5, 0xFEDC_BA98_7654_3210, 7]
    seed = 0x0123_4567_89AB_CDEF
    counters = philox.Counters.of(seed, ids, torch.device(device))
    draw, _ = philox.find_draw(torch.device(device))
    count = 3000
    words = np.stack([rng.words(seed, i, start + count)[start:] for i in ids]).astype(np.int64)
    # Limits that some words have as their upper half, so that the lower half decides.
    tied = [int(words[0, 5]), int(words[1, 9]) + 1, 0]
    for limits in (tied, [1 << 31, 1 << 32, 3 << 16]):
        limit = torch.tensor(limits, device=device).unsqueeze(1)
        found = draw(counters, start, count, limit, any(one & 0xFFFF for one in limits))
        np.testing.assert_array_equal(found.cpu().numpy(), words < np.array(limits)[:, None])
    each = np.roll(words, 1, axis=1)
    each[:, ::3] = words[:, ::3] + 1
    each = np.minimum(each, philox.MOST)
    found = draw(counters, start, count, torch.from_numpy(each).to(device), True)
    np.testing.assert_array_equal(found.cpu().numpy(), words < each)


@pytest.mark.parametrize("pieces", [1, 3, 7])
def test_the_largest_are_taken_by_index_across_pieces(pieces):
    bits = torch.tensor([[5, 3, 3, 9, 3, 1, 3], [2, 2, 2, 2, 2, 2, 2]], dtype=torch.int16)
    largest = Largest([Threshold(3, 2), None], CPU)
    found = torch.cat([largest.of(part) for part in bits.split(-(-7 // pieces), dim=1)], dim=1)
    assert found.tolist() == [[True, True, True, True, False, False, False], [False] * 7]


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_what_is_not_finite_is_seen(dtype):
    values = torch.full((1001,), 3.0, dtype=dtype)
    assert all_finite(values)
    assert all_finite(values[:0])
    for bad in (float("nan"), float("inf"), -float("inf")):
        values[777] = bad
        assert not all_finite(values)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("numel", [0, 5, 1000])
def test_counting_apart_is_counting(device, numel):
    generator = torch.Generator().manual_seed(0)
    bins = torch.randint(0, 7, (numel,), generator=generator)
    bins[numel // 3 :] = 2  # most of them are equal
    where = torch.rand(numel, generator=generator) < 0.5
    expected = torch.bincount(bins[where], minlength=9) + 1
    plain, apart = (torch.ones(9, dtype=torch.int64, device=device) for _ in range(2))
    count(plain, bins.to(device), where.to(device))
    count_apart(apart, bins.to(device), where.int().to(device), 8)
    assert torch.equal(plain.cpu(), expected)
    assert torch.equal(apart.cpu(), expected)
