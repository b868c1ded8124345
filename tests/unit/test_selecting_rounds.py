"""Rounds for the best subset, on sweeps in which every subset was measured."""

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from mergeplan.calibration.curve_rounds import Round, Stop
from mergeplan.calibration.limits import Budget, Spending
from mergeplan.calibration.subset_begin import subset_forecast
from mergeplan.calibration.subset_plan import SubsetPlan, first_subset_round, sloped_first
from mergeplan.calibration.subset_rounds import next_subset_round
from mergeplan.errors import InputError
from mergeplan.measurements.file import read_rows
from mergeplan.measurements.rows import MACRO, Measurement, Measurements
from mergeplan.pool.pool import load_pool
from mergeplan.selection.table import tables_of
from tests.support.settings import DATA
from tests.support.shares import paired

SWEEP = DATA / "select_80k.csv"


@pytest.fixture(scope="module")
def sweep():
    """All 511 subsets of nine experts: averages, and TIES at density 1 and lambda 0.5."""
    return read_rows(SWEEP)[0]


@pytest.fixture(scope="module")
def pool(demo_pool):
    pool = load_pool(demo_pool / "pool.yml")
    ties = {"density": 1.0, "lambda": 0.5}
    return replace(pool, methods={"average": {}, "task_arithmetic": {"lambda": 0.8}, "ties": ties})


def rows_for(sweep, label, subsets):
    wanted = set(subsets)
    return [r for r in sweep if r.subset in wanted and (r.k == 0 or r.method == label)]


def run(sweep, plan, have=()):
    """Subsets in the order of measuring, without the base, and the stop."""
    measured = list(have)
    while True:
        rows = rows_for(sweep, plan.label, measured)
        step = next_subset_round(Measurements(tuple(rows), ""), plan)
        if isinstance(step, Stop):
            return [subset for subset in measured if subset], step
        new = [merge.subset for merge in step.merges]
        assert new
        assert not set(new) & set(measured)
        measured += new


def best_of(sweep, label, domain=MACRO):
    losses = {r.subset: r.loss_nats for r in sweep if r.method == label and r.domain == domain}
    return min(losses, key=lambda subset: losses[subset])


@pytest.mark.parametrize(
    ("case", "seed"),
    paired([("average", None, 45), ("average", "md", 35), ("ties", None, 75)], [0, 1]),
    ids=str,
)
def test_the_best_of_all_511_is_found_from_few(sweep, pool, case, seed):
    label, domains, most = case
    plan = SubsetPlan(pool, label=label, domains=domains, seed=seed)
    measured, stop = run(sweep, plan)
    assert not stop.open
    assert len(measured) <= most
    assert stop.reason.startswith("+".join(best_of(sweep, label, domains or MACRO)) + " has ")
    assert " measured, on this text the best with a chance of " in stop.reason


def test_the_first_round_has_every_expert_all_and_some_between(pool):
    merges = first_subset_round(SubsetPlan(pool))
    sizes = [merge.k for merge in merges]
    assert sizes[:11] == [0, 9] + [1] * 9
    assert len(sizes) == 1 + 30
    # A budget that cuts it leaves some of each size between.
    assert set(sizes[11:15]) == {3, 4, 5, 6}


def test_a_first_round_is_designed_for_the_budget(pool):
    """Not cut off a larger one, which has subsets of few sizes at its end."""
    merges = first_subset_round(SubsetPlan(pool, budget=Budget(merges=16)))
    assert [merge.k for merge in merges][:11] == [0, 9] + [1] * 9
    assert len(merges) == 16


def test_the_first_round_of_a_large_pool_has_two_merges_for_each_expert_and_twelve(pool):
    base, (folder, *_) = pool.sizes[0], pool.sizes[0].experts.values()
    experts = {f"e{number:02}": folder for number in range(18)}
    large = replace(pool, sizes=(replace(base, experts=experts),))
    assert len(first_subset_round(SubsetPlan(large))) == 1 + 2 * 18 + 12


