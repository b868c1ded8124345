"""The law of single subsets: fit, choices, weights, and what to measure next, on real sweeps."""

import itertools
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergeplan.errors import InputError
from mergeplan.measurements.file import load_measurements, read_rows
from mergeplan.measurements.rows import MACRO
from mergeplan.pool.designs import choose_subsets
from mergeplan.selection import choices, front
from mergeplan.selection.active import confidence_of, first_subsets
from mergeplan.selection.bounds import lower_bound
from mergeplan.selection.choices import best_by_size
from mergeplan.selection.draws import settle
from mergeplan.selection.fitting import fit_table
from mergeplan.selection.front import pareto_front
from mergeplan.selection.insight import (
    droppable,
    experts_of,
    implied_law,
    measured_law,
    sizes_of,
    synergy,
)
from mergeplan.selection.problem import Constraint, Problem, equal_weights, parse_constraint
from mergeplan.selection.select import select, select_from
from mergeplan.selection.selection import Selections, Wish
from mergeplan.selection.table import tables_of
from mergeplan.selection.weights import best_weights, gradient
from mergeplan.subset_law import prior as prior_of_subsets
from mergeplan.subset_law.fit import fit_subset_law
from mergeplan.subset_law.spread import NINE_IN_TEN
from mergeplan.subset_law.weightings import seen
from tests.support.settings import DATA

SWEEP = DATA / "select_80k.csv"
DOWNSTREAM = DATA / "downstream_8b_5_experts.csv"


@pytest.fixture(scope="module")
def rows():
    return read_rows(SWEEP)[0]


def some(rows, method="average", subsets=None, count=60, domain=None):
    """The table of a few measured subsets, and the base."""
    names = {row.subset[0] for row in rows if row.k == 1}
    wanted = set(subsets or first_subsets(sorted(names), count))
    kept = [
        row
        for row in rows
        if (row.k == 0 or (row.method == method and row.subset in wanted))
        and domain in (None, row.domain)
    ]
    (table,) = tables_of(kept)
    return table


def truth(rows, table, method="average", domain=MACRO):
    """Weights and losses of all subsets."""
    found = [row for row in rows if row.method == method and row.domain == domain and row.k]
    weights = np.array([[(n in row.subset) / row.k for n in table.experts] for row in found])
    return weights, np.array([row.loss_nats for row in found])


def r2(predicted, measured):
    return 1 - ((predicted - measured) ** 2).sum() / ((measured - measured.mean()) ** 2).sum()


@pytest.fixture(scope="module")
def average(rows):
    return some(rows)


@pytest.fixture(scope="module")
def law(average):
    return fit_table(average, MACRO)


def random_law(seed, n=6, n_rows=30, higher=False):
    """A law fitted to a random cubic with a little misfit."""
    rng = np.random.default_rng(seed)
    subsets = [s for k in range(1, n + 1) for s in itertools.combinations(range(n), k)]
    order = rng.permutation(len(subsets))[:n_rows]
    chosen = {subsets[i] for i in order} | {(i,) for i in range(n)}
    weights = np.array([[(i in s) / len(s) for i in range(n)] for s in sorted(chosen)])
    a, q, t = rng.normal(size=n), rng.normal(size=(n, n)), rng.normal(size=(n, n, n)) / 2
    values = 3 + weights @ a + np.einsum("ni,nj,ij->n", weights, weights, q)
    values += np.einsum("ni,nj,nl,ijl->n", weights, weights, weights, t)
    values += 0.01 * rng.normal(size=len(values))
    return fit_subset_law(weights, values, tuple("abcdefghij"[:n]), higher=higher)


# --- the fit


