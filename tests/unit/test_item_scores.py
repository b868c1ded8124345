"""Scores of the same items pair merges: what they have in common cancels in their difference."""

import itertools
import math

import numpy as np
import pytest

from mergeplan.calibration.identity import RunIdentity
from mergeplan.calibration.store import RunStore
from mergeplan.evaluation.harness import _with_items
from mergeplan.evaluation.item_scores import with_item_scores
from mergeplan.evaluation.measured import MeasuredMerge, read_scores, scores_line
from mergeplan.evaluation.scores import DomainScores, Scores, TaskScore
from mergeplan.law.fit import fit
from mergeplan.law.trend import steps_of
from mergeplan.measurements.columns import COLUMNS
from mergeplan.measurements.file import read_rows, table_text
from mergeplan.measurements.rows import Measurement
from mergeplan.pool.subsets import SubsetMerge
from mergeplan.selection.select import select
from mergeplan.verdict.answer import verdict_of

N_ITEMS = 400
SUBSETS = [s for k in range(5) for s in itertools.combinations("abcd", k)]


def run_folder(folder, correlation, task="quiz", seed=0):
    """A run of all subsets of four experts, whose answers to the items are alike to some degree."""
    rng = np.random.default_rng(seed)
    hard = rng.standard_normal(N_ITEMS)
    rows, lines = [], []
    document = {"text": DomainScores(np.array([1]), np.array([10]), np.array([20.0]))}
    for subset in SUBSETS:
        own = rng.standard_normal(N_ITEMS)
        level = 0.25 * len(subset) ** 0.5
        right = np.sqrt(correlation) * hard + np.sqrt(1 - correlation) * own < level
        items = tuple(right.astype(float).tolist())
        value, se = float(np.mean(items)), float(np.std(items) / N_ITEMS**0.5)
        merge = SubsetMerge(0, 80592.0, "average" if subset else "base", subset=subset)
        score = TaskScore(task, "acc", value, se, "higher", N_ITEMS, items)
        lines.append(scores_line(MeasuredMerge(merge, Scores(document), (1.0, 1.0), (score,))))
        rows.append(
            Measurement(
                2, len(subset), value, "average" if subset else "", n_params=80592.0, domain=task,
                subset=subset, metric="acc", higher=True, value_se=se, n_items=N_ITEMS, pool_size=4,
                seed="0" if subset else "",
            )
        )  # fmt: skip
    folder.mkdir()
    (folder / "scores.jsonl").write_bytes(b"".join(lines))
    (folder / "measurements.csv").write_text(table_text(rows, COLUMNS))
    return folder / "measurements.csv"


def share_of(table):
    rows = with_item_scores(table, read_rows(table)[0])
    (share,) = {round((row.own_se / row.value_se) ** 2, 6) for row in rows}
    return share


def test_the_own_share_is_what_does_not_cancel_in_differences(tmp_path):
    assert share_of(run_folder(tmp_path / "apart", 0.0)) > 0.95
    table = run_folder(tmp_path / "alike", 0.9)
    share = share_of(table)
    rows = with_item_scores(table, read_rows(table)[0])
    assert 0.1 < share < 0.5
    # The difference of two merges by item, and by what is their own.
    from mergeplan.evaluation.measured import read_scores

    items = {one.merge.subset: np.array(one.tasks[0].items) for one in read_scores(table.parent)}
    by_item = np.mean(
        [(items[a] - items[b]).var() / N_ITEMS for a, b in itertools.combinations(SUBSETS, 2)]
    )
    own = {row.subset: row.own_se for row in rows}
    by_own = np.mean([own[a] ** 2 + own[b] ** 2 for a, b in itertools.combinations(SUBSETS, 2)])
    assert by_own == pytest.approx(by_item, rel=0.01)


def test_merges_that_answer_alike_are_told_apart_more_surely(tmp_path):
    table = run_folder(tmp_path / "run", 0.9)
    bare = tmp_path / "bare" / "measurements.csv"
    bare.parent.mkdir()
    bare.write_text(table.read_text())
    paired, apart = (verdict_of(path) for path in (table, bare))
    assert paired.gains[0].items
    assert (paired.gains[0].unpaired, apart.gains[0].unpaired) == (False, True)
    widths = [one.gains[0].high - one.gains[0].low for one in (paired, apart)]
    assert widths[0] < 0.8 * widths[1]
    # How far all values move together is no less for it.
    assert paired.chosen.high - paired.chosen.low == pytest.approx(
        apart.chosen.high - apart.chosen.low, rel=0.1
    )
    assert "had an item in common" not in paired.summary()
    assert "as if no two merges had an item in common" in apart.summary()
    sure, unsure = (select(path)[0].confidence for path in (table, bare))
    assert (sure.unpaired, unsure.unpaired) == (False, True)
    assert "as if no two" not in select(table).summary()


