"""Linear algebra on one thread: while fitting and choosing, and not after it."""

from functools import partial

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from mergeplan import fit, load_pool, select, verdict_of
from mergeplan.calibration.curve_rounds import CurvePlan, next_round
from mergeplan.calibration.limits import Budget
from mergeplan.calibration.subset_plan import SubsetPlan
from mergeplan.calibration.subset_rounds import next_subset_round
from mergeplan.law.recommend import recommend
from mergeplan.measurements.columns import COLUMNS
from mergeplan.measurements.file import load_measurements, read_rows, table_text
from mergeplan.selection.active import first_subsets
from mergeplan.system.blas import on_one_thread, one_thread
from mergeplan.verdict import from_selections
from tests.support.settings import DEMO_POOL

ALL = DEMO_POOL / "measurements.csv"


def threads():
    blas = ThreadpoolController().select(user_api="blas").info()
    assert blas, "numpy brings a BLAS whose threads can be counted"
    return {one["num_threads"] for one in blas}


def test_blas_has_one_thread_inside_and_as_many_as_before_after_it():
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        assert threads() == {2}
        assert on_one_thread(threads)() == {1}
        assert threads() == {2}


def test_of_bounds_that_overlap_the_last_to_end_lifts_it():
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        first, second = one_thread(), one_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert threads() == {1}
        second.__exit__(None, None, None)
        assert threads() == {2}


def test_an_error_leaves_no_bound_behind():
    @on_one_thread
    def failing():
        raise ValueError("wrong")

    before = threads()
    with pytest.raises(ValueError, match="wrong"):
        failing()
    assert threads() == before


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A table of 22 averages of nine experts and of the base: the law of single subsets fits."""
    rows, _ = read_rows(ALL)
    rows = [row for row in rows if row.method == "average"]
    names = sorted({name for row in rows for name in row.subset})
    wanted = {(), *first_subsets(names, 22)}
    path = tmp_path_factory.mktemp("few") / "measurements.csv"
    path.write_text(table_text([row for row in rows if row.subset in wanted], COLUMNS))
    return path


QUESTIONS = {
    "fit": fit,
    "recommend": lambda path: recommend(fit(path)),
    "select": select,
    "verdict_of": verdict_of,
    # Its first round is of other merges than those few: of all.
    "next_round": lambda _: next_round(load_measurements(ALL), CurvePlan(pool(), scan=False)),
    "next_subset_round": lambda path: next_subset_round(
        load_measurements(path), SubsetPlan(pool(), budget=Budget(merges=23))
    ),
}


def pool():
    return load_pool(DEMO_POOL / "pool.yml")


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_fits_and_chooses_is_bounded(question, few, monkeypatch):
    """Whatever factorises or solves has one thread, where two are allowed around it."""
    seen, blas = set(), ThreadpoolController().select(user_api="blas")
    linalg = {name: getattr(np.linalg, name) for name in ("cholesky", "eigh", "inv", "solve")}

    def spied(name, *args, **options):
        seen.update(one["num_threads"] for one in blas.info())
        return linalg[name](*args, **options)

    for name in linalg:
        monkeypatch.setattr(np.linalg, name, partial(spied, name))
    with blas.limit(limits=2):
        QUESTIONS[question](few)
    assert seen == {1}


def test_a_verdict_on_what_was_selected_is_bounded(few, monkeypatch):
    """What `select` factorised it takes as it is: only products are left to it."""
    selections = select(few)
    monkeypatch.setattr(from_selections, "decide", lambda *_, **__: threads())
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        assert from_selections.verdict_from_selections(few, selections) == {1}
