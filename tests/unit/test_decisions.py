"""Intervals, costs, diagnoses and other tails, on real and on made-up curves."""

import dataclasses
from math import comb
from pathlib import Path

import numpy as np
import pytest

import mergeplan
from mergeplan.calibration.curve_rounds import CurvePlan, decision_text
from mergeplan.calibration.decision import CurveGoal, decide
from mergeplan.errors import InputError
from mergeplan.law.costs import CostModel, load_costs
from mergeplan.law.diagnose import all_signs, diagnose
from mergeplan.law.fit import fit, fit_series
from mergeplan.law.fit_result import FitResult
from mergeplan.law.formulas import HyperbolicLaw, InterferenceLaw, SizeLaw
from mergeplan.law.posterior import LOWEST_OFFSET, MAX_OFFSET, offset_axis, rise_axis
from mergeplan.law.recommend import recommend
from mergeplan.law.recommendation import Goal
from mergeplan.law.series import ExpertEffect, Point, Series
from mergeplan.law.spread import SpreadLaw, fit_spread, sampling_variance
from mergeplan.measurements.file import load_measurements
from mergeplan.pool.pool import Pool, PoolSize
from tests.support.settings import DATA
from tests.support.shares import spread

PUBLISHED = DATA / "measured_llama3b_16_experts.csv"
REAL = DATA / "real_pools.csv"
DOMAINS = ("cheader", "html", "js", "json", "mande", "manfr", "md", "perl", "python")


def series(losses: dict[int, float], pool_size: int = 9, **more) -> Series:
    points = tuple(Point(k, loss, 1, 10**6) for k, loss in losses.items())
    return Series("average", "{}", None, "macro", pool_size, points, **more)


def curve(law: SizeLaw, ks=range(1, 10), **more) -> Series:
    return series({k: law.predict(k) for k in ks}, **more)


@pytest.fixture(scope="module")
def real():
    return load_measurements(REAL)


@pytest.mark.parametrize("domain", spread([None, *DOMAINS], 4))
def test_three_points_forecast_the_rest_of_real_pools(domain, real):
    few = dataclasses.replace(real, rows=tuple(row for row in real.rows if row.k in (0, 1, 2, 4)))
    forecasts = fit(few, domain=domain, pool_size=9).fits
    for forecast, whole in zip(forecasts, fit(real, domain=domain).fits, strict=True):
        truth = {point.k: point.loss for point in whole.series.points}
        drop = truth[1] - truth[9]
        later = [k for k in truth if k > 4]
        error = max(abs(forecast.law.predict(k) - truth[k]) for k in later)
        constant = max(abs(truth[4] - truth[k]) for k in later)
        assert error <= (0.10 if domain is None else 0.20) * drop
        assert error <= 0.5 * constant
        assert whole.r2 >= 0.98


def test_real_pools_fit_jointly_over_three_sizes(real):
    (joint,) = fit(real).joints
    assert joint.r2 >= 0.999
    assert joint.law.b_size > 0
    assert not joint.gamma_identified
    prediction = fit(real).predict(4, n=500_000)
    assert prediction.low < prediction.loss < prediction.high
    assert not prediction.extrapolated
    assert fit(real).predict(4, n=5_000_000).extrapolated


def test_three_points_of_the_published_curve_forecast_the_rest_within_a_percent():
    data = load_measurements(PUBLISHED)
    few = dataclasses.replace(data, rows=tuple(row for row in data.rows if row.k in (2, 4, 8)))
    law = fit(few, pool_size=16).fits[0].law
    for point in fit(data, pool_size=16).fits[0].series.points:
        assert law.predict(point.k) == pytest.approx(point.loss, rel=0.01)


def test_the_published_upturn_of_code_is_reported():
    result = fit(PUBLISHED, domain="code", pool_size=16)
    signs = {found.sign: found for found in diagnose(result.fits[0])}
    assert "0.4914 at k = 16" in signs["upturn"].evidence
    assert "merge at most 12" in signs["upturn"].advice
    overall = fit(PUBLISHED, pool_size=16)
    assert [found.sign for found in diagnose(overall.fits[0])] == ["large offset"]


