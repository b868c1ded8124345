"""Two questions: the best on this text, and on texts of this kind (issue 22, items 2 and 3)."""

from dataclasses import replace

import numpy as np
import pytest

from mergeplan.calibration.curve_rounds import Stop
from mergeplan.calibration.subset_plan import SubsetPlan
from mergeplan.calibration.subset_rounds import next_subset_round
from mergeplan.evaluation.measured import MeasuredMerge
from mergeplan.evaluation.resampling import Resampling
from mergeplan.evaluation.scores import DomainScores, Scores
from mergeplan.measurements.file import read_rows
from mergeplan.measurements.rows import MACRO, Measurement, Measurements
from mergeplan.pool.pool import load_pool
from mergeplan.pool.subsets import SubsetMerge
from mergeplan.selection.data import selection_data
from mergeplan.selection.select import select_from
from mergeplan.selection.selection import Wish
from mergeplan.selection.table import tables_of
from tests.support.settings import DATA

N = 80592.0


@pytest.fixture(scope="module")
def rows():
    """Losses of the average of three experts, all subsets and the base."""
    every = read_rows(DATA / "select_80k.csv")[0]
    names = {"js", "html", "mande"}
    return [
        replace(row, n_params=N, seed="0" if row.k else "")
        for row in every
        if row.domain == MACRO and row.method in ("base", "average") and set(row.subset) <= names
    ]


def scored(rows, n_groups, scatter, seed=0):
    """Each merge's loss on documents that scatter alike, and on their own by `scatter`."""
    rng = np.random.default_rng(seed)
    alike = rng.normal(0, 0.3, n_groups)
    found = []
    for row in rows:
        own = rng.normal(0, scatter, n_groups)
        nll = 100 * (row.loss_nats + alike - alike.mean() + own - own.mean())
        domain = DomainScores(np.arange(1, n_groups + 1), np.full(n_groups, 100), nll)
        merge = SubsetMerge(0, N, row.method, row.options, row.subset)
        found.append(MeasuredMerge(merge, Scores({"text": domain}), (1.0, 1.0)))
    return Resampling.of(found)


def test_the_merges_of_a_table_are_known(rows):
    (table,) = tables_of(rows)
    assert [len(keys) for keys in table.merges] == [1] * 8
    at = table.places(np.eye(3))
    assert [table.merges[place][0][3] for place in at] == [("html",), ("js",), ("mande",)]


def test_texts_of_this_kind_are_less_sure_than_this_text(rows):
    (table,) = tables_of(rows)
    sure = select_from(table, Wish(), scored(rows, 40, 0.2)).confidence
    assert sure.chance == 1
    assert 0.2 < sure.chance_on_texts < 0.8
    assert sure.rivals
    # What documents have in common is no reason to doubt.
    paired = select_from(table, Wish(), scored(rows, 40, 0.0)).confidence
    assert paired.chance_on_texts == 1
    assert paired.rivals == ()
    assert paired.groups_needed is None


def test_the_groups_that_part_two_do_part_them(rows):
    """As many as are said to be needed part the first from the chosen; twice as many, all."""
    (table,) = tables_of(rows)
    sure = select_from(table, Wish(), scored(rows, 30, 0.1)).confidence
    assert 0.4 < sure.chance_on_texts < 0.9
    assert sure.groups_needed > 30
    more = select_from(table, Wish(), scored(rows, 2 * sure.groups_needed, 0.1)).confidence
    assert more.chance_on_texts > 0.85


def test_from_two_documents_a_chance_is_told_on_this_text_alone(rows):
    """In a run's folder the chance on this text, which needs no documents, went as well."""
    (table,) = tables_of(rows)
    selection = select_from(table, Wish(), scored(rows, 2, 0.2))
    assert selection.confidence.chance_on_texts is None
    data = selection_data((selection,), [])["selections"][0]["confidence"]
    assert data["on_this_text"]["chance"] == selection.confidence.chance == 1
    said = selection.summary()
    assert "on this text the best of all that are allowed with a chance of" in said
    assert "on texts of this kind with a chance" not in said
    assert "`text` has 2 groups of documents, and 5 are the fewest" in said
    bare = select_from(table, Wish()).summary()
    assert "no chance on texts of this kind is told: no document's scores are known" in bare


