"""DARE's masks: the same keep rate and the same mean as mergekit's, over many seeds.

`MERGEPLAN_FULL=1` takes 10,000 seeds instead of 1,500. Rescaling by the L1 norm is a ratio
estimator, so that small tensors are biased, in mergekit and here alike: the means are compared with
mergekit's, not with the merge of whole deltas.
"""

import numpy as np
import pytest
import torch

from backends import values
from cases import TORCH_DTYPES
from conftest import FULL
from mergeplan import reference

SEEDS = 10_000 if FULL else 1_500
STANDARD_ERRORS = 4.0


def deltas(n: int, dtype: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    return (torch.randn(n, generator=generator) * 0.01).to(TORCH_DTYPES[dtype])


@pytest.mark.parametrize("density", [0.2, 0.53, 0.9])
@pytest.mark.parametrize("rescale", [False, True], ids=["plain", "rescaled"])
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("n", [1, 8, 48, 1000])
def test_mean_and_keep_rate_equal_mergekits(n, dtype, rescale, density):
    from mergekit.sparsify import RescaleNorm, bernoulli

    delta = deltas(n, dtype)
    exact = values(delta)
    norm = RescaleNorm.l1 if rescale else None
    options = reference.DeltaOptions(
        sparsify="random", rescale=rescale, stream_ids=[0xFEDC_BA98_7654_3210]
    )
    torch.manual_seed(n)
    ours, theirs = np.empty((SEEDS, n)), np.empty((SEEDS, n))
    zero = np.zeros(n)
    for seed in range(SEEDS):
        theirs[seed] = values(bernoulli(delta, density, norm))
        seeded = reference.DeltaOptions(**{**vars(options), "seed": seed})
        ours[seed] = reference.merge_deltas(zero, [exact], [1.0], [density], seeded, dtype)

    error = np.sqrt((ours.var(0) + theirs.var(0)) / SEEDS)
    beyond = np.abs(ours.mean(0) - theirs.mean(0)) / np.maximum(error, 1e-12)
    # Of 1,000 fair elements one lies beyond four standard errors with a chance of 6 %, and four
    # with one of 5e-7: that many would be a fault.
    assert (beyond > STANDARD_ERRORS).sum() <= 3 * n // 1000
    assert (beyond <= STANDARD_ERRORS + 1).all()

    kept, kept_theirs = np.count_nonzero(ours), np.count_nonzero(theirs)
    trials = SEEDS * n
    rate_error = np.sqrt(2 * density * (1 - density) * trials)
    assert abs(kept - kept_theirs) <= STANDARD_ERRORS * rate_error


def test_bfloat16_rounds_the_density_as_mergekit_does():
    n = 1 << 20
    delta = np.ones(n)
    kept = np.count_nonzero(reference.drop(delta, 0.53, 0, 0, "bfloat16")) / n
    expected = float(torch.tensor(0.53, dtype=torch.bfloat16))
    assert expected == 0.53125
    assert abs(kept - expected) < 4 * np.sqrt(0.25 / n)