@pytest.mark.parametrize(
    ("method", "least", "most_regret"), [("average", 0.99, 1e-4), ("ties", 0.85, 1e-3)]
)
def test_sixty_merges_of_511_predict_the_others_and_name_the_best(rows, method, least, most_regret):
    table = some(rows, method, domain=MACRO)
    law = fit_table(table, MACRO)
    assert len(law.values) <= 61
    weights, losses = truth(rows, table, method)
    rest = np.isnan(law.measured(weights))
    assert r2(law.predict(weights[rest]), losses[rest]) > least
    best = min(best_by_size(Problem(law)).values(), key=lambda choice: choice.value)
    own = np.array([(name in best.weights) / best.k for name in table.experts])
    (at,) = np.flatnonzero(np.abs(weights - own).max(1) < 1e-9)
    assert losses[at] - losses.min() < most_regret


@pytest.mark.parametrize("n_params", [269120.0, 846976.0])
def test_pools_that_nothing_was_tuned_on_are_predicted_as_well(n_params):
    """All subsets of k = 1, 2, 4 and 9 (and 6) were measured of these."""
    rows = [row for row in read_rows(DATA / "real_pools.csv")[0] if row.n_params == n_params]
    names = sorted({row.subset[0] for row in rows if row.k == 1})
    wanted = {tuple(names), *((name,) for name in names)}
    for k in (2, 4):
        wanted |= set(choose_subsets("balanced", names, k, 25))
    (table,) = tables_of(row for row in rows if row.k == 0 or row.subset in wanted)
    (whole,) = tables_of(rows)
    law = fit_table(table, MACRO)
    assert len(law.values) == 61
    rest = np.isnan(law.measured(whole.weights))
    weights, losses = whole.weights[rest], whole.targets[MACRO].values[rest]
    errors = np.abs(law.predict(weights) - losses)
    assert r2(law.predict(weights), losses) > 0.99
    assert np.mean(errors <= NINE_IN_TEN * law.deviations(weights)) > 0.85


def test_intervals_hold_nine_of_ten_subsets_that_were_not_measured(rows):
    shares = []
    for seed, domain in itertools.product(range(3), (MACRO, "python", "md")):
        subsets = first_subsets(
            sorted({row.subset[0] for row in rows if row.k == 1}), 60, seed=seed
        )
        table = some(rows, subsets=subsets)
        law = fit_table(table, domain)
        weights, losses = truth(rows, table, domain=domain)
        rest = np.isnan(law.measured(weights))
        errors = np.abs(law.predict(weights[rest]) - losses[rest])
        shares.append(np.mean(errors <= NINE_IN_TEN * law.deviations(weights[rest])))
    assert 0.85 <= np.mean(shares) <= 0.97


def test_singles_and_pairs_of_a_quadratic_determine_it():
    rng = np.random.default_rng(1)
    subsets = [s for k in range(1, 6) for s in itertools.combinations(range(5), k)]
    weights = np.array([[(i in s) / len(s) for i in range(5)] for s in subsets])
    root = rng.normal(size=(5, 5))
    values = 2 + weights @ rng.normal(size=5) + ((weights @ root) ** 2).sum(1)
    small = (weights > 0).sum(1) <= 2
    law = fit_subset_law(weights[small], values[small], tuple("abcde"))
    assert law.prior.degree == 2
    assert np.abs(law.predict(weights) - values).max() < 0.02 * np.ptp(values)
    homogeneous = law.series.homogeneous()
    assert np.einsum("ni,nj,ij->n", weights, weights, homogeneous) == pytest.approx(
        law.predict(weights)
    )


def test_the_series_is_the_prediction(law):
    weights = np.random.default_rng(0).dirichlet(np.ones(9), 20) * 0.8
    series = law.series
    expected = series.constant + weights @ series.linear
    expected += np.einsum("ni,nj,ij->n", weights, weights, series.quadratic)
    expected += np.einsum("ni,nj,nl,ijl->n", weights, weights, weights, series.cubic)
    assert law.predict(weights) == pytest.approx(expected, abs=1e-9)