def test_steps_of_the_means_are_paired_by_items(tmp_path):
    table = run_folder(tmp_path / "run", 0.9)
    paired = fit(table).fits[0].series
    share = share_of(table)
    assert paired.own_se == pytest.approx(paired.loss_se * share**0.5, rel=1e-4)
    (step,) = (one for one in steps_of(paired) if (one.first, one.last) == (1, 4))
    assert step.error == pytest.approx(paired.own_se * (1 / 4 + 1) ** 0.5)


def test_tasks_of_one_metric_are_fitted_as_their_mean_and_told_by_name(tmp_path):
    one, other = (
        run_folder(tmp_path / name, 0.5, task=name, seed=i) for i, name in enumerate("xy")
    )
    both = tmp_path / "measurements.csv"
    both.write_text(one.read_text() + other.read_text().split("\n", 1)[1])
    mean = fit(both, metric="acc").fits[0].series
    alone = [fit(both, metric="acc", domain=name).fits[0].series for name in "xy"]
    assert mean.measured == "acc:macro"
    assert alone[0].measured == "acc:x"
    assert mean.points[1].loss == pytest.approx(np.mean([s.points[1].loss for s in alone]))
    assert mean.loss_se == pytest.approx(np.hypot(*(s.loss_se for s in alone)) / 2)
    verdict = verdict_of(both, metric="acc")
    assert verdict.aim == "acc:x,acc:y"
    assert verdict_of(both, metric="acc", domain="y").aim == "acc:y"


@pytest.mark.parametrize("fault", ["values", "none"])
def test_scores_of_other_values_pair_nothing(tmp_path, fault):
    table = run_folder(tmp_path / "run", 0.5)
    if fault == "none":
        (table.parent / "scores.jsonl").unlink()
    else:
        other = run_folder(tmp_path / "other", 0.5, seed=1)
        (table.parent / "scores.jsonl").write_bytes((other.parent / "scores.jsonl").read_bytes())
    assert {row.own_se for row in with_item_scores(table, read_rows(table)[0])} == {None}


@pytest.mark.parametrize("odd", [-math.inf, math.inf, math.nan, 1e300, -4e12])
def test_what_no_file_can_hold_leaves_a_run_that_can_be_read(tmp_path, odd):
    samples = [{"doc_id": number, "ll": value} for number, value in enumerate((odd, 1.0))]
    score = TaskScore("quiz", "ll", (odd + 1.0) / 2, math.nan, "higher", 2)
    score = _with_items(score, samples)
    # By which the item is named, where merges are compared item by item.
    assert [math.isnan(value) for value in score.items] == [True, False]
    merge = SubsetMerge(0, 1e6, "average", subset=("a", "b"))
    document = DomainScores(np.array([1, 2]), np.array([2, 2]), np.array([odd, 3.0]))
    tasks = (score, TaskScore("quiz", "acc", 1.0, odd, "higher", 2, (odd, 1.0)))
    measured = MeasuredMerge(merge, Scores({"x": document}), (0.0, 0.0), tasks)
    (tmp_path / "scores.jsonl").write_bytes(scores_line(measured))
    [kept] = read_scores(tmp_path)
    assert kept.merge == merge
    assert [math.isnan(value) for value in kept.scores.domains["x"].nll] == [True, False]
    assert (math.isnan(kept.tasks[0].value), kept.tasks[0].items) == (True, ())
    assert (kept.tasks[1].value, kept.tasks[1].items) == (1.0, ())


def test_a_table_has_no_value_that_no_table_may_have(tmp_path):
    store = RunStore(tmp_path, RunIdentity({}, {"the text of size 1": "0"}, {}), (2,))
    document = DomainScores(np.array([1, 2]), np.array([2, 2]), np.array([1.0, 3.0]))
    tasks = [
        TaskScore("quiz", f"m{se:g}", value, se, "higher", 2)
        for value, se in ((1e300, 1.0), (1.0, 1e7), (2.0, 0.5))
    ]
    merge = SubsetMerge(0, 1e6, "average", subset=("a", "b"))
    store.add(MeasuredMerge(merge, Scores({"x": document}), (0.0, 0.0), tuple(tasks)))
    rows = read_rows(store.write_table())[0]
    store.close()
    found = [(row.loss_nats, row.value_se, row.n_items) for row in rows if row.metric]
    assert found == [(1.0, None, None), (2.0, 0.5, 2)]
