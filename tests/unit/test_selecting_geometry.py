"""The experts' geometry: what it tells, and how it is found beside a run's table."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from mergeplan.calibration.subset_plan import SubsetPlan, first_subset_round
from mergeplan.calibration.subset_rounds import next_subset_round
from mergeplan.errors import InputError
from mergeplan.evaluation.measured import RUN
from mergeplan.measurements.file import read_rows
from mergeplan.measurements.rows import Measurement, Measurements
from mergeplan.pool.geometry.compare import similarity
from mergeplan.pool.geometry.file import Gram, grams_of, load_grams, save_geometry
from mergeplan.pool.pool import load_pool
from mergeplan.selection.active import first_subsets
from mergeplan.selection.geometry import GEOMETRY, grams_beside, with_grams
from mergeplan.selection.select import select
from mergeplan.selection.table import tables_of
from mergeplan.subset_law.fit import fit_subset_law
from mergeplan.subset_law.form import gram_root
from tests.support.settings import DEMO_POOL
from tests.tools.trial.pools import KINDS, KnownPool

SIZE = 18


@pytest.fixture(scope="module")
def pool():
    """Three clusters of experts, whose vectors are known."""
    rule = KINDS["clusters"](SIZE, np.random.default_rng([1, SIZE]))
    return KnownPool("clusters", tuple(f"e{i:02}" for i in range(SIZE)), {}, {}, rule)


def law_of(pool, gram, seed):
    subsets = first_subsets(pool.names, 36, seed=seed)
    weights = np.array([[(name in s) / len(s) for name in pool.names] for s in subsets])
    return fit_subset_law(weights, np.array([pool.loss(s) for s in subsets]), pool.names, gram=gram)


@pytest.mark.parametrize("seed", range(3))
def test_the_geometry_of_clusters_tells_most_of_what_was_not_measured(pool, seed):
    vectors = pool.rule.vectors
    rng = np.random.default_rng(seed)
    draws = [rng.choice(pool.names, k, replace=False) for k in range(2, SIZE) for _ in range(5)]
    subsets = [tuple(sorted(draw)) for draw in draws]
    weights = np.array([[(name in s) / len(s) for name in pool.names] for s in subsets])
    losses = np.array([pool.loss(s) for s in subsets])
    plain, true = (law_of(pool, gram, seed) for gram in (None, vectors @ vectors.T))
    assert true.by_geometry
    assert not plain.by_geometry
    errors = [np.sqrt(np.mean((law.predict(weights) - losses) ** 2)) for law in (plain, true)]
    assert errors[1] < errors[0] / 3


def test_an_expert_of_ten_times_the_norm_does_not_outweigh_the_others():
    gram = np.diag([1.0, 1.0, 1.0, 100.0])
    squares = (gram_root(gram, 4) ** 2).sum(1)
    assert squares[3] == pytest.approx(10 * squares[0])
    assert squares.mean() == pytest.approx(1)


def test_an_expert_that_is_the_base_has_no_direction():
    root = gram_root(np.diag([1.0, 4.0, 0.0]), 3)
    assert np.allclose((root**2).sum(1), [1, 2, 0])


@pytest.fixture
def beside(tmp_path):
    """A table, and beside it a geometry, which counts where the folder is a run's."""
    shutil.copy(DEMO_POOL / "measurements.csv", tmp_path / "measurements.csv")
    save_geometry(similarity(DEMO_POOL / "pool.yml"), tmp_path / GEOMETRY)
    return tmp_path / "measurements.csv"


def test_a_runs_geometry_is_used_and_that_of_another_folder_is_not(beside):
    assert grams_beside(beside, ()) == ()
    (beside.parent / RUN).write_text("{}")
    (gram,) = grams_beside(beside, ())
    assert gram.matrix.shape == (9, 9)
    (beside.parent / GEOMETRY).write_text("{}")
    with pytest.raises(InputError, match=GEOMETRY):
        grams_beside(beside, ())


@pytest.mark.parametrize(
    ("pool_hash", "said"), [("other", "has `pool_hash` `other`"), ("", "has no `pool_hash`")]
)
def test_a_geometry_of_another_pool_beside_a_runs_table_is_refused(beside, pool_hash, said):
    rows = [replace(row, pool_hash="own") for row in read_rows(beside)[0]]
    path = beside.parent / GEOMETRY
    (beside.parent / RUN).write_text("{}")
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "pool_hash": "own"}))
    assert len(grams_beside(beside, rows)) == 1
    path.write_text(json.dumps({**data, "pool_hash": pool_hash}))
    with pytest.raises(InputError, match=f"{said}, and what was measured is of pool `own`"):
        grams_beside(beside, rows)


def test_a_geometry_of_version_1_is_read_as_of_no_known_pool(beside):
    path = beside.parent / GEOMETRY
    data = json.loads(path.read_text())
    del data["pool_hash"]
    path.write_text(json.dumps({**data, "version": 1}))
    assert load_grams(path)[0].pool_hash == ""
    path.write_text(json.dumps({**data, "version": 3}))
    with pytest.raises(InputError, match="version 1 or 2"):
        load_grams(path)


def test_a_geometry_of_other_experts_is_left_out_unless_it_was_asked_for(beside):
    rows, _ = read_rows(beside)
    table = tables_of(rows)[0]
    stranger = Gram(80592, ("a", "b"), np.eye(2))
    assert with_grams([table], [stranger])[0].gram is None
    with pytest.raises(InputError, match="the geometry has no expert"):
        with_grams([table], [stranger], asked=True)


def test_select_says_whether_it_leans_on_the_geometry(beside):
    rows, _ = read_rows(beside)
    names = tables_of(rows)[0].experts
    wanted = {"", *("+".join(subset) for subset in first_subsets(names, 30))}
    head, *lines = beside.read_text().splitlines()
    columns = head.split(",")
    cells = [dict(zip(columns, line.split(","), strict=False)) for line in lines]
    some = [line for line, cell in zip(lines, cells, strict=True) if cell["subset"] in wanted]
    beside.write_text("\n".join([head, *some]) + "\n")
    grams = grams_of(similarity(DEMO_POOL / "pool.yml"))
    said = [
        select(beside, method="task_arithmetic", geometry=given).summary() for given in (grams, ())
    ]
    assert "by how the experts lie to each other" in said[0]
    assert "by how the experts lie to each other" not in said[1]


def test_a_geometry_that_explains_nothing_is_not_taken(pool):
    """That of other experts."""
    vectors = pool.rule.vectors[np.random.default_rng(0).permutation(SIZE)]
    assert not law_of(pool, vectors @ vectors.T, 0).by_geometry


def test_rounds_lean_on_the_geometry():
    plan = SubsetPlan(load_pool(DEMO_POOL / "pool.yml"))
    rule = KINDS["clusters"](9, np.random.default_rng(1))
    known = KnownPool("clusters", tuple(plan.names), {}, {(): 2.0}, rule)
    rows = [
        Measurement(row, m.k, known.loss(m.subset), m.method if m.k else "base", subset=m.subset)
        for row, m in enumerate(first_subset_round(plan), 2)
    ]
    gram = Gram(plan.pool.sizes[0].count_params(), known.names, rule.vectors @ rule.vectors.T)
    table = Measurements(tuple(rows), "")
    with_it, without = (next_subset_round(table, plan, grams=given) for given in ([gram], []))
    assert with_it.reason != without.reason