def test_left_out_predictions_are_those_of_a_fit_without_the_row(law):
    """Exact leave-one-out, against fits that really leave one out, at the same variances."""
    for row in (0, 17, 40):
        rest = np.arange(len(law.values)) != row
        covariance = np.linalg.inv(law.inverse)
        inverse = np.linalg.inv(covariance[rest][:, rest])
        ones = np.ones(rest.sum())
        constant = ones @ inverse @ law.values[rest] / (ones @ inverse @ ones)
        cross = covariance[row, rest]
        expected = constant + cross @ inverse @ (law.values[rest] - constant)
        assert law.left_out[row] == pytest.approx(expected, abs=1e-6)


def test_deviations_are_the_diagonal_of_the_covariances(law):
    weights = np.random.default_rng(0).dirichlet(np.ones(9), 20)
    diagonal = np.sqrt(np.diag(law.covariances(weights)))
    assert law.deviations(weights) == pytest.approx(diagonal, rel=1e-4)


def test_beyond_the_measured_k_intervals_count_the_missing_degree_and_a_warning_says_so(
    rows, monkeypatch
):
    names = sorted({row.subset[0] for row in rows if row.k == 1})
    pairs = [s for k in (1, 2) for s in itertools.combinations(names, k)]
    table = some(rows, subsets=pairs, domain=MACRO)
    weights, losses = truth(rows, table)
    weights, losses = weights[(weights > 0).sum(1) > 2], losses[(weights > 0).sum(1) > 2]

    def coverage():
        law = fit_table(replace(table), MACRO)
        errors = np.abs(law.predict(weights) - losses)
        return np.mean(errors <= NINE_IN_TEN * law.deviations(weights))

    assert coverage() > 0.85
    monkeypatch.setattr(prior_of_subsets, "OMITTED", 0.0)
    assert coverage() < 0.2
    warnings = select_from(table, Wish()).warnings
    assert any("no merge of more than 2 experts was measured" in warning for warning in warnings)


def test_a_gram_matrix_is_a_better_prior_than_none(rows):
    """Experts whose deltas nearly coincide are known to be alike before they are measured."""
    rng = np.random.default_rng(0)
    deltas = np.repeat(rng.normal(size=(3, 40)), 3, axis=0) + 0.05 * rng.normal(size=(9, 40))
    target = rng.normal(size=40)
    subsets = [s for k in range(1, 10) for s in itertools.combinations(range(9), k)]
    weights = np.array([[(i in s) / len(s) for i in range(9)] for s in subsets])
    losses = ((weights @ deltas - target) ** 2).sum(1)
    few = np.r_[:9, 510, rng.permutation(np.arange(9, 510))[:8]]
    gram = deltas @ deltas.T
    plain, informed = (
        fit_subset_law(weights[few], losses[few], tuple("abcdefghi"), gram=g) for g in (None, gram)
    )
    assert r2(informed.predict(weights), losses) > 0.99 > r2(plain.predict(weights), losses)


@pytest.mark.parametrize("gram", [np.eye(3), np.arange(16.0).reshape(4, 4), -np.eye(4)])
def test_what_is_no_gram_matrix_is_refused(gram):
    weights = np.vstack([np.eye(4), np.ones((1, 4)) / 4])
    with pytest.raises(ValueError, match="symmetric matrix|negative"):
        fit_subset_law(weights, np.arange(5.0), tuple("abcd"), gram=gram)


def test_unequal_weights_count_as_fewer_experts():
    equal = seen(np.full((1, 4), 0.25), 0.5)
    assert equal == pytest.approx(np.full((1, 4), 0.5))
    assert seen(np.array([[1.0, 0.0, 0.0, 0.0], [0.0] * 4]), 0.5).max() == 1
    uneven = seen(np.array([[0.9, 0.1, 0.0, 0.0]]), 0.5)
    assert uneven.sum() < 2**0.5