def test_the_interval_of_k_holds_the_published_answer():
    solution = fit(PUBLISHED, pool_size=16).solve(target_loss=0.66)
    assert solution.k == 12
    assert solution.low < 12 < solution.high
    assert solution.confident == 13


def test_an_enumerated_k_has_no_sampling_error_and_a_sampled_one_has():
    law = SpreadLaw(0.01, 9)
    assert sampling_variance(Point(2, 1.0, 36, 36, 0.05), law) == 0
    sampled = sampling_variance(Point(2, 1.0, 12, 36, 0.05), law)
    assert sampled == pytest.approx((11 * 0.05**2 + 4 * law.variance(2)) / 15 / 12 * (2 / 3))
    assert sampling_variance(Point(2, 1.0, 1, 36), None) is None


def test_the_spread_of_a_real_pool_falls_to_nothing_at_the_whole_pool(real):
    found = fit(real, method="average").fits[0]
    assert found.spread.deviation(9) == 0
    for point in found.series.points:
        if point.spread:
            assert found.spread.deviation(point.k) == pytest.approx(point.spread, rel=0.6)
    assert fit_spread((Point(9, 1.0, 1, 1),), 9) is None


def test_the_chance_of_one_subset_is_not_that_of_the_mean():
    law = SpreadLaw(0.01, 9)
    assert law.chance(1.0, 1.0, 3) == pytest.approx(0.5)
    assert law.chance(1.0, 1.1, 3) < 0.5 < law.chance(1.0, 0.9, 3)
    assert (law.chance(1.0, 1.0, 9), law.chance(0.9, 1.0, 9)) == (1.0, 0.0)


def test_three_points_without_spread_say_on_what_their_intervals_rest():
    found = fit_series(curve(HyperbolicLaw(1.0, 0.2, 0.3), (1, 2, 4)))
    assert any("stated priors" in warning for warning in found.warnings)
    predicted = found.predict(9)
    assert predicted.low < predicted.loss < predicted.high
    assert predicted.extrapolated
    assert found.predict(3).high - found.predict(3).low < predicted.high - predicted.low


def test_two_points_have_no_interval():
    found = fit_series(curve(HyperbolicLaw(1.0, 0.2, 0.0), (1, 2)))
    assert found.intervals() == {}
    assert np.isnan(found.predict(3).low)
    assert found.solve(1.05).confident is None


def test_the_texts_error_has_no_part_in_what_is_said_of_this_text():
    law = HyperbolicLaw(1.0, 0.2, 0.3)
    plain, unsure = (fit_series(curve(law, (1, 2, 4, 9), loss_se=se)) for se in (0.0, 0.02))
    assert unsure.predict(5) == plain.predict(5)
    assert unsure.intervals() == plain.intervals()
    assert unsure.solve(1.05) == plain.solve(1.05)
    # On texts of this kind is the other question, and asked by name.
    other = unsure.on_other_texts(5)
    assert other.high - other.low > 2 * 1.6 * 0.02
    assert plain.on_other_texts(5) is None
    said = recommend(FitResult((unsure,), ""), 1.05).summary()
    assert "on this text, mean of all subsets" in said
    assert "on texts of this kind: " in said


def complete(losses: dict[int, float], pool_size: int = 9) -> Series:
    """Every subset of these k was measured."""
    points = tuple(Point(k, x, comb(pool_size, k), comb(pool_size, k)) for k, x in losses.items())
    return Series("average", "{}", None, "macro", pool_size, points)


def test_where_every_subset_was_measured_the_mean_is_what_was_measured():
    losses = {1: 1.2, 2: 1.11, 4: 1.04, 9: 1.03}
    found = fit_series(complete(losses))
    for k, loss in losses.items():
        predicted = found.predict(k)
        assert (predicted.loss, predicted.low, predicted.high) == (loss, loss, loss)
    between = found.predict(3)
    assert between.low < between.loss < between.high
    # Nor is there anything open about the k of a target that a measured mean meets.
    solution = found.solve(1.04)
    assert (solution.k, solution.confident) == (4, 4)


