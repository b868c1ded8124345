"""`mergeplan select` as a user meets it."""

import csv
import itertools
import json
import re
from dataclasses import replace

import pytest
import yaml

from mergeplan.pool.pool import load_pool
from mergeplan.selection.active import first_subsets
from mergeplan.selection.select import select
from mergeplan.selection.selection import worse_weights
from tests.support.checkpoints import weights_of
from tests.support.commands import cli
from tests.support.merges import run_mergekit
from tests.support.settings import DATA

SWEEP = DATA / "select_80k.csv"
PUBLISHED = DATA / "downstream_8b_5_experts.csv"


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


def test_one_verdict_comes_first_and_what_is_predicted_after_it(few, demo_pool, tmp_path):
    out = tmp_path / "merge.yml"
    run = cli("select", few, "--pool", demo_pool / "pool.yml", "-o", out)
    # No average of the real pool is better than its base.
    assert run.returncode == 4
    assert "error: nothing beats the base" in run.stderr
    assert run.stdout.startswith("verdict for `macro`: merging does not pay, keep the base")
    assert "with a lambda of 0.5" in run.stdout.splitlines()[0]
    assert "no YAML is written: merging does not pay; --anyway" in run.stdout
    assert not out.exists()
    assert run.stdout.count("verdict") == 1
    assert not re.search(r"^for .*, merge ", run.stdout, re.MULTILINE)
    has = r"by average at 80.6k the best subset for `macro` has \d of 9 experts: (.*)"
    named = re.search(has, run.stdout)
    losses = {
        r["subset"]: float(r["loss_nats"])
        for r in csv.DictReader(SWEEP.read_text().splitlines())
        if r["method"] == "average" and r["domain"] == "macro"
    }
    assert losses[named[1].replace(", ", "+")] - min(losses.values()) < 1e-4
    assert "best weights that sum to 1" in run.stdout
    assert "of any sum" not in run.stdout
    assert "to be surer of that subset, measure: " in run.stdout
    assert "warning: the base itself has 1.9068" in run.stderr


def test_a_pool_alone_supplies_the_geometry(few, demo_pool):
    run = cli("select", few, "--pool", demo_pool / "pool.yml")
    assert run.returncode == 4, run.stderr
    assert "by how the experts lie to each other" in run.stdout
    assert "by how the experts lie" not in cli("select", few).stdout


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
    # The base has 2.19 on python: it keeps no such bound, and does not count.
    verdict = data["verdict"]
    assert (verdict["kind"], verdict["fails"]) == ("merge", False)
    assert verdict["chosen"]["subset"] == best["subset"]
    assert verdict["chosen"]["domains"]["python"] <= 1.85
    assert "the base does not keep the bounds, and does not count" in verdict["notes"]
    assert data["front"][0]["subset"] == ["python"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--max-loss", 1.5), "nothing reaches a loss of 1.5"),
        (("--keep", "python<=1"), "nothing is within `python<=1`"),
    ],
)
def test_what_nothing_reaches_or_keeps_exits_with_4_and_writes_nothing(
    few, demo_pool, tmp_path, asked, said
):
    out = tmp_path / "merge.yml"
    run = cli("select", few, *asked, "--pool", demo_pool / "pool.yml", "-o", out)
    assert run.returncode == 4
    assert f"error: {said}" in run.stderr
    assert said in run.stdout.splitlines()[0]
    assert not out.exists()


def table(path, losses, **columns):
    """Averages, or what `columns` say, of the demo pool's experts on one domain; "" is the base."""
    given = {"method": "average", "n_params": 80592, "domain": "macro", **columns}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*given, "k", "subset", "loss_nats"])
        for subset, loss in losses.items():
            row = given if subset else {**given, "method": "base", "options": "{}"}
            k = subset.count("+") + 1 if subset else 0
            writer.writerow([*(row[name] for name in given), k, subset, loss])
    return path


SINGLES = {"html": 1.7, "json": 1.9, "python": 1.95}
MERGES = {"html+json": 1.8, "html+python": 1.82, "json+python": 1.92, "html+json+python": 1.84}


