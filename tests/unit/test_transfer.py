"""A larger size that leans on a smaller one: what is gained, what never is, and what is refused."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from mergeplan.calibration.options import ChoiceGoal
from mergeplan.calibration.subset_report import summarize_choice
from mergeplan.errors import InputError
from mergeplan.law.series import series_of
from mergeplan.measurements.columns import COLUMNS
from mergeplan.measurements.file import read_rows, table_text
from mergeplan.measurements.rows import MACRO, Measurement, Measurements
from mergeplan.pool.designs import choose_subsets
from mergeplan.pool.geometry.file import Gram
from mergeplan.selection import fitting
from mergeplan.selection.active import first_subsets
from mergeplan.selection.data import selection_data
from mergeplan.selection.fitting import fit_each, fit_table
from mergeplan.selection.select import select, select_from
from mergeplan.selection.selection import Selections, Wish
from mergeplan.selection.sizes import link_sizes, refuse_one_size
from mergeplan.selection.table import tables_of
from mergeplan.subset_law.fit import fit_few, fit_subset_law
from mergeplan.subset_law.transfer import fit_with_smaller
from mergeplan.subset_law.weightings import seen
from mergeplan.verdict.answer import predictions, verdict_of
from mergeplan.verdict.from_selections import verdict_from_selections
from tests.support.settings import DATA

SMALL, LARGE = 80592.0, 269120.0
WRITTEN = ("method", "n_params", "k", "subset", "pool_size", "domain", "loss_nats")


def averages(path):
    return [
        row
        for row in read_rows(path)[0]
        if row.domain == MACRO and row.method in ("average", "base")
    ]


@pytest.fixture(scope="module")
def small():
    """The base and 45 of the smallest pool's averages."""
    rows = averages(DATA / "select_80k.csv")
    names = max((row.subset for row in rows), key=len)
    wanted = set(first_subsets(names, 45, seed=1))
    return [row for row in rows if row.k == 0 or row.subset in wanted]


@pytest.fixture(scope="module")
def large():
    """The base and all averages of the next larger pool."""
    return averages(DATA / "select_270k.csv")


def some(rows, count, *, lacking="", seed=0):
    """The base and so many random merges."""
    allowed = [row for row in rows if row.k and lacking not in row.subset]
    chosen = np.random.default_rng(seed).choice(len(allowed), count, replace=False)
    return [row for row in rows if row.k == 0] + [allowed[i] for i in chosen]


def renamed(rows, names):
    """The same losses under other names: the experts of the next one."""
    other = dict(zip(names, [*names[4:], *names[:4]], strict=True))
    return [
        replace(row, subset=tuple(sorted(other[name] for name in row.subset))) if row.k else row
        for row in rows
    ]


def tables(*rows):
    return link_sizes(tables_of([row for part in rows for row in part]))


def r2(law, rows):
    losses = {row.subset: row.loss_nats for row in rows if row.k}
    weights = np.array([[(n in s) / len(s) for n in law.experts] for s in losses])
    truth, left = np.array(list(losses.values())), np.isnan(law.measured(weights))
    errors = (law.predict(weights) - truth)[left]
    return 1 - np.sum(errors**2) / np.sum((truth[left] - truth[left].mean()) ** 2)


def test_ten_merges_tell_more_beside_a_smaller_size(small, large):
    few = some(large, 10)
    _, linked = tables(small, few)
    (own,) = tables(few)
    law = fit_table(linked, MACRO)
    assert r2(law, large) > 0.93
    assert r2(law, large) > r2(fit_table(own, MACRO), large) + 0.1
    assert law.transfer.used
    assert law.transfer.n_params == SMALL
    assert law.transfer.share > 0.6
    # Losses at both sizes are in nats, and a merge gains a little less at the larger one.
    assert 0.5 < law.transfer.factor < 1.2


def test_other_experts_behind_the_names_tell_nothing(small, large):
    names = max((row.subset for row in large), key=len)
    few = some(renamed(large, names), 20)
    _, linked = tables(small, few)
    (own,) = tables(few)
    law, alone = fit_table(linked, MACRO), fit_table(own, MACRO)
    assert law.transfer.share < 0.2
    assert not law.transfer.used
    np.testing.assert_array_equal(law.predict(law.weights), alone.predict(law.weights))


