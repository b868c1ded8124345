"""Means over all subsets of k from those that were measured, against means over all of them."""

import random
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from mergeplan.law.averaged import averaged_of
from mergeplan.law.correction import correction_of
from mergeplan.law.file import load_law, save_law
from mergeplan.law.fit import fit
from mergeplan.law.pool_means import draw_means
from mergeplan.law.recommend import recommend
from mergeplan.measurements.file import read_rows
from mergeplan.measurements.rows import Measurement, Measurements
from mergeplan.pool.designs import choose_subsets
from mergeplan.subset_law import means
from mergeplan.subset_law.form import points_of, products
from mergeplan.subset_law.mean_products import Sizes, mean_products
from mergeplan.subset_law.means import corrected_means
from tests.support.settings import DATA
from tests.tools.trial.pools import SimulatedLoss, simulated

NAMES = "abcdefg"


def weights_of(subsets, names=NAMES):
    return np.array([[(name in subset) / len(subset) for name in names] for subset in subsets])


def every(k, names=NAMES):
    return list(combinations(names, k))


def loss(subset):
    """Experts differ, pairs agree with one another or not, and a merge bends as the law does."""
    x = np.array([NAMES.index(name) for name in subset], float)
    own, alike = (0.2 * x + (x == 6)).mean(), np.cos(x[:, None] - x).mean()
    return 2.0 + 0.3 * own + 0.2 * alike + 0.1 / len(subset)


def table(subsets, value=loss, **more):
    rows = [
        Measurement(row=n + 2, k=len(s), loss_nats=value(s), method="average", subset=s, **more)
        for n, s in enumerate(subsets)
    ]
    return Measurements(tuple(rows), "")


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_mean_covariances_are_those_of_all_subsets(k):
    contrast = np.random.default_rng(0).standard_normal(7)
    whole, fours, rows = (
        points_of(weights_of(subsets), np.eye(7), contrast)
        for subsets in (every(k), every(4), [("a",), ("b", "c"), ("a", "c", "d", "e")])
    )
    mine, other = (Sizes.of(np.array([float(size)]), contrast) for size in (k, 4))
    expected = products(whole, rows, 3).mean(1)
    assert mean_products(mine, rows, 3)[:, 0] == pytest.approx(expected, rel=1e-12)
    expected = products(whole, fours, 3).mean((1, 2))
    found = mean_products(mine, other.beside, 3)[:, 0, 0]
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_pool_of_one_and_of_two_experts_have_mean_covariances():
    for size in (1, 2):
        found = mean_products(Sizes.of(np.array([1.0]), np.zeros(size)), np.ones((1, 4)), 3)
        assert np.isfinite(found).all()


def test_samples_without_the_harmful_expert_are_corrected():
    """Losses that are linear in their members: what was measured tells what was not."""
    own = dict(zip(NAMES, (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 3.0), strict=True))
    singles = {(1, (name,)): value for name, value in own.items()}
    pairs = {s: 0.2 + 0.5 * (own[s[0]] + own[s[1]]) / 2 for s in every(2)}
    without = [s for s in pairs if "g" not in s]
    truth, shares = np.mean(list(pairs.values())), []
    for seed in range(6):
        some = random.Random(seed).sample(without, 6)
        found = correction_of(singles | {(2, s): pairs[s] for s in some}, 7)
        assert found.ks.tolist() == [1, 2]
        assert found.values[0] == pytest.approx(np.mean(list(own.values())), abs=1e-12)
        assert found.covariance[0].tolist() == [0, 0]  # every single expert was measured
        off = abs(found.values[1] - truth)
        assert off <= 2 * np.sqrt(found.covariance[1, 1])
        shares.append(off / abs(np.mean([pairs[s] for s in some]) - truth))
        assert found.left_out < found.plain
    assert np.mean(shares) < 0.25


