"""Distances against their definition in numpy, and which tensors count as equal."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mergeplan.inspection.diff import diff
from mergeplan.inspection.tensor_diff import diff_rows
from tests.support.checkpoints import load_tensors, save_checkpoint
from tests.support.settings import DEMO_POOL

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


def vectors(a: torch.Tensor, b: torch.Tensor) -> dict:
    """Relative L2, cosine and norms of what is finite on both sides, by numpy in float64."""
    x, y = a.double().numpy().ravel(), b.double().numpy().ravel()
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    norms = [float(np.linalg.norm(side)) for side in (x - y, x, y)]
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = 0.0 if norms[0] == norms[1] == 0 else float(np.divide(norms[0], norms[1]))
    cosine = float(x @ y) / (norms[1] * norms[2]) if norms[1] and norms[2] else None
    names = ("relative_l2", "cosine", "norm_difference", "norm_a", "norm_b")
    return dict(zip(names, (relative, cosine, *norms), strict=True))


def near(expected: dict) -> dict:
    return {
        key: None if value is None else pytest.approx(value, rel=1e-9, abs=0)
        for key, value in expected.items()
    }


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
    tensor = only(pair(tmp_path, {"x": a}, {"x": b}))
    found = tensor.distance
    distance = np.abs(a.double().numpy() - b.double().numpy())
    ulp = np.abs(ordinal(a) - ordinal(b))
    assert found.elements == found.finite == n
    assert tensor.vectors.data() == near(vectors(a, b))
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
    assert tensor.vectors.data() == near(vectors(a, b))
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
    found = diff(tmp_path / "a", tmp_path / "b", ignore_dtype=True)
    assert not found.differing
    said, whole = found.verdict().splitlines()
    assert said == "equal: 1 tensor, 1 of them once rounded to bfloat16"
    assert whole.startswith("in all: relative L2 0.001")
    exact = {"x": x.bfloat16().float()}
    found = pair(tmp_path / "exact", exact, {"x": x.bfloat16()}, ignore_dtype=True)
    assert found.verdict() == "equal: 1 tensor"


@pytest.mark.parametrize("other", [np.inf, -np.inf, np.nan])
def test_of_nothing_finite_no_distance_is_told(other, tmp_path):
    ones, others = torch.ones(4), torch.full((4,), other)
    found = pair(tmp_path, {"x": ones}, {"x": others})
    assert found.verdict().splitlines() == [
        "1 of 1 tensor differ, 0 equal",
        "in all: no relative L2 and no cosine, nothing being finite on both sides",
    ]
    numbers = only(found).numbers()
    names = ("relative_l2", "cosine", "norm_difference", "max_difference", "max_ulp", "share")
    assert [numbers[name] for name in names] == [None] * len(names)
    assert found.data()["whole"] is None


def test_an_infinity_on_one_side_leaves_no_ulps_and_no_relative_l2(tmp_path):
    a, b = torch.ones(4), torch.tensor([1.0, 1.0, 1.0, np.inf])
    found = pair(tmp_path, {"x": a}, {"x": b})
    assert found.verdict().splitlines() == [
        "1 of 1 tensor differ, 0 equal",
        "in all, over the 3 of 4 elements that are finite on both sides: relative L2 0,"
        " cosine 1.000000",
    ]
    assert found.data()["whole"]["relative_l2"] is None
    assert only(found).numbers()["max_ulp"] is None


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


def test_the_worst_has_the_largest_share_of_the_squared_difference(tmp_path):
    a = {"large": torch.full((100,), 10.0), "tiny": torch.full((4,), 1e-8), "ids": torch.arange(3)}
    a |= {"bad": torch.ones(5), "same": torch.ones(2)}
    b = {"large": torch.full((100,), 10.1), "tiny": torch.full((4,), -1e-8)}
    b |= {"ids": torch.arange(3) + 1, "bad": torch.tensor([1.0] * 4 + [np.nan])}
    b |= {"same": torch.ones(2)}
    found = pair(tmp_path, a, b)
    # Nothing is as bad as a NaN; what has no value in a vector comes before what has a share.
    assert [t.tensor for t in found.tensors] == ["bad", "ids", "large", "tiny", "same"]
    shares = {t.tensor: t.share for t in found.tensors}
    assert shares["ids"] is None
    assert shares["large"] == pytest.approx(1, abs=1e-9)
    assert 0 < shares["tiny"] < 1e-12
    assert (shares["bad"], shares["same"]) == (0, 0)
    names = ("large", "tiny", "bad", "same")
    whole = vectors(*(torch.cat([side[name] for name in names]) for side in (a, b)))
    assert found.whole.data() == near(whole)
    assert found.verdict().splitlines()[1] == (
        "in all, over the 110 of 111 elements that are finite on both sides: relative L2 0.01,"
        " cosine 1.000000; left out: 1 tensor not compared by value"
    )


def test_a_real_model_and_its_fine_tune_are_as_far_apart_as_numpy_says():
    found = diff(DEMO_POOL / "base", DEMO_POOL / "js")
    a, b = (load_tensors(DEMO_POOL / name) for name in ("base", "js"))
    squares = {name: float(((a[name] - b[name]).double() ** 2).sum()) for name in a}
    for tensor in found.tensors:
        assert tensor.vectors.data() == near(vectors(a[tensor.tensor], b[tensor.tensor]))
        share = squares[tensor.tensor] / sum(squares.values())
        assert tensor.share == pytest.approx(share, rel=1e-6)
    assert [t.tensor for t in found.tensors] == sorted(squares, key=squares.get, reverse=True)
    flat = (torch.cat([side[name].flatten() for name in sorted(a)]) for side in (a, b))
    assert found.whole.data() == near(vectors(*flat))


def test_a_model_of_zeros_and_an_empty_tensor_have_words(tmp_path):
    zeros, ones = torch.zeros(4), torch.ones(4)
    a = {"from": zeros, "to": ones, "both": zeros.clone(), "empty": torch.ones(0, 3)}
    b = {"from": ones, "to": zeros, "both": zeros.clone(), "empty": torch.ones(0, 3)}
    found = pair(tmp_path, a, b)
    of = {t.tensor: t for t in found.tensors}
    assert [of[name].vectors.relative_l2 for name in a] == [np.inf, 1, 0, 0]
    assert [of[name].vectors.cosine for name in a] == [None] * 4
    rows = {row.split()[0]: row for row in diff_rows(found.tensors)}
    assert rows["from"].split()[2:6] == ["50", "%", "A", "is"]
    assert "equal, empty" in rows["empty"]
    nothing = pair(tmp_path / "n", {"x": zeros}, {"x": ones})
    assert nothing.verdict().endswith("in all: no relative L2 and no cosine, A being all zeros")
    nothing = pair(tmp_path / "m", {"x": ones}, {"x": zeros})
    assert nothing.verdict().endswith("in all: relative L2 1, no cosine, B being all zeros")
    nan = torch.full((4,), float("nan"))
    (row,) = diff_rows(pair(tmp_path / "nan", {"x": nan}, {"x": ones}).differing)[1:]
    assert row.split() == [
        *("x", "differs,", "nothing", "finite,", "4", "not", "finite", "on", "one", "side"),
        *("-", "-", "-", "100", "%", "-", "-", "4", "/", "0"),
    ]
    integers = pair(tmp_path / "i", {"x": torch.ones(2).int()}, {"x": torch.zeros(2).int()})
    assert integers.whole is None
    assert integers.verdict() == "1 of 1 tensor differ, 0 equal"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ulps_are_told_of_rounding_only(dtype, tmp_path):
    a = torch.ones(3).to(dtype)
    for steps, told in ((128, 128), (129, None)):
        b = a.clone()
        b.view(BITS[dtype])[0] += steps
        tensor = only(pair(tmp_path / str(steps), {"x": a}, {"x": b}))
        assert (tensor.distance.max_ulp, tensor.max_ulp) == (steps, told)
        assert tensor.numbers()["max_ulp"] == told
        assert (tensor.numbers()["mean_ulp"] is None) == (told is None)
    # On either side of 0 two values are far apart by steps, and near by every other measure.
    a, b = torch.tensor([1e-4, 1.0]).to(dtype), torch.tensor([-1e-4, 1.0]).to(dtype)
    tensor = only(pair(tmp_path / "sign", {"x": a}, {"x": b}))
    assert tensor.max_ulp is None
    assert tensor.vectors.relative_l2 < 3e-4


@given(st.lists(st.tuples(*[st.floats(width=32, allow_subnormal=True)] * 2), max_size=70))
def test_any_values_have_the_sums_of_their_definition(tmp_path_factory, pairs):
    a, b = (torch.tensor([p[side] for p in pairs], dtype=torch.float32) for side in (0, 1))
    tensor = only(pair(tmp_path_factory.mktemp("d"), {"x": a}, {"x": b}))
    if pairs and not (a.isfinite() & b.isfinite()).any():
        assert tensor.vectors is None
        return
    found, expected = tensor.vectors.data(), vectors(a, b)
    cosine, wanted = found.pop("cosine"), expected.pop("cosine")
    assert found == near(expected)
    # Terms of either sign may cancel.
    assert cosine == (None if wanted is None else pytest.approx(wanted, abs=1e-9))
    assert tensor.distance.finite == int((a.isfinite() & b.isfinite()).sum())


def numbers(found) -> list:
    names = ("differing", "max_difference", "mean_difference", "max_ulp", "mean_ulp", "sums")
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
