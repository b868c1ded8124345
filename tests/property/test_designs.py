"""Designs: distinct, of the right size, balanced, growing, the same whatever the names' order."""

import itertools
import random
from collections import Counter
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergeplan.pool.designs import DESIGNS, NEARLY_ALL, choose_subsets, diverse_orders


@st.composite
def cases(draw):
    size = draw(st.integers(2, 12))
    k = draw(st.integers(1, size))
    count = draw(st.integers(1, min(40, comb(size, k))))
    return [f"e{i}" for i in range(size)], k, count, draw(st.integers(0, 2**32))


def experts(subsets, names):
    counts = Counter(name for subset in subsets for name in subset)
    return [counts[name] for name in names]


def pairs(subsets, names):
    counts = Counter(p for subset in subsets for p in itertools.combinations(subset, 2))
    return [counts[p] for p in itertools.combinations(sorted(names), 2)]


@given(cases(), st.sampled_from(["balanced", "uniform"]))
def test_subsets_are_distinct_and_as_many_as_asked_for(case, design):
    names, k, count, seed = case
    found = choose_subsets(design, names, k, count, seed=seed)
    assert len(set(found)) == len(found) == count
    assert found == sorted(found)
    assert all(len(set(subset)) == k and set(subset) <= set(names) for subset in found)


@given(cases(), st.sampled_from(DESIGNS), st.randoms(use_true_random=False))
def test_names_in_another_order_give_the_same(case, design, shuffler):
    names, k, count, seed = case
    found = choose_subsets(design, names, k, count, seed=seed)
    shuffler.shuffle(names)
    assert choose_subsets(design, names, k, count, seed=seed) == found


@given(cases(), st.sampled_from(DESIGNS), st.integers(1, 30))
def test_a_larger_design_holds_what_is_measured(case, design, more):
    names, k, count, seed = case
    small = choose_subsets(design, names, k, count, seed=seed)
    large = choose_subsets(design, names, k, count + more, seed=seed, have=small)
    assert set(small) <= set(large)
    if design in ("balanced", "uniform"):
        assert len(large) == min(count + more, comb(len(names), k))
    assert set(small) <= set(choose_subsets(design, names, k, 1, seed=seed, have=small))


@given(cases())
def test_experts_are_equally_often_in_a_balanced_design(case):
    names, k, count, seed = case
    counts = experts(choose_subsets("balanced", names, k, count, seed=seed), names)
    # Near all subsets, distinctness may leave no even choice; then the squares are least.
    if 2 * count <= comb(len(names), k):
        assert max(counts) - min(counts) <= 1
    assert sum(counts) == count * k


@pytest.mark.parametrize(
    ("size", "k", "count"), [(7, 3, 7), (9, 3, 12), (9, 4, 18), (9, 2, 36), (6, 3, 10)]
)
def test_block_designs_that_exist_are_found(size, k, count):
    """Where subsets can hold every pair equally often (the Fano plane is one), they do."""
    names = [f"e{i}" for i in range(size)]
    found = choose_subsets("balanced", names, k, count)
    assert len(set(experts(found, names))) == 1
    assert len(set(pairs(found, names))) == 1


def test_balanced_pairs_are_more_even_than_random_ones():
    names = [f"e{i}" for i in range(16)]
    for seed in range(5):
        even, uneven = (
            pairs(choose_subsets(design, names, 8, 30, seed=seed), names)
            for design in ("balanced", "uniform")
        )
        assert max(even) - min(even) < max(uneven) - min(uneven)


def test_what_is_measured_unevenly_is_evened_out():
    names = list("abcdefghi")
    have = [subset for subset in itertools.combinations(names, 3) if "a" in subset][:6]
    counts = experts(choose_subsets("balanced", names, 3, 18, have=have), names)
    assert max(counts) - min(counts) <= 1


def test_few_subsets_are_all_taken():
    names = list("abcdefghi")
    assert len(choose_subsets("auto", names, 2, 24)) == comb(9, 2) == NEARLY_ALL * 24
    assert len(choose_subsets("auto", names, 2, 23)) == 23
    assert len(choose_subsets("all", names, 4, 1)) == comb(9, 4)


def test_uniform_subsets_are_uniform():
    names = list("abcdef")
    counts = Counter(
        subset
        for seed in range(2000)
        for subset in choose_subsets("uniform", names, 2, 3, seed=seed)
    )
    # 6000 draws over 15 subsets; 5 standard deviations of a binomial count, about 18 each.
    assert len(counts) == 15
    assert all(abs(count - 400) < 90 for count in counts.values())


def test_orders_are_those_of_algorithm_1():
    names = list("ihgfedcba")
    orders = diverse_orders(names, 15, seed=3)
    assert orders[0] == tuple("abcdefghi")
    assert orders[1] == tuple("ihgfedcba")
    assert orders[:7] == diverse_orders(names, 7, seed=3)
    assert orders != diverse_orders(names, 15, seed=4)
    assert all(sorted(order) == sorted(names) for order in orders)

    def nearest(order, before):
        return min(sum(a != b for a, b in zip(order, other, strict=True)) for other in before)

    rng = random.Random(0)
    for i in (2, 7, 14):
        drawn = sum(nearest(rng.sample(names, 9), orders[:i]) for _ in range(200)) / 200
        assert nearest(orders[i], orders[:i]) > drawn


def test_permutations_measure_the_prefixes_of_the_orders():
    names = list("abcdefghi")
    orders = diverse_orders(names, 15)
    for k in range(1, 10):
        found = choose_subsets("permutations", names, k, 15)
        assert set(found) == {tuple(sorted(order[:k])) for order in orders}