def test_one_set_of_draws_answers_for_losses_and_for_k():
    found = fit_series(complete({1: 1.2, 2: 1.115, 4: 1.04, 9: 1.03}))
    for target in (1.05, 1.07, 1.035):
        solution = found.solve(target, 0.9)
        assert solution.low <= solution.exact <= solution.high
        chances = (found.draws.means <= target).mean(axis=0)
        assert solution.confident == next(k for k, p in enumerate(chances, 1) if p >= 0.9)
        decision = decide(found, CurveGoal(target_loss=target))
        assert decision.k == solution.k
        assert (decision.low, decision.high) == tuple(
            min(10, int(np.ceil(x - 1e-9))) for x in (solution.low, solution.high)
        )


def test_a_forecast_may_have_an_offset_below_zero_and_the_papers_form_not():
    truth = HyperbolicLaw(1.0, 0.2, -0.13)
    found = fit_series(complete({k: truth.predict(k) for k in (1, 2, 4)}))
    assert found.law.offset == 0
    assert found.forecast.offset == pytest.approx(-0.13, abs=1e-9)
    assert found.predict(9).loss == pytest.approx(truth.predict(9), abs=0.003 * 0.2)
    assert abs(found.law.predict(9) - truth.predict(9)) > 0.01 * 0.2
    assert found.intervals()["offset"][0] >= LOWEST_OFFSET
    steep = fit_series(complete({1: 2.0, 2: 1.1, 4: 1.05}))
    assert steep.forecast.offset == pytest.approx(LOWEST_OFFSET)


def test_the_prior_of_the_offset_has_a_third_below_zero():
    axis = offset_axis()
    b = np.expm1(np.linspace(axis.low, axis.high, 200_001))
    mass = np.exp(axis.log_prior(np.log1p(b)))
    mass /= mass.sum()
    assert (b[0], b[-1]) == (pytest.approx(LOWEST_OFFSET), pytest.approx(MAX_OFFSET))
    assert mass[b < 0].sum() == pytest.approx(0.5 / (0.5 + 50 / 51), abs=1e-3)
    assert mass[b < 0.95].sum() == pytest.approx(2 / 3, abs=0.01)


@pytest.mark.parametrize("rise", [0.05, 0.1])
def test_a_rise_that_is_seen_is_no_lack_of_fit(rise):
    def mean(k: int) -> float:
        return 1 + 0.2 / k + rise * (k - 1) / 8

    found = fit_series(complete({k: mean(k) for k in (1, 2, 4, 9)}))
    for k in (3, 6, 7, 8):
        said = found.predict(k)
        assert said.low <= mean(k) <= said.high
        assert said.high - said.low < 0.02 * 0.2
    assert found.draws is not None
    assert np.median(found.draws.rise) == pytest.approx(rise, rel=0.05)


def test_no_rise_is_forecast_that_only_a_prior_tells_of():
    found = fit_series(complete({1: 1.2, 2: 1.1, 4: 1.05}))
    assert found.draws is not None
    assert not found.draws.rise.any()
    assert found.predict(9).loss == pytest.approx(1 + 0.2 / 9, abs=0.003 * 0.2)


def test_the_prior_of_the_scale_of_a_rise_is_half_cauchy():
    axis = rise_axis()
    v = np.linspace(axis.low, axis.high, 200_001)
    # A density in the logarithm, less the factor that the normal density given the scale has.
    mass = np.exp(axis.log_prior(v) + v)
    below = mass[v < np.log(0.1)].sum() / mass.sum()
    low, high = np.arctan(np.exp([axis.low, axis.high]) / 0.1)
    assert below == pytest.approx((np.pi / 4 - low) / (high - low), abs=1e-4)


def test_no_confidence_beyond_the_largest_measured_k_without_saying_that_nothing_was_seen():
    found = fit_series(complete({1: 1.2, 2: 1.1, 4: 1.05}))
    result = FitResult((found,), "")
    far = recommend(result, 1.033).summary()
    assert "k = 7, if the curve goes on: nothing beyond k = 4 was seen" in far
    assert "seen" not in recommend(result, 1.06).summary()
    pool = Pool((PoolSize(Path("b"), {name: Path(name) for name in "abcdefghi"}),), {}, {})
    said = decision_text(decide(found, CurveGoal(target_loss=1.033)), CurvePlan(pool))
    assert "nothing beyond k = 4 was seen" in said


