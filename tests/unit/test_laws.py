"""The formulas against the paper's worked examples and printed figures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergeplan.law.formulas import HyperbolicLaw, InterferenceLaw, through_three_points
from tests.support.published_laws import published

LLAMA_3B = HyperbolicLaw(floor=0.7137, tail=0.0783, offset=0.6875)
LLAMA_8B = HyperbolicLaw(floor=0.7252, tail=0.0573, offset=0.0)


@pytest.mark.parametrize(
    ("n_billion", "k", "printed"),
    [(0.5, 1, 0.816), (0.5, 9, 0.739), (32, 1, 0.493), (32, 9, 0.430)],
)
def test_the_printed_macro_losses_of_average(n_billion, k, printed):
    laws = published("average").values()
    macro = sum(law.predict(k, n_billion) for law in laws) / len(laws)
    assert macro == pytest.approx(printed, rel=0.011)


@pytest.mark.parametrize(
    ("tail", "offset", "k"),
    [(0.074, 0.25, 8), (0.046, 0.0, 5), (0.173, 0.125, 18), (0.177, 0.125, 18)],
)
def test_the_worked_examples_of_distance_to_the_floor(tail, offset, k):
    # App. J.1 with eps 0.01: code at 0.5B and 32B, biology at both ("about 18").
    assert HyperbolicLaw(0.3, tail, offset).near_floor(0.01) == k


@pytest.mark.parametrize(("law", "k80", "k90"), [(LLAMA_3B, 5, 6), (LLAMA_8B, 4, 5)])
def test_shares_of_the_improvement(law, k80, k90):
    assert (law.reaching(0.8, 9), law.reaching(0.9, 9)) == (k80, k90)
    assert law.fraction(1, 9) == 0
    assert law.fraction(9, 9) == 1


@pytest.mark.parametrize("law", [LLAMA_3B, LLAMA_8B])
@pytest.mark.parametrize("ks", [(1, 2, 4), (2, 5, 9), (1, 8, 16)])
def test_three_points_give_the_curve_in_closed_form(law, ks):
    found = through_three_points(ks, tuple(law.predict(k) for k in ks))
    assert found.offset == pytest.approx(law.offset, abs=1e-11)
    assert found.floor == pytest.approx(law.floor, abs=1e-12)
    assert found.tail == pytest.approx(law.tail, abs=1e-11)
    for k in range(1, 17):
        assert found.predict(k) == pytest.approx(law.predict(k), abs=1e-12)


@pytest.mark.parametrize(
    "loss", [(1.0, 1.0, 1.0), (1.0, 0.9, 0.9), (1.0, 0.9, 0.95), (1.0, 0.99, 0.9), (0.9, 1.0, 1.1)]
)
def test_three_points_that_no_curve_meets_are_said(loss):
    assert through_three_points((1, 2, 4), loss) is None


@given(floor=st.floats(0, 3), tail=st.floats(1e-3, 3), offset=st.floats(0, 20), k=st.floats(1, 30))
def test_solving_inverts_predicting(floor, tail, offset, k):
    law = HyperbolicLaw(floor, tail, offset)
    assert law.solve(law.predict(k)) == pytest.approx(k, rel=1e-6)
    assert law.solve(floor) is None
    assert law.gain(k) == pytest.approx(tail / ((k + offset) * (k + 1 + offset)), rel=1e-6)


def test_with_interference_the_floor_is_higher():
    law = InterferenceLaw(0.5, 0.3, 0.0, interference=0.1, saturation=4.0)
    assert law.predict(1e9) == pytest.approx(0.6)
    assert law.solve(0.7) is None
