"""Variable projection: linear coefficients exact and not negative, the others within their box."""

import numpy as np
import pytest

from mergeplan.law.least_squares import project

K = np.arange(1.0, 10.0)
ONES = np.ones(len(K))


def hyperbola(shape):
    return np.column_stack([ONES, 1 / (K + shape[0])])


@pytest.mark.parametrize("offset", [0.0, 0.5, 3.0, 10.0])
def test_a_curve_is_found_also_on_either_edge_of_the_box(offset):
    loss = 0.5 + 0.2 / (K + offset)
    found = project(hyperbola, loss, ONES, [(0.0, 10.0)])
    assert found.shape[0] == pytest.approx(offset, abs=1e-6)
    assert found.linear == pytest.approx([0.5, 0.2], rel=1e-6)
    assert found.cost == pytest.approx(0.0, abs=1e-18)


def test_a_curve_beyond_the_box_ends_on_its_edge_and_a_rising_one_has_no_tail():
    found = project(hyperbola, 0.5 + 0.2 / (K + 20), ONES, [(0.0, 10.0)])
    assert found.shape[0] == 10.0
    rising = project(hyperbola, 0.5 - 0.2 / K, ONES, [(0.0, 10.0)])
    assert rising.linear[1] == 0.0
    assert rising.linear[0] == pytest.approx((0.5 - 0.2 / K).mean())


def test_a_point_without_weight_counts_for_nothing():
    loss, weights = 0.5 + 0.2 / (K + 1), ONES.copy()
    loss[4], weights[4] = 9.0, 0.0
    found = project(hyperbola, loss, weights, [(0.0, 10.0)])
    assert found.linear == pytest.approx([0.5, 0.2], rel=1e-6)
