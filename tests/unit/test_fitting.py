"""The fit recovers known curves, and the published one."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mergeplan
from mergeplan.errors import InputError
from mergeplan.law.diagnose import diagnose
from mergeplan.law.fit import MAX_OFFSET, ONLY_A_SCAN, fit_law
from mergeplan.law.formulas import HyperbolicLaw, SizeLaw
from tests.support.settings import DATA

PUBLISHED = DATA / "measured_llama3b_16_experts.csv"


def curve(law: SizeLaw, ks) -> np.ndarray:
    return np.array([law.predict(k) for k in ks])


@pytest.mark.parametrize("ks", [range(1, 10), (1, 2, 4), (2, 4, 6, 8, 10, 12, 14, 16)])
@pytest.mark.parametrize("offset", [0.0, 0.0071, 0.6875, 5.25, 20.0])
def test_noiseless_curves_are_recovered(offset, ks):
    law = HyperbolicLaw(floor=0.7137, tail=0.0783, offset=offset)
    k = np.array(list(ks), float)
    found = fit_law(k, curve(law, ks), weights=k)
    assert found.floor == pytest.approx(law.floor, rel=1e-6)
    assert found.tail == pytest.approx(law.tail, rel=1e-4)
    assert found.offset == pytest.approx(law.offset, abs=2e-5 * (1 + offset))
    np.testing.assert_allclose(curve(found, range(1, 17)), curve(law, range(1, 17)), rtol=1e-8)


@given(
    loss=st.lists(st.floats(0.01, 10), min_size=3, max_size=12),
    weights=st.lists(st.floats(0.1, 10), min_size=12, max_size=12),
)
def test_no_coefficient_is_negative_and_no_other_offset_fits_better(loss, weights):
    k = np.arange(1.0, len(loss) + 1)
    y, w = np.array(loss), np.array(weights[: len(loss)])
    law = fit_law(k, y, w)
    assert law.floor >= 0
    assert law.tail >= 0
    assert 0 <= law.offset <= MAX_OFFSET + 1e-9
    cost = float((w * (y - curve(law, k)) ** 2).sum())
    from scipy.optimize import nnls

    for offset in (0.0, 0.3, 1.0, 5.0, 50.0):
        design = np.stack([np.ones_like(k), 1 / (k + offset)], axis=1) * np.sqrt(w)[:, None]
        _, residual = nnls(design, y * np.sqrt(w))
        assert cost <= residual**2 * (1 + 1e-6) + 1e-12


def test_the_posterior_draws_are_those_of_seed_0_unless_another_is_asked_for():
    given, zero, one = (
        mergeplan.fit(PUBLISHED, domain="overall", **seed).fits[0].intervals()
        for seed in ({}, {"seed": 0}, {"seed": 1})
    )
    assert given == zero != one


def test_the_published_sixteen_expert_curve():
    (found,) = mergeplan.fit(PUBLISHED, domain="overall").fits
    assert found.law.offset == pytest.approx(5.25, abs=0.05)
    assert found.law.floor == pytest.approx(0.574, abs=0.001)
    assert found.law.tail == pytest.approx(1.47, abs=0.01)
    assert found.r2 >= 0.999
    assert found.law.solve(0.66) == pytest.approx(11.94, abs=0.01)
    assert found.series.domain == "macro"


def test_the_domain_defaults_to_the_macro_mean():
    (default,), (overall,) = (
        mergeplan.fit(PUBLISHED).fits,
        mergeplan.fit(PUBLISHED, domain="overall").fits,
    )
    assert default == overall
    (code,) = mergeplan.fit(PUBLISHED, domain="code").fits
    assert code.series.domain == "code"


def write(path: Path, rows: str) -> Path:
    path.write_text(rows)
    return path


def test_the_macro_mean_is_formed_where_every_domain_is_present(tmp_path):
    rows = "k,subset,domain,loss_nats\n"
    for subset, a, b in (("x", 1.0, 2.0), ("y", 3.0, 4.0), ("x+y", 1.0, 1.0)):
        rows += f"{subset.count('+') + 1},{subset},a,{a}\n{subset.count('+') + 1},{subset},b,{b}\n"
    rows += "2,x+z,a,9.0\n"
    (found,) = mergeplan.fit(write(tmp_path / "m.csv", rows), pool_size=3).fits
    assert [(p.k, p.loss, p.n_subsets) for p in found.series.points] == [(1, 2.5, 2), (2, 1.0, 1)]
    assert found.series.points[0].best_subset == ("x",)


def test_each_method_and_size_is_a_curve_of_its_own(tmp_path):
    rows = "method,n_params,k,loss_nats\n"
    for method in ("average", "ties"):
        for size in ("0.5B", "1.5B"):
            rows += "".join(f"{method},{size},{k},{1 + 1 / k}\n" for k in (1, 2, 4))
    result = mergeplan.fit(write(tmp_path / "m.csv", rows), pool_size=9)
    assert len(result.fits) == 4
    only = mergeplan.fit(tmp_path / "m.csv", pool_size=9, method="ties")
    assert {f.series.method for f in only.fits} == {"ties"}
    assert {f.series.n_params for f in only.fits} == {5e8, 1.5e9}


def test_too_few_k_are_said_and_not_guessed(tmp_path):
    rows = "method,k,loss_nats\na,1,2.0\na,2,1.5\nb,1,2.0\n"
    result = mergeplan.fit(write(tmp_path / "m.csv", rows), pool_size=9)
    assert len(result.fits) == 1
    assert "offset b is set to 0" in result.fits[0].warnings[0]
    assert "b: needs losses at two different k" in result.skipped[0]
    with pytest.raises(InputError, match="nothing to fit"):
        mergeplan.fit(write(tmp_path / "n.csv", "k,loss_nats\n1,2.0\n"), pool_size=9)


def test_a_rising_curve_has_no_tail_and_says_so(tmp_path):
    rows = "k,loss_nats\n1,1.0\n2,1.1\n3,1.2\n"
    (found,) = mergeplan.fit(write(tmp_path / "m.csv", rows), pool_size=3).fits
    assert found.law.tail == 0
    assert any("does not fall with k" in sign.evidence for sign in diagnose(found))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("k,loss\n1,1.0\n", "column `loss_nats` is missing"),
        ("", "column `k` is missing"),
        ("k,loss_nats\n", "has no rows"),
        (
            "k,loss_nats\n1,\n",
            "row 2, column `loss_nats`: expected a loss in nats from 1e-06",
        ),
        ("k,loss_nats\n1,nan\n", "row 2, column `loss_nats`"),
        ("k,loss_nats\n1,-0.5\n", "row 2, column `loss_nats`"),
        ("k,loss_nats\n1,1.0\n-2,1.0\n", "row 3, column `k`: expected a whole number"),
        ("k,loss_nats\n1.5,1.0\n", "row 2, column `k`"),
        ("k,loss_nats,n_params\n1,1.0,3\n", "row 2, column `n_params`"),
        ("k,loss_nats,n_params\n1,1.0,big\n", "row 2, column `n_params`"),
        ("k,loss_nats,subset\n2,1.0,a\n", "row 2, column `subset`: expected 2 different experts"),
        ("k,loss_nats,subset\n2,1.0,a+a\n", "row 2, column `subset`"),
        ("k,loss_nats,pool_size\n3,1.0,2\n", "column `k`: expected at most the pool size, 2"),
        ("k,loss_nats,options\n3,1.0,x\n", "row 2, column `options`: expected a JSON object"),
        ("k,loss_nats,domain\n1,1.0,a\n2,1.0,b\n", "no merge was measured on every domain"),
    ],
)
def test_a_bad_file_is_named_by_row_and_column(rows, message, tmp_path):
    with pytest.raises(InputError) as caught:
        mergeplan.fit(write(tmp_path / "m.csv", rows))
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("head", "hint"),
    [
        ("k;loss_nats", "by commas, and not by `;`"),
        ("k\tloss_nats", "by commas, and not by tabs"),
        ("k,loss", "if `loss` is meant, name it `loss_nats`"),
        ("K,loss_nats", "if `K` is meant, name it `k`"),
        ("size,result", "needed are `k` and `loss_nats`"),
    ],
)
def test_a_column_that_is_not_there_is_looked_for_among_the_others(head, hint, tmp_path):
    with pytest.raises(InputError, match="is missing; found") as caught:
        mergeplan.fit(write(tmp_path / "m.csv", f"{head}\n"))
    assert hint in caught.value.hint


def test_a_run_in_the_place_of_its_table_is_told_where_that_is(tmp_path):
    table = write(tmp_path / "measurements.csv", "k,loss_nats\n")
    with pytest.raises(InputError, match="it is a folder") as caught:
        mergeplan.fit(tmp_path)
    assert caught.value.hint == f"give the table in it: `{table}`"


def test_an_unknown_method_or_domain_is_guessed():
    with pytest.raises(InputError, match="no rows of method `ties`"):
        mergeplan.fit(PUBLISHED, method="ties")
    with pytest.raises(InputError) as caught:
        mergeplan.fit(PUBLISHED, domain="fysics")
    assert caught.value.hint == "did you mean `physics`?"


def test_a_k_beyond_the_pool_is_refused():
    with pytest.raises(InputError, match="column `k`: k = 10 is measured, but the pool size is 9"):
        mergeplan.fit(PUBLISHED, pool_size=9)


def test_a_lambda_scan_of_its_own_is_no_series_that_lacks_points(tmp_path):
    scan = "".join(f'a,"{{""lambda"": {s}}}",4,1.{n}\n' for n, s in enumerate((0.3, 0.8, 1.0)))
    curve = "".join(f'a,"{{""lambda"": 0.5}}",{k},{1 + 1 / k}\n' for k in (1, 2, 4))
    head, alone = "method,options,k,loss_nats\n", "b,{},4,1.2\n"
    result = mergeplan.fit(write(tmp_path / "m.csv", head + curve + scan + alone), pool_size=9)
    assert result.skipped == ("b: needs losses at two different k or more",)
    # A scan whose method has no curve at all is not said to lack one, nor each of its lambdas.
    other = curve.replace("a,", "c,")
    result = mergeplan.fit(write(tmp_path / "o.csv", head + other + scan), pool_size=9)
    assert result.skipped == ()
    with pytest.raises(InputError) as caught:
        mergeplan.fit(write(tmp_path / "n.csv", head + scan), pool_size=9)
    assert caught.value.message == ONLY_A_SCAN
    # Two lambdas are no scan.
    two = "".join(scan.splitlines(keepends=True)[:2])
    with pytest.raises(InputError) as caught:
        mergeplan.fit(write(tmp_path / "t.csv", head + two), pool_size=9)
    assert caught.value.message.count("needs losses at two different k") == 2
