"""Masks of DARE and DELLA: the same keep rate and mean as mergekit's, over many seeds.

`MERGEPLAN_FULL=1` takes 10,000 seeds instead of 500. Rescaling by the L1 norm is a ratio
estimator, so that small tensors are biased, in mergekit and here alike: the means are compared with
mergekit's, not with the merge of whole deltas.
"""

import dataclasses
from itertools import product

import numpy as np
import pytest
import torch

from mergeplan import reference
from mergeplan.reference.sparsify import rank_limits
from tests.support.backends import Array, values
from tests.support.cases import TORCH_DTYPES
from tests.support.settings import FULL
from tests.support.shares import paired

SEEDS = 10_000 if FULL else 500
STANDARD_ERRORS = 4.0
# Elements, and whether the norm is restored.
SIZED = list(product([1, 8, 48, 1000], [False, True]))
STREAM = 0xFEDC_BA98_7654_3210


def deltas(shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(shape[0])
    return (torch.randn(shape, generator=generator) * 0.01).to(TORCH_DTYPES[dtype])


def by_seed(
    delta: torch.Tensor, density: float, options: reference.DeltaOptions, dtype: str
) -> Array:
    """One expert's delta, thinned with each seed. Shape (seeds, numel)."""
    exact = values(delta)
    zero = np.zeros(exact.shape)
    merged = np.empty((SEEDS, exact.size))
    for seed in range(SEEDS):
        seeded = dataclasses.replace(options, seed=seed)
        result = reference.merge_deltas(zero, [exact], [1.0], [density], seeded, dtype)
        merged[seed] = result.reshape(-1)
    return merged


def assert_same_distribution(ours: Array, theirs: Array, density: float) -> None:
    """Means of each element, and the share of elements kept. Shapes (seeds, numel)."""
    trials, n = ours.size, ours.shape[1]
    error = np.sqrt((ours.var(0) + theirs.var(0)) / len(ours))
    beyond = np.abs(ours.mean(0) - theirs.mean(0)) / np.maximum(error, 1e-12)
    # Of 1,000 fair elements one lies beyond four standard errors with a chance of 6 %, and four
    # with one of 5e-7: that many would be a fault.
    assert (beyond > STANDARD_ERRORS).sum() <= 3 * n // 1000
    assert (beyond <= STANDARD_ERRORS + 1).all()
    kept, kept_theirs = np.count_nonzero(ours), np.count_nonzero(theirs)
    assert abs(kept - kept_theirs) <= STANDARD_ERRORS * np.sqrt(
        2 * density * (1 - density) * trials
    )


@pytest.mark.parametrize(
    ("sized", "density", "dtype"),
    paired(SIZED, [0.2, 0.53, 0.9], list(TORCH_DTYPES)),
)
def test_dares_mean_and_keep_rate_equal_mergekits(sized, density, dtype):
    from mergekit.sparsify import RescaleNorm, bernoulli

    n, rescale = sized
    delta = deltas((n,), dtype)
    norm = RescaleNorm.l1 if rescale else None
    torch.manual_seed(n)
    theirs = np.stack([values(bernoulli(delta, density, norm)) for _ in range(SEEDS)])
    options = reference.DeltaOptions(sparsify="random", rescale=rescale, stream_ids=[STREAM])
    assert_same_distribution(by_seed(delta, density, options, dtype), theirs, density)


# Columns of two dimensions rank along the second, so a row has eight.
DELLA_SHAPES = [(8,), (6, 8), (48,), (1000,)] if FULL else [(8,), (6, 8), (48,)]


@pytest.mark.parametrize(
    ("shaped", "kept", "dtype"),
    paired(
        list(product(DELLA_SHAPES, [False, True])),
        [(0.2, 0.15), (0.53, 0.0), (0.9, 0.05)],
        list(TORCH_DTYPES),
    ),
    ids=str,
)
def test_dellas_mean_and_keep_rate_equal_mergekits(shaped, kept, dtype):
    from mergekit.sparsify import RescaleNorm, della_magprune

    (shape, rescale), (density, epsilon) = shaped, kept
    delta = deltas(shape, dtype)
    norm = RescaleNorm.l1 if rescale else None
    torch.manual_seed(len(shape))
    theirs = np.stack(
        [values(della_magprune(delta, density, epsilon, norm)).reshape(-1) for _ in range(SEEDS)]
    )
    options = reference.DeltaOptions(
        sparsify="ranks", rescale=rescale, epsilons=[epsilon], stream_ids=[STREAM]
    )
    assert_same_distribution(by_seed(delta, density, options, dtype), theirs, density)


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_della_keeps_each_rank_as_often_as_it_should(dtype):
    n, density, epsilon = 48, 0.5, 0.3
    delta = np.linspace(0.5, 1.5, n)  # by rank
    delta = reference.round_to(delta, dtype)
    kept = np.zeros(n)
    for seed in range(SEEDS):
        kept += reference.drop_by_rank(delta, density, epsilon, seed, STREAM, dtype) != 0
    expected = density - epsilon + 2 * epsilon * np.arange(n) / (n - 1)
    error = np.sqrt(expected * (1 - expected) / SEEDS) + 2.0**-8 * (dtype == "bfloat16")
    assert (np.abs(kept / SEEDS - expected) <= STANDARD_ERRORS * error).all()


def test_della_ties_share_one_probability():
    delta = np.asarray([[1.0, -1.0, 1.0, 2.0], [3.0, 3.0, 3.0, 3.0]])
    limits = rank_limits(4, 0.5, 0.2, "float32")
    kept = np.zeros(delta.shape)
    for seed in range(SEEDS):
        kept += reference.drop_by_rank(delta, 0.5, 0.2, seed, STREAM, "float32") != 0
    shares = limits / 2.0**32
    expected = np.asarray([[shares[:3].mean()] * 3 + [shares[3]], [shares.mean()] * 4])
    assert (np.abs(kept / SEEDS - expected) <= STANDARD_ERRORS * np.sqrt(0.25 / SEEDS)).all()


def test_bfloat16_rounds_the_density_as_mergekit_does():
    n = 1 << 20
    delta = np.ones(n)
    kept = np.count_nonzero(reference.drop(delta, 0.53, 0, 0, "bfloat16")) / n
    expected = float(torch.tensor(0.53, dtype=torch.bfloat16))
    assert expected == 0.53125
    assert abs(kept - expected) < 4 * np.sqrt(0.25 / n)