@pytest.mark.parametrize("shrinkage", [1.0, 0.75])
def test_the_series_is_the_prediction_also_over_three_sizes(small, large, shrinkage):
    (table,) = tables(small)
    law = fit_subset_law(
        table.weights, table.target(MACRO).values, table.experts, shrinkages=(shrinkage,)
    )
    (table,) = tables(some(large, 15))
    for _ in range(2):
        law = fit_few(
            table.weights, table.target(MACRO).values, table.experts,
            name=MACRO, higher=False, gram=None, shrinkages=(shrinkage,), smaller=law,
        )  # fmt: skip
    weights = np.random.default_rng(0).dirichlet(np.ones(9), 20)
    x, series = seen(weights, shrinkage), law.series
    value = series.constant + x @ series.linear
    value += np.einsum("ni,nj,ij->n", x, x, series.quadratic)
    value += np.einsum("ni,nj,nl,ijl->n", x, x, x, series.cubic)
    np.testing.assert_allclose(value, law.predict(weights), atol=1e-8)
    covariances = law.covariances(weights)
    np.testing.assert_allclose(np.sqrt(np.diag(covariances)), law.deviations(weights), rtol=1e-4)
    assert np.linalg.eigvalsh(covariances).min() > 0


def test_the_next_smaller_size_may_lean_on_a_third(small, large):
    """Of two smaller sizes the one that predicts left-out merges better."""
    middle = some(large, 30)
    largest = [replace(row, n_params=8e5) for row in some(large, 10, seed=1)]
    *_, linked = tables(small, middle, largest)
    assert [one.n_params for one in linked.smaller] == [SMALL, LARGE]
    law = fit_table(linked, MACRO)
    assert law.transfer.n_params == LARGE
    assert law.smaller.transfer.n_params == SMALL


def test_an_expert_that_no_large_merge_holds_is_predicted(small, large):
    few = [replace(row, pool_size=9) for row in some(large, 12, lacking="perl")]
    _, linked = tables(small, few)
    selection = select_from(linked, Wish())
    assert len(selection.law.experts) == 9
    assert r2(selection.law, [row for row in large if "perl" in row.subset]) > 0.8
    # Without a word on how many experts there are, those that were measured are all.
    _, unlike = tables(small, [replace(row, pool_size=None) for row in few])
    assert not unlike.smaller
    assert "`perl` at 80.6k and not at 269k" in select_from(unlike, Wish()).warnings[0]


def written(folder, *parts):
    columns = [column for column in COLUMNS if column.name in WRITTEN]
    path = folder / "two.csv"
    path.write_text(table_text([row for part in parts for row in part], columns))
    return path


def run_at(path):
    """The folder of a run that measured losses."""
    return SimpleNamespace(
        at=lambda _: path, withdraw=lambda _: None, identity=SimpleNamespace(metric=None)
    )


def chosen_by_select(path, _):
    return {one.table.n_params: one for one in select(path)}


def chosen_by_suggest(path, _):
    return {one.table.n_params: one for one in predictions(read_rows(path)[0], MACRO).found}


def chosen_by_calibrate(path, pool_file):
    run = run_at(path)
    found = summarize_choice(run, pool_file, None, None)
    assert found.text.count(found.next_command) == 1
    return {one.table.n_params: one for one in found.selections}


@pytest.mark.parametrize("choose", [chosen_by_select, chosen_by_suggest, chosen_by_calibrate])
def test_without_an_expert_the_others_are_chosen_from_where_nothing_carries_over(
    small, large, tmp_path, demo_pool, choose
):
    names = max((row.subset for row in large), key=len)
    few = [
        replace(row, pool_size=9) for row in some(renamed(large, names), 20, lacking="perl", seed=1)
    ]
    found = choose(written(tmp_path, small, few), demo_pool / "pool.yml")
    assert len(found[SMALL].table.experts) == 9
    assert set(found[LARGE].table.experts) == set(names) - {"perl"}
    assert not found[LARGE].table.smaller


def test_what_is_chosen_without_an_expert_says_so(small, large, tmp_path):
    names = max((row.subset for row in large), key=len)
    few = [replace(row, pool_size=9) for row in some(renamed(large, names), 20, lacking="perl")]
    path = written(tmp_path, small, few)
    found = chosen_by_select(path, None)[LARGE]
    assert found.law.transfer is None
    assert (
        "no smaller size helps to predict this one: average has merges of `perl` at 80.6k"
        in (found.warnings[0])
    )


