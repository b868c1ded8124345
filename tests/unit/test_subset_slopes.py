"""Slopes by the experts' weights, beside values, in the law of single subsets."""

import csv
from base64 import b64decode
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from mergeplan.errors import InputError
from mergeplan.measurements.file import read_rows
from mergeplan.reporting.reduced import reduced, terms
from mergeplan.selection.fitting import fit_table
from mergeplan.selection.problem import Problem
from mergeplan.selection.sizes import link_sizes
from mergeplan.selection.table import Table, tables_of
from mergeplan.selection.target import Target, mean_of
from mergeplan.selection.weights import gradient
from mergeplan.subset_law.fit import fit_subset_law
from mergeplan.subset_law.form import HIGHEST_DEGREE, gram_root
from mergeplan.subset_law.leaning import Smaller
from mergeplan.subset_law.left_out import leave_each_out
from mergeplan.subset_law.rows import REMAINDER, Rows, covariances
from mergeplan.subset_law.solving import by_values, solved
from mergeplan.subset_law.transfer import fit_with_smaller

DATA = Path(__file__).parents[1] / "data"
NAMES = tuple("abcde")
STEP = 1e-5


def shares(*subsets: str) -> np.ndarray:
    return np.array([[(name in s) / max(len(s), 1) for name in NAMES] for s in subsets])


EVERY = shares(*("".join(s) for k in range(1, 6) for s in combinations(NAMES, k)))
MERGES = shares("", "a", "b", "c", "d", "e", "abcde", "abd", "cde", "bce", "ade", "bcd")


def surface(weights: np.ndarray, seed: int = 0, rough: float = 0.0) -> np.ndarray:
    """A cubic of the weights, and something beside that is not."""
    rng = np.random.default_rng(seed)
    a, q, t = (rng.normal(size=(5,) * d) / 2**d for d in (1, 2, 3))
    value = 2 + weights @ a + np.einsum("ni,nj,ij->n", weights, weights, q)
    value += np.einsum("ni,nj,nl,ijl->n", weights, weights, weights, t)
    return value + rough * np.sin(3 * weights @ rng.normal(size=5))


def central(function, weights: np.ndarray, step: float = STEP) -> np.ndarray:
    """Slopes of a function of weights, (n, n_experts, …), by central differences."""
    steps = step * np.eye(weights.shape[1])
    both = [(function(weights + s) - function(weights - s)) / (2 * step) for s in steps]
    return np.stack(both, axis=1)


def fitted(slopes: bool = True, rough: float = 0.05, **more):
    values = surface(MERGES, rough=rough)
    found = central(lambda w: surface(w, rough=rough), MERGES) if slopes else None
    return fit_subset_law(MERGES, values, NAMES, slopes=found, **more)


def test_covariances_of_slopes_are_the_kernels_derivatives() -> None:
    rng = np.random.default_rng(1)
    weights, others = rng.dirichlet(np.ones(5), 2), rng.dirichlet(np.ones(5), 3)
    mixed = rng.normal(size=(5, 5))
    seen_by = gram_root(mixed @ mixed.T, 5), rng.normal(size=5)

    def kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        left, right = (Rows.of(w).seen(w, *seen_by) for w in (left, right))
        return covariances(left, right, HIGHEST_DEGREE)

    def to_slopes(left: np.ndarray) -> np.ndarray:
        return central(lambda w: kernel(left, w).transpose(2, 0, 1), others)  # (m, M, degree, n)

    rows = [Rows.of(w, np.zeros_like(w)).seen(w, *seen_by) for w in (weights, others)]
    found = covariances(*rows, HIGHEST_DEGREE)
    assert np.array_equal(found[:, :2, :3], kernel(weights, others))
    mixed_part = to_slopes(weights).transpose(2, 3, 0, 1).reshape(3, 2, 15)
    assert found[:, :2, 3:] == pytest.approx(mixed_part, abs=1e-8)
    twice = central(lambda w: to_slopes(w).transpose(3, 0, 1, 2), weights)  # (n, M, m, M, degree)
    assert found[:, 2:, 3:] == pytest.approx(
        twice.transpose(4, 0, 1, 2, 3).reshape(3, 10, 15), abs=1e-4
    )


def test_a_remainder_is_of_one_point_and_grows_with_its_norm() -> None:
    weights = shares("a", "abcde")
    rows = Rows.of(weights, np.array([[0.0] * 5, [np.nan] * 5]))
    remainder, misfit = rows.seen(weights, np.eye(5), np.zeros(5)).own_parts()
    assert np.diag(remainder)[:2] == pytest.approx([1.0, 0.2**REMAINDER])
    # Of (αᵀβ)^d at α = β = e_a: by α_a, and by both.
    assert remainder[0, 2:] == pytest.approx([REMAINDER, 0, 0, 0, 0])
    assert np.diag(remainder)[2:] == pytest.approx([REMAINDER**2, *[REMAINDER] * 4])
    assert not remainder[1, [0, *range(2, 7)]].any()
    assert np.array_equal(misfit, np.diag([0, 0, 1, 1, 1, 1, 1]))