def test_a_round_that_was_cut_short_is_asked_for_again(sweep, pool):
    plan = SubsetPlan(pool)
    first = [merge.subset for merge in first_subset_round(plan)]
    rows = rows_for(sweep, "average", first[:20])
    step = next_subset_round(Measurements(tuple(rows), ""), plan)
    assert {merge.subset for merge in step.merges} == set(first[20:])
    # Whoever stops after a later round goes on with the same subsets, too.
    whole, _ = run(sweep, plan)
    again, _ = run(sweep, plan, ((), *whole[:35]))
    assert set(again) == set(whole)


def test_surer_takes_more_merges(sweep, pool):
    plan = SubsetPlan(pool, label="ties")
    few, _ = run(sweep, replace(plan, confidence=0.5))
    many, _ = run(sweep, replace(plan, confidence=0.999))
    assert len(few) < len(many)


def test_the_budget_is_kept(sweep, pool):
    for merges in (12, 33):
        measured, stop = run(sweep, SubsetPlan(pool, budget=Budget(merges=merges)))
        assert len(measured) + 1 == merges
        assert stop.open
        assert "the budget is spent" in stop.reason
    spent = Spending(merges=5, tokens=100.0)
    assert next_subset_round(
        Measurements((), ""), SubsetPlan(pool, budget=Budget(tokens=100)), spent
    ).open


@pytest.mark.parametrize("label", ["average", "task_arithmetic"])
def test_half_strength_frees_the_sum_of_the_weights(sweep, pool, label):
    """The half is recorded so that `select` sees it as a point of the same surface."""
    plan = SubsetPlan(pool, label=label, free_sum=True)
    merges = first_subset_round(plan)
    weaker = merges[11:27]
    assert [merge.k for merge in weaker[:10]] == [9] + [1] * 9
    assert {merge.k for merge in weaker[10:14]} == {3, 4, 5, 6}
    for merge, strength in zip(weaker, [0.5] * 15 + [0.25], strict=True):
        assert merge.method == label
        config = merge.config(pool)
        assert config["merge_method"] == "task_arithmetic"
        own = 1 if label == "average" else 0.8
        assert config["parameters"]["lambda"] == strength * own
    like = next(row for row in sweep if row.k == 1 and row.method == "average")
    rows = [
        replace(like, method=m.method, options=m.options, k=m.k, subset=m.subset)
        for m in merges
        if m.k
    ]
    (table,) = tables_of(rows, label)
    assert table.options == plan.merge(plan.names).options
    assert sorted(table.weights.sum(1).round(9)) == [0.25] + [0.5] * 15 + [1.0] * 30
    assert table.largest_sum == 1


def test_where_half_strength_tells_nothing_it_is_not_measured(sweep, pool):
    plan = SubsetPlan(pool, label="ties", free_sum=True)
    assert first_subset_round(plan) == first_subset_round(replace(plan, free_sum=False))
    _, stop = run(sweep, plan)
    assert "less strength" in stop.notes[0]


def test_a_small_pool_ends_when_every_subset_is_measured(sweep, pool):
    size = pool.sizes[0]
    for count in (2, 3):
        experts = dict(sorted(size.experts.items())[:count])
        small = replace(pool, sizes=(replace(size, experts=experts, n_params=80592),))
        plan = SubsetPlan(small, confidence=0.999)
        measured, stop = run(sweep, plan)
        assert len(measured) <= 2**count - 1
        own = [row for row in sweep if set(row.subset) <= set(experts)]
        assert stop.reason.startswith("+".join(best_of(own, "average")) + " has ")


def test_a_pool_of_one_expert_has_nothing_to_choose(pool):
    size = pool.sizes[0]
    one = replace(size, experts={"js": size.experts["js"]})
    with pytest.raises(InputError, match="one"):
        next_subset_round(Measurements((), ""), SubsetPlan(replace(pool, sizes=(one,))))