def test_too_few_merges_are_refused_with_what_to_measure():
    singles = np.eye(4)
    with pytest.raises(InputError, match="k = 1 are too few") as caught:
        fit_subset_law(singles, np.arange(4.0), tuple("abcd"))
    assert "all of them merged" in caught.value.hint
    with pytest.raises(InputError, match="no merge with the expert `d`"):
        fit_subset_law(singles[:3], np.arange(3.0), tuple("abcd"))


# --- choices


@given(st.integers(0, 1000), st.integers(1, 6))
def test_no_subset_is_predicted_below_the_bound(seed, k):
    law = random_law(seed)
    members = np.array([[i in s for i in range(6)] for s in itertools.combinations(range(6), k)])
    predicted = law.predict(equal_weights(members))
    scale = np.ptp(law.values)
    assert lower_bound(law.series, k) <= predicted.min() + 1e-9 * scale
    assert lower_bound(law.series, k, sign=-1) <= -predicted.max() + 1e-9 * scale
    if k in (1, 6):
        assert lower_bound(law.series, k) == pytest.approx(predicted.min(), abs=1e-9 * scale)


@given(st.integers(0, 1000))
def test_search_never_beats_the_list_and_its_gap_covers_the_rest(seed):
    problem = Problem(random_law(seed, higher=bool(seed % 2)))
    exact = best_by_size(problem)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choices, "LISTED", 0)
        searched = best_by_size(problem)
    assert searched.keys() == exact.keys()
    for k, found in searched.items():
        loss = problem.sign * (found.value - exact[k].value)
        assert -1e-9 <= loss <= found.gap + 1e-9


def test_search_finds_the_best_of_the_real_pool_at_every_size(law, monkeypatch):
    exact = best_by_size(Problem(law))
    monkeypatch.setattr(choices, "LISTED", 0)
    searched = best_by_size(Problem(law))
    assert {k: c.subset for k, c in searched.items()} == {k: c.subset for k, c in exact.items()}


def test_a_large_pool_is_searched_in_seconds_with_its_gap():
    rng = np.random.default_rng(0)
    members = np.vstack([np.eye(50, dtype=bool), rng.random((150, 50)) < 0.3])
    weights = equal_weights(members)
    root = rng.normal(size=(50, 50))
    values = 1 + ((weights @ root - 0.2) ** 2).mean(1)
    law = fit_subset_law(weights, values, tuple(f"e{i:02}" for i in range(50)))
    found = best_by_size(Problem(law, max_experts=8))
    assert sorted(found) == list(range(1, 9))
    measured = {k: values[(members.sum(1) == k)].min(initial=np.inf) for k in found}
    assert all(found[k].value <= measured[k] for k in found)
    assert all(choice.gap >= 0 for choice in found.values())


def test_a_measured_subset_keeps_its_measured_value(law):
    (single,) = [choice for k, choice in best_by_size(Problem(law)).items() if k == 1]
    assert single.measured
    assert single.low == single.value == single.high == 2.01022


def test_bounds_are_kept_and_cost_something(average):
    python = fit_table(average, "python")
    free = best_by_size(Problem(fit_table(average, MACRO)))
    bounds = ((Constraint("python", 1.85), python),)
    bound = best_by_size(Problem(fit_table(average, MACRO), bounds))
    assert bound
    for k, choice in bound.items():
        assert choice.value >= free[k].value
        own = np.array([[(n in choice.weights) / k for n in average.experts]])
        assert Problem(python, bounds).excess(own)[0] == 0


def test_max_loss_takes_the_smallest_subset_that_reaches_it(average):
    selection = select_from(average, Wish(max_loss=1.93))
    assert selection.best.value <= 1.93
    assert selection.best.k == min(selection.by_size)
    unbound = select_from(average, Wish())
    assert unbound.by_size[selection.best.k - 1].value > 1.93
    assert select_from(average, Wish(max_loss=1.5)).best is None


@pytest.mark.parametrize("text", ["code<1", "code", "<=1", "code<=x", "code<=1e999"])
def test_a_bound_that_cannot_be_read_is_refused(text):
    with pytest.raises(InputError, match="cannot read the constraint"):
        parse_constraint(text)


