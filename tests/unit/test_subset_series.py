"""Means over all subsets and single changes by the series, against plain lists of both."""

import itertools

import numpy as np
import pytest

from mergeplan.selection.choices import choice_of
from mergeplan.selection.insight import experts_of, sizes_of
from mergeplan.selection.problem import Problem, equal_weights
from mergeplan.subset_law.averages import mean_changes, mean_of_size
from mergeplan.subset_law.changes import Changes
from mergeplan.subset_law.fit import fit_subset_law
from mergeplan.subset_law.form import Coefficients

N = 6
SHRINKAGES = (1.0, 0.5)


@pytest.fixture
def series():
    rng = np.random.default_rng(0)
    quadratic, cubic = rng.normal(size=(N, N)), rng.normal(size=(N, N, N))
    return Coefficients(
        constant=0.3,
        linear=rng.normal(size=N),
        quadratic=quadratic + quadratic.T,
        cubic=sum(cubic.transpose(order) for order in itertools.permutations(range(3))),
    )


def value(series, subset, shrinkage):
    x = np.zeros(N)
    x[list(subset)] = len(subset) ** -shrinkage
    cubic = np.einsum("ijl,i,j,l", series.cubic, x, x, x)
    return series.constant + series.linear @ x + x @ series.quadratic @ x + cubic


@pytest.mark.parametrize("shrinkage", SHRINKAGES)
def test_means_are_those_of_all_subsets(series, shrinkage):
    for k in range(1, N + 1):
        every = [value(series, s, shrinkage) for s in itertools.combinations(range(N), k)]
        assert mean_of_size(series, k, shrinkage) == pytest.approx(np.mean(every), abs=1e-10)


@pytest.mark.parametrize("shrinkage", SHRINKAGES)
def test_mean_changes_are_those_of_all_subsets_without_the_expert(series, shrinkage):
    for k in range(1, N):
        found = mean_changes(series, k, shrinkage)
        for expert in range(N):
            others = [i for i in range(N) if i != expert]
            every = [
                value(series, (*s, expert), shrinkage) - value(series, s, shrinkage)
                for s in itertools.combinations(others, k)
            ]
            assert found[expert] == pytest.approx(np.mean(every), abs=1e-10)


@pytest.mark.parametrize("shrinkage", SHRINKAGES)
def test_single_changes_are_the_values_of_what_they_lead_to(series, shrinkage):
    changes = Changes(series, shrinkage)
    for k in range(1, N + 1):
        for subset in itertools.combinations(range(N), k):
            members = np.isin(np.arange(N), subset)
            added, removed = changes.added(members), changes.removed(members)
            swapped = changes.swapped(members)
            for i in subset:
                rest = [m for m in subset if m != i]
                if rest:
                    expected = value(series, rest, shrinkage)
                    assert removed[i] == pytest.approx(expected, abs=1e-10)
                for j in set(range(N)) - set(subset):
                    assert added[j] == pytest.approx(value(series, (*subset, j), shrinkage))
                    assert swapped[i, j] == pytest.approx(value(series, (*rest, j), shrinkage))


def test_a_measured_subset_counts_in_means_and_changes_by_its_surprise():
    """What every subset is worth, measured or else predicted, is averaged whole."""
    rng = np.random.default_rng(1)
    every = [s for k in range(1, 6) for s in itertools.combinations(range(5), k)]
    members = np.array([np.isin(np.arange(5), s) for s in every])
    weights = equal_weights(members)
    values = 2 + (weights**2) @ rng.random(5) + 0.05 * rng.standard_normal(len(every))
    some = rng.permutation(len(every))[:20]
    some = np.union1d(some, range(5))
    law = fit_subset_law(weights[some], values[some], tuple("abcde"))
    known = law.predict(weights)
    known[some] = values[some]
    k = members.sum(1)
    for size in sizes_of(law):
        assert size.mean == pytest.approx(known[k == size.k].mean(), abs=1e-9)
    at = dict(zip(every, known, strict=True))
    first = experts_of(law, choice_of(Problem(law), weights[-1]), {})[0]
    i = "abcde".index(first.name)
    changes = [
        np.mean([at[tuple(sorted((*s, i)))] - at[s] for s in every if len(s) == n and i not in s])
        for n in range(1, 5)
    ]
    assert first.average == pytest.approx(np.mean(changes), abs=1e-9)