def test_slopes_say_all_of_a_cubic_where_values_do_not() -> None:
    truth = surface(EVERY)
    with_slopes, alone = fitted(rough=0.0), fitted(False, rough=0.0)
    assert np.abs(with_slopes.predict(EVERY) - truth).max() < 1e-5
    assert np.abs(alone.predict(EVERY) - truth).max() > 1e-2


def test_predictions_slopes_and_series_are_of_one_function() -> None:
    law = fitted()
    cross = law.prior.split(law.prior.powers(Rows.of(EVERY), law.rows))[0]
    assert law.predict(EVERY) == pytest.approx(law.constant + cross @ law.duals, abs=1e-11)
    slopes = central(law.predict, EVERY)
    rows = Rows.of(EVERY, slopes)
    assert law.expected(rows)[len(EVERY) :] == pytest.approx(slopes.ravel(), abs=1e-7)
    assert gradient(law, EVERY[9]) == pytest.approx(slopes[9], abs=1e-7)
    own, joint = law.errors.joint(law.errors.join(EVERY))
    mean, covariance = own @ law.observed, law.scale**2 * joint
    assert mean == pytest.approx(law.predict(EVERY), abs=1e-10)
    assert np.sqrt(np.diag(covariance)) == pytest.approx(law.deviations(EVERY), rel=1e-6)
    assert Problem(law).costs(MERGES) == pytest.approx(law.values)


@pytest.mark.parametrize("more", [{}, {"noise": np.diag([1e-4, *[0.0] * 11])}])
def test_without_slopes_no_number_changes(more) -> None:
    values = surface(MERGES, rough=0.05)
    before = fit_subset_law(MERGES, values, NAMES, **more)
    after = fit_subset_law(MERGES, values, NAMES, slopes=np.full_like(MERGES, np.nan), **more)
    for read in ("variances", "left_out", "scale", "duals", "inverse"):
        assert np.array_equal(getattr(before, read), getattr(after, read))
    for of in ("predict", "deviations", "covariances", "shares"):
        assert np.array_equal(getattr(before, of)(EVERY), getattr(after, of)(EVERY))


def test_a_point_is_left_out_with_its_slopes() -> None:
    law = fitted()
    for gone in (1, 7):
        rest = np.delete(np.arange(len(MERGES)), gone)
        # The same prior: its contrast is that of all merges.
        less = replace(law, weights=MERGES[rest], values=law.values[rest], slopes=law.slopes[rest])
        less = solved(less, law.variances, less.prior.parts(less.rows))
        expected = less.predict(MERGES[gone][None])[0]
        assert law.left_out[gone] == pytest.approx(expected, abs=1e-7)


def test_errors_of_a_left_out_point_are_weighed_by_their_covariance() -> None:
    law = fitted()
    found = leave_each_out(law.inverse, law.observed, law.rows.places)
    for gone in (0, 7):  # the base, and a merge
        rest = np.delete(np.arange(len(MERGES)), gone)
        less = replace(law, weights=MERGES[rest], values=law.values[rest], slopes=law.slopes[rest])
        less = solved(less, law.variances, less.prior.parts(less.rows))
        point = Rows.of(MERGES[[gone]], law.slopes[[gone]])
        errors = np.append(law.values[gone], law.slopes[gone]) - less.expected(point)
        shares = less.errors.shares(point)
        covariance = less.errors.between(point, shares, point, shares)
        own = point.seen(point.weights, law.geometry, law.contrast).own_parts()
        covariance += np.tensordot(law.variances[3:5], own, 1) + law.variances[5] * np.eye(6)
        square = errors @ np.linalg.solve(covariance, errors)
        assert found.away[gone] ** 2 * 6 == pytest.approx(square, rel=1e-4)
        assert found.variances[gone] == pytest.approx(covariance[0, 0], rel=1e-4)
    assert list(found.sizes) == [6] * 12


