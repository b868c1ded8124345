"""Rows that are far from all that the others say: named, kept as measured, and nothing else."""

import itertools

import numpy as np
import pytest

from mergeplan.measurements.columns import COLUMNS
from mergeplan.measurements.file import table_text
from mergeplan.measurements.rows import Measurement
from mergeplan.selection.fitting import fit_table
from mergeplan.selection.select import select
from mergeplan.selection.table import tables_of
from mergeplan.verdict.answer import verdict_of

NAMES = tuple("abcdef")


def rows(wrong):
    """Half of all merges of six experts, by a quadratic form, some of them wrong."""
    found = [Measurement(2, 0, wrong.get("", 1.6), pool_size=6)]
    draw = np.random.default_rng(1)
    pull = draw.normal(0, 0.1, 6)
    for k in range(1, 7):
        for names in itertools.combinations(NAMES, k):
            if k in (1, 6) or draw.random() < 0.5:
                x = np.isin(NAMES, names) / k
                loss = float(1.3 + pull @ x + 0.5 * x @ x)
                subset = "".join(names)
                found.append(
                    Measurement(
                        2, k, wrong.get(subset, loss), method="average", subset=names, pool_size=6
                    )
                )
    return found


def saved(tmp_path, wrong):
    path = tmp_path / "measurements.csv"
    path.write_text(table_text(rows(wrong), COLUMNS))
    return path


@pytest.mark.parametrize("wrong", [{"a": 900.0}, {"a": 900.0, "b": 30.0}, {"abcdef": 0.002}])
def test_a_row_far_from_all_others_is_named_and_the_others_are_predicted(wrong, tmp_path):
    """One single expert of 900 made a merge of -4.3 of the best one."""
    path = saved(tmp_path, wrong)
    verdict, (chosen,) = verdict_of(path), select(path)
    for name, value in wrong.items():
        said = f"of {'+'.join(name)} is {value:.4f}, where all the others say about 1."
        assert said in str(verdict)
        assert any(said in warning for warning in chosen.warnings)
    assert chosen.law.r2 > 0.95
    spoilt = np.array([np.isin(NAMES, list(name)) / len(name) for name in wrong])
    assert chosen.law.measured(spoilt) == pytest.approx(list(wrong.values()))
    assert all(one.value > 1 or one.measured for one in chosen.by_size.values())


def test_rows_that_are_no_worse_than_others_are_all_fitted():
    (table,) = tables_of(rows({}))
    assert fit_table(table, "loss").aside == ()
    # An expert that harms every merge it is in is no wrong row.
    harmed = [
        Measurement(2, one.k, one.loss_nats + 3 * ("a" in one.subset) / max(one.k, 1) ** 2,
                    method=one.method, subset=one.subset, pool_size=6)
        for one in rows({})
    ]  # fmt: skip
    (table,) = tables_of(harmed)
    assert fit_table(table, "loss").aside == ()


def test_no_loss_below_zero_is_chosen(tmp_path):
    """Of four wrong rows nothing can be told, and the form goes below 0."""
    path = saved(tmp_path, {"a": 900.0, "b": 700.0, "c": 400.0, "d": 90.0})
    (chosen,) = select(path)
    assert chosen.law.aside == ()
    every = np.array([row for row in itertools.product((0, 1), repeat=6) if any(row)], float)
    assert chosen.law.predict(every / every.sum(1, keepdims=True)).min() < 0
    assert min(one.low for one in chosen.by_size.values()) >= 0
    assert chosen.weighted is None or chosen.weighted.value > 0
    verdict = verdict_of(path)
    assert verdict.chosen.value > 0
    if verdict.to_measure is not None:
        assert all(one.value > 0 for one in verdict.to_measure.merges)
