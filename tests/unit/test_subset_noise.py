"""The law of single subsets where rows have errors of their own."""

from itertools import combinations

import numpy as np
import pytest

from mergeplan.subset_law.fit import fit_subset_law

NAMES = tuple("abcdef")
SUBSETS = [s for k in range(1, 7) for s in combinations(range(6), k)]
WEIGHTS = np.array([[(i in s) / len(s) for i in range(6)] for s in SUBSETS])


def truth(seed=0, misfit=0.002):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(6, 6))
    values = 2 + WEIGHTS @ rng.normal(0, 0.05, 6)
    values += 0.02 * np.einsum("ni,ij,nj->n", WEIGHTS, root @ root.T, WEIGHTS)
    return values + rng.normal(0, misfit, len(values))


@pytest.fixture(scope="module")
def some():
    """Singles, all together, and twenty others."""
    others = np.random.default_rng(1).permutation(np.arange(6, len(SUBSETS) - 1))[:20]
    return np.array([*range(6), len(SUBSETS) - 1, *sorted(others.tolist())])


def noise_of(some, last):
    return np.diag([0.0] * (len(some) - 1) + [last])


def test_much_noise_is_as_good_as_no_row_and_little_as_an_exact_one(some):
    values, last = truth(), WEIGHTS[some[-1:]]
    without = fit_subset_law(WEIGHTS[some[:-1]], values[some[:-1]], NAMES)
    wrong = values[some] + noise_of(some, 5.0).sum(0)
    much = fit_subset_law(WEIGHTS[some], wrong, NAMES, noise=noise_of(some, 1e6))
    little = fit_subset_law(WEIGHTS[some], values[some], NAMES, noise=noise_of(some, 1e-14))
    assert np.isnan(much.measured(last)).all()
    rest = np.setdiff1d(np.arange(len(SUBSETS)), some)
    assert much.predict(last)[0] == pytest.approx(without.predict(last)[0], abs=2e-3)
    assert little.predict(last)[0] == pytest.approx(values[some[-1]], abs=1e-6)
    assert little.deviations(last)[0] < 1e-6 < without.deviations(last)[0]
    exact = fit_subset_law(WEIGHTS[some], values[some], NAMES)
    np.testing.assert_allclose(
        little.predict(WEIGHTS[rest]), exact.predict(WEIGHTS[rest]), atol=1e-6
    )
    assert exact.measured(last)[0] == values[some[-1]]


def test_the_intervals_of_rows_with_noise_hold(some):
    """Nine of ten true values lie within, and nearer than the rows themselves."""
    held, left, given = [], [], []
    for seed in range(20):
        values = truth(seed)
        rng = np.random.default_rng(seed)
        noise = np.where(np.arange(len(some)) < 7, 0.0, 0.004**2)
        noisy = values[some] + rng.normal(0, np.sqrt(noise))
        law = fit_subset_law(WEIGHTS[some], noisy, NAMES, noise=np.diag(noise))
        rows = WEIGHTS[some[7:]]
        around = law.deviations(rows)
        assert (around < 1.5 * 0.004).all()
        np.testing.assert_allclose(np.sqrt(np.diag(law.covariances(rows))), around, rtol=1e-6)
        held.append(np.abs(law.predict(rows) - values[some[7:]]) <= 1.645 * around)
        left.append((law.predict(rows) - values[some[7:]]) ** 2)
        given.append((noisy - values[some])[7:] ** 2)
    assert np.mean(left) < 0.9 * np.mean(given)
    assert 0.82 <= np.mean(held) <= 0.97


def test_noise_is_no_misfit(some):
    """Variances go by what is left of the values beside their known noise."""
    values = truth(misfit=1e-4)
    noise = 0.01**2 * np.eye(len(some))
    noisy = values[some] + np.random.default_rng(3).normal(0, 0.01, len(some))
    told = fit_subset_law(WEIGHTS[some], noisy, NAMES, noise=noise)
    untold = fit_subset_law(WEIGHTS[some], noisy, NAMES)
    assert told.variances[-1] < untold.variances[-1] / 4
