"""Laws of many rows as the page evaluates them, against the law itself."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mergeplan.reporting.page import page_text
from mergeplan.reporting.reduced import reduced
from mergeplan.subset_law.fit import fit_subset_law
from mergeplan.subset_law.form import gram_root
from mergeplan.subset_law.law import SubsetLaw
from mergeplan.subset_law.solving import solved

PREDICT = "([law, some]) => some.map(predictor(law)).map((one) => [one.value, one.deviation])"


def a_law(
    n: int, *, gram: bool, degree: int = 3, sloped: bool = True, middle: int | None = None
) -> SubsetLaw:
    """Of the base, singles and middle subsets of a pool with a cubic loss, slopes at most."""
    rng = np.random.default_rng(n)
    some = (rng.random((middle or n, n)) < 0.4).astype(float)
    some[:, 0] += some.sum(1) == 0
    weights = np.concatenate([np.zeros((1, n)), np.eye(n), some / some.sum(1, keepdims=True)])
    a, q, t = (rng.normal(size=(n,) * d) / 2**d for d in (1, 2, 3))
    values = 2 + weights @ a + np.einsum("pi,pj,ij->p", weights, weights, q)
    values += np.einsum("pi,pj,pl,ijl->p", weights, weights, weights, t)
    slopes = a + weights @ (q + q.T)
    for order in ("xjl", "jxl", "jlx"):
        slopes = slopes + np.einsum(f"pj,pl,{order}->px", weights, weights, t)
    slopes[3] = np.nan  # a point without
    names = tuple(f"e{i}" for i in range(n))
    law = fit_subset_law(weights, values, names, slopes=slopes if sloped else None)
    mixed = np.random.default_rng(0).normal(size=(n, 3 * n))
    law = replace(law, geometry=gram_root(mixed @ mixed.T if gram else None, n))
    variances = np.delete(law.variances, range(degree, law.prior.degree))
    law = replace(law, variances=variances)
    law = solved(law, variances, law.prior.parts(law.rows))
    return replace(law, below=1.4) if sloped else law


@pytest.fixture
def evaluate(opened: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Evaluates a script on a page of no panels."""
    run = {"name": "x", "experts": [], "targets": [{"label": "x", "metric": ""}], "groups": []}
    run |= {"merges": [], "panels": {}, "notes": []}
    page = tmp_path / "page.html"
    page.write_text(page_text({"runs": [run]}, [], "x"))
    return opened(page).evaluate  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "given",
    [
        {"n": 12, "gram": True},
        {"n": 5, "gram": False, "degree": 2},
        {"n": 9, "gram": True, "sloped": False, "middle": 140},
    ],
)
def test_a_page_predicts_as_the_law_does(evaluate, given) -> None:
    law, n = a_law(**given), given["n"]
    form = reduced(law)
    assert form is not None
    assert form["kind"] == "made"
    rng = np.random.default_rng(1)
    chosen = (rng.random((30, n)) < 0.5) * rng.exponential(size=(30, n))
    weights = chosen / np.maximum(chosen.sum(1, keepdims=True), 1e-9)
    weights[::3] *= rng.random((10, 1)) * 1.5  # of any sum
    found = np.array(evaluate(PREDICT, [form, weights.tolist()]))
    assert np.abs(found[:, 0] - law.predict(weights)).max() < 1e-6
    assert found[:, 1] == pytest.approx(law.deviations(weights), rel=1e-4, abs=1e-6)
