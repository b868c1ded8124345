"""`mergeplan fit`, `suggest` and `demo` as a user meets them."""

import csv
import json
import re
import shlex
from collections import Counter

import pytest

from tests.support.checkpoints import weights_of
from tests.support.commands import cli
from tests.support.merges import run_mergekit
from tests.support.settings import DATA
from tests.support.shares import spread

PUBLISHED = DATA / "measured_llama3b_16_experts.csv"


def test_fit_prints_a_table_and_writes_a_law(tmp_path):
    run = cli("fit", PUBLISHED, "--pool-size", 16, "-o", tmp_path / "law.json")
    assert run.returncode == 0
    assert run.stderr.count("warning: ") == 1
    assert "large offset: b = 5.24" in run.stderr
    assert "0.57448  1.46871   5.239  0.99932" in run.stdout
    law = json.loads((tmp_path / "law.json").read_text())
    assert law["law_version"] == 4
    printed = json.loads(cli("fit", PUBLISHED, "--pool-size", 16, "--json").stdout)
    assert len(printed["warnings"]) == 1
    for key in ("law", "forecast", "intervals_90"):
        assert printed["fits"][0][key] == law["fits"][0][key]


def test_suggest_from_a_csv_and_from_a_law_agree(tmp_path):
    cli("fit", PUBLISHED, "--pool-size", 16, "-o", tmp_path / "law.json")
    runs = [
        cli("suggest", PUBLISHED, "--pool-size", 16, "--target-loss", 0.66),
        cli("suggest", tmp_path / "law.json", "--target-loss", 0.66),
    ]
    assert runs[0].stdout == runs[1].stdout
    assert runs[0].returncode == 0
    assert "asks for 12 of 16 experts" in runs[0].stdout
    assert "crosses the target at k = 11.94" in runs[0].stdout
    assert "measured mean at k = 12 is 0.6603" in runs[0].stderr


def test_a_target_of_a_metric_out_of_reach_has_to_be_lower(tmp_path):
    lines = ["k,subset,method,metric,value,better,n_items", "0,,,acc,0.30,higher,500"]
    for names in ("a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"):
        k = names.count("+") + 1
        lines.append(f"{k},{names},average,acc,{0.5 - 0.2 / k:.3f},higher,500")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    run = cli("suggest", tmp_path / "m.csv", "--target", "0.9")
    assert run.returncode == 4
    assert "lower the target" in run.stderr


def test_a_target_out_of_reach_exits_with_4_and_writes_nothing(demo_pool, tmp_path):
    run = cli("suggest", PUBLISHED, "--target-loss", "0.60", "--pool-size", 16)
    assert run.returncode == 4
    assert "nothing reaches a loss of 0.6" in run.stderr
    assert "the lowest expected is 0.6437, with 16 experts" in run.stdout
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
    pays = method != "average"
    assert run.returncode == (0 if pays else 4), run.stderr
    assert ("merging does not pay, keep the base" in run.stdout) == (not pays)
    assert out.exists() == pays
    if not pays:
        assert "--anyway writes the best merge" in run.stdout
        run = cli(*run.args[3:], "--anyway")
        assert run.returncode == 4
    assert f"next: mergeplan merge {out}" in run.stdout
    assert cli("merge", out, tmp_path / "ours").returncode == 0
    run_mergekit(out.read_text(), tmp_path / "theirs")
    assert weights_of(tmp_path / "ours") == weights_of(tmp_path / "theirs")


def test_json_holds_the_recommendation(demo_pool):
    run = cli("suggest", demo_pool / "measurements.csv", "--target-loss", 1.9055, "--json")
    data = json.loads(run.stdout)
    assert data["reached"] is True
    assert data["candidates"][0]["k"] == 6
    # The answer stands before everything else: the smallest measured merge that is enough.
    assert (data["answer"], data["k"], data["exit_code"]) == ("merge", 3, 0)
    assert data["best"]["options"] == {"lambda": 0.4}
    assert data["loss"] == data["best"]["value"] <= 1.9055
    [row] = (
        row
        for row in csv.DictReader((demo_pool / "measurements.csv").read_text().splitlines())
        if row["subset"].split("+") == data["best"]["subset"] and "0.4" in row["options"]
    )
    assert data["loss"] == float(row["loss_nats"])
    assert data["gain_over_base"]["value"] == pytest.approx(1.906816 - data["loss"])
    missed = cli("suggest", demo_pool / "measurements.csv", "--target-loss", 1.8, "--json")
    data = json.loads(missed.stdout)
    assert (data["reached"], data["exit_code"]) == (False, missed.returncode) == (False, 4)
    assert data["failure"] in missed.stderr