@pytest.mark.filterwarnings("error")
def test_single_experts_alone_are_too_few_also_beside_a_smaller_size(small, large):
    alone = [row for row in large if row.k < 2]
    _, linked = tables(small, alone)
    with pytest.raises(InputError, match="9 merges of k = 1 are too few") as caught:
        select_from(linked, Wish())
    assert caught.value.hint.endswith("some pairs, and all of them merged")
    # With all of them merged it is fitted, and every number is one.
    _, linked = tables(small, [*alone, *(row for row in large if row.k == 9)])
    found = select_from(linked, Wish())
    assert found.law.transfer.used
    assert np.isfinite([found.law.error, found.law.transfer.error, found.best.low]).all()


def test_the_share_and_the_error_are_said_and_given_as_data(small, large):
    _, linked = tables(small, some(large, 15))
    found = select_from(linked, Wish())
    assert "leans on the 80.6k base: " in found.summary()
    (data,) = selection_data(Selections([found]), [])["selections"]
    said = data["transfer"]
    assert said["used"]
    assert said["error"] < said["error_alone"]
    _, linked = tables(small, some(renamed(large, max((row.subset for row in large), key=len)), 20))
    said = select_from(linked, Wish()).summary()
    assert "from the 80.6k base nothing is taken" in said
    assert "30% is the least by which it would lean" in said


def test_one_size_only_is_refused_where_transfer_is_asked_for(tmp_path):
    with pytest.raises(InputError, match=r"one size only: found 269k parameters") as caught:
        select(DATA / "select_270k.csv", transfer="required")
    assert "n_params" in caught.value.hint
    with pytest.raises(InputError, match="expected auto, off, required, found `on`"):
        select(DATA / "select_270k.csv", transfer="on")
    with pytest.raises(InputError, match="expected auto, off, required, found `on`"):
        ChoiceGoal(transfer="on")


EXPECTED = "expected 4 or more, of two different k"


@pytest.mark.parametrize(
    ("kept", "why", "hint"),
    [
        (lambda row: row.k in (0, 9), "1 merge of k = 9 is too few", "measure every single exp"),
        (lambda row: row.k < 2, "9 merges of k = 1 are too few", "measure every single expert"),
    ],
)
def test_a_larger_size_that_cannot_be_fitted_is_told_and_refused_where_transfer_is_asked_for(
    small, large, tmp_path, demo_pool, kept, why, hint
):
    path = written(tmp_path, small, [row for row in large if kept(row)])
    said = f"average at 269k cannot be fitted: `macro`: {why}, {EXPECTED}"
    found = select(path)
    assert [one.table.n_params for one in found] == [SMALL]
    assert found.warnings[0].startswith(f"{said}; {hint}")
    assert found[:1].unfitted == found.unfitted
    # Whichever command gives the verdict, it has it.
    for verdict in (verdict_of(path), verdict_from_selections(path, found)):
        assert verdict.notes[-1] == found.unfitted[0]
    run = run_at(path)
    pool_file = demo_pool / "pool.yml"
    assert summarize_choice(run, pool_file, None, None).warnings[0] == found.unfitted[0]
    for refused in (
        lambda: select(path, transfer="required"),
        lambda: summarize_choice(run, pool_file, None, None, transfer="required"),
    ):
        with pytest.raises(InputError) as caught:
            refused()
        assert caught.value.message == f"a smaller size was asked for, and {said}"
        assert caught.value.hint.startswith(hint)


def test_a_smaller_size_that_cannot_be_fitted_is_told_and_refused_where_transfer_is_asked_for(
    small, large, tmp_path
):
    path = written(tmp_path, [row for row in small if row.k in (0, 9)], some(large, 30))
    (found,) = select(path)
    why = "average at 80.6k cannot be fitted: `macro`: 1 merge of k = 9 is too few"
    why = f"{why}, {EXPECTED}"
    assert f"no smaller size helps to predict this one: {why}" in found.warnings
    with pytest.raises(InputError) as caught:
        select(path, transfer="required")
    assert caught.value.message.endswith(f"average at 269k cannot lean on it: {why}")


def test_an_expert_that_nothing_makes_up_for_is_refused_where_transfer_is_asked_for(
    small, large, tmp_path
):
    names = max((row.subset for row in large), key=len)
    few = [replace(row, pool_size=9) for row in some(renamed(large, names), 20, lacking="perl")]
    with pytest.raises(InputError, match="no merge with the expert `perl` was measured"):
        select(written(tmp_path, small, few), transfer="required")


