"""Distances against their definition in numpy, and which tensors count as equal."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mergeplan.inspection.diff import diff
from tests.support.checkpoints import save_checkpoint

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


def ordinal(x: torch.Tensor) -> np.ndarray:
    """Place of each value among those of its dtype."""
    bits = x.view(BITS[x.dtype]).numpy().astype(np.int64)
    top = 1 << (8 * x.element_size() - 1)
    return np.where(bits < 0, -(bits + top), bits)


def pair(tmp_path, a: dict, b: dict, **options):
    save_checkpoint(tmp_path / "a", a)
    save_checkpoint(tmp_path / "b", b)
    return diff(tmp_path / "a", tmp_path / "b", **options)


def only(found):
    (tensor,) = found.tensors
    return tensor


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 4095, 4097, 65_535, 65_537, 2**20 + 70_000])
def test_distances_are_their_definition(dtype, n, tmp_path):
    generator = torch.Generator().manual_seed(n)
    a = torch.randn(n, generator=generator).to(dtype)
    b = torch.where(
        torch.rand(n, generator=generator) < 0.3,
        (a.float() + 1e-2 * torch.randn(n, generator=generator)).to(dtype),
        a,
    )
    found = only(pair(tmp_path, {"x": a}, {"x": b})).distance
    distance = np.abs(a.double().numpy() - b.double().numpy())
    ulp = np.abs(ordinal(a) - ordinal(b))
    assert found.elements == n
    assert found.differing == np.count_nonzero(distance)
    assert found.max_difference == distance.max(initial=0)
    assert found.max_ulp == ulp.max(initial=0)
    if n:
        assert found.mean_difference == pytest.approx(distance.mean(), rel=1e-12)
        assert found.mean_ulp == pytest.approx(ulp.mean(), rel=1e-12)


@pytest.mark.parametrize("first", DTYPES, ids=str)
@pytest.mark.parametrize("second", DTYPES, ids=str)
def test_across_dtypes_ulps_are_counted_in_the_coarser(first, second, tmp_path):
    x = torch.randn(5000, generator=torch.Generator().manual_seed(1))
    a, b = x.to(first), (x * 1.01).to(second)
    order = [torch.bfloat16, torch.float16, torch.float32]
    coarser = min(first, second, key=order.index)
    tensor = only(pair(tmp_path, {"x": a}, {"x": b}))
    assert tensor.distance.ulp_dtype == str(coarser).removeprefix("torch.")
    ulp = np.abs(ordinal(a.to(coarser)) - ordinal(b.to(coarser)))
    assert tensor.distance.max_ulp == ulp.max()
    assert tensor.status == ("differs" if first == second else "dtype")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_ulp_is_one_step_and_a_tolerance_of_one_forgives_it(dtype, tmp_path):
    a = torch.tensor([1.0, -1.0, 0.0, 5.0]).to(dtype)
    b = a.clone()
    b.view(BITS[dtype])[:3] += 1
    found = pair(tmp_path, {"x": a}, {"x": b})
    tensor = only(found)
    distance = tensor.distance
    assert (tensor.status, distance.max_ulp, distance.mean_ulp) == ("differs", 1, 0.75)
    assert len(found.differing) == 1
    assert not diff(tmp_path / "a", tmp_path / "b", tolerance_ulp=1).differing


def test_zero_and_minus_zero_are_one_value(tmp_path):
    assert not pair(
        tmp_path, {"x": torch.tensor([0.0, -0.0])}, {"x": torch.tensor([-0.0, 0.0])}
    ).differing


def test_nan_equals_nan_and_no_tolerance_forgives_another(tmp_path):
    nan, inf = float("nan"), float("inf")
    a = {"same": torch.tensor([nan, 1.0, inf]), "other": torch.tensor([nan, 1.0, inf])}
    b = {"same": torch.tensor([-nan, 1.0, inf]), "other": torch.tensor([0.0, 1.0, -inf])}
    found = pair(tmp_path, a, b, tolerance_ulp=2**40)
    (tensor,) = found.differing
    assert tensor.tensor == "other"
    assert (tensor.distance.unmatched, tensor.distance.nan_a, tensor.distance.nan_b) == (2, 1, 0)
    same = next(t for t in found.tensors if t.tensor == "same").distance
    assert (same.differing, same.nan_a, same.nan_b) == (0, 1, 1)


def test_a_rounding_to_another_dtype_is_equal_where_dtypes_are_ignored(tmp_path):
    x = torch.randn(1000)
    found = pair(tmp_path, {"x": x}, {"x": x.bfloat16()})
    assert only(found).status == "dtype"
    assert not diff(tmp_path / "a", tmp_path / "b", ignore_dtype=True).differing


def test_other_dtypes_are_compared_by_their_bytes(tmp_path):
    a = {"i": torch.arange(100_000), "d": torch.ones(3, dtype=torch.float64), "i8": torch.arange(4)}
    a["i8"] = a["i8"].to(torch.int8)
    b = {name: value.clone() for name, value in a.items()}
    b["i"][99_999] += 256
    b["d"][0] = np.nextafter(1.0, 2.0)
    found = {t.tensor: t for t in pair(tmp_path, a, b, tolerance_ulp=10).tensors}
    assert [found[name].status for name in ("i", "d", "i8")] == ["differs", "differs", "equal"]
    assert (found["i"].distance.differing, found["i"].distance.elements) == (1, 100_000)
    assert found["i"].distance.max_ulp is None


def test_what_cannot_be_compared_comes_first(tmp_path):
    a = {
        "missing": torch.ones(2),
        "shape": torch.ones(2, 3),
        "dtype": torch.ones(2),
        "near": torch.ones(2),
        "far": torch.ones(2),
        "same": torch.ones(2),
    }
    b = {
        "extra": torch.ones(2),
        "shape": torch.ones(3, 2),
        "dtype": torch.ones(2, dtype=torch.int32),
        "near": torch.ones(2) + 1e-6,
        "far": torch.ones(2) * 2,
        "same": torch.ones(2),
    }
    found = pair(tmp_path, a, b)
    assert [(t.tensor, t.status) for t in found.tensors] == [
        ("missing", "only in a"),
        ("extra", "only in b"),
        ("shape", "shape"),
        ("dtype", "dtype"),
        ("far", "differs"),
        ("near", "differs"),
        ("same", "equal"),
    ]


def numbers(found) -> list:
    names = ("differing", "max_difference", "mean_difference", "max_ulp", "mean_ulp")
    return [(t.tensor, *(getattr(t.distance, name) for name in names)) for t in found.tensors]


def test_shards_and_threads_change_nothing(tmp_path):
    generator = torch.Generator().manual_seed(0)
    a = {f"t{i}": torch.randn(3, 700_001, generator=generator) for i in range(3)}
    b = {name: value * 1.001 for name, value in a.items()}
    expected = numbers(pair(tmp_path, a, b, threads=1))
    save_checkpoint(tmp_path / "shards", b, shards=2)
    assert numbers(diff(tmp_path / "a", tmp_path / "shards", threads=3)) == expected
    file = tmp_path / "b" / "model.safetensors"
    assert numbers(diff(tmp_path / "a", file, threads=2)) == expected


@given(st.lists(st.tuples(st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1)), max_size=40))
def test_any_16_bit_patterns_can_be_compared(tmp_path_factory, pairs):
    for dtype in (torch.bfloat16, torch.float16):
        sides = [
            torch.from_numpy(np.array(side, dtype=np.uint16).view(np.int16)).view(dtype)
            for side in ([p[0] for p in pairs], [p[1] for p in pairs])
        ]
        a, b = (side.float().numpy() for side in sides)
        found = only(pair(tmp_path_factory.mktemp("d"), {"x": sides[0]}, {"x": sides[1]})).distance
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        finite = np.isfinite(a) & np.isfinite(b)
        assert found.differing == np.count_nonzero(~same)
        assert found.unmatched == np.count_nonzero(~same & ~finite)
        ulp = np.abs(ordinal(sides[0]) - ordinal(sides[1]))[finite]
        assert found.max_ulp == ulp.max(initial=0)