def test_json_has_every_warning_that_is_printed(tmp_path):
    rows = "method,n_params,k,loss_nats\nbase,80k,0,0.9\nbase,2M,0,0.7\n"
    for size, floor in (("80k", 0.9), ("300k", 0.7), ("2M", 0.6)):
        rows += "".join(f"average,{size},{k},{floor + 0.2 / k}\n" for k in (1, 2, 4))
    (tmp_path / "m.csv").write_text(rows)
    run = cli("suggest", tmp_path / "m.csv", "--pool-size", 8, "--json")
    printed = [line[9:] for line in run.stderr.splitlines() if line.startswith("warning: ")]
    assert json.loads(run.stdout)["warnings"] == printed
    assert len(printed) > 2


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["suggest", "none.csv", "--target-loss", "1"], 1, "cannot open `none.csv`"),
        (["suggest", "none.json", "--target-loss", "1"], 1, "cannot open law `none.json`"),
        (["suggest", "none.csv", "--target-loss", "nan"], 2, "--target-loss"),
        (["suggest", "none.csv", "--fraction", "2"], 2, "--fraction"),
        (["suggest", "none.csv", "--cost", "none.yml"], 1, "cannot open costs `none.yml`"),
        (["plot", "none.csv"], 2, "--out"),
        (["plot", "none.csv", "-o", "x.png"], 1, "cannot open `none.csv`"),
        (["suggest", "none.csv", "--target", "x"], 2, "expected a number, found `x`"),
        (["suggest", PUBLISHED, "--target-loss", "-1"], 1, "a loss is above 0, and the target is"),
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
    assert "forecast for k = 9: 1.9042, measured 1.9044" in run.stdout
    assert "asks for 6 of 9 experts" in run.stdout
    # The verdict's merge was predicted; measured, it has the same loss.
    assert "cheader+html+js+json+mande+manfr by task arithmetic" in run.stdout
    assert ": 1.9034" in run.stdout
    assert "this very merge was measured: 1.9034; base: 1.9068" in run.stdout
    assert (tmp_path / "demo" / "merged" / "model.safetensors").exists()
    made = cli("init", tmp_path / "demo", "--dry-run")
    assert "9 experts (9 whole)" in made.stderr + made.stdout
    assert "4 domains: js, json, md, python" in made.stderr + made.stdout
    done = cli("demo")
    assert (done.returncode, "nothing is kept" in done.stdout) == (0, True)


@pytest.mark.parametrize("ending", spread(["svg", "png"], 1))
def test_plot_draws_curves_and_sizes(ending, tmp_path):
    pools = DATA / "real_pools.csv"
    out = tmp_path / f"law.{ending}"
    run = cli("plot", pools, "-o", out, "--target-loss", 1.7)
    assert run.returncode == 0, run.stderr
    first = out.read_bytes()
    assert len(first) > 20_000
    if ending == "svg":
        text = first.decode()
        for words in ("average, base of 80.6k", "target", "floor, nats"):
            assert words in text
        cli("plot", pools, "-o", out, "--target-loss", 1.7, "--overwrite")
        assert out.read_bytes() == first


def test_plot_refuses_other_files():
    run = cli("plot", PUBLISHED, "-o", "law.jpg")
    assert run.returncode == 1
    assert "ends in .png, .pdf or .svg" in run.stderr


@pytest.mark.parametrize("command", ["fit", "plot"])
def test_a_file_that_exists_is_not_written_over_unless_told(command, tmp_path):
    out = tmp_path / "x.svg"
    out.write_text("mine")
    run = cli(command, PUBLISHED, "-o", out)
    assert run.returncode == 1
    assert "--overwrite" in run.stderr
    assert out.read_text() == "mine"
    assert cli(command, PUBLISHED, "-o", out, "--overwrite").returncode == 0


def test_suggest_answers_in_full(demo_pool):
    run = cli(
        "suggest",
        demo_pool / "measurements.csv",
        "--method",
        "task_arithmetic",
        "--target-loss",
        1.9055,
        "--epsilon",
        0.004,
        "--budget",
        0.01,
    )
    assert run.returncode == 0, run.stderr
    for words in (
        "asks for 6 of 9 experts",
        "on this text, mean of all subsets of 6: ",
        "90 % interval of k on this text",
        "with 90 % confidence on this text: k = 6",
        "of the subsets of that size, all measured",
        "another pool like this one",
        "80 % of the improvement at k = ",
        "within 0.004 of the floor from k = ",
        "GPU hours",
        "best within the budget",
        "base (k = 0): 1.9068",
        "best single expert: `cheader`",
        "to be surer:",
    ):
        assert words in run.stdout, words


