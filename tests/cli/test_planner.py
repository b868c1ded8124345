"""`mergeplan fit`, `suggest` and `demo` as a user meets them."""

import json
from pathlib import Path

import pytest

from helpers import cli, run_mergekit, weights_of

PUBLISHED = Path(__file__).parent.parent / "data" / "measured_llama3b_16_experts.csv"


def test_fit_prints_a_table_and_writes_a_law(tmp_path):
    run = cli("fit", PUBLISHED, "--pool-size", 16, "-o", tmp_path / "law.json")
    assert (run.returncode, run.stderr) == (0, "")
    assert "0.57448  1.46871  5.239    0.99932" in run.stdout
    law = json.loads((tmp_path / "law.json").read_text())
    assert law["law_version"] == 1
    as_json = cli("fit", PUBLISHED, "--pool-size", 16, "--json")
    assert json.loads(as_json.stdout) == law


def test_suggest_from_a_csv_and_from_a_law_agree(tmp_path):
    cli("fit", PUBLISHED, "--pool-size", 16, "-o", tmp_path / "law.json")
    runs = [
        cli("suggest", PUBLISHED, "--pool-size", 16, "--target-loss", 0.66),
        cli("suggest", tmp_path / "law.json", "--target-loss", 0.66),
    ]
    assert runs[0].stdout == runs[1].stdout
    assert runs[0].returncode == 0
    assert "merge 12 of 16 experts" in runs[0].stdout
    assert "crosses the target at k = 11.94" in runs[0].stdout
    assert "measured mean at k = 12 is 0.6603" in runs[0].stderr


def test_a_target_out_of_reach_exits_with_4_and_writes_nothing(demo_pool, tmp_path):
    run = cli("suggest", PUBLISHED, "--target-loss", "0.60", "--pool-size", 16)
    assert run.returncode == 4
    assert "nothing reaches a loss of 0.6" in run.stderr
    assert "0.6436, with all 16 experts" in run.stderr
    out = tmp_path / "merge.yml"
    run = cli(
        "suggest",
        demo_pool / "measurements.csv",
        "--target-loss",
        1.5,
        "--pool",
        demo_pool / "pool.yml",
        "-o",
        out,
    )
    assert run.returncode == 4
    assert not out.exists()


@pytest.mark.parametrize(("method", "target"), [("average", 1.94), ("task_arithmetic", 1.9076)])
def test_the_yaml_runs_in_mergeplan_and_in_mergekit(method, target, demo_pool, tmp_path):
    out = tmp_path / "merge.yml"
    run = cli(
        "suggest",
        demo_pool / "measurements.csv",
        "--method",
        method,
        "--target-loss",
        target,
        "--pool",
        demo_pool / "pool.yml",
        "-o",
        out,
    )
    assert run.returncode == 0, run.stderr
    assert f"next: mergeplan merge {out}" in run.stdout
    assert ("merging does not pay" in run.stderr) == (method == "average")
    assert cli("merge", out, tmp_path / "ours").returncode == 0
    run_mergekit(out.read_text(), tmp_path / "theirs")
    assert weights_of(tmp_path / "ours") == weights_of(tmp_path / "theirs")


def test_json_holds_the_recommendation(demo_pool):
    run = cli("suggest", demo_pool / "measurements.csv", "--target-loss", 1.9055, "--json")
    data = json.loads(run.stdout)
    assert data["reached"] is True
    assert data["candidates"][0]["k"] == 6


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["suggest", "none.csv", "--target-loss", "1"], 1, "cannot open `none.csv`"),
        (["suggest", "none.json", "--target-loss", "1"], 1, "cannot open `none.json`"),
        (["suggest", "none.csv"], 2, "--target-loss"),
        (["suggest", "none.csv", "--target-loss", "-1"], 2, "--target-loss"),
        (["suggest", "x.csv", "--target-loss", "1", "--pool", "p.yml"], 2, "belong together"),
        (["suggest", "x.json", "--target-loss", "1", "--domain", "a"], 2, "give it to `fit`"),
        (["fit", "none.csv"], 1, "cannot open `none.csv`"),
    ],
)
def test_usage(args, code, message, tmp_path):
    run = cli(*args, cwd=tmp_path)
    assert run.returncode == code
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_the_demo_runs_the_whole_path(tmp_path):
    run = cli("demo", "-o", tmp_path / "demo")
    assert run.returncode == 0, run.stderr
    assert "forecast for k = 9: 1.9043, measured 1.9044" in run.stdout
    assert "merge 6 of 9 experts" in run.stdout
    assert (tmp_path / "demo" / "merged" / "model.safetensors").exists()
    assert cli("demo").returncode == 0