def test_another_pool_is_a_wider_question(real):
    found = fit(real).fits[0]
    own, other = found.predict(5), found.another_pool(5)
    assert other.high - other.low > own.high - own.low
    assert fit_series(curve(HyperbolicLaw(1.0, 0.2, 0.3))).another_pool(5) is None


@pytest.mark.parametrize(
    ("name", "phi"),
    [
        ("1/k", lambda k: 1 / k),
        ("1/(k+b)", lambda k: 1 / (k + 2.0)),
        ("exponential", lambda k: np.exp(-k / 3)),
        ("power", lambda k: k**-0.4),
    ],
)
def test_the_right_tail_wins_by_leaving_out_each_k(name, phi):
    rng = np.random.default_rng(0)
    losses = {k: float(1 + 0.3 * phi(k) + 1e-5 * rng.standard_normal()) for k in range(1, 10)}
    found = fit_series(series(losses))
    scores = {score.name: score for score in found.tails}
    best = found.tails[0].left_out
    # 1/k is a member of two other families.
    assert scores[name].left_out <= 1.6 * best
    assert scores[name].aicc == min(s.aicc for s in found.tails) or name == "1/k"


def test_a_slightly_negative_offset_is_reported_and_no_alarm():
    law = HyperbolicLaw(1.0, 0.2, -0.1)
    found = fit_series(series({k: law.floor + law.tail / (k - 0.1) for k in range(1, 10)}))
    assert found.law.offset == 0
    assert found.forecast.offset == pytest.approx(-0.1, abs=1e-3)
    assert "tail is not 1/k" not in [sign.sign for sign in diagnose(found)]


def test_interference_is_fitted_on_request():
    law = InterferenceLaw(1.0, 0.5, 0.2, interference=0.8, saturation=8.0)
    losses = series({k: law.predict(k) for k in range(1, 17)}, pool_size=16)
    found = fit_series(losses, form="interference")
    for k in range(1, 17):
        assert found.law.predict(k) == pytest.approx(law.predict(k), abs=1e-5)
    assert any(sign.sign == "upturn" for sign in diagnose(fit_series(losses)))
    with pytest.raises(InputError, match="needs six different k"):
        fit_series(curve(law, (1, 2, 3)), form="interference")


def test_the_robust_fit_shrugs_off_one_wrong_mean():
    law = HyperbolicLaw(1.0, 0.2, 0.3)
    losses = {k: law.predict(k) for k in range(1, 10)}
    losses[5] += 0.05
    plain, robust = (fit_series(series(losses), robust=r).law.floor for r in (False, True))
    assert abs(robust - 1.0) < 0.2 * abs(plain - 1.0)


def test_signs_of_trouble_are_named():
    rising = fit_series(series({1: 1.0, 2: 1.1, 4: 1.2}, base_loss=0.9))
    signs = [found.sign for found in diagnose(rising)]
    assert {"no gain from merging", "the base is better", "upturn"} <= set(signs)
    harmful = (ExpertEffect("bad", 0.02, 0.001, 9), ExpertEffect("fine", -0.01, 0.001, 9))
    found = diagnose(fit_series(curve(HyperbolicLaw(1.0, 0.2, 0.0), effects=harmful)))
    assert [sign.sign for sign in found] == ["negative transfer"]
    assert "`bad` (+0.0200" in found[0].evidence
    points = tuple(Point(k, 1 + 0.2 / k, 20, 10**6, spread=0.01 * k) for k in (1, 2, 4, 6))
    wide = diagnose(fit_series(Series("m", "{}", None, "", 9, points)))
    assert "spread does not shrink" in [sign.sign for sign in wide]