def test_intervals_widen_between_the_base_and_a_sum_of_one_where_the_form_bends_away() -> None:
    def bent(weights: np.ndarray) -> np.ndarray:
        return surface(weights) + 0.3 * np.exp(-3 * weights @ [1, 0.7, 1.3, 0.9, 1.1])

    law = fit_subset_law(MERGES, bent(MERGES), NAMES, slopes=central(bent, MERGES))
    assert law.below > 1.5
    assert fitted().below < 1.1
    plain, half = replace(law, below=1.0), 0.5 * EVERY
    assert law.deviations(half) == pytest.approx(law.below * plain.deviations(half))
    assert np.array_equal(law.deviations(EVERY), plain.deviations(EVERY))
    # The more, the further from 1, and in full from three quarters down; no less beyond.
    assert law.widening(np.array([[1.2], [1.0], [0.875], [0.5], [0.0]])) == pytest.approx(
        [1, 1, (1 + law.below) / 2, law.below, law.below]
    )
    assert by_values(law).below == 1


def test_some_merges_may_have_no_slopes_and_an_unmeasured_one_is_passed_over() -> None:
    values = surface(MERGES)
    slopes = central(surface, MERGES)
    slopes[[1, 8]] = np.nan
    values[9] = np.nan
    law = fit_subset_law(MERGES, values, NAMES, slopes=slopes)
    assert len(law.observed) == 11 + 9 * 5
    assert np.abs(law.predict(EVERY) - surface(EVERY)).max() < 5e-3


def test_slopes_stand_beside_rows_with_errors() -> None:
    values, slopes = surface(MERGES), central(surface, MERGES)
    noise = np.zeros((12, 12))
    noise[9, 9] = 1e-2
    slopes[9] = np.nan
    law = fit_subset_law(MERGES, values, NAMES, slopes=slopes, noise=noise)
    assert law.noisy
    assert law.predict(MERGES[9:]) == pytest.approx(surface(MERGES[9:]), abs=5e-3)
    assert 0 < law.deviations(MERGES[9:])[0] < 2e-2


def test_on_another_text_only_values_are_known_to_move() -> None:
    law = fitted()
    found = law.shares(EVERY)
    assert found.shape == (len(EVERY), len(MERGES))
    assert found.sum(1) == pytest.approx(1.0)
    assert by_values(law).slopes is None
    ab = by_values(law).errors.shares(Rows.of(shares("ab"))).shares[0]
    assert found[EVERY[:, :2].sum(1) == 1] == pytest.approx(
        np.array([[0, 1, *[0] * 10], [0, 0, 1, *[0] * 9], ab])
    )


def test_a_larger_size_leans_on_a_smaller_one_by_slopes_too() -> None:
    small = fitted(rough=0.0)

    def large(weights: np.ndarray) -> np.ndarray:
        return 1.5 * surface(weights) + surface(weights, seed=3) / 50

    few = shares("a", "bc", "de", "abcde")
    found = fit_with_smaller(
        few, large(few), NAMES, {8e4: small}, slopes=central(large, few)
    )  # fmt: skip
    assert found.transfer is not None
    assert found.transfer.used
    assert found.factor == pytest.approx(1.5, abs=0.05)
    assert np.abs(found.predict(EVERY) - large(EVERY)).max() < 0.02
    # Moments are differences of large numbers: a shorter step is lost in their rounding.
    slopes = central(found.predict, EVERY[:3], step=1e-3)
    rows = Rows.of(EVERY[:3], slopes)
    assert found.expected(rows)[3:] == pytest.approx(slopes.ravel(), abs=1e-3)
    with_it = central(
        lambda w: Smaller(small).moments(Rows.of(w), Rows.of(few)), EVERY[:3], step=1e-3
    )
    found = Smaller(small).moments(rows, Rows.of(few))[3:]
    assert found == pytest.approx(with_it.reshape(15, 4), abs=1e-4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shrinkages": (1.0, 0.5)}, "weighted sum"),
        ({"noise": np.eye(12)}, "whole text"),
        ({"part": True}, "all or none"),
    ],
)
def test_slopes_without_a_place_in_the_form_are_refused(change, says) -> None:
    slopes = central(surface, MERGES)
    if change.pop("part", False):
        slopes[3, 1] = np.nan
    with pytest.raises(InputError, match=says):
        fit_subset_law(MERGES, surface(MERGES), NAMES, slopes=slopes, **change)


def test_twenty_merges_of_a_real_pool_tell_the_other_subsets() -> None:
    rows, _ = read_rows(DATA / "select_80k.csv")
    (table,) = tables_of(rows, "average")
    with (DATA / "slopes_80k.csv").open(newline="") as file:
        read = {row.pop("subset"): row for row in csv.DictReader(file)}
    slopes = np.full_like(table.weights, np.nan)
    for at, weights in enumerate(table.weights):
        names = "+".join(name for name, w in zip(table.experts, weights, strict=True) if w)
        if names in read:
            slopes[at] = [float(read[names][name]) for name in table.experts]
    target = table.target("macro")
    measured = np.where(np.isfinite(slopes).all(1), target.values, np.nan)
    asked = replace(target, values=measured, slopes=slopes)
    few = replace(table, targets={"macro": asked})
    law = fit_table(few, "macro")
    rest = np.isnan(measured)
    truth, found = target.values[rest], law.predict(table.weights[rest])
    assert 1 - np.sum((found - truth) ** 2) / np.sum((truth - truth.mean()) ** 2) > 0.999
    best = table.weights[np.argmin(np.where(rest, law.predict(table.weights), measured))]
    assert target.values[(table.weights == best).all(1)][0] <= target.values.min() + 3e-5
    ratios = (found - truth) / law.deviations(table.weights[rest])
    assert 0.5 < np.sqrt(np.mean(ratios**2)) < 2