def test_the_forecast_counts_the_first_round_and_everything(pool):
    plan = SubsetPlan(pool, free_sum=True)
    found = subset_forecast(plan, tokens_each=10)
    assert (found.least.merges, found.most.merges) == (1 + 30 + 16, 1 + 511 + 16)
    assert found.least.tokens == 470
    budget = replace(plan, budget=Budget(merges=20))
    assert subset_forecast(budget).most.merges == 20
    none = subset_forecast(replace(plan, budget=Budget(merges=0)))
    assert none.least.merges == none.most.merges == 0


@pytest.fixture(scope="module")
def larger():
    """All averages of the next larger pool of the same experts."""
    return read_rows(DATA / "select_270k.csv")[0]


@pytest.fixture(scope="module")
def small_rows(sweep, pool):
    """What the rounds had measured at the smaller size."""
    measured, _ = run(sweep, SubsetPlan(pool))
    return tuple(rows_for(sweep, "average", [(), *measured]))


@pytest.fixture(scope="module")
def leaning(pool, small_rows):
    size = replace(pool.sizes[0], n_params=269120)
    both = replace(pool, sizes=(pool.sizes[0], size))
    return SubsetPlan(both, size=1, leaning=True, smaller=small_rows)


def test_a_size_that_leans_on_a_smaller_one_takes_few_merges(larger, leaning):
    first = first_subset_round(leaning)
    assert [merge.k for merge in first][:5] == [0, 9, 1, 1, 1]
    assert len(first) == 1 + 10
    measured, stop = run(larger, leaning)
    alone, _ = run(larger, replace(leaning, leaning=False, smaller=()))
    assert len(measured) <= 25
    assert len(measured) + 10 <= len(alone)
    assert stop.reason.startswith("+".join(best_of(larger, "average")) + " has ")
    assert " carries over from the 80.6k base, left-out error " in stop.reason
    # Killed at any point, it asks for the same.
    again, _ = run(larger, leaning, ((), *measured[:15]))
    assert again == measured


def alone(plan):
    """The single experts of the first round."""
    return [merge.subset for merge in first_subset_round(plan) if merge.k == 1]


@pytest.mark.parametrize("domains", [None, "md", "python=2,md"])
def test_single_experts_are_spread_by_what_decides_alone(sweep, leaning, domains):
    """From best to worst at the smaller size, by the method, options and domain asked for."""
    plan = replace(leaning, domains=domains)
    singles = [r for r in sweep if r.k == 1 and r.method == "average"]
    shares = {None: {MACRO: 1}, "md": {"md": 1}, "python=2,md": {"python": 2, "md": 1}}[domains]
    total = Counter()
    for row in singles:
        total[row.subset] += shares.get(row.domain, 0) * row.loss_nats
    order = sorted(total, key=lambda subset: total[subset])
    assert alone(plan) == [order[0], order[4], order[8]]
    # Neither another method, nor other options, nor a still smaller size has a say.
    against = [replace(row, loss_nats=9 - row.loss_nats) for row in singles]
    others = [
        *(replace(row, method="ties") for row in against),
        *(replace(row, method="task_arithmetic", options='{"lambda": 0.5}') for row in against),
        *(replace(row, options='{"lambda": 0.5, "method": "ties"}') for row in against),
        *(replace(row, n_params=4e4) for row in against),
    ]
    assert alone(replace(plan, smaller=(*plan.smaller, *others))) == alone(plan)


def test_where_the_smaller_size_tells_nothing_the_rounds_are_those_without_it(larger, leaning):
    names = leaning.names
    other = dict(zip(names, [*names[4:], *names[:4]], strict=True))
    renamed = [replace(r, subset=tuple(sorted(other[n] for n in r.subset))) for r in larger]
    measured, stop = run(renamed, leaning)
    whole = {m.subset for m in first_subset_round(replace(leaning, leaning=False)) if m.k}
    assert whole <= set(measured)
    assert stop.reason.startswith("+".join(best_of(renamed, "average")) + " has ")


