"""Sizes that are off as a whole: what the law over sizes says of one that was not measured."""

import json
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import norm

from mergeplan.errors import InputError
from mergeplan.law import joint_draws
from mergeplan.law.diagnose import diagnose_sizes
from mergeplan.law.file import load_law, save_law
from mergeplan.law.fit import fit
from mergeplan.law.formulas import JointLaw
from mergeplan.law.joint import fit_joint
from mergeplan.law.joint_draws import SIZE_EFFECT, Rows, _effects, _Grid, _independent, draw_joint
from mergeplan.law.posterior import DRAWS, Observations
from mergeplan.law.recommend import recommend
from mergeplan.law.series import series_of
from mergeplan.law.truncated import gaussian_above, log_chance_above, normal_above
from mergeplan.measurements.file import load_measurements
from mergeplan.verdict.answer import verdict_of
from mergeplan.verdict.from_law import verdict_from_law

KS = (1, 2, 4, 8)


def floor(n):
    return 0.2 + 0.1 * n**-0.4


def table(tmp_path, factors, tail=0.1):
    """A table of means, each size times its factor."""
    rows = ["method,n_params,k,loss_nats"]
    for n, factor in factors.items():
        rows += [f"average,{n}B,{k},{(floor(n) + tail / k) * factor}" for k in KS]
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "m.csv"


@pytest.mark.parametrize("middle", [0.99, 1.01])
def test_three_sizes_whose_middle_is_off_give_no_interval_of_no_width(middle, tmp_path):
    """No draw fitted, and the least-squares point was printed as an interval."""
    result = fit(table(tmp_path, {0.5: 1, 1.5: middle, 3: 1}), pool_size=8)
    found = result.predict(4, 14e9)
    truth = floor(14) + 0.1 / 4
    assert found.low < truth < found.high
    assert 0.01 < (found.high - found.low) / truth < 0.2
    drawn = result.joints[0].draws()
    assert drawn.coefficients["tau"].min() > 0
    assert drawn.coefficients["sigma"].min() > 0


@pytest.mark.parametrize("floors", [(0.3, 0.33, 0.4), (0.3, 0.6, 1.4), (0.3, 0.3, 0.3)])
def test_sizes_that_contradict_the_law_get_draws_of_possible_laws(floors, tmp_path):
    factors = {n: f / floor(n) for n, f in zip((0.5, 1.5, 3), floors, strict=True)}
    joint = fit(table(tmp_path, factors, tail=1e-3), pool_size=8).joints[0]
    drawn = joint.draws().coefficients
    assert all(np.isfinite(values).all() for values in drawn.values())
    assert min(drawn[name].min() for name in ("l_star", "b_size", "a_0")) >= 0
    _, low, high = joint.predict(4, 14e9)
    assert high - low > 0.005 * low


def test_the_scale_of_the_prior_is_said_with_half_and_twice_of_it(tmp_path):
    path = table(tmp_path, {0.5: 1, 1.5: 1, 3: 1})
    found = fit(path, pool_size=8).predict(4, 14e9)
    assert [at.scale for at in found.scales] == [SIZE_EFFECT / 2, SIZE_EFFECT, 2 * SIZE_EFFECT]
    assert (found.scales[1].low, found.scales[1].high) == (found.low, found.high)
    widths = [at.high - at.low for at in found.scales]
    assert widths == sorted(widths)
    assert widths[2] > 1.3 * widths[0]
    assert fit(path, pool_size=8).predict(4, 3e9).scales == ()


def test_three_sizes_are_called_unchecked_and_two_have_no_law(tmp_path):
    words = "law over sizes unchecked"
    for factors, laws, unchecked in (
        ({0.5: 1, 1.5: 1, 3: 1}, 1, True),
        ({0.5: 1, 1.5: 1, 3: 1, 7: 1}, 1, False),
        ({0.5: 1, 1.5: 1}, 0, False),
    ):
        result = fit(table(tmp_path, factors), pool_size=8)
        assert len(result.joints) == laws
        assert (words in [one.sign for one in diagnose_sizes(result)]) == unchecked
        assert ("three sizes, which L*, B and β fit exactly" in result.summary()) == unchecked
    assert result.skipped == ()


def named(tmp_path, pools):
    """A table of every merge of one, two and all of three experts, by size in billions."""
    rows = ["method,n_params,k,subset,loss_nats"]
    for n, names in pools.items():
        for k in (1, 2, 3):
            for subset in combinations(names, k):
                rows.append(f"average,{n}B,{k},{'+'.join(subset)},{floor(n) + 0.1 / k}")
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "m.csv"