def test_what_is_sure_asks_for_no_merge(rows):
    """Beside "no merge makes it surer" some were asked for to be surer."""
    (table,) = tables_of(rows)
    selection = select_from(table, Wish())
    some = replace(selection.confidence, next=(("a", "b"),), regret=1.0)
    sure, open_ = (replace(some, chance=chance) for chance in (0.95, 0.5))
    said = "to be surer of that subset, measure: a+b"
    assert said not in replace(selection, confidence=sure).summary()
    assert said in replace(selection, confidence=open_).summary()
    assert said not in replace(selection, confidence=replace(open_, regret=0.0)).summary()
    predicted = replace(selection.best, measured=False)
    assert said in replace(selection, confidence=sure, best=predicted).summary()


def test_every_chance_says_of_which_texts(rows):
    (table,) = tables_of(rows)
    selection = select_from(table, Wish(), scored(rows, 40, 0.2))
    said = selection.summary()
    assert "on this text the best of all that are allowed with a chance of" in said
    assert "on texts of this kind with a chance of" in said
    assert "measured on this text" in said
    data = selection_data((selection,), [])["selections"][0]["confidence"]
    assert data["on_this_text"]["chance"] == 1
    assert data["on_texts_of_this_kind"]["chance"] < 1


def accuracy(subset, value, **columns):
    return Measurement(
        2, len(subset), value, "average", subset=subset, metric="arc", higher=True, **columns
    )


@pytest.mark.parametrize("columns", [{"n_items": 500}, {"value_se": 0.0223}])
def test_a_benchmark_of_few_items_is_no_certain_choice(columns):
    """0.468 against 0.442 of 500 items was "chance 100 %" (issue 22, item 3)."""
    values = {"a": 0.468, "b": 0.442, "c": 0.41, "ab": 0.44, "ac": 0.43, "bc": 0.42, "abc": 0.43}
    (table,) = tables_of(accuracy(tuple(s), v, **columns) for s, v in values.items())
    selection = select_from(table, Wish())
    sure = selection.confidence
    assert (sure.chance, sure.unpaired, sure.next) == (None, True, ())
    assert 0.4 < sure.chance_on_texts < 0.9
    assert sure.rivals[0] in (("b",), ("a", "b"))
    assert selection.best.here == 0.468
    assert selection.best.low < selection.best.value < 0.468
    said = selection.summary()
    assert "0.4680 measured on this text; 0.4" in said
    assert "on items of this kind the best of all that are allowed with a chance of" in said
    data = selection_data((selection,), [])["selections"][0]["confidence"]
    assert data["on_this_text"] == {"chance": None, "regret": None}
    assert data["on_texts_of_this_kind"]["chance"] == sure.chance_on_texts
    # Without a word on the items nothing is told at all.
    (bare,) = tables_of(accuracy(tuple(s), v) for s, v in values.items())
    assert "chance of" not in select_from(bare, Wish()).summary()


@pytest.mark.parametrize("lacking", [0, 3])
def test_items_that_only_some_rows_speak_of_are_no_noise(lacking):
    values = {"a": 0.468, "b": 0.442, "c": 0.41, "ab": 0.44, "ac": 0.43, "bc": 0.42, "abc": 0.43}
    rows = [accuracy(tuple(s), v, n_items=500) for s, v in values.items()]
    rows[lacking] = replace(rows[lacking], n_items=None)
    (table,) = tables_of(rows)
    selection = select_from(table, Wish())
    assert selection.best.measured
    assert "chance of" not in selection.summary()


# --- rounds


def stopped(rows, demo_pool, resampling):
    pool = load_pool(demo_pool / "pool.yml")
    size = pool.sizes[0]
    names = {name for row in rows for name in row.subset}
    experts = {name: place for name, place in size.experts.items() if name in names}
    pool = replace(
        pool, sizes=(replace(size, experts=experts, n_params=N),), methods={"average": {}}
    )
    return next_subset_round(Measurements(tuple(rows), ""), SubsetPlan(pool), resampling=resampling)


def test_what_is_left_to_the_texts_stops_the_search_and_is_said(rows, demo_pool):
    step = stopped(rows, demo_pool, scored(rows, 40, 0.2))
    assert isinstance(step, Stop)
    assert step.open
    assert "what is left is the texts'" in step.reason
    assert "it may be " in step.reason
    assert "groups of documents a domain" in step.reason


def test_a_chance_on_texts_of_this_kind_that_holds_ends_the_search(rows, demo_pool):
    step = stopped(rows, demo_pool, scored(rows, 40, 0.0))
    assert not step.open
    assert "on texts of this kind the best with a chance of over 99 %" in step.reason
    assert "as sure as was asked for" in stopped(rows, demo_pool, None).reason