# --- the lowest of many


def test_what_experts_have_in_common_is_no_surprise(rows):
    """From 22 merges pairs and triples were 0.007 and 0.006 too low (issue 22, item 5)."""
    errors = {2: [], 3: []}
    names = sorted({row.subset[0] for row in rows if row.k == 1})
    for seed in range(4):
        table = some(rows, subsets=first_subsets(names, 22, seed=seed), domain=MACRO)
        law = fit_table(table, MACRO)
        weights, losses = truth(rows, table)
        for k, found in errors.items():
            own = ((weights > 0).sum(1) == k) & np.isnan(law.measured(weights))
            found.append(np.mean(law.predict(weights[own]) - losses[own]))
    assert np.mean(errors[2]) > -0.004
    assert np.mean(errors[3]) > -0.003


def test_experts_of_a_kind_gain_less_from_each_other():
    """Natural and programming languages: 22 of 255 merges left errors of 0.014 in the others, and
    the lowest was predicted 0.03 too low (issue 22, item 5)."""
    rows, _ = read_rows(DATA / "real_lm_pool.csv")
    rows = [row for row in rows if row.k and row.domain == MACRO]
    names = sorted({row.subset[0] for row in rows if row.k == 1})
    for seed in range(3):
        table = some(rows, subsets=first_subsets(names, 22, seed=seed), domain=MACRO)
        law = fit_table(table, MACRO)
        weights, losses = truth(rows, table)
        open_ = np.isnan(law.measured(weights)) & ((weights > 0).sum(1) > 2)
        assert np.std(law.predict(weights[open_]) - losses[open_]) < 0.007
        problem = Problem(law)
        best = min(settle(problem, best_by_size(problem))[0].values(), key=lambda c: c.value)
        own = np.array([(name in best.weights) / best.k for name in table.experts])
        loss = losses[np.abs(weights - own).max(1) < 1e-9][0]
        assert best.low - 1e-9 <= loss <= best.high + 1e-9
        assert abs(best.value - loss) < 0.006


def test_where_every_merge_was_measured_nothing_is_left_to_the_form():
    """Losses of five digits that the form explains to the last: rounding broke the likelihood."""
    selection, *_ = select(DATA / "real_lm_pool.csv")
    assert selection.best.measured
    assert selection.best.value == pytest.approx(4.6863)


def test_the_chosen_of_many_is_not_promised_what_it_is_predicted(rows):
    """Of 40 TIES merges the lowest was 0.001 too low, its interval held in half (item 5)."""
    names = sorted({row.subset[0] for row in rows if row.k == 1})
    errors, inside = [], []
    for seed in range(6):
        table = some(rows, "ties", first_subsets(names, 40, seed=seed), domain=MACRO)
        problem = Problem(fit_table(table, MACRO))
        plain = best_by_size(problem)
        settled, _ = settle(problem, plain)
        for k, choice in settled.items():
            assert choice.measured == (choice.low == choice.high)
            assert choice.value >= plain[k].value - 0.25 * (plain[k].high - plain[k].low)
        best = min(settled.values(), key=lambda choice: choice.value)
        weights, losses = truth(rows, table, "ties")
        own = np.array([(name in best.weights) / best.k for name in table.experts])
        loss = losses[np.abs(weights - own).max(1) < 1e-9][0]
        errors.append(best.value - loss)
        inside.append(best.low <= loss <= best.high)
    assert abs(np.mean(errors)) < 0.0009
    assert sum(inside) >= 5


def test_the_variances_of_the_prior_are_not_taken_as_known(law):
    misfits = [other.variances[-1] for other in law.alike]
    assert len(misfits) > 10
    assert max(misfits) > 2 * min(misfits)
    middle = np.median(np.log(misfits))
    assert abs(middle - np.log(law.variances[-1])) < 3


# --- weights