def test_a_leaning_size_measures_all_together_at_less_strength(leaning):
    merges = first_subset_round(replace(leaning, free_sum=True))
    weaker = [m for m in merges if m.options != leaning.merge(leaning.names).options and m.k]
    assert [m.k for m in weaker] == [9, 9]


def test_on_few_documents_first_the_forecast_takes_fewer_tokens(pool):
    plan = SubsetPlan(pool)
    every = subset_forecast(plan, tokens_each=800)
    few = subset_forecast(replace(plan, partly=True), tokens_each=800)
    # Base, all together and two others on everything, 27 on an eighth.
    assert few.least.tokens == pytest.approx((4 + 27 / 8) * 800)
    assert few.least.merges == every.least.merges == 31
    assert few.most == every.most


def test_a_first_round_with_slopes_has_fewer_subsets_between(pool):
    def counts(plan):
        found = Counter(merge.k for merge in first_subset_round(plan))
        return found[0], found[1], found[len(plan.names)], sum(found.values())

    plan = SubsetPlan(pool=pool, label="average")
    n = len(plan.names)
    assert counts(plan)[:3] == counts(replace(plan, gradients=True))[:3] == (1, n, 1)
    assert counts(replace(plan, gradients=True))[3] == 1 + n + 1 + 10 < counts(plan)[3]


def bent(weights, lowest):
    """A loss of any weights, whose best subset is known, and its slopes."""
    away = weights - lowest
    pull = np.array([1.3, 0.7, 1.0, 1.6, 0.9, 1.1, 0.8])[: len(weights)]
    loss = 2 + pull @ away**2 + 0.5 * away.sum() ** 2 - 0.2 * away[0] * away[1]
    slopes = 2 * pull * away + away.sum()
    slopes[:2] -= 0.2 * away[1::-1]
    return loss, slopes


def test_a_few_slopes_find_the_best_subset_in_fewer_passes(pool):
    names = sorted(pool.sizes[0].experts)[:7]
    experts = {name: pool.sizes[0].experts[name] for name in names}
    seven = replace(pool, sizes=(replace(pool.sizes[0], experts=experts),))
    lowest = np.array([1, 1, 0, 1, 0, 1, 0]) / 4.4

    def loss(subset):
        weights = np.array([name in subset for name in names]) / max(len(subset), 1)
        return bent(weights, lowest)

    def row(merge, sloped):
        value, slopes = loss(merge.subset)
        known = tuple(zip(names, slopes.tolist(), strict=True)) if sloped else ()
        return Measurement(
            row=0,
            k=merge.k,
            loss_nats=value,
            method=merge.method,
            n_params=merge.n_params,
            subset=merge.subset,
            slopes=known,
        )

    passes = {}
    for gradients in (False, None):
        plan, rows, sloped = SubsetPlan(seven, gradients=gradients), [], set()
        while isinstance(step := next_subset_round(Measurements(tuple(rows), ""), plan), Round):
            rows += [row(merge, merge in step.sloped) for merge in step.merges]
            sloped |= set(step.sloped)
        best = min(
            (s for k in range(1, 8) for s in combinations(names, k)), key=lambda s: loss(s)[0]
        )
        assert step.reason.startswith("+".join(best) + " has ")
        # All together and three of half of the experts, and none in a later round.
        assert sorted(merge.k for merge in sloped) == ([] if gradients is False else [3, 3, 3, 7])
        passes[gradients] = len(rows) + 2 * len(sloped)
    assert passes[None] < passes[False]


def test_a_first_round_of_few_slopes_keeps_a_small_budget_and_is_forecast(pool):
    plan = SubsetPlan(pool, gradients=None)
    found = subset_forecast(plan, tokens_each=10)
    # Base, nine alone, and all and three of half of them, which take three passes each.
    assert (found.least.merges, found.least.tokens) == (14, (10 + 3 * 4) * 10)
    assert found.most.tokens == (512 + 2 * 4) * 10
    small = replace(plan, budget=Budget(merges=8))
    assert len(first_subset_round(small)) == 8
    assert 0 < len(sloped_first(small)) <= 4
