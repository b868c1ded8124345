"""A share of the trial (`python -m tests.tools.trial`): what is said of a curve, of a larger base,
of a chosen subset, and of one base by another, held against pools whose truth is known, beside
plain baselines."""

import numpy as np
import pytest

from tests.tools.trial import curve, large, means, sizes, subsets, transfer
from tests.tools.trial.baselines import BASELINES
from tests.tools.trial.pools import KINDS

PLACES = ("measured", "within")
# What few subsets hardly show: a rise with k alone, and a deviation of every merge's own.
HARD_TO_SEE = ("upturn", "late upturn", "noise", "noise, loss_se")


@pytest.fixture(scope="module")
def scores():
    return curve.on_trial(share=True, seed=0, each=1)


def pooled(scores, who, kept):
    """Share held and mean interval score over every place that all forecasters were judged at."""
    held, winkler = [], []
    for (pool, design, name), score in scores.items():
        if name == who and kept(pool, design):
            for place in PLACES:
                held += score.held.get(place, [])
                winkler += score.winkler.get(place, [])
    return float(np.mean(held)), float(np.mean(winkler))


def measured_pool(pool, design):
    return ", M = " not in pool and "to k = 4" not in design


def simulated_pool(pool, design):
    return pool.split(", M = ")[0] not in HARD_TO_SEE and not measured_pool(pool, design)


@pytest.mark.parametrize("kept", [measured_pool, simulated_pool])
def test_intervals_hold_and_beat_every_baseline(scores, kept):
    held, winkler = pooled(scores, "planner", kept)
    assert held >= 0.85
    for name in BASELINES:
        assert winkler <= pooled(scores, name, kept)[1], name


def test_a_k_that_is_sure_reaches_the_target(scores):
    own = [score for (_, _, who), score in scores.items() if who == "planner"]
    said = sum(score.said for score in own)
    assert said >= 0.6 * sum(score.asked for score in own)
    assert sum(score.right for score in own) >= 0.85 * said


def test_only_what_was_measured_whole_has_no_width(scores):
    for (_, _, who), score in scores.items():
        if who == "planner":
            assert score.narrow == 0
            assert all(score.held.get("complete", [True]))
            assert max(score.winkler.get("complete", [0.0])) < 1e-9


def test_rough_pools_do_not_deviate_alike():
    def own(seed: int) -> float:
        rule = KINDS["noise"](6, np.random.default_rng(seed))
        smooth = rule.by_k(rule.vectors.mean(0)[None], np.array([6]))[0]
        return rule.of(list(range(6))) - float(smooth)

    assert own(0) == own(0)
    assert abs(own(0) - own(1)) > 1e-4


@pytest.fixture(scope="module")
def chosen():
    return subsets.on_trial(share=True, seed=0, each=1)


def of_sweeps(chosen, who, what):
    return [
        one
        for (pool, _, name), score in chosen.items()
        if name == who and ", M = " not in pool
        for one in getattr(score, what)
    ]


def test_a_chosen_subset_is_as_good_as_it_is_said_to_be(chosen):
    assert abs(np.mean(of_sweeps(chosen, "select", "bias"))) < 0.002
    assert np.mean(of_sweeps(chosen, "select", "held")) >= 0.85
    own, process = (
        np.mean(of_sweeps(chosen, who, "winkler")) for who in ("select", "Gaussian process")
    )
    assert own < process


def test_only_a_measured_subset_has_no_width(chosen):
    for (_, _, who), score in chosen.items():
        if who == "select":
            widths = zip(score.winkler, score.measured, strict=True)
            assert all((width == 0) == measured for width, measured in widths)


def test_a_larger_size_is_held_where_sizes_are_off_as_a_whole():
    scores = sizes.on_trial(share=True, seed=0, each=1).values()
    held = [one for score in scores for one in score.held]
    assert np.mean(held) >= 0.8
    assert all(score.narrow == 0 for score in scores)
    # Of the loss: an interval may not hold by saying nothing.
    assert max(np.mean(score.width) for score in scores) < 40


@pytest.fixture(scope="module")
def carried():
    return transfer.on_trial(share=True, seed=0, each=1)


def test_a_smaller_base_tells_most_of_a_larger_one(carried):
    with_it, without = (carried["80k to 270k", 15, who] for who in ("with", "without"))
    assert all(with_it.used)
    assert min(with_it.r2) > 0.93
    assert np.mean(with_it.r2) > np.mean(without.r2) + 0.05
    assert np.mean(with_it.chosen.regret) < 0.002
    assert np.mean(with_it.held) > 0.75


def test_a_smaller_base_of_other_experts_does_no_harm(carried):
    name = f"80k to 270k, {transfer.OTHERS}"
    with_it, without = (carried[name, 15, who] for who in ("with", "without"))
    assert max(with_it.share) < 0.3
    assert not any(with_it.used)
    assert with_it.r2 == without.r2


def test_curves_of_domains_are_told_from_few_subsets():
    scores = means.on_trial(share=True, seed=0, each=1)
    assert len({pool for pool, _, _ in scores}) == 3
    for pool, design, _ in scores:
        found = means.pooled(scores, pool, design)
        assert found["worst"] < 0.05, pool
        assert found["held"] >= 0.8, pool
        assert found["winkler"] < 0.14, pool


@pytest.fixture(scope="module")
def of_thirty():
    return large.on_trial(share=True, seed=0, each=1)


def test_as_many_merges_as_experts_choose_among_thirty(of_thirty):
    assert not any(score.refused for score in of_thirty.values())
    assert {(count, design) for _, count, design, _ in of_thirty} == {(30, "first"), (60, "first")}


def test_geometry_and_merges_each_explain_more_of_a_large_pool(of_thirty):
    r2 = {
        (count, geometry): float(np.median(score.r2))
        for (_, count, _, geometry), score in of_thirty.items()
    }
    assert r2[30, "with"] > r2[30, "without"]
    assert r2[60, "with"] > max(r2[60, "without"], r2[30, "with"])
    assert r2[60, "with"] > 0.95
    covered = [share for score in of_thirty.values() for share in score.covered]
    assert np.mean(covered) >= 0.8
