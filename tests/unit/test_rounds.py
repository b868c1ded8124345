"""Sequential calibration, on complete sweeps that were measured: real losses stand for merges."""

import dataclasses
import itertools
import random

import pytest

from mergeplan.calibration.curve_rounds import (
    CurvePlan,
    Round,
    Stop,
    curve_forecast,
    first_round,
    next_round,
)
from mergeplan.calibration.decision import CurveGoal, decide
from mergeplan.calibration.limits import Budget, Spending, affordable, parse_budget, parse_until
from mergeplan.calibration.value import Prospect
from mergeplan.errors import InputError
from mergeplan.law.fit import fit, fit_series
from mergeplan.law.series import series_of
from mergeplan.measurements.file import load_measurements
from mergeplan.measurements.rows import Measurement, Measurements
from mergeplan.pool.pool import load_pool
from mergeplan.pool.subsets import subset_merge


@pytest.fixture(scope="module")
def pool(demo_pool):
    return load_pool(demo_pool / "pool.yml")


@pytest.fixture(scope="module")
def sweep(demo_pool):
    """Every subset of nine experts, averaged and by task arithmetic."""
    return load_measurements(demo_pool / "measurements.csv")


@pytest.fixture
def plan(pool):
    return CurvePlan(pool, label="average", scan=False)


def measure(sweep, label, merges):
    """What measuring these merges gives."""
    wanted = {merge.subset for merge in merges}
    rows = [row for row in sweep.rows if row.method == label and row.subset in wanted]
    return Measurements(tuple(rows), "")


def run(sweep, plan, spend=None):
    """All rounds and the stop."""
    merges, steps = [], []
    while True:
        spent = spend(len(merges)) if spend else None
        step = next_round(measure(sweep, plan.label, merges), plan, spent)
        steps.append(step)
        if isinstance(step, Stop):
            return merges, steps
        assert step.merges
        assert not set(step.merges) & set(merges)
        merges += step.merges


def test_the_first_round_has_the_ends_and_a_few_between(pool):
    merges = first_round(CurvePlan(pool, label="task_arithmetic"))
    own = [m for m in merges if m.settings in ({"lambda": 0.4}, {})]
    ks = [merge.k for merge in own]
    assert (ks.count(0), ks.count(1), ks.count(9)) == (1, 9, 1)
    assert ks.count(2) >= 4
    assert ks.count(4) >= 4
    for k in (2, 4):
        assert {name for m in own if m.k == k for name in m.subset} == set(pool.sizes[0].experts)
    scan = [merge for merge in merges if merge not in own]
    assert {m.settings["lambda"] for m in scan} == {0.2, 0.3, 0.5, 0.8, 1.0}
    assert {merge.k for merge in scan} == {9}
    assert merges == first_round(CurvePlan(pool, label="task_arithmetic"))


def test_both_ends_are_in_the_first_round_whatever_k_was_asked_for(plan):
    merges = first_round(dataclasses.replace(plan, ks=(2, 3)))
    assert {merge.k for merge in merges} == {0, 1, 2, 3, 9}


def test_an_interrupted_first_round_is_completed(plan, sweep):
    whole = first_round(plan)
    step = next_round(measure(sweep, "average", whole[:12]), plan)
    assert isinstance(step, Round)
    assert step.decision is None
    assert len(step.merges) == len(whole) - 12
    assert not set(step.merges) & set(whole[:12])


@pytest.mark.parametrize("label", ["average", "task_arithmetic"])
@pytest.mark.parametrize("fraction", [0.8, 0.9])
def test_the_decision_is_that_of_all_511_subsets(plan, sweep, label, fraction):
    truth = decide(fit(sweep, method=label).fits[0], CurveGoal(fraction=fraction)).k
    for seed in range(3):
        asked = dataclasses.replace(plan, label=label, wish=CurveGoal(fraction=fraction), seed=seed)
        merges, steps = run(sweep, asked)
        assert abs(steps[-1].decision.k - truth) <= 1
        assert not steps[-1].open
        assert len(merges) <= 40