def test_a_single_expert_is_an_answer_of_which_nothing_is_merged(demo_pool, tmp_path):
    rows = table(tmp_path / "m.csv", {"": 2.0, **SINGLES, **MERGES})
    out = tmp_path / "merge.yml"
    pool = ("--pool", demo_pool / "pool.yml", "-o", out)
    run = cli("select", rows, *pool)
    assert run.returncode == 0, run.stderr
    assert "merging does not pay, take the expert `html`" in run.stdout.splitlines()[0]
    assert "no YAML is written" in run.stdout
    assert not out.exists()
    assert cli("select", rows, *pool, "--anyway").returncode == 0
    models = [m["model"] for m in yaml.safe_load(out.read_text())["models"]]
    assert [model.rsplit("/", 1)[1] for model in models[1:]] == ["html", "json"]
    assert "written all the same, as --anyway asks for" in out.read_text()


def test_a_measured_merge_of_another_lambda_is_written_as_it_was_measured(demo_pool, tmp_path):
    losses = {"": 2.0, **{name: loss + 0.1 for name, loss in SINGLES.items()}, **MERGES}
    rows = table(tmp_path / "m.csv", losses, method="task_arithmetic", options='{"lambda": 0.4}')
    scan = table(
        tmp_path / "scan.csv",
        {"html+json": 1.75},
        method="task_arithmetic",
        options='{"lambda": 0.7}',
    )
    rows.write_text(rows.read_text() + scan.read_text().splitlines()[1] + "\n")
    out = tmp_path / "merge.yml"
    run = cli("select", rows, "--pool", demo_pool / "pool.yml", "-o", out)
    assert run.returncode == 0, run.stderr
    assert "merge html+json by task arithmetic, λ 0.7" in run.stdout.splitlines()[0]
    assert yaml.safe_load(out.read_text())["parameters"]["lambda"] == 0.7


def test_metrics_have_a_verdict_without_a_chance():
    run = cli("select", PUBLISHED, "--domains", "gsm8k")
    assert run.returncode == 0, run.stderr
    verdict, *_ = run.stdout.split("\n\n")
    assert "take the expert `expert2`" in verdict
    assert "0.8350 measured on this text" in verdict
    assert "%" not in verdict
    run = cli("select", PUBLISHED, "--domains", "hellaswag", "--json")
    found = json.loads(run.stdout)["verdict"]
    assert found["chosen"]["value"] == max(
        float(r["value"])
        for r in csv.DictReader(PUBLISHED.read_text().splitlines())
        if r["metric"] == "hellaswag"
    )
    assert all(gain["chance"] is None and gain["value"] >= 0 for gain in found["gains"])
    run = cli("select", PUBLISHED, "--domains", "gsm8k", "--max-loss", 0.99)
    assert run.returncode == 4
    assert "error: nothing reaches 0.99" in run.stderr


@pytest.mark.parametrize("weights", ["equal", "simplex"])
def test_what_it_writes_runs_in_mergekit_and_here_to_the_same_weights(
    few, demo_pool, tmp_path, weights
):
    out = tmp_path / "merge.yml"
    pool = ("--pool", demo_pool / "pool.yml", "-o", out)
    asked = ("--max-experts", 3, "--weights", weights)
    run = cli("select", few, *asked, *pool)
    assert (run.returncode, out.exists()) == (4, False)
    run = cli("select", few, *asked, *pool, "--anyway")
    assert run.returncode == 4
    assert f"wrote {out}" in run.stdout
    config = yaml.safe_load(out.read_text())
    shares = [m["parameters"]["weight"] for m in config["models"][1:]]
    assert sum(shares) == pytest.approx(3 if weights == "equal" else 1)
    assert ": macro 1.9" in out.read_text()
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
    # They are expected to be better than the base, and are written.
    run = cli("select", measured, "--weights", "free", *pool)
    assert run.returncode == 0, run.stderr
    assert "written all the same" not in (tmp_path / "merge.yml").read_text()
    config = yaml.safe_load((tmp_path / "merge.yml").read_text())
    base, *experts = [m["parameters"]["weight"] for m in config["models"]]
    assert 0 < sum(experts) < 1
    assert base == pytest.approx(1 - sum(experts))
    assert config["models"][0]["model"] == str(load_pool(demo_pool / "pool.yml").sizes[0].base)


