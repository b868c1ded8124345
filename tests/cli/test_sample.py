"""`mergeplan sample` as a user meets it; what it writes runs in both tools."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from mergeplan.config.labels import LABELS
from mergeplan.pool.subsets import read_subsets
from tests.support.checkpoints import load_tensors
from tests.support.commands import cli
from tests.support.merges import run_mergekit, run_mergeplan

RANDOM = {"dare", "dare_ties", "della", "della_linear"}
OPTIONS = {
    "average": "{}",
    "task_arithmetic": "{lambda: 0.8}",
    "ties": "{density: 0.3, lambda: 0.5}",
    "dare": "{density: 0.8}",
    "dare_ties": "{density: 0.8}",
    "breadcrumbs": "{density: 0.9, gamma: 0.05}",
    "breadcrumbs_ties": "{density: 0.9, gamma: 0.05}",
    "della": "{density: 0.6, epsilon: 0.2}",
    "della_linear": "{density: 0.6, epsilon: 0.2}",
}


@pytest.fixture
def pool(demo_pool, tmp_path):
    """A pool file of four of the bundled experts, and every method."""
    experts = ", ".join(f"{name}: {demo_pool / name}" for name in ("js", "md", "perl", "json"))
    methods = "".join(f"  {label}: {options}\n" for label, options in OPTIONS.items())
    path = tmp_path / "pool.yml"
    path.write_text(
        f"sizes: [{{base: {demo_pool / 'base'}, experts: {{{experts}}}}}]\nmethods:\n{methods}"
    )
    return path


def sample(pool, out, *options):
    run = cli("sample", pool, "-o", out, *options)
    assert run.returncode == 0, run.stderr
    return run


def rows_of(out, **wanted):
    rows = read_subsets(out / "subsets.csv")
    return [r for r in rows if all(getattr(r.merge, key) == v for key, v in wanted.items())]


def test_a_sample_has_the_base_the_singles_the_scan_and_the_subsets(pool, tmp_path):
    run = sample(pool, tmp_path / "s", "--method", "ties", "--k", "2,3", "--count", 3)
    assert "k = 1: 4 of 4, k = 2: 3 of 6, k = 3: 4 of 4, k = 4: 1 of 1, other options: 4" in (
        run.stdout
    )
    rows = rows_of(tmp_path / "s")
    assert len(rows) == 1 + 4 + 3 + 4 + 5
    assert sorted(row.merge.settings["lambda"] for row in rows if row.merge.k == 4) == [
        0.2, 0.3, 0.5, 0.8, 1.0,
    ]  # fmt: skip
    assert len(list((tmp_path / "s" / "configs").iterdir())) == len(rows)
    assert len(rows_of(tmp_path / "s", method="base")) == 1


def test_all_experts_are_part_of_every_design(pool, tmp_path):
    for ks in ("1,2", "2"):
        sample(pool, tmp_path / ks, "--method", "average", "--k", ks, "--count", 2)
        sizes = {row.merge.k for row in rows_of(tmp_path / ks)}
        assert sizes == {0, 1, 2, 4}


def test_a_dry_run_counts_and_writes_nothing(pool, tmp_path):
    run = sample(pool, tmp_path / "s", "--dry-run", "--json")
    assert not (tmp_path / "s").exists()
    counted = json.loads(run.stdout)
    sample(pool, tmp_path / "s")
    assert len(rows_of(tmp_path / "s")) == counted["merges"]
    assert sum(entry["merges"] for entry in counted["counts"]) == counted["merges"]


def test_a_sample_grows_and_keeps_rows_and_files(pool, tmp_path):
    out = tmp_path / "s"
    few = ("--method", "average", "--design", "balanced", "--k", 2)
    sample(pool, out, *few, "--count", 2)
    before = rows_of(out)
    marked = before[-1].config
    marked.write_text(marked.read_text() + "# mine\n")
    run = sample(pool, out, *few, "--count", 4)
    assert f"{len(before) + 2} merges, {len(before)} of them there before" in run.stdout
    assert set(before) <= set(rows_of(out))
    assert marked.read_text().endswith("# mine\n")
    again = (out / "subsets.csv").read_bytes()
    sample(pool, out, *few, "--count", 4)
    assert (out / "subsets.csv").read_bytes() == again


def test_another_pool_in_the_same_folder_is_refused(pool, demo_pool, tmp_path):
    sample(pool, tmp_path / "s", "--method", "average")
    before = (tmp_path / "s" / "subsets.csv").read_bytes()
    run = cli("sample", demo_pool / "pool.yml", "-o", tmp_path / "s")
    assert run.returncode == 1
    assert "was written for another pool" in run.stderr
    assert (tmp_path / "s" / "subsets.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "tis"), "hint: did you mean `ties`?"),
        (("--k", "2,5"), "k = 5: the pool has 4 experts"),
        (("--size", "7B"), "the pool has no base of 7B"),
    ],
)
def test_what_the_pool_lacks_is_named(pool, tmp_path, options, message):
    run = cli("sample", pool, "-o", tmp_path / "s", *options)
    assert run.returncode == 1
    assert message in run.stderr
    assert not (tmp_path / "s").exists()


def test_a_pool_of_one_expert_is_refused(demo_pool, tmp_path):
    (tmp_path / "p.yml").write_text(
        f"sizes: [{{base: {demo_pool / 'base'}, experts: {{md: {demo_pool / 'md'}}}}}]"
    )
    run = cli("sample", tmp_path / "p.yml", "-o", tmp_path / "s")
    assert run.returncode == 1
    assert "`sizes[0].experts`: found one expert" in run.stderr


def test_more_subsets_than_anyone_measures_are_refused(demo_pool, tmp_path):
    experts = ", ".join(f"e{i}: x{i}" for i in range(40))
    path = tmp_path / "p.yml"
    path.write_text(f"sizes: [{{base: {demo_pool / 'base'}, experts: {{{experts}}}}}]")
    run = cli("sample", path, "-o", tmp_path / "s", "--k", 20, "--design", "all")
    assert run.returncode == 1
    assert "k = 20: 137846528820 subsets of 40 experts" in run.stderr


@pytest.mark.parametrize("label", ["base", *LABELS])
def test_the_yamls_run_in_mergeplan_and_in_mergekit(pool, tmp_path, label):
    method = "average" if label == "base" else label
    sample(pool, tmp_path / "s", "--method", method, "--k", 2, "--count", 1, "--no-lambda-scan")
    row = [row for row in rows_of(tmp_path / "s", method=label) if row.merge.k <= 2][-1]
    text = row.config.read_text()
    run_mergeplan(text, tmp_path / "ours")
    run_mergekit(text, tmp_path / "theirs")
    ours, theirs = load_tensors(tmp_path / "ours"), load_tensors(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    if label in RANDOM:
        # Other masks, but the same distance from the base: L1 norms are matched.
        base = load_tensors(Path(yaml.safe_load(text)["base_model"]))
        moved = [sum((w[n] - base[n]).abs().sum() for n in base) for w in (ours, theirs)]
        assert float(moved[0]) == pytest.approx(float(moved[1]), rel=0.05)
        return
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-6)