def test_an_exact_answer_takes_more_and_fewer_than_random_subsets(plan, sweep):
    wish = CurveGoal(fraction=0.8)
    truth = decide(fit(sweep, method="average").fits[0], wish).k
    ours, randoms = [], []
    for seed in range(3):
        asked = dataclasses.replace(plan, wish=wish, until=0, seed=seed)
        merges, steps = run(sweep, asked)
        assert steps[-1].decision.k == truth
        ours.append(len(merges))
        randoms.append(merges_at_random(sweep, wish, seed))
    assert max(ours) < sorted(randoms)[1]


def merges_at_random(sweep, wish, seed, step=8):
    """How many uniformly random subsets it takes until only one k is active."""
    rows = [row for row in sweep.rows if row.method == "average" and row.k]
    random.Random(seed).shuffle(rows)
    for count in range(16, len(rows), step):
        data = Measurements(tuple(rows[:count]), "")
        (series,) = series_of(data, domain=None, method=None, pool_size=9)
        if decide(fit_series(series), wish).reach == 0:
            return count
    return len(rows)


def test_what_all_511_subsets_settle_is_settled_with_fewer(plan, sweep):
    """On this text a mean over every subset is exact, however the curve misses it."""
    everything = decide(fit(sweep, method="average").fits[0], CurveGoal())
    assert everything.low == everything.k == everything.high
    merges, steps = run(sweep, dataclasses.replace(plan, until=0))
    assert (steps[-1].decision.k, steps[-1].open) == (everything.k, False)
    assert len(merges) < 128


def test_where_more_merges_cannot_tell_it_stops_and_says_so(plan, sweep):
    """Only the ends may be measured further: how the curve bends between them stays open."""
    wish = CurveGoal(target_loss=(sweep_mean(sweep, 5) + 2 * sweep_mean(sweep, 6)) / 3)
    merges, steps = run(sweep, dataclasses.replace(plan, until=-1, wish=wish, ks=(1, 8, 9)))
    assert steps[-1].open
    assert "measuring every subset would hardly narrow it" in steps[-1].reason
    assert len(merges) < 1 + 9 + 9 + 1


def sweep_mean(sweep, k):
    losses = [row.loss_nats for row in sweep.rows if row.method == "average" and row.k == k]
    return sum(losses) / len(losses)


def test_a_budget_of_merges_is_never_exceeded(plan, sweep):
    asked = dataclasses.replace(plan, until=0)
    for most in (0, 5, 20, 21, 23):
        merges, steps = run(sweep, dataclasses.replace(asked, budget=Budget(merges=most)))
        assert len(merges) == most
        assert "the budget is spent" in steps[-1].reason
        assert steps[-1].open


@pytest.mark.parametrize("budget", [Budget(tokens=2250.0), Budget(seconds=45.0)])
def test_tokens_and_seconds_limit_it_too(plan, sweep, budget):
    asked = dataclasses.replace(plan, until=0, budget=budget)
    merges, steps = run(sweep, asked, lambda n: Spending(n, 100.0 * n, 2.0 * n))
    assert len(merges) == 22
    assert [len(step.merges) for step in steps[:-1]] == [1, 19, 2]


def test_a_label_that_the_pool_lacks_is_named(plan):
    with pytest.raises(InputError, match="the pool has no method `averge`"):
        first_round(dataclasses.replace(plan, label="averge"))


def test_a_small_pool_is_measured_to_its_end(pool, sweep):
    three = {name: pool.sizes[0].experts[name] for name in ("js", "md", "perl")}
    small = dataclasses.replace(pool, sizes=(dataclasses.replace(pool.sizes[0], experts=three),))
    merges, steps = run(sweep, CurvePlan(small, until=-1, scan=False))
    assert len(merges) == 8
    assert "every subset is measured" in steps[-1].reason
    two = dict(itertools.islice(three.items(), 2))
    pair = dataclasses.replace(pool, sizes=(dataclasses.replace(pool.sizes[0], experts=two),))
    merges, steps = run(sweep, CurvePlan(pair, until=0, scan=False))
    assert len(merges) == 4


def test_a_target_that_no_merge_reaches_is_a_decision_too(plan, sweep):
    merges, steps = run(sweep, dataclasses.replace(plan, wish=CurveGoal(target_loss=1.85), until=0))
    assert steps[-1].decision.k == 10
    assert not steps[-1].open
    assert "more than the 9 there are" in steps[-1].reason
    assert len(merges) < 60