@pytest.mark.parametrize(("worst", "said"), [(3.0, True), (1.3, False)])
def test_an_expert_far_above_the_others_is_named_where_subsets_were_sampled(worst, said, tmp_path):
    rows = "k,subset,loss_nats\n"
    losses = [1.2, 1.21, 1.22, 1.23, 1.24, 1.25, 1.26, 1.27, worst]
    rows += "".join(f"1,{name},{x}\n" for name, x in zip("abcdefghi", losses, strict=True))
    rows += "2,a+b,1.1\n2,c+d,1.11\n2,e+i,1.2\n9,a+b+c+d+e+f+g+h+i,1.05\n"
    (tmp_path / "m.csv").write_text(rows)
    signs = {sign.sign: sign for sign in diagnose(fit(tmp_path / "m.csv").fits[0])}
    assert ("skewed pool" in signs) is said
    assert not said or "`i` alone has 3.0000" in signs["skewed pool"].evidence


def test_a_floor_that_does_not_fall_with_size_is_named(tmp_path):
    rows = "method,n_params,k,loss_nats\n"
    for size, floor in (("0.5B", 0.5), ("1B", 0.6), ("2B", 0.4)):
        rows += "".join(f"average,{size},{k},{floor + 0.1 / k}\n" for k in (1, 2, 4, 8))
    (tmp_path / "m.csv").write_text(rows)
    assert any("floor does not fall" in line for line in all_signs(fit(tmp_path / "m.csv")))


def test_cost_decides_between_sizes_and_the_budget_limits(tmp_path):
    rows = "method,n_params,k,loss_nats\n"
    for size, floor in (("0.5B", 0.6), ("1.5B", 0.5)):
        rows += "".join(f"average,{size},{k},{floor + 0.3 / k}\n" for k in (1, 2, 4, 8))
    (tmp_path / "m.csv").write_text(rows)
    result = fit(tmp_path / "m.csv")
    # 0.7 takes three experts of 0.5B (3.0 GPU hours) or two of 1.5B (6.0).
    best = recommend(result, 0.7).best
    assert (best.fit.series.n_params, best.k) == (5e8, 3)
    assert best.cost == pytest.approx(3 * 0.5 * 2.0011)
    # Where serving is what costs, the same; where training is free and fixed, fewer experts win.
    per_expert = CostModel(train=0, merge=0, train_fixed=1)
    best = recommend(result, 0.7, costs=per_expert).best
    assert (best.fit.series.n_params, best.k) == (1.5e9, 2)
    tight = recommend(result, goal=Goal(target_loss=0.7, budget=2.5))
    assert not tight.reached
    assert tight.within_budget.loss == pytest.approx(0.75)
    front = recommend(result, 0.7).pareto
    assert [o.cost for o in front] == sorted(o.cost for o in front)
    assert [o.loss for o in front] == sorted((o.loss for o in front), reverse=True)


def test_the_simple_average_is_taken_where_the_gap_is_small(tmp_path):
    rows = "method,k,loss_nats\n"
    for method, floor in (("ties", 0.995), ("average", 1.0)):
        rows += "".join(f"{method},{k},{floor + 0.3 / k}\n" for k in (1, 2, 4, 8))
    (tmp_path / "m.csv").write_text(rows)
    best = recommend(fit(tmp_path / "m.csv"), 1.06).best
    assert best.fit.series.method == "average"
    assert "the simpler average is taken" in best.reasons[-1]
    (tmp_path / "m.csv").write_text(rows.replace("ties,", "ties,").replace("0.995", "0.9"))
    far = rows
    for k in (1, 2, 4, 8):
        far = far.replace(f"ties,{k},{0.995 + 0.3 / k}", f"ties,{k},{0.95 + 0.3 / k}")
    (tmp_path / "m.csv").write_text(far)
    assert recommend(fit(tmp_path / "m.csv"), 1.06).best.fit.series.method == "ties"


