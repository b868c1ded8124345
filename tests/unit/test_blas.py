"""Linear algebra on one thread: while fitting and choosing, and not after it."""

import pytest
from threadpoolctl import ThreadpoolController

from mergeplan import fit, select, verdict_of
from mergeplan.calibration.curve_rounds import next_round
from mergeplan.calibration.subset_rounds import next_subset_round
from mergeplan.law.recommend import recommend
from mergeplan.system.blas import on_one_thread


def threads():
    blas = ThreadpoolController().select(user_api="blas").info()
    assert blas, "numpy brings a BLAS whose threads can be counted"
    return {one["num_threads"] for one in blas}


def test_blas_has_one_thread_inside_and_as_many_as_before_after_it():
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        assert threads() == {2}
        assert on_one_thread(threads)() == {1}
        assert threads() == {2}


def test_an_error_leaves_no_bound_behind():
    @on_one_thread
    def failing():
        raise ValueError("wrong")

    before = threads()
    with pytest.raises(ValueError, match="wrong"):
        failing()
    assert threads() == before


def test_what_fits_and_chooses_is_bounded():
    for function in (fit, recommend, select, verdict_of, next_round, next_subset_round):
        assert hasattr(function, "__wrapped__"), function