def test_rows_of_others_change_nothing(plan, sweep):
    merges = first_round(plan)
    own = measure(sweep, "average", merges)
    stranger = Measurement(0, 1, 9.0, n_params=80592.0, domain="macro", subset=("js",))
    others = [
        *measure(sweep, "task_arithmetic", merges).rows,
        dataclasses.replace(stranger, method="average", n_params=5e8),
        dataclasses.replace(stranger, method="average", subset=("stranger",)),
        dataclasses.replace(stranger, method="average", options='{"density": 0.5}'),
    ]
    others = [row for row in others if row.k]
    assert next_round(Measurements((*own.rows, *others), ""), plan) == next_round(own, plan)


def test_a_better_lambda_is_told(pool, sweep):
    plan = CurvePlan(pool, label="task_arithmetic")
    merges = first_round(plan)
    rows = measure(sweep, "task_arithmetic", merges).rows
    whole = next(row for row in rows if row.k == 9)
    scan = [
        dataclasses.replace(whole, options=merge.options, loss_nats=loss)
        for merge, loss in zip(
            (m for m in merges if m.k == 9 and m.settings != {"lambda": 0.4}),
            (1.91, 1.90, 1.92, 1.93, 1.94),
            strict=True,
        )
    ]
    step = next_round(Measurements((*rows, *scan), ""), plan)
    assert isinstance(step, Stop)
    assert "lambda 0.3 have 1.9000" in step.notes[0]


def test_complete_sizes_get_no_more_and_all_measured_leaves_nothing(sweep):
    law = fit(sweep, method="average").fits[0]
    possible = {point.k: point.n_possible for point in law.series.points}
    assert Prospect(law, CurveGoal(), possible).allocate(3) == {}
    assert Prospect(law, CurveGoal(), possible).left_over() == 1.0
    some = tuple(row for row in sweep.rows if row.k in (1, 2, 9) or row.subset[:1] == ("html",))
    law = fit(Measurements(some, ""), method="average").fits[0]
    more = Prospect(law, CurveGoal(), possible).allocate(6)
    assert sum(more.values()) == 6
    assert not set(more) & {1, 2, 9}
    assert Prospect(law, CurveGoal(), possible).left_over() < 1.0


def test_the_forecast_holds(plan, sweep):
    told = curve_forecast(plan, tokens_each=10.0, seconds_each=2.0)
    merges, _ = run(sweep, plan)
    assert told.least.merges <= len(merges) <= told.most.merges == 512
    assert told.least == Spending(len(first_round(plan)), 10.0 * told.least.merges, 2.0 * 20)
    limited = dataclasses.replace(plan, budget=Budget(merges=30, tokens=255.0))
    assert curve_forecast(limited, tokens_each=10.0).most.merges == 25


@pytest.mark.parametrize("text", ["k", "k +- x", "5", "k +- -1", "j +- 1"])
def test_a_wrong_until_is_refused(text):
    with pytest.raises(InputError, match="--until"):
        parse_until(text)


@pytest.mark.parametrize("text", ["", "60", "60 apples", "1h, 5 min", "5 merges, 6 merges", "-1h"])
def test_a_wrong_budget_is_refused(text):
    with pytest.raises(InputError, match="--budget"):
        parse_budget(text)


def test_nothing_is_afforded_beyond_the_tightest_limit():
    assert affordable(Budget(), Spending(5)) is None
    assert affordable(Budget(merges=7, seconds=100.0), Spending(5, 0.0, 80.0)) == 1
    assert affordable(Budget(seconds=10.0), Spending(5, 0.0, 10.0)) == 0
    # The first tells what one costs.
    assert affordable(Budget(tokens=10.0), Spending()) == 1


def test_random_methods_keep_their_seed(pool):
    masked = dataclasses.replace(pool, methods={"dare": {"density": 0.5}})
    merges = first_round(CurvePlan(masked, label="dare", seed=3))
    assert {merge.seed for merge in merges if merge.k} == {3}
    assert subset_merge(masked, 0, "dare", ("js",), seed=3) in merges