def test_slopes_tell_what_changes_with_the_sum() -> None:
    values, slopes = surface(MERGES), central(surface, MERGES)
    table = Table("average", "{}", None, NAMES, MERGES, {"x": Target("x", values)})
    assert table.largest_sum is None
    sloped = replace(table, targets={"x": Target("x", values, slopes=slopes)})
    assert sloped.largest_sum == 1
    smaller = 0.4 * EVERY
    assert np.abs(fit_table(sloped, "x").predict(smaller) - surface(smaller)).max() < 5e-3
    assert np.abs(fit_table(table, "x").predict(smaller) - surface(smaller)).max() > 0.02
    dare = replace(sloped, method="dare", options='{"density": 0.5}')
    assert dare.weighted
    assert dare.shrinkages == (1.0,)


@pytest.mark.parametrize("gram", [None, np.diag([4.0, 1, 1, 1, 9]) + 0.5])
def test_a_page_predicts_by_a_law_with_slopes(gram, monkeypatch) -> None:
    # As of one that leans on a smaller size; tests/browser/test_laws.py has the others.
    monkeypatch.setattr("mergeplan.reporting.reduced.MOST_MADE", 0)
    law = replace(fitted(), geometry=gram_root(gram, 5))
    law = replace(solved(law, law.variances, law.prior.parts(law.rows)), below=1.4)
    form = reduced(law)
    assert form["kind"] == "terms"
    assert (form["remainder"]["gram"] is None) == (gram is None)
    weights = np.concatenate([EVERY, 0.3 * EVERY, np.zeros((1, 5))])
    features = terms(weights)
    beta = np.frombuffer(b64decode(form["coefficients"]), "<f8")
    roots = np.frombuffer(b64decode(form["roots"]), "<f4").reshape(-1, form["rank"])
    assert features @ beta == pytest.approx(law.predict(weights), abs=1e-6)
    inner = np.eye(5)
    if gram is not None:
        inner = np.frombuffer(b64decode(form["remainder"]["gram"]), "<f8").reshape(5, 5)
    square = np.einsum("ni,ij,nj->n", weights, inner, weights)
    own = form["misfit"] + form["remainder"]["variance"] * square ** form["remainder"]["degree"]
    assert own == pytest.approx(law.misfits(weights))
    wider = form["wider"]["by"] * np.maximum(1 - weights.sum(1), 0)
    wider = 1 + (form["wider"]["most"] - 1) * np.minimum(wider, 1)
    deviations = law.scale * wider * np.sqrt(((features @ roots) ** 2).sum(1) + own)
    assert deviations == pytest.approx(law.deviations(weights), rel=0.05)


def test_a_table_over_its_pools_experts_leaves_slopes_out() -> None:
    law = fitted()
    small = Table("average", "{}", 1e5, NAMES, MERGES, {"x": Target("x", law.values)})
    own = Target("x", law.values, slopes=law.slopes)
    kept = (MERGES[:, 4] == 0) & (MERGES.sum(1) > 0)
    own = replace(own, values=own.values[kept], slopes=own.slopes[kept, :4])
    large = Table("average", "{}", 1e6, NAMES[:4], MERGES[kept, :4], {"x": own}, pool_size=5)
    _, wide = link_sizes([small, large])
    assert wide.experts == NAMES
    assert wide.targets["x"].slopes is None
    assert wide.plain.targets["x"].slopes is not None
    assert fit_table(wide, "x").slopes is None
    assert fit_table(wide.plain, "x").slopes is not None


def test_slopes_of_a_mean_are_the_mean_of_slopes() -> None:
    law = fitted()
    one = Target("x", law.values, slopes=law.slopes)
    other = Target("y", law.values, slopes=np.ones((12, 5)))
    other.slopes[2] = np.nan
    mean = mean_of("x=3,y", [one, other], [3.0, 1.0]).slopes
    assert mean[0] == pytest.approx(0.75 * law.slopes[0] + 0.25)
    assert np.isnan(mean[2]).all()
    assert mean_of("x,y", [one, replace(other, slopes=None)], [1.0, 1.0]).slopes is None
