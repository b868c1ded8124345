"""`mergeplan select` as a user meets it."""

import csv
import json
import re

import pytest
import yaml

from mergeplan.pool.pool import load_pool
from mergeplan.selection.active import first_subsets
from tests.support.checkpoints import weights_of
from tests.support.commands import cli
from tests.support.merges import run_mergekit
from tests.support.settings import DATA

SWEEP = DATA / "select_80k.csv"


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Sixty averages of the real pool, and its base."""
    records = list(csv.DictReader(SWEEP.read_text().splitlines()))
    names = sorted(r["subset"] for r in records if r["k"] == "1" and r["method"] == "ties")
    wanted = {"+".join(subset) for subset in first_subsets(names, 60)}
    path = tmp_path_factory.mktemp("select") / "few.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, records[0].keys())
        writer.writeheader()
        for r in records:
            if r["method"] == "base" or (r["method"] == "average" and r["subset"] in wanted):
                writer.writerow(r)
    return path


def test_it_names_the_best_experts_and_says_how_sure_it_is(few):
    run = cli("select", few)
    assert run.returncode == 0
    named = re.search(r"for `macro` by average at 80.6k, merge \d of 9 experts: (.*)", run.stdout)
    losses = {
        r["subset"]: float(r["loss_nats"])
        for r in csv.DictReader(SWEEP.read_text().splitlines())
        if r["method"] == "average" and r["domain"] == "macro"
    }
    assert losses[named[1].replace(", ", "+")] - min(losses.values()) < 1e-4
    assert "best weights that sum to 1" in run.stdout
    assert "of any sum" not in run.stdout
    assert "to be surer, measure: " in run.stdout
    assert "warning: the base itself has 1.9068" in run.stderr


def test_bounds_json_and_the_front(few):
    run = cli(
        "select",
        few,
        "--keep",
        "python<=1.85",
        "--max-experts",
        4,
        "--front",
        "python,md",
        "--json",
    )
    assert run.returncode == 0
    data = json.loads(run.stdout)
    best = data["selections"][0]["best"]
    assert "python" in best["subset"]
    assert len(best["subset"]) <= 4
    assert data["front"][0]["subset"] == ["python"]


def test_nothing_that_keeps_the_bounds_exits_with_4_and_writes_nothing(few, demo_pool, tmp_path):
    out = tmp_path / "merge.yml"
    run = cli("select", few, "--max-loss", "1.5", "--pool", demo_pool / "pool.yml", "-o", out)
    assert run.returncode == 4
    assert "error: nothing keeps the bounds on `macro`" in run.stderr
    assert not out.exists()


@pytest.mark.parametrize("weights", ["equal", "simplex"])
def test_what_it_writes_runs_in_mergekit_and_here_to_the_same_weights(
    few, demo_pool, tmp_path, weights
):
    out = tmp_path / "merge.yml"
    pool = ("--pool", demo_pool / "pool.yml", "-o", out)
    run = cli("select", few, "--max-experts", 3, "--weights", weights, *pool)
    assert run.returncode == 0, run.stderr
    assert f"wrote {out}" in run.stdout
    config = yaml.safe_load(out.read_text())
    shares = [m["parameters"]["weight"] for m in config["models"][1:]]
    assert sum(shares) == pytest.approx(3 if weights == "equal" else 1)
    assert "# macro: " in out.read_text()
    assert cli("merge", out, tmp_path / "here").returncode == 0
    run_mergekit(out.read_text(), tmp_path / "there")
    assert weights_of(tmp_path / "here") == weights_of(tmp_path / "there")


def test_weights_of_any_sum_need_measurements_and_leave_the_rest_to_the_base(
    few, demo_pool, tmp_path
):
    pool = ("--pool", demo_pool / "pool.yml", "-o", tmp_path / "merge.yml")
    run = cli("select", few, "--weights", "free", *pool)
    assert run.returncode == 1
    assert "only merges whose weights sum to 1 were measured" in run.stderr
    assert "half strength" in run.stderr
    measured = tmp_path / "more.csv"
    records = list(csv.DictReader(few.read_text().splitlines()))
    with measured.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*records[0], "weights"])
        writer.writeheader()
        for r in records:
            writer.writerow(r)
            if r["k"] == "1":
                loss = (float(r["loss_nats"]) + 1.9) / 2 - 0.035
                writer.writerow({**r, "loss_nats": loss, "weights": 0.5})
    run = cli("select", measured, "--weights", "free", *pool)
    assert run.returncode == 0, run.stderr
    config = yaml.safe_load((tmp_path / "merge.yml").read_text())
    base, *experts = [m["parameters"]["weight"] for m in config["models"]]
    assert 0 < sum(experts) < 1
    assert base == pytest.approx(1 - sum(experts))
    assert config["models"][0]["model"] == str(load_pool(demo_pool / "pool.yml").sizes[0].base)


def test_a_picture_is_drawn(few, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "select.svg"
    assert cli("select", few, "--front", "python,md", "--plot", out).returncode == 0
    text = out.read_text()
    assert "best subset" in text
    assert "a pair against its experts alone" in text
    assert "subsets that none beats on both" in text


def test_a_file_without_subsets_is_refused(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("k,loss_nats\n1,2.0\n2,1.9\n4,1.8\n")
    run = cli("select", path)
    assert run.returncode == 1
    assert "`select` needs a column `subset`" in run.stderr


def test_a_geometry_is_used_and_must_know_the_experts(demo_pool, tmp_path):
    geometry = tmp_path / "g.json"
    assert cli("similarity", demo_pool / "pool.yml", "-o", geometry, "-q").returncode == 0
    rows = demo_pool / "measurements.csv"
    plain, informed = (
        json.loads(cli("select", rows, "--method", "average", "--json", *more).stdout)
        for more in ((), ("--geometry", geometry))
    )
    assert plain != informed
    text = geometry.read_text().replace('"json"', '"jason"')
    (tmp_path / "other.json").write_text(text)
    run = cli("select", rows, "--geometry", tmp_path / "other.json")
    assert run.returncode == 1
    assert "the geometry has no expert `json`" in run.stderr


def test_the_smallest_single_subset_is_named_where_subsets_can_be_predicted(demo_pool, tmp_path):
    with (demo_pool / "measurements.csv").open(newline="") as file:
        head, *lines = file.readlines()
    rows = tmp_path / "measurements.csv"
    rows.write_text(head + "".join(line for line in lines if line.startswith("task_arithmetic,")))
    run = cli("suggest", rows, "--target-loss", 1.905, "--json")
    found = json.loads(run.stdout)["smallest"]
    selected = cli("select", rows, "--method", found["method"], "--max-loss", 1.905, "--json")
    best = json.loads(selected.stdout)["selections"][0]["best"]
    assert found["choice"]["weights"] == best["weights"]
    assert found["choice"]["value"] <= 1.905
    text = cli("suggest", rows, "--target-loss", 1.905).stdout
    assert "the smallest single subset" in text
    law = tmp_path / "law.json"
    cli("fit", rows, "-o", law)
    from_law = json.loads(cli("suggest", law, "--target-loss", 1.905, "--json").stdout)
    assert from_law["smallest"] is None