def test_a_budget_that_is_too_small_exits_with_4(demo_pool):
    run = cli(
        "suggest",
        demo_pool / "measurements.csv",
        "--method",
        "task_arithmetic",
        "--target-loss",
        1.9055,
        "--budget",
        1e-6,
    )
    assert run.returncode == 4
    assert "more than the budget" in run.stderr


DOWNSTREAM = DATA / "downstream_8b_5_experts.csv"


def test_a_metric_is_asked_for_by_name_and_told_in_its_own_direction(tmp_path):
    run = cli("suggest", DOWNSTREAM, "--metric", "gsm8k", "--target", 0.6)
    assert run.returncode == 0, run.stderr
    assert "verdict for `gsm8k`, to reach 0.6: take the expert `expert2`" in run.stdout
    assert "for `gsm8k` of 0.6 the mean over subsets asks for 3 of 5 experts" in run.stdout
    assert "the expected `gsm8k` at k = 3 is 0.6187" in run.stdout
    assert "nats" not in run.stdout + run.stderr
    run = cli("fit", DOWNSTREAM, "--metric", "gsm8k", "-o", tmp_path / "law.json")
    assert run.stdout.startswith("ceiling     tail  offset       R²  metric  method and size")
    from_law = cli("suggest", tmp_path / "law.json", "--target", 0.6, "--json")
    found = json.loads(from_law.stdout)
    assert found["verdict"]["aim"] == "gsm8k"
    assert found["candidates"][0]["predicted"]["loss"] == pytest.approx(0.6187, abs=1e-4)
    assert "best single expert: `expert2`, 0.8350" in cli("suggest", tmp_path / "law.json").stdout
    missed = cli("suggest", tmp_path / "law.json", "--target", 0.9)
    assert missed.returncode == 4
    assert "nothing reaches 0.9" in missed.stderr
    picture = cli(
        "plot", tmp_path / "law.json", "--target", 0.6, "-o", tmp_path / "law.svg", cwd=tmp_path
    )
    assert picture.returncode == 0, picture.stderr


@pytest.mark.parametrize("command", ["fit", "suggest", "select", "plot"])
def test_metrics_that_are_not_named_are_listed(command, tmp_path):
    out = ("-o", tmp_path / "x.png") if command == "plot" else ()
    run = cli(command, DOWNSTREAM, *out)
    assert run.returncode == 1
    message, hint = run.stderr.split("\n\nhint: ")
    with DOWNSTREAM.open() as file:
        counts = Counter(row["metric"] for row in csv.DictReader(file))
    assert "several metrics were measured" in message
    assert all(f"`{metric}`" in message for metric in counts)
    # The command as it was given, which then runs.
    command_again = re.fullmatch("name one, such as `mergeplan (.+)`\n", hint)[1]
    words = shlex.split(command_again)
    assert words[:2] == [command, str(DOWNSTREAM)]
    assert counts[words[-1]] == max(counts.values())
    run = cli(command, DOWNSTREAM, "--metric", "gsm9k", *out)
    assert run.returncode == 1
    assert "no rows of metric `gsm9k`" in run.stderr
    assert "hint: did you mean `gsm8k`?" in run.stderr
    assert cli(*words).returncode == 0


def test_where_means_turn_back_the_verdict_stands_and_the_curve_is_refused(tmp_path):
    rows = DOWNSTREAM.read_text().splitlines()
    kept = [f"{row},320" for row in rows if ",harmbench_rta," in row]
    path = tmp_path / "harmbench.csv"
    path.write_text("\n".join([f"{rows[0]},n_items", *kept]))
    run = cli("suggest", path)
    assert run.returncode == 0
    assert "merge expert1+expert4" in run.stdout
    assert "on items of this kind" in run.stdout
    assert "no curve of means" in run.stderr
    assert "becomes better and worse with k by more than its error" in run.stderr
    assert cli("fit", path).returncode == 1


def test_a_scan_of_lambda_alone_has_a_verdict_and_no_warning_of_its_missing_curve(tmp_path):
    scan = [f'ties,"{{""lambda"": {s}}}",2,a+b,macro,{2 + (s - 0.6) ** 2}\n' for s in (0.2, 0.6, 1)]
    (tmp_path / "m.csv").write_text("method,options,k,subset,domain,loss_nats\n" + "".join(scan))
    run = cli("suggest", "m.csv", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("verdict for `macro`: merge a+b by TIES, λ 0.6\n")
    run = cli("fit", "m.csv", cwd=tmp_path)
    assert (run.returncode, run.stderr.count("two different k")) == (1, 1)
