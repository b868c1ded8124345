"""Slopes from a run's file to what the law is fitted to."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mergeplan.errors import InputError
from mergeplan.measurements.rows import Measurement
from mergeplan.measurements.slopes import Slope, slopes_text
from mergeplan.selection.slopes import rows_with_slopes
from mergeplan.selection.table import tables_of

EXPERTS = ("a", "b", "c")
DOMAINS = ("x", "y")


def rows_of(method="average", options="{}"):
    found = []
    for subset in (("a",), ("b",), ("c",), ("a", "b"), EXPERTS):
        for domain in (*DOMAINS, "macro"):
            merge = {"k": len(subset), "method": method, "options": options, "subset": subset}
            row = Measurement(0, loss_nats=2.0, domain=domain, seed="0", pool_hash="p", **merge)
            found.append(row)
    return tuple(found)


def slope(domain, expert, subset):
    return float(DOMAINS.index(domain) + 10 * EXPERTS.index(expert) + 100 * len(subset))


def run_of(folder, rows, **changes):
    (folder / "run.json").write_text("{}")
    slopes = [
        Slope(row.merge_key, row.domain, expert, slope(row.domain, expert, row.subset), "p")
        for row in rows
        if row.domain != "macro" and row.k > 1
        for expert in EXPERTS
    ]
    (folder / "gradients.csv").write_text(slopes_text(replace(one, **changes) for one in slopes))
    return folder / "measurements.csv"


def test_rows_of_domains_and_of_their_mean_get_theirs(tmp_path):
    rows = rows_of()
    found = rows_with_slopes(run_of(tmp_path, rows), rows)
    for row in found:
        known = [slope(name, "b", row.subset) for name in DOMAINS]
        expected = {"x": known[0], "y": known[1], "macro": sum(known) / 2}[row.domain]
        assert dict(row.slopes).get("b") == (expected if row.k > 1 else None)
    assert rows_with_slopes(tmp_path / "elsewhere" / "measurements.csv", rows) == rows


def test_a_table_has_them_by_row_and_expert_also_of_weaker_merges(tmp_path):
    method = "task_arithmetic"
    own, weaker = (json.dumps({"lambda": strength}) for strength in (1.0, 0.5))
    rows = rows_of(method, own) + tuple(
        row for row in rows_of(method, weaker) if row.subset == EXPERTS
    )
    (table,) = tables_of(rows_with_slopes(run_of(tmp_path, rows), rows))
    for name, target in table.targets.items():
        assert target.slopes.shape == table.weights.shape
        for weights, slopes in zip(table.weights, target.slopes, strict=True):
            k, total = (weights > 0).sum(), weights.sum()
            base = {"x": 0.0, "y": 1.0, "macro": 0.5}[name] + 100 * k
            # One more of a weight in the table is two more of the weaker merge's own.
            expected = (base + 10 * np.arange(3)) / (0.5 if total < 0.75 else 1.0)
            assert np.array_equal(slopes, expected if k > 1 else np.full(3, np.nan), equal_nan=True)
    assert {round(total, 3) for total in table.weights.sum(1)} == {0.5, 1.0}


def test_methods_that_elect_signs_have_none_and_others_shrink_by_k(tmp_path):
    for method, sloped in (("ties", False), ("dare", True)):
        rows = rows_of(method)
        (table,) = tables_of(rows_with_slopes(run_of(tmp_path, rows), rows))
        assert all((one.slopes is not None) == sloped for one in table.targets.values())
        assert (table.shrinkages == (1.0,)) == sloped


def test_a_mean_that_the_table_forms_has_the_mean_of_its_domains(tmp_path):
    rows = tuple(row for row in rows_of() if row.domain != "macro")
    (table,) = tables_of(rows_with_slopes(run_of(tmp_path, rows), rows))
    means = (table.targets["x"].slopes + table.targets["y"].slopes) / 2
    assert np.array_equal(table.targets["macro"].slopes, means, equal_nan=True)


def test_a_file_of_another_pool_is_refused(tmp_path):
    rows = rows_of()
    with pytest.raises(InputError, match="expected `pool_hash` `p`, as the table"):
        rows_with_slopes(run_of(tmp_path, rows, pool_hash="q"), rows)


def test_the_bases_are_along_deltas_and_count_lambda_times(tmp_path):
    base = tuple(
        Measurement(0, 0, 2.0, domain=domain, pool_hash="p") for domain in (*DOMAINS, "macro")
    )
    (tmp_path / "run.json").write_text("{}")
    slopes = [
        Slope(base[0].merge_key, d, e, slope(d, e, ()), "p") for d in DOMAINS for e in EXPERTS
    ]
    (tmp_path / "gradients.csv").write_text(slopes_text(slopes))
    for method, options, factor in (
        ("average", "{}", 1.0),
        ("task_arithmetic", '{"lambda": 0.5}', 0.5),
        ("dare", "{}", None),
    ):
        rows = (*rows_of(method, options), *base)
        (table,) = tables_of(rows_with_slopes(tmp_path / "measurements.csv", rows))
        found = table.targets["y"].slopes
        if factor is None:
            assert found is None
        else:
            at = int(np.flatnonzero(table.weights.sum(1) == 0)[0])
            assert np.array_equal(found[at], factor * (1.0 + 10 * np.arange(3)))
            assert np.isnan(np.delete(found, at, 0)).all()