def test_a_picture_is_drawn(few, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "select.svg"
    assert cli("select", few, "--front", "python,md", "--plot", out).returncode == 4
    text = out.read_text()
    assert "▼ best, ■ mean, ▲ worst subset of each k" in text
    assert "pairs, beyond what each gives any pair" in text
    assert "subsets that none beats on both" in text


def test_a_table_without_rows_is_said_to_have_none(tmp_path):
    (tmp_path / "m.csv").write_text("k,subset,loss_nats\n")
    run = cli("select", tmp_path / "m.csv")
    assert run.returncode == 1
    assert "has no rows" in run.stderr


def test_a_file_without_subsets_is_refused(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("k,loss_nats\n1,2.0\n2,1.9\n4,1.8\n")
    run = cli("select", path)
    assert run.returncode == 1
    assert "`select` needs a column `subset`" in run.stderr


def test_a_geometry_is_used_and_must_know_the_experts(demo_pool, few_measured, tmp_path):
    geometry = tmp_path / "g.json"
    assert cli("similarity", demo_pool / "pool.yml", "-o", geometry, "-q").returncode == 0
    rows = few_measured
    plain, informed = (
        json.loads(cli("select", rows, "--method", "average", "--json", *more).stdout)
        for more in ((), ("--geometry", geometry))
    )
    assert plain != informed
    assert [one["selections"][0]["by_geometry"] for one in (plain, informed)] == [False, True]
    both = cli("select", rows, "--geometry", geometry, "--no-geometry")
    assert both.returncode == 2
    assert "exclude each other" in both.stderr
    text = geometry.read_text().replace('"json"', '"jason"')
    (tmp_path / "other.json").write_text(text)
    run = cli("select", rows, "--geometry", tmp_path / "other.json")
    assert run.returncode == 1
    assert "the geometry has no expert `json`" in run.stderr


@pytest.mark.parametrize("target", [None, 1.905])
def test_suggest_and_select_give_one_verdict(demo_pool, tmp_path, target):
    with (demo_pool / "measurements.csv").open(newline="") as file:
        head, *lines = file.readlines()
    rows = tmp_path / "measurements.csv"
    some = [line for line in lines if line.startswith(("task_arithmetic,", "base,"))]
    rows.write_text(head + "".join(some))
    asked = [] if target is None else [target]
    runs = [
        cli("suggest", rows, "--json", *(x for t in asked for x in ("--target-loss", t))),
        cli("select", rows, "--json", *(x for t in asked for x in ("--max-loss", t))),
    ]
    assert [run.returncode for run in runs] == [0, 0]
    one, other = (json.loads(run.stdout)["verdict"] for run in runs)
    assert one == other
    assert target is None or one["chosen"]["value"] <= target


def test_transfer_that_is_required_needs_a_second_size(few):
    run = cli("select", few, "--transfer", "required")
    assert run.returncode == 1
    assert "error: a smaller size was asked for, and there is one size only" in run.stderr
    assert "hint: add rows of a smaller base with a column `n_params`" in run.stderr


def test_domains_of_the_only_metric_go_by_their_own_names(tmp_path):
    rows = ["k,subset,method,metric,domain,value,better"]
    for k in range(1, 5):
        for place, subset in enumerate(itertools.combinations("abcd", k)):
            for domain, shift in (("x", 0.01 * place), ("y", -0.01 * place)):
                value = 0.5 + 0.05 * k + shift
                rows.append(f"{k},{'+'.join(subset)},average,acc,{domain},{value:.3f},higher")
    table = tmp_path / "m.csv"
    table.write_text("\n".join(rows) + "\n")
    fronts = []
    for more in ((), ("--metric", "acc"), ("--domains", "x,y"), ("--domains", "acc:x,acc:y")):
        run = cli("select", table, "--front", "x,y", "--keep", "x>=0.4", *more, "--json")
        assert run.returncode == 0, run.stderr
        found = json.loads(run.stdout)
        assert found["verdict"]["aim"] == "acc:x,acc:y" or more[:1] == ("--domains",)
        fronts.append(found["front"])
    assert fronts[0]
    assert all(one == fronts[0] for one in fronts)
    assert (
        json.loads(cli("select", table, "--domains", "x", "--json").stdout)["verdict"]["aim"]
        == "acc:x"
    )


def test_weights_that_are_no_better_than_a_subset_are_not_recommended():
    """The best of measured ones has 0.8630; weights are predicted to have 0.8567."""
    for weights in ("simplex", "equal"):
        run = cli("select", PUBLISHED, "--metric", "harmbench_rta", "--weights", weights)
        said = "no better than the best subset: expert1+expert4 has 0.8630" in run.stderr
        assert said == (weights == "simplex"), run.stderr
        assert "`--weights simplex` takes them" not in run.stdout
    (found,) = select(PUBLISHED, metric="harmbench_rta")
    assert worse_weights(found, found.best) == ""
    better = replace(found.weighted, value=0.87)
    assert worse_weights(found, better) == ""
    assert "`--weights equal` takes it" in worse_weights(found, found.weighted)