def test_best_weights_are_no_worse_than_the_subsets_they_start_from(law):
    problem = Problem(law)
    starts = sorted(best_by_size(problem).values(), key=lambda choice: choice.value)[:3]
    best = best_weights(problem, starts)
    assert sum(best.weights.values()) == pytest.approx(1)
    assert min(best.weights.values()) > 0
    own = np.array([[(n in starts[0].weights) / starts[0].k for n in law.experts]])
    assert best.value <= law.predict(own)[0]
    capped = best_weights(replace(problem, max_experts=4), [best_by_size(problem)[4]])
    assert capped.k <= 4


def test_the_gradient_is_that_of_the_prediction(law):
    at = np.random.default_rng(0).dirichlet(np.ones(9))
    step = 1e-5 * np.eye(9)
    numeric = (law.predict(at + step) - law.predict(at - step)) / 2e-5
    assert gradient(law, at) == pytest.approx(numeric, abs=1e-6)


def test_the_sum_is_free_only_where_other_sums_were_measured(rows, average):
    assert average.weighted
    assert average.largest_sum is None
    half = [
        replace(row, weights=(0.5,), loss_nats=(row.loss_nats + 1.9068) / 2 - 0.035)
        for row in rows
        if row.k == 1 and row.method == "average" and row.domain == MACRO
    ]
    kept = [r for r in rows if r.domain == MACRO and r.method in ("average", "base")]
    (table,) = tables_of([*kept, *half])
    assert table.largest_sum == 1
    (incomplete,) = tables_of([*kept, *half[1:]])
    assert incomplete.largest_sum is None
    selection = select_from(table, Wish())
    assert selection.free.value < selection.weighted.value
    assert not some(rows, "ties", domain=MACRO).weighted


def test_merges_of_another_lambda_are_points_of_the_same_surface(rows):
    average = [r for r in rows if r.method in ("average", "base") and r.domain == MACRO]
    half = [
        replace(r, method="task_arithmetic", options='{"lambda": 0.5}') for r in average if r.k == 1
    ]
    (table,) = tables_of([*average, *half])
    assert table.method == "average"
    assert sorted(set(np.round(table.weights.sum(1), 9))) == [0, 0.5, 1]
    # Asked for by name, they are a table of their own: no table at all was no error.
    (named,) = tables_of([*average, *half], "task_arithmetic")
    assert (named.method, len(named.weights)) == ("task_arithmetic", len(table.weights))


# --- insight


def test_what_the_law_implies_for_the_means_is_what_was_measured(rows, law, average):
    weights, losses = truth(rows, average)
    k = (weights > 0).sum(1)
    for size in sizes_of(law):
        assert size.mean == pytest.approx(losses[k == size.k].mean(), abs=0.001)
        assert size.deviation == pytest.approx(losses[k == size.k].std(), abs=0.002)
    fitted = measured_law(law)
    assert fitted.predict(4) == pytest.approx(losses[k == 4].mean(), abs=0.005)
    implied = implied_law(sizes_of(law))
    assert implied.predict(4) == pytest.approx(losses[k == 4].mean(), abs=0.002)


def test_synergy_is_a_pair_against_its_experts_alone(rows, law, average):
    weights, losses = truth(rows, average)
    at = {tuple(np.flatnonzero(row)): loss for row, loss in zip(weights, losses, strict=True)}
    matrix = synergy(law)
    assert (matrix == matrix.T).all()
    for i, j in itertools.combinations(range(9), 2):
        expected = at[i, j] - (at[i,] + at[j,]) / 2
        assert matrix[i, j] == pytest.approx(expected, abs=0.01)


def test_an_expert_that_harms_everywhere_is_to_be_dropped():
    members = np.array(
        [
            [i in s for i in range(5)]
            for k in range(1, 6)
            for s in itertools.combinations(range(5), k)
        ]
    )
    weights = equal_weights(members)
    values = 2 + 1.0 / members.sum(1) + weights @ np.array([0, 0, 0, 0, 3.0])
    law = fit_subset_law(weights, values, tuple("abcde"))
    best = min(best_by_size(Problem(law)).values(), key=lambda choice: choice.value)
    experts = experts_of(law, best, {})
    assert droppable(experts, law) == ("e",)
    assert experts[-1].name == "e"


