"""The law over sizes: published coefficients come back, and the data decide on gamma."""

from dataclasses import replace
from math import comb

import numpy as np
import pytest
from scipy.optimize import least_squares

from mergeplan.law.formulas import JointLaw
from mergeplan.law.joint import _rows, fit_joint
from mergeplan.law.least_squares import aicc
from mergeplan.law.series import Point, Series
from mergeplan.law.spread import fit_spread, sampling_variance
from tests.support.published_laws import published
from tests.support.shares import paired, spread

SIZES = (0.5, 1.5, 3, 7, 14, 32, 72)
NAMES = ("l_star", "b_size", "beta", "a_0", "gamma", "offset")
METHODS = ("average", "task_arithmetic", "ties")
# R² printed beside each fit; the noise of the tests is drawn to that level.
R2 = {"average": 0.988, "task_arithmetic": 0.994, "ties": 0.985}


def measured(law: JointLaw, noise: np.ndarray | None = None) -> list[Series]:
    """Series of means at k = 1 to 9 for all sizes; noise has shape (sizes, 9)."""
    found = []
    for number, n in enumerate(SIZES):
        points = tuple(
            Point(k, law.predict(k, n) + (0.0 if noise is None else noise[number, k - 1]), 1, 10**6)
            for k in range(1, 10)
        )
        found.append(Series("m", "{}", n * 1e9, "macro", 9, points))
    return found


@pytest.mark.parametrize(("domain", "method"), paired(sorted(published("average")), list(METHODS)))
def test_noiseless_published_fits_come_back(domain, method):
    law = published(method)[domain]
    found = fit_joint(measured(law)).law
    for name in NAMES:
        expected = getattr(law, name)
        if name in ("gamma", "offset"):
            assert getattr(found, name) == pytest.approx(expected, abs=1e-6), name
        else:
            assert getattr(found, name) == pytest.approx(expected, rel=1e-6), name


def test_with_noise_the_intervals_hold_the_published_coefficients():
    inside: dict[str, list[bool]] = {name: [] for name in NAMES}
    for method in METHODS:
        for number, law in spread(list(enumerate(published(method).values())), 2):
            clean = np.array([[law.predict(k, n) for k in range(1, 10)] for n in SIZES])
            rng = np.random.default_rng([number, METHODS.index(method)])
            deviation = clean.std() * np.sqrt(1 - R2[method])
            # The paper's weights: the variance of a mean falls like 1/k.
            falling = np.sqrt(3.2 / np.arange(1, 10))
            noise = rng.normal(0, deviation, clean.shape) * falling
            found = fit_joint(measured(law, noise)).intervals(0.9)
            for name, (low, high) in found.items():
                inside[name].append(low - 1e-6 <= getattr(law, name) <= high + 1e-6)
    shares = {name: float(np.mean(held)) for name, held in inside.items() if held}
    # 90 % intervals, 27 fits in the long run: one standard error of a share is 6 %.
    assert min(shares.values()) >= 0.8, shares


def test_gamma_stays_zero_unless_the_data_ask_for_it():
    flat = JointLaw(0.2, 0.3, 0.4, 0.1, 0.0, 0.1)
    falling = JointLaw(0.2, 0.3, 0.4, 0.1, 0.4, 0.1)
    noise = np.random.default_rng(0).normal(0, 1e-3, (len(SIZES), 9))
    assert not fit_joint(measured(flat, noise)).gamma_identified
    found = fit_joint(measured(falling, noise))
    assert found.gamma_identified
    assert found.law.gamma == pytest.approx(0.4, abs=0.1)


def test_beyond_the_measured_sizes_the_interval_widens():
    law = published("average")["code"]
    noise = np.random.default_rng(1).normal(0, 2e-3, (len(SIZES), 9))
    fit = fit_joint(measured(law, noise))
    widths = [high - low for _, low, high in (fit.predict(5, n * 1e9) for n in (72, 300, 1000))]
    assert widths == sorted(widths)
    assert widths[-1] > 1.5 * widths[0]


def test_r2_is_the_share_of_the_variance_that_the_law_explains():
    law = published("average")["algebra"]
    noise = np.random.default_rng(0).normal(0, 0.01, (len(SIZES), 9))
    fit = fit_joint(measured(law, noise))
    points = [(series.n_params / 1e9, p.k, p.loss) for series in fit.series for p in series.points]
    n, k, loss = np.array(points).T
    left = loss - [fit.law.predict(a, b) for a, b in zip(k, n, strict=True)]
    assert fit.r2 == pytest.approx(1 - left.var() / loss.var(), abs=1e-3)
    assert fit.r2 < 0.999


def test_means_count_by_their_variance_and_2_percent_of_the_range():
    """No law of this family has a smaller sum of squares, each weighed as documented."""
    ks = (1, 2, 3, 4, 8)
    law = published("average")["algebra"]
    rng = np.random.default_rng(3)
    members = []
    for n in SIZES:
        # Of 8 experts: a few subsets of each k, all of them at k = 1 and k = 8.
        points = [
            Point(k, law.predict(k, n) + rng.normal(0, 0.02), {1: 8, 8: 1}.get(k, 3), comb(8, k), s)
            for k, s in zip(ks, (0.05, 0.04, 0.03, 0.02, None), strict=True)
        ]
        members.append(Series("m", "{}", n * 1e9, "macro", 8, tuple(points)))
    n, k, loss = np.array([(s.n_billion, p.k, p.loss) for s in members for p in s.points]).T
    spreads = [fit_spread(series.points, 8) for series in members]
    variance = np.array(
        [sampling_variance(p, v) for s, v in zip(members, spreads, strict=True) for p in s.points]
    )
    root = 1 / np.sqrt(variance + (0.02 * (loss.max() - loss.min())) ** 2)

    def misses(found):
        l_star, b_size, beta, a_0, offset = found
        return root * (l_star + b_size * n**-beta + a_0 / (k + offset) - loss)

    found = fit_joint(members).law
    assert found.gamma == 0
    start = (found.l_star, found.b_size, found.beta, found.a_0, found.offset)
    low, high = (0, 0, 0.01, 0, 0), (np.inf, np.inf, 3, np.inf, np.inf)
    polished = least_squares(misses, start, bounds=(low, high), xtol=1e-12, ftol=1e-12)
    assert (misses(start) ** 2).sum() <= 2 * polished.cost * (1 + 1e-5)
    # The weights matter here: those of another floor find another law.
    assert variance.max() > 4 * (0.02 * (loss.max() - loss.min())) ** 2


def test_the_criterion_that_decides_on_gamma_is_akaikes_for_small_samples():
    """Burnham and Anderson (2002): n ln(cost / n) + 2p + 2p(p + 1) / (n - p - 1)."""
    assert aicc(0.5, 20, 5) == pytest.approx(20 * np.log(0.5 / 20) + 10 + 60 / 14)


def test_corrected_means_of_a_size_keep_their_covariance_and_sizes_share_none():
    root = np.random.default_rng(0).standard_normal((9, 9))
    whole = [
        replace(s, covariance=(n * root @ root.T).tolist())
        for n, s in enumerate(measured(published("average")["code"]), 1)
    ]
    found = _rows(whole[::-1]).covariance.reshape(7, 9, 7, 9)
    for i, j in np.ndindex(7, 7):
        expected = (i + 1) * root @ root.T if i == j else np.zeros((9, 9))
        assert found[i, :, j] == pytest.approx(expected)