@pytest.mark.parametrize(("size", "harmful"), [(6, 1), (9, 1), (10, 1), (18, 1), (18, 2)])
def test_pools_with_harmful_experts_are_corrected_and_hold(size, harmful):
    """Whether the subsets of a k happen to meet the harmful ones, or not."""
    ratios = []
    for seed in range(16):
        rng = np.random.default_rng([size, harmful, seed])
        vectors = 0.1 * rng.standard_normal((size, 24)) + 0.05
        vectors[:harmful] *= 5
        rule = SimulatedLoss(vectors, rng.gamma(1, 1, 24), 0.1 * rng.standard_normal(24))
        pool = simulated("harmful", size, rule)
        subsets = [(name,) for name in pool.names]
        for k in (2, 4):
            subsets += choose_subsets("uniform", list(pool.names), k, 8, seed=seed)
        found = correction_of({(len(s), s): pool.loss(s) for s in subsets}, size)
        for k, value, variance in zip(
            found.ks[1:], found.values[1:], np.diag(found.covariance)[1:], strict=True
        ):
            ratios.append(abs(value - pool.means[int(k)]) / np.sqrt(variance))
    assert np.mean(np.array(ratios) <= 1.645) >= 0.8
    assert max(ratios) < 4.5


def test_losses_that_follow_the_form_leave_no_negative_variance(tmp_path):
    """Rounding in losses of four digits is all that is left of the covariance."""
    for seed in range(6):
        own = dict(zip(NAMES, np.random.default_rng(seed).random(7).round(2), strict=True))
        subsets = [*every(1), *every(2)[seed::3], *every(4)[seed::4]]
        rule = {s: round(2 + float(np.mean([own[n] for n in s])), 4) for s in subsets}
        law = fit(table(subsets, rule.get, pool_size=7))
        series = law.fits[0].series
        assert np.linalg.eigvalsh(np.array(series.covariance)).min() > -1e-15
        save_law(law, tmp_path / f"{seed}.json")
        load_law(tmp_path / f"{seed}.json")


def test_means_of_a_method_that_elects_are_not_corrected():
    subsets = [*every(1), *every(2)[::3], *every(4)[::4]]
    corrected = []
    for method in ("average", "ties", "mine"):
        data = table(subsets, pool_size=7)
        options = '{"method": "ties"}' if method == "mine" else "{}"
        rows = [replace(row, method=method, options=options) for row in data.rows]
        corrected.append(bool(fit(Measurements(tuple(rows), "")).fits[0].series.covariance))
    assert corrected == [True, False, False]


def test_errors_of_several_k_go_together_and_are_as_said():
    subsets = [*every(1), *every(2)[:8], *every(4)[:8]]
    found = corrected_means(weights_of(subsets), np.array([loss(s) for s in subsets]))
    truth = np.array([np.mean([loss(s) for s in every(int(k))]) for k in found.ks])
    deviations = np.sqrt(np.diag(found.covariance))
    assert deviations[0] == 0
    assert np.all(np.abs(found.values - truth) <= 3 * deviations + 1e-12)
    assert found.covariance[1, 2] > 0.3 * deviations[1] * deviations[2]


def test_the_order_of_rows_and_names_changes_nothing():
    subsets = [*every(1), *every(2)[::3], *every(4)[::4]]
    losses = {(len(s), s): loss(s) for s in subsets}
    found, turned = correction_of(losses, 7), correction_of(dict(reversed(losses.items())), 7)
    assert turned.values == pytest.approx(found.values, rel=1e-9)


def test_plain_means_stay_where_the_law_tells_no_more():
    """Losses that have nothing to do with who is in a merge."""
    rng = np.random.default_rng(1)
    subsets = [*every(1), *every(2)[::3], *every(4)[::4]]
    losses = {(len(s), s): 2 + 1 / len(s) + 0.1 * rng.standard_normal() for s in subsets}
    assert correction_of(losses, 7) is None


@pytest.mark.parametrize(
    "losses",
    [
        {(1, (name,)): 1.0 + n for n, name in enumerate(NAMES)},
        {(2, s): 1.0 + n for n, s in enumerate(every(2)[:5])},
        {(len(s), s): 2.0 for s in [*every(1), *every(2)[:5]]},
        {(len(s), s): loss(s) for s in [*every(1), *every(2)]},
        {**{(len(s), s): loss(s) for s in [*every(1), *every(2)[:5]]}, (3, ()): 1.9},
        {(7, tuple(NAMES)): 1.0},
    ],
    ids=["singles", "pairs", "all alike", "every pair", "a k without names", "all merged"],
)
def test_nothing_is_corrected_where_nothing_tells_by_how_much(losses):
    assert correction_of(losses, 7) is None