def test_the_front_of_a_large_pool_holds_no_beaten_subset_and_finds_the_listed_one(
    average, monkeypatch
):
    laws = [fit_table(average, name) for name in ("python", "md")]
    exact = pareto_front(laws)
    values = np.array([point.values for point in exact])
    assert len(exact) > 3
    for row in values:
        assert not ((values <= row).all(1) & (values < row).any(1)).any()
    monkeypatch.setattr(front, "_LISTED", 0)
    assert [point.subset for point in pareto_front(laws)] == [point.subset for point in exact]


# --- what to measure


@given(st.integers(2, 9), st.integers(0, 80), st.integers(0, 3))
def test_first_subsets_are_as_many_as_asked_for_and_differ(n, count, seed):
    found = first_subsets("abcdefghi"[:n], count, seed=seed)
    assert len(found) == len(set(found)) == min(count, 2**n - 1)


@pytest.mark.parametrize("n", [12, 18, 64])
@pytest.mark.parametrize("share", [1.0, 1.5, 2.0])
def test_in_large_pools_first_subsets_are_spread_from_two_up(n, share):
    names = [f"expert{i:02}" for i in range(n)]
    sizes = Counter(map(len, first_subsets(names, int(share * n))))
    between = sorted(k for k in sizes if 1 < k < n)
    assert sizes[n] == 1
    assert between[0] == 2
    assert between[-1] == n - round(n / 3)
    assert max(sizes[k] for k in between) <= min(sizes[k] for k in between) + 1
    assert max(np.diff(between)) <= 2


def test_where_merges_are_few_single_experts_make_room_and_every_expert_is_there():
    """M merges of M experts: alone, they told nothing of pairs, and nothing could be fitted."""
    names = [f"expert{i:02}" for i in range(18)]
    subsets = first_subsets(names, 18)
    weights = np.array([[(name in s) / len(s) for name in names] for s in subsets])
    assert min(map(len, subsets)) == 2
    law = fit_subset_law(weights, 2 + (weights**2).sum(1), tuple(names))
    assert law.predict(np.eye(18)[:1])[0] > law.predict(np.full((1, 18), 1 / 18))[0]


def test_the_answer_gets_surer_as_what_is_asked_for_is_measured(rows):
    names = sorted({row.subset[0] for row in rows if row.k == 1})
    measured = first_subsets(names, 30)
    regrets, last = [], None
    for _ in range(4):
        law = fit_table(some(rows, subsets=measured, domain=MACRO), MACRO)
        sizes, draws = settle(Problem(law), best_by_size(Problem(law)))
        last = confidence_of(draws, min(sizes.values(), key=lambda c: c.value), count=10)
        assert not set(last.next) & set(measured)
        regrets.append(last.regret)
        measured += last.next
    assert regrets[-1] < regrets[0] / 3
    assert last.chance > 0.5


def test_the_loss_that_is_expected_is_near_the_one_that_is_had():
    """It was the draws' lowest of hundreds: three and a half times the true one here."""
    rows = [row for row in read_rows(DATA / "real_lm_pool.csv")[0] if row.domain == MACRO]
    truth = {row.subset: row.loss_nats for row in rows if row.k}
    names = sorted({name for subset in truth for name in subset})
    said, had = [], []
    for count, seed in itertools.product((14, 22, 30), range(4)):
        wanted = {(), *map(tuple, map(sorted, first_subsets(names, count, seed=seed)))}
        law = fit_table(tables_of(row for row in rows if row.subset in wanted)[0], MACRO)
        sizes, draws = settle(Problem(law), best_by_size(Problem(law)))
        best = min(sizes.values(), key=lambda choice: choice.value)
        said.append(confidence_of(draws, best).regret)
        had.append(truth[best.subset] - min(truth.values()))
    assert 0.5 < np.mean(said) / np.mean(had) < 2