def test_sizes_of_several_pools_have_curves_and_no_law_over_sizes(tmp_path):
    """Their names together made one pool of six, of which nothing was complete."""
    result = fit(named(tmp_path, {0.5: "abc", 1.5: "abc", 3: "abd"}))
    assert [one.series.pool_size for one in result.fits] == [3, 3, 3]
    assert all(point.complete for one in result.fits for point in one.series.points)
    assert result.joints == ()
    assert (
        "the experts differ: `c` at 500M and not at 3B, `d` at 3B and not at" in result.skipped[0]
    )
    with pytest.raises(InputError, match="7B was not measured, and no law .* the experts differ"):
        result.predict(2, 7e9)
    with pytest.raises(InputError, match="the experts differ") as caught:
        recommend(result, sizes=(7e9,))
    assert "under the same names" in caught.value.hint


def test_a_size_with_another_number_of_experts_is_of_another_pool(tmp_path):
    path = table(tmp_path, {0.5: 1, 1.5: 1, 3: 1})
    lines = path.read_text().splitlines()
    lines = [f"{line},{9 if '3.0B' in line or ',3B' in line else 8}" for line in lines[1:]]
    path.write_text("\n".join(["method,n_params,k,loss_nats,pool_size", *lines]) + "\n")
    assert "8 experts at 500M, 9 at 3B" in fit(path).skipped[0]


def test_a_large_base_need_not_meet_every_expert(tmp_path):
    path = named(tmp_path, {0.5: "abcd", 1.5: "abcd", 3: "abc"})
    result = fit(path)
    assert [one.series.pool_size for one in result.fits] == [4, 4, 4]
    assert len(result.joints) == 1


def test_another_size_is_refused_where_no_law_over_sizes_was_fitted(tmp_path):
    two = fit(table(tmp_path, {0.5: 1, 1.5: 1}), pool_size=8)
    with pytest.raises(InputError, match="three sizes .* at 500M, average at 1.5B") as caught:
        recommend(two, sizes=(7e9,))
    assert "name" not in caught.value.hint
    assert recommend(two, sizes=(5e8,)).best.k
    one = fit(table(tmp_path, {0.5: 1}), pool_size=8)
    with pytest.raises(InputError, match="three sizes of one method, found average at 500M"):
        one.predict(2, 7e9)


def test_a_size_outside_the_measured_ones_is_warned_of_with_its_factor(tmp_path):
    result = fit(table(tmp_path, {0.5: 1, 1.5: 1, 3: 1}), pool_size=8)
    found = recommend(result, sizes=(1e3, 1e9, 3e9, 7e9))
    assert found.warnings == (
        "a base of 1k is below the measured sizes, 500M to 3B, by a factor of 500,000:"
        " extrapolated",
        "a base of 7B is above the measured sizes, 500M to 3B, by a factor of 2.3: extrapolated",
    )
    assert all(f"warning: {text}" in found.summary() for text in found.warnings)
    assert recommend(result).warnings == ()


def test_a_forecast_says_of_which_row_its_other_intervals_are(tmp_path):
    result = fit(table(tmp_path, {0.5: 1, 1.5: 1, 3: 1}), pool_size=8)
    said = recommend(result, sizes=(7e9,)).summary()
    assert "the interval of k = 8 at 7B is of sizes that are off as a whole by 0.5 %" in said


def test_a_verdict_from_curves_names_the_size_that_it_is_for(tmp_path):
    result = fit(table(tmp_path, {0.5: 1, 1.5: 1, 3: 1}), pool_size=8)
    said = verdict_from_law(recommend(result)).headline()
    assert "of 8 experts by average at 3B, " in said
    low = verdict_from_law(recommend(result, 0.26, sizes=(14e9,)))
    assert "by average at 14B, a size that was not measured, " in low.headline()


def test_a_verdict_on_named_merges_says_which_other_size_is_expected_to_do(tmp_path):
    path = named(tmp_path, {0.5: "abc", 1.5: "abc", 3: "abc"})
    found = recommend(fit(path), 0.28, sizes=(14e9,))
    verdict = verdict_of(path, 0.28, recommendation=found)
    assert not verdict.reached
    assert "a mean is expected to: k = 3 at 14B by average: " in verdict.summary()


def test_a_law_file_keeps_what_is_said_of_another_size(tmp_path):
    result = fit(table(tmp_path, {0.5: 1, 1.5: 1.01, 3: 1}), pool_size=8)
    save_law(result, tmp_path / "law.json")
    assert load_law(tmp_path / "law.json").predict(4, 14e9) == result.predict(4, 14e9)
    (joint,) = json.loads((tmp_path / "law.json").read_text())["joints"]
    assert joint["size_effect_prior"] == SIZE_EFFECT
    assert joint["unchecked"] is True
    low, high = joint["size_effect_90"]
    assert 0 < low < SIZE_EFFECT < high


