"""Factors of a matrix against numpy's full SVD, whose error is the least there is."""

import numpy as np
import pytest

from mergeplan.extraction.factors import Rule, factorise, squared_error, squared_norm
from mergeplan.extraction.file import rounded


def matrix(rows, columns, kind="flat"):
    random = np.random.default_rng(7)
    found = random.standard_normal((rows, columns))
    if kind == "steep":
        left, values, right = np.linalg.svd(found, full_matrices=False)
        found = left * (values / (1 + np.arange(len(values)))) @ right
    return (found * 1e-3).astype(np.float32)


def least(delta, rank):
    values = np.linalg.svd(delta.astype(np.float64), compute_uv=False)
    return float(np.sum(values[rank:] ** 2) / np.sum(values**2))


@pytest.mark.parametrize("kind", ["flat", "steep"])
@pytest.mark.parametrize(("shape", "rank"), [((300, 420), 8), ((420, 300), 60), ((300, 200), 150)])
def test_the_error_at_a_rank_is_the_least(shape, rank, kind):
    delta = matrix(*shape, kind)
    found = factorise(delta, Rule(rank), 1)
    assert (found.b.shape, found.a.shape) == ((shape[0], rank), (rank, shape[1]))
    share = squared_error(delta, found.a, found.b) / squared_norm(delta)
    assert 0.9999 < share / least(delta, rank) < 1.002


@pytest.mark.parametrize("left_out", [0.3, 0.05, 1e-3, 1e-6])
@pytest.mark.parametrize("shape", [(300, 420), (420, 300)])
def test_a_share_takes_the_least_rank(shape, left_out):
    delta = matrix(*shape, "steep")
    values = np.linalg.svd(delta.astype(np.float64), compute_uv=False) ** 2
    rank = int(np.argmax(np.cumsum(values) >= (1 - left_out) * values.sum())) + 1
    found = factorise(delta, Rule(left_out=left_out), 1)
    assert rank <= found.rank <= rank + 1 + rank // 100
    assert squared_error(delta, found.a, found.b) <= left_out * squared_norm(delta) * 1.001


def test_a_matrix_of_low_rank_gets_no_more_columns():
    delta = matrix(300, 5) @ matrix(5, 200)
    for rule in (Rule(20), Rule(190), Rule(left_out=0.0)):
        found = factorise(delta, rule, 1)
        share = squared_error(delta, found.a, found.b) / squared_norm(delta)
        assert 5 <= found.rank <= 20
        assert share < 1e-10


def test_the_seed_decides_and_nothing_else():
    delta = matrix(300, 420)
    one, same, other = (factorise(delta, Rule(8), seed).a.tobytes() for seed in (1, 1, 2))
    assert one == same != other


def test_bfloat16_is_rounded_as_torch_does():
    torch = pytest.importorskip("torch")
    values = np.concatenate([matrix(30, 30).ravel(), np.float32([0, -0.0, 1.00390625, 1.01171875])])
    raw, back = rounded(values, "bfloat16")
    expected = torch.from_numpy(values).bfloat16()
    assert raw.tobytes() == expected.view(torch.int16).numpy().tobytes()
    assert np.array_equal(back, expected.float().numpy())