def test_without_a_target_ninety_percent_of_the_improvement_decides():
    best = recommend(mergeplan.fit(PUBLISHED, pool_size=16)).best
    assert best.k == best.k90 == 12
    near = recommend(mergeplan.fit(PUBLISHED, pool_size=16), goal=Goal(epsilon=0.05)).best
    assert near.near_floor == 25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trian: 1", "unknown key `trian`"),
        ("train: -1", "`train`: expected a number of at least 0, found -1"),
        ("train: cheap", "`train`: expected a number, found .cheap."),
        ("- 1", "expected a mapping"),
        ("[", "cannot read costs"),
    ],
)
def test_bad_costs_are_named(text, message, tmp_path):
    (tmp_path / "c.yml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_costs(tmp_path / "c.yml")


def test_costs_keep_their_defaults(tmp_path):
    (tmp_path / "c.yml").write_text("unit: euro\nserve: 3")
    assert load_costs(tmp_path / "c.yml") == CostModel(unit="euro", serve=3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("k,loss_nats,subset\n1,1.0,a\n1,1.0,a\n", "row 3, column `loss_nats`: 1.0 repeats row 2"),
        ("k,loss_nats,subset\n1,1.0,a\n1,2.0,a\n", "2.0 contradicts row 2"),
        ("k,loss_nats\n0,1.0\n0,1.0\n", "repeats row 2"),
        ("k,loss_nats,loss_se\n1,1.0,x\n", "row 2, column `loss_se`"),
    ],
)
def test_rows_that_repeat_or_contradict_are_refused(rows, message, tmp_path):
    (tmp_path / "m.csv").write_text(rows)
    with pytest.raises(InputError) as caught:
        fit(tmp_path / "m.csv")
    assert message in caught.value.message


def test_a_seed_tells_two_runs_of_a_random_method_apart(tmp_path):
    rows = "k,loss_nats,subset,seed\n"
    for k, subset in ((1, "a"), (1, "b"), (2, "a+b")):
        rows += "".join(f"{k},{1 + 0.1 / k + seed / 1000},{subset},{seed}\n" for seed in (0, 1))
    (tmp_path / "m.csv").write_text(rows)
    points = fit(tmp_path / "m.csv").fits[0].series.points
    assert [(p.k, p.n_subsets) for p in points] == [(1, 2), (2, 1)]


def test_sizes_that_were_not_measured_are_asked_of_the_joint_law(real):
    found = recommend(fit(real), 1.55, sizes=(2e6, 846_976.0))
    # Every k at each size that was asked for, measured or not, also where another is better.
    assert {(o.n_params, o.k) for o in found.asked} == {
        (n_params, k) for n_params in (2e6, 846_976.0) for k in range(1, 10)
    }
    assert {option.forecast for option in found.asked if option.n_params == 2e6} == {True}
    assert all(f"    {option.text()}" in found.summary() for option in found.asked)
    forecasts = [option for option in found.pareto if option.forecast]
    assert {option.n_params for option in forecasts} == {2e6}
    assert found.cheapest.loss <= 1.55
    assert found.cheapest.cost == min(option.cost for option in found.pareto if option.loss <= 1.55)


def test_three_points_take_the_closed_form():
    law = HyperbolicLaw(0.7137, 0.0783, 0.6875)
    found = fit_series(curve(law, (1, 2, 4))).law
    assert found.offset == pytest.approx(0.6875, abs=1e-11)
    assert found.floor == pytest.approx(0.7137, abs=1e-12)


def test_the_answer_says_which_targets_would_not_change_it():
    best = recommend(fit(PUBLISHED, pool_size=16), 0.66).best
    assert any("any target from 0.6597 to 0.6649 would give the same k" in r for r in best.reasons)


def test_a_pool_of_ten_thousand_is_answered_from_some_of_its_k():
    law = HyperbolicLaw(1.0, 0.2, 0.3)
    points = tuple(Point(k, law.predict(k), 20, 10**6, 0.02 / k) for k in (1, 2, 4, 8))
    found = fit_series(Series("m", "{}", None, "", 10_000, points))
    assert len(found.draws.ks) < 150
    assert found.predict(777).loss == pytest.approx(law.predict(777), abs=0.005)
    solution = found.solve(1.03)
    assert solution.low < 0.2 / 0.03 - 0.3 < solution.high
    assert (found.draws.at(solution.confident) <= 1.03).mean() >= 0.9
    assert (found.draws.at(solution.confident - 1) <= 1.03).mean() < 0.9