def test_seven_sizes_tell_how_far_off_they_are(tmp_path):
    sizes = (0.5, 1.5, 3, 7, 14, 32, 72)
    off = np.array([1.5, -1, 0.5, -1.5, 1, 0.5, -1])
    for shift in (0.001, 0.02):
        factors = dict(zip(sizes, 1 + shift * off, strict=True))
        data = load_measurements(table(tmp_path, factors))
        joint = fit_joint(series_of(data, domain=None, method=None, pool_size=8))
        low, high = joint.size_effect()
        assert low < 1.2 * shift < high
        assert high < 5 * shift
    # The effects of measured sizes are known as well as their law is, new ones are not.
    truth = (floor(14) + 0.1 / 4) * factors[14]
    loss, low, high = joint.predict(4, 14e9)
    assert low < truth < high
    assert loss == pytest.approx(truth, rel=1e-3)
    new = joint.predict(4, 15e9)
    assert new[2] - new[1] > 5 * (high - low)


@pytest.mark.parametrize("correlated", [False, True])
def test_the_grid_has_the_likelihood_of_the_whole_covariance(correlated):
    """Generalised least squares with every row of a size correlated, the coefficients flat."""
    rng = np.random.default_rng(0)
    n, ks = np.array([0.5, 2.0, 8.0]), np.array([1.0, 2.0, 4.0])
    size, k = np.repeat(np.arange(3), 3), np.tile(ks, 3)
    loss = 0.3 + 0.1 * n[size] ** -0.5 + 0.1 / k + rng.normal(0, 0.01, 9)
    error, misfit = np.zeros((9, 9)), 1 / k
    if correlated:
        # Of every size one mean is exact, and the others' errors go together.
        root = 1e-2 * rng.standard_normal((9, 9)) * (k > 1)[:, None]
        error, misfit = root @ root.T * (size[:, None] == size), np.ones(9)
    rows = Rows(n, size, k, loss, error if correlated else None)
    rotation, variance = _independent(rows)
    plain = Observations.of(loss, variance, misfit)
    data = replace(plain, loss=rotation @ plain.loss)
    low = np.array([-data.level / data.drop, 0.0, 0.0])
    nodes = [np.log([0.3, 0.7]), np.log1p([0.0, 1.0]), np.log([0.01, 0.1]), np.log([0.02, 0.2])]
    grid = _Grid(rows, rotation, data, low, nodes)
    found = (grid.log_likelihood - grid.log_inside).reshape(2, 2, 2, 2)
    level = np.array([plain.loss[size == j].mean() for j in range(3)]) - low[0]
    expected = np.empty((2, 2, 2, 2))
    for at in np.ndindex(2, 2, 2, 2):
        beta, offset, tau, sigma = (v[i] for v, i in zip(nodes, at, strict=True))
        power, b = n ** -np.exp(beta), np.expm1(offset)
        by_k = 1 / (1 + b) - 1 / (4 + b)
        columns = [np.ones(9), power[size] / (power[0] - power[2]), 1 / (k + b) / by_k]
        design = np.stack(columns, axis=1)
        effect = np.exp(2 * sigma) * np.diag(level**2)[size][:, size]
        own = error / data.drop**2 + np.exp(2 * tau) * np.diag(misfit)
        precision = np.linalg.inv(own + effect)
        normal = design.T @ precision @ design
        rest = plain.loss - design @ np.linalg.solve(normal, design.T @ precision @ plain.loss)
        determinants = np.linalg.slogdet(normal)[1] - np.linalg.slogdet(precision)[1]
        expected[at] = -(determinants + rest @ precision @ rest) / 2
    assert found == pytest.approx(expected, abs=1e-6)


def correlated_rows():
    """Of three sizes, at each of which an error is shared by all means."""
    n, size = np.array([0.5, 2.0, 8.0]), np.repeat(np.arange(3), 4)
    k = np.tile(np.array(KS, float), 3)
    covariance = 1e-4 * (0.9 + 0.1 * np.diag(k)) * (size[:, None] == size)
    return Rows(n, size, k, floor(n[size]) + 0.1 / k, covariance)


def test_an_error_that_all_means_of_a_size_share_is_none_of_their_differences():
    rows, widths = correlated_rows(), []
    for covariance in (rows.covariance, np.diag(np.diag(rows.covariance))):
        drawn = draw_joint(
            replace(rows, covariance=covariance), free_gamma=False, scale=SIZE_EFFECT, seed=0
        ).coefficients
        drop = 1 / (1 + drawn["offset"]) - 1 / (8 + drawn["offset"])
        widths.append(np.std(drawn["a_0"] * drop))
    assert widths[0] < 0.7 * widths[1]