@pytest.mark.parametrize("n_unnamed", [1, 4, 7])
def test_a_k_that_was_measured_whole_need_not_name_its_subsets(n_unnamed):
    """Rows of one k without names are one merge, and were taken for one of seven."""
    subsets = [*every(1), *every(2)[:8], *every(4)[:8], *every(7)]
    rows = table(subsets, pool_size=7).rows
    rows = [replace(row, subset=()) if n < n_unnamed else row for n, row in enumerate(rows)]
    series = fit(Measurements(tuple(rows), "")).fits[0].series
    variances = np.diag(np.array(series.covariance))
    assert variances[[0, 3]].tolist() == [0, 0]
    assert variances[1:3].min() > 0
    assert series.points[0].loss == pytest.approx(np.mean([loss(s) for s in every(1)]))
    # Where one is missing, nothing tells which.
    fewer = (*rows[:6], *rows[7:])
    assert fit(Measurements(fewer, "")).fits[0].series.covariance == ()


def test_an_expert_that_was_never_measured_widens_the_error():
    losses = {(len(s), s): loss(s) for s in [*every(1), *every(2)[::2]]}
    known, less = correction_of(losses, 7), correction_of(losses, 8)
    assert less.covariance[0, 0] > known.covariance[0, 0] == 0
    assert less.covariance[1, 1] > known.covariance[1, 1]


def test_a_fit_takes_the_corrected_means_and_a_law_file_keeps_them(tmp_path):
    subsets = [*every(1), *every(2)[:8], *every(4)[:8], *every(7)]
    law = fit(table(subsets, pool_size=7)).fits[0]
    truth = {k: float(np.mean([loss(s) for s in every(k)])) for k in range(1, 8)}
    plain = float(np.mean([loss(s) for s in every(2)[:8]]))
    pairs = law.series.points[1]
    assert abs(pairs.loss - truth[2]) < 0.5 * abs(plain - truth[2])
    for k, value in truth.items():
        said = law.predict(k)
        assert said.low - 1e-12 <= value <= said.high + 1e-12
        assert (said.low == said.high) == (k in (1, 7))
    result = fit(table(subsets, pool_size=7))
    save_law(result, tmp_path / "law.json")
    again = load_law(tmp_path / "law.json")
    assert again.predict(3) == result.predict(3)
    assert again.fits[0].series == law.series


def bent(subset):
    """A cubic form in the weights, whose means are not on 1/k."""
    return loss(subset) + (("g" in subset) / len(subset)) ** 3


def swept(ks, value=loss):
    return fit(table([s for k in ks for s in every(k)], value, pool_size=7)).fits[0]


@pytest.mark.parametrize("ks", [(1, 2, 4), (1, 2, 4, 7)])
def test_the_averaged_law_speaks_where_its_left_out_merges_err_less_than_a_left_out_k(ks):
    found = swept(ks, bent)
    assert found.series.averaged.left_out < 0.5 * found.curve_left_out
    assert found.subsets_speak
    truth = {k: float(np.mean([bent(s) for s in every(k)])) for k in range(1, 8)}
    for k, value in truth.items():
        said = found.predict(k)
        assert said.loss == pytest.approx(value, abs=0.002 * (truth[1] - truth[7]))
        assert said.low - 1e-12 <= value <= said.high + 1e-12
        assert (said.high - said.low <= 1e-12) == (k in ks)
    assert found.voice.startswith("the law of single subsets, averaged, forecasts the means")


def test_both_are_shown_where_an_upturn_with_k_alone_is_not_in_the_form():
    found = swept((1, 2, 4, 7), lambda subset: loss(subset) + 0.1 * (len(subset) - 1) / 6)
    assert not found.subsets_speak
    assert found.voice.startswith("the curve forecasts the means")
    assert " at k = 3," in found.voice


def test_three_k_of_ties_are_forecast_by_the_averaged_law_and_the_curve_is_no_judge():
    """Any curve passes through three means: what it says of later ones vetoes nothing."""
    rows = [r for r in read_rows(DATA / "select_80k.csv")[0] if r.method == "ties"]
    truth = {k: np.mean([r.loss_nats for r in rows if r.k == k]) for k in range(1, 10)}
    measured = Measurements(tuple(r for r in rows if r.k in (1, 2, 4)), "")
    found = fit(measured, pool_size=9).fits[0]
    assert found.subsets_speak
    for k in (3, 5, 6, 7, 8, 9):
        assert abs(found.predict(k).loss - truth[k]) < 0.02 * (truth[1] - truth[9])