def test_the_answer_is_certain_where_everything_was_measured(rows):
    law = fit_table(tables_of(r for r in rows if r.method == "ties")[0], MACRO)
    sizes, draws = settle(Problem(law), best_by_size(Problem(law)))
    sure = confidence_of(draws, min(sizes.values(), key=lambda choice: choice.value))
    assert (sure.chance, sure.regret, sure.next) == (1, 0, ())


# --- the file


def test_metrics_of_published_merges_are_predicted_from_singles_and_pairs():
    rows, _ = read_rows(DOWNSTREAM)
    (small,) = tables_of(row for row in rows if row.k <= 2)
    (whole,) = tables_of(rows)
    large = (whole.weights > 0).sum(1) > 2
    found = {}
    for name, target in whole.targets.items():
        law = fit_table(small, name)
        found[name] = r2(law.predict(whole.weights[large]), target.values[large])
    assert found.pop("mbppplus") < 0.5
    assert min(found.values()) > 0.75
    with pytest.raises(InputError, match="several metrics were measured"):
        select(DOWNSTREAM)
    selection, *_ = select(DOWNSTREAM, wish=Wish("math_500,gsm8k"))
    assert selection.law.higher
    everything = (whole.targets["math_500"].values + whole.targets["gsm8k"].values) / 2
    assert selection.best.value == pytest.approx(everything.max())


def test_fit_reads_what_it_read_before(tmp_path):
    """Metrics and weightings are no points of the curve."""
    head = "k,subset,weights,loss_nats,metric,value,better\n"
    rows = "1,a,,1.0,,,\n1,b,1,1.1,,,\n2,a+b,1+1,0.9,,,\n"
    more = "1,a,0.5,0.2,,,\n2,a+b,0.3+0.7,0.1,,,\n2,a+b,,,acc,0.5,higher\n"
    plain, mixed = tmp_path / "plain.csv", tmp_path / "mixed.csv"
    plain.write_text(head + rows)
    mixed.write_text(head + rows + more)
    assert load_measurements(mixed).rows == load_measurements(plain).rows
    assert load_measurements(mixed).unequal == 2
    assert len(read_rows(mixed)[0]) == 6


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2,a+b,0.3,0.9,,,", "expected 2 numbers joined by `+`"),
        ("2,a+b,0.3+x,0.9,,,", "expected finite numbers joined"),
        ("2,a+b,0.3+nan,0.9,,,", "expected finite numbers"),
        ("2,a+b,,,acc,0.5,", "expected `lower` or `higher`"),
        ("2,a+b,,,acc,much,higher", "column `value`: expected a number"),
        ("2,a+b,,,,0.5,higher", "column `loss_nats`"),
    ],
)
def test_wrong_cells_are_named(tmp_path, row, message):
    path = tmp_path / "m.csv"
    path.write_text("k,subset,weights,loss_nats,metric,value,better\n" + row + "\n")
    with pytest.raises(InputError) as caught:
        read_rows(path)
    assert message in caught.value.message
    assert "row 2" in caught.value.message


def test_what_an_expert_is_predicted_to_give_alone_is_marked(rows):
    names = sorted({row.subset[0] for row in rows if row.k == 1})
    kept = [
        subset for subset in first_subsets(names, 60) if subset not in {(n,) for n in names[:3]}
    ]
    found = select_from(some(rows, subsets=kept), Wish())
    assert {expert.name for expert in found.experts if not expert.measured} == set(names[:3])
    shown = Selections([found]).summary()
    for expert in found.experts:
        mark = " " if expert.measured else r"\*"
        assert re.search(f"{expert.name} +{expert.alone:.4f}{mark} ", shown)
    assert "* predicted, not measured alone" in shown