def test_effects_are_those_of_the_whole_covariance():
    """Their expectation given the law, by generalised least squares."""
    rows = correlated_rows()
    rotation, variance = _independent(rows)
    law = {"l_star": 0.2, "b_size": 0.08, "beta": 0.4, "a_0": 0.12, "gamma": 0.1, "offset": 0.2}
    drawn = {name: np.array([x]) for name, x in (law | {"tau": 0.004, "sigma": 0.01}).items()}
    still = SimpleNamespace(standard_normal=np.zeros)
    (found,) = _effects(rows, rotation, variance, np.ones(12), drawn, still)
    expected = JointLaw(**law).predict
    rest = rows.loss - [expected(k, n) for k, n in zip(rows.k, rows.n[rows.size], strict=True)]
    for j in range(3):
        own = rows.size == j
        weight = np.linalg.inv(rows.covariance[np.ix_(own, own)] + 0.004**2 * np.eye(4))
        prior = 1 / (0.01 * rows.loss[own].mean()) ** 2
        assert found[j] == pytest.approx((weight @ rest[own]).sum() / (weight.sum() + prior))


def test_draws_above_bounds_are_those_that_rejection_leaves():
    rng = np.random.default_rng(0)
    precision = np.linalg.inv([[1.0, 0.8, -0.3], [0.8, 1.5, 0.2], [-0.3, 0.2, 0.7]])
    centre, low = np.array([0.3, -1.0, 0.5]), np.array([0.0, 0.0, 0.2])
    many = 200_000
    free = rng.multivariate_normal(centre, np.linalg.inv(precision), many)
    kept = free[(free >= low).all(1)]
    shape = np.broadcast_to(centre, (many, 3)), np.broadcast_to(precision, (many, 3, 3))
    drawn, log_weight = gaussian_above(*shape, low, rng)
    weight = np.exp(log_weight)
    assert drawn.min(0) == pytest.approx(low, abs=1e-2)
    assert weight.mean() == pytest.approx(len(kept) / many, rel=0.03)
    assert weight @ drawn / weight.sum() == pytest.approx(kept.mean(0), abs=0.02)
    far, weight = gaussian_above(shape[0][:100] - 50, shape[1][:100], low, rng)
    assert (far >= low).all()
    assert np.isfinite(weight).all()


def test_chances_above_a_bound_hold_however_far():
    at = np.linspace(-8, 60, 200)
    assert log_chance_above(at) == pytest.approx(norm.logsf(at), abs=2e-3)
    drawn = normal_above(np.repeat([-1.0, 0.3, 3.0], 20_000), np.random.default_rng(0))
    for bound, values in zip((-1.0, 0.3, 3.0), drawn.reshape(3, -1), strict=True):
        assert values.min() >= bound
        assert values.mean() == pytest.approx(norm.pdf(bound) / norm.sf(bound), abs=0.03)


def test_the_prior_alone_speaks_where_nothing_was_learned():
    """Three exact sizes: σ is drawn as its prior has it, nine tenths below 6.3 of its medians."""
    n, size = np.array([0.5, 2.0, 8.0]), np.repeat(np.arange(3), 4)
    k = np.tile(np.array(KS, float), 3)
    rows = Rows(n, size, k, floor(n[size]) + 0.1 / k, None)
    sigma = draw_joint(rows, free_gamma=False, scale=SIZE_EFFECT, seed=0).coefficients["sigma"]
    assert 0.5 * SIZE_EFFECT < np.median(sigma) < 1.5 * SIZE_EFFECT


def test_draws_that_the_bounds_make_unlikely_are_not_kept(monkeypatch):
    """Of four that are drawn one is kept, by the weights of all."""
    kept = []

    def first_half_only(centre, precision, low, rng):
        drawn, log_weight = gaussian_above(centre, precision, low, rng)
        log_weight[len(drawn) // 2 :] = -1e3
        drawn[len(drawn) // 2 :] = 1e3
        kept.append(len(drawn) // DRAWS)
        return drawn, log_weight

    monkeypatch.setattr(joint_draws, "gaussian_above", first_half_only)
    n, size = np.array([0.5, 2.0, 8.0]), np.repeat(np.arange(3), 4)
    k = np.tile(np.array(KS, float), 3)
    rows = Rows(n, size, k, floor(n[size]) + 0.1 / k, None)
    drawn = draw_joint(rows, free_gamma=False, scale=SIZE_EFFECT, seed=0).coefficients
    assert kept == [4]
    assert drawn["b_size"].max() < 100