def test_one_forecast_is_shown_where_there_is_no_other():
    sampled = fit(table([*every(1), *every(2)[:8], *every(4)[:8]], pool_size=7)).fits[0]
    assert sampled.voice is None
    assert swept((1, 2)).voice is None
    assert swept(range(1, 8)).voice is None


def test_who_speaks_is_told_and_kept(tmp_path):
    result = fit(table([s for k in (1, 2, 4) for s in every(k)], pool_size=7))
    voice = result.fits[0].voice
    assert voice in result.summary()
    assert voice in recommend(result).best.reasons
    save_law(result, tmp_path / "law.json")
    again = load_law(tmp_path / "law.json")
    assert again.fits[0].voice == voice
    assert again.predict(3) == result.predict(3)


@pytest.mark.parametrize("unnamed", [1, 2, 4, 9])
def test_rows_without_names_among_named_ones_leave_the_answer_to_the_curve(unnamed, tmp_path):
    """A row of all experts that does not name them is the natural one."""
    names = "abcdefghi"
    lines = ["k,pool_size,subset,loss_nats"]
    for k in {1, 2, 4} - {unnamed}:
        lines += [f"{k},9,{'+'.join(s)},{1 + 0.3 / k}" for s in combinations(names, k)]
    lines.append(f"{unnamed},9,,{1 + 0.3 / unnamed}")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    assert not fit(tmp_path / "m.csv").fits[0].subsets_speak


def test_the_curve_speaks_where_single_merges_are_predicted_worse_than_its_left_out_k():
    """Means on the curve, around which merges scatter as no law of who is in them has it."""
    rng, rough = np.random.default_rng(0), {}
    for k in (1, 2, 4, 7):
        scatter = 0.005 * rng.standard_normal(len(every(k)))
        rough |= dict(zip(every(k), 2 + 1 / k + scatter - scatter.mean(), strict=True))
    found = swept((1, 2, 4, 7), rough.get)
    assert found.series.averaged.left_out > found.curve_left_out
    for k in (3, 5, 6):
        said = found.predict(k)
        assert said.low < found.series.averaged.losses[k - 1] < said.high
    assert not found.subsets_speak


def test_errors_that_means_share_are_none_of_their_difference():
    k, loss = np.array([1.0, 2.0, 4.0]), np.array([3.0, 2.5, 2.25])
    apart = np.diag([0.0, 1e-2, 1e-2])
    together = apart + 0.99e-2 * np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0]])
    spreads = []
    for covariance in (together, apart):
        drawn = draw_means(k, loss, covariance, 8, 0).means
        spreads.append(np.std(drawn[:, 1] - drawn[:, 3]))
    assert spreads[0] < 0.5 * spreads[1]


def test_no_law_of_single_subsets_is_averaged_where_a_k_was_measured_in_part():
    losses = {(k, s): loss(s) for k in (1, 2, 3) for s in every(k)}
    assert averaged_of(losses, 7) is not None
    assert averaged_of({**losses, (4, every(4)[0]): loss(every(4)[0])}, 7) is None


def test_the_merge_of_all_experts_has_no_part_in_the_correction():
    subsets = [*every(1), *every(2)[::3], *every(4)[::4], *every(7)]
    values = np.array([loss(s) for s in subsets])
    found = corrected_means(weights_of(subsets), values)
    values[-1] = 9.0
    other = corrected_means(weights_of(subsets), values)
    assert found.ks.tolist() == [1, 2, 4]
    assert other.values == pytest.approx(found.values, rel=1e-12)


def test_deviations_are_as_wide_as_left_out_rows_have_it(monkeypatch):
    """Of many rows, whose variances are as good as known."""
    subsets = [*every(1), *every(2), *every(3)[::2], *every(4)[::2]]
    found = []
    for factor in (1.0, 2.0):
        monkeypatch.setattr(means, "spread_scale", lambda _, factor=factor: factor)
        values = np.array([bent(s) for s in subsets])
        found.append(corrected_means(weights_of(subsets), values).covariance[2, 2])
    assert found[1] == pytest.approx(4 * found[0])