def test_sizes_whose_experts_differ_are_named_where_transfer_is_asked_for(small, large):
    other = [
        replace(row, subset=tuple(sorted({"perl": "ruby"}.get(n, n) for n in row.subset)))
        for row in some(large, 15)
    ]
    with pytest.raises(InputError, match="`perl` at 80.6k and not at 269k, `ruby` at 269k"):
        refuse_one_size(tables(small, other))


def test_two_pools_in_one_table_are_refused(large):
    names = max((row.subset for row in large), key=len)
    one, other = set(names[:4]), set(names[4:])
    apart = [row for row in large if row.k < 4 and {*row.subset} <= one]
    apart += [row for row in large if row.k < 4 and {*row.subset} <= other]
    with pytest.raises(InputError, match=r"two pools in one table at 269k.*`cheader`.*`mande`"):
        tables_of(apart)
    # One merge of all of them, and it is one pool.
    tables_of([*apart, *(row for row in large if row.k == 9)])


@pytest.mark.parametrize("n_hashes", [0, 1])
def test_few_pairs_of_one_pool_are_no_two_pools(n_hashes):
    """Pairs that have no expert in common fall into groups, none of which was merged whole."""
    names = [f"e{number:02d}" for number in range(18)]
    for seed in range(20):
        subsets = [(name,) for name in names] + choose_subsets("balanced", names, 2, 12, seed=seed)
        rows = [
            Measurement(n, len(s), 2.0 + n / 100, "average", subset=s, pool_hash="abc" * n_hashes)
            for n, s in enumerate(subsets, 2)
        ]
        assert tables_of(rows)
        assert series_of(Measurements(tuple(rows), ""), domain=None, method=None, pool_size=None)


def test_two_pools_without_hashes_have_no_curve(large):
    names = max((row.subset for row in large), key=len)
    groups = (set(names[:4]), set(names[4:]))
    rows = [row for row in large if row.k and any({*row.subset} <= group for group in groups)]
    with pytest.raises(InputError, match="two pools in one table"):
        series_of(Measurements(tuple(rows), ""), domain=None, method=None, pool_size=None)


def test_the_share_does_not_depend_on_how_many_rows_the_likelihood_leaves_out(large, small):
    shares = []
    for count in (150, 400):
        tables = link_sizes(tables_of([*small, *some(large, count)]), "auto")
        [leaning] = [table for table in tables if table.smaller]
        shares.append(fit_table(leaning, MACRO).transfer.share)
    assert shares[1] > 0.7 * shares[0]


def test_deltas_shrink_with_k_as_at_the_smaller_size(small, large):
    """Whatever few merges of the larger one would choose."""
    (table,) = tables(small)
    law = fit_subset_law(
        table.weights, table.target(MACRO).values, table.experts, shrinkages=(0.75,)
    )
    (few,) = tables(some(large, 12))
    values = few.target(MACRO).values
    found = fit_with_smaller(
        few.weights, values, few.experts, {SMALL: law}, shrinkages=(1.0, 0.75, 0.5)
    )
    assert found.transfer.used
    assert found.shrinkage == 0.75


@pytest.mark.parametrize("n_grams", [0, 1])
def test_each_size_is_fitted_once_for_one_question(small, large, monkeypatch, n_grams):
    """Every further size doubled the fits: of three they were seven."""
    fits = []

    def counted(*args, **options):
        fits.append(args)
        return fit_with_smaller(*args, **options)

    monkeypatch.setattr(fitting, "fit_with_smaller", counted)
    largest = [replace(row, n_params=8e5) for row in some(large, 20, seed=1)]
    sizes = tables(small, some(large, 20), largest)
    grams = [Gram(LARGE, sizes[0].experts, np.eye(9))] * n_grams
    found = fit_each(sizes, lambda table: (table, fit_table(table, MACRO)), grams).found
    assert len(fits) == 3
    assert [table.gram is not None for table, _ in found] == [False, bool(n_grams), False]
    assert found[2][1].transfer is not None
    # Another domain, and the same table with another geometry, have laws of their own.
    again = replace(found[0][0], gram=np.eye(9))
    assert fit_table(again, MACRO) is not fit_table(found[0][0], MACRO)
    assert fit_table(found[0][0], MACRO) is found[0][1]
