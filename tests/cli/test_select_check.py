"""`select --check`: the verdict's merge on documents that had no part in it."""

import csv
import json
import shutil
from dataclasses import replace

import pytest

from mergeplan.calibration.check_choice import check_choice
from mergeplan.calibration.setup import Setup
from mergeplan.calibration.worker import Worker
from mergeplan.errors import InputError
from mergeplan.evaluation.documents import read_documents
from mergeplan.evaluation.options import HALVES, EvaluationOptions
from mergeplan.pool.pool import load_pool
from mergeplan.pool.subsets import subset_merge
from mergeplan.selection.choices import Choice
from mergeplan.selection.select import select
from mergeplan.selection.selection import Selections
from mergeplan.verdict.contenders import Contender
from mergeplan.verdict.from_selections import verdict_from_selections
from mergeplan.verdict.known import Merge
from tests.support.commands import cli
from tests.support.pools import NAMES, write_pool
from tests.support.settings import DEMO_POOL, EVAL

pytestmark = pytest.mark.timeout(300)
DOMAINS = ("html", "python")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A pool with all texts of two domains, and all subsets of five averaged on one half each."""
    folder = tmp_path_factory.mktemp("checked")
    pool = write_pool(folder, methods={"average": {}})
    for domain in DOMAINS:
        text = (EVAL / f"{domain}.jsonl").read_text("utf-8")
        (folder / "texts" / f"{domain}.jsonl").write_text(text)
    sampled = cli(
        "sample",
        pool,
        "-o",
        folder / "s",
        "--k",
        "1,2,3,4,5",
        "--design",
        "all",
        "--no-lambda-scan",
    )
    assert sampled.returncode == 0, sampled.stderr
    for half in ("selection", "check"):
        more = ("--subsets", folder / "s" / "subsets.csv", "--half", half, "--max-tokens", 1000)
        run = cli("calibrate", pool, "-o", folder / half, "-q", *more)
        assert run.returncode == 0, run.stderr
    return folder


def losses(path) -> dict[str, float]:
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["domain"] == "macro"]
    return {row["subset"]: float(row["loss_nats"]) for row in rows}


@pytest.fixture(scope="module")
def found(measured):
    """What `select` finds on the selection half, and the verdict."""
    rows = measured / "selection" / "measurements.csv"
    selections = select(rows)
    return rows, selections, verdict_from_selections(rows, selections)


def averaged(weights, method="average", options="{}", n_params=80592.0) -> Contender:
    """A merge whose value nobody measured."""
    return Contender(Merge(n_params, method, options, weights), 2.0, 2.0, 2.0)


def test_every_document_is_in_one_half_whichever_line_it_stands_on(tmp_path):
    file = read_documents(EVAL / "html.jsonl")
    halves = [document.half for document in file.documents]
    assert set(halves) == {"selection", "check"}
    lines = (EVAL / "html.jsonl").read_text("utf-8").splitlines()
    (tmp_path / "x.jsonl").write_text("\n".join(lines[::-1]))
    assert [d.half for d in read_documents(tmp_path / "x.jsonl").documents] == halves[::-1]


def test_the_check_is_what_measuring_on_the_other_half_gives(measured):
    rows = measured / "selection" / "measurements.csv"
    pool = measured / "pool.yml"
    run = cli("select", rows, "--pool", pool, "--check", "--max-tokens", 1000, "--json")
    found = json.loads(run.stdout)
    assert run.returncode == (4 if found["verdict"]["fails"] else 0), run.stderr
    assert "not made on the selection half" not in run.stderr
    # Also where merging does not pay, the best merge is checked.
    check, best = found["check"], found["verdict"]["best_merge"]
    theirs = losses(measured / "check" / "measurements.csv")
    assert check["apart"]
    assert check["measured"]
    assert check["expected"] == best["value"]
    assert check["name"] == best["name"]
    single = found["verdict"]["expert"]
    assert single["name"] in [rival["name"] for rival in check["rivals"]]
    own = theirs["+".join(best["subset"])]
    assert check["loss"]["loss_nats"] == pytest.approx(own, abs=1e-6)
    for rival in check["rivals"]:
        named = {"base": "", "all experts": "+".join(NAMES), single["name"]: single["subset"][0]}
        name = named.get(rival["name"], rival["name"])
        assert rival["loss"]["loss_nats"] == pytest.approx(theirs[name], abs=1e-6)
        assert rival["gain"]["loss_nats"] == pytest.approx(theirs[name] - own, abs=1e-6)
        assert rival["gain"]["se"] >= 0
    assert {"base", "all experts"} & {rival["name"] for rival in check["rivals"]}
    subsets = [r["loss"]["loss_nats"] for r in check["rivals"] if r["name"] != "base"]
    assert check["regret"] == pytest.approx(max(0, own - min(subsets)), abs=1e-9)
    text = cli("select", rows, "--pool", pool, "--check", "--max-tokens", 1000).stdout
    assert "other documents" in text
    assert "paired 90 % interval" in text


def test_a_check_on_one_document_a_domain_says_why_it_has_no_interval(measured, found):
    rows, selections, verdict = found
    pool, setup = load_pool(measured / "pool.yml"), Setup(EvaluationOptions(max_tokens=1000))
    checked = check_choice(verdict.best_merge, verdict, selections, pool, rows, setup)
    assert "no interval" not in checked.summary()
    assert [one["rival"] for one in checked.records()] == [one.name for one in checked.rivals]
    one = replace(checked.rivals[0], gain=replace(checked.rivals[0].gain, se=float("nan")))
    said = replace(checked, rivals=(one, *checked.rivals[1:])).summary()
    assert "no interval is told: it takes two documents" in said
    assert "nan" not in said


def test_measurements_on_the_same_documents_are_not_taken_for_others(measured):
    rows = measured / "check" / "measurements.csv"
    pool = measured / "pool.yml"
    run = cli("select", rows, "--pool", pool, "--check", "--max-tokens", 1000, "--json")
    assert not json.loads(run.stdout)["check"]["apart"]
    assert "not made on the selection half" in run.stderr


def test_halves_that_are_cut_anew_by_group_are_no_check_of_a_run_that_cut_them_by_document(
    measured, found, tmp_path
):
    rows = measured / "selection" / "measurements.csv"
    grouped = {}
    for domain in DOMAINS:
        lines = (EVAL / f"{domain}.jsonl").read_text("utf-8").splitlines()
        records = [{**json.loads(line), "group": n // 4} for n, line in enumerate(lines)]
        grouped[domain] = tmp_path / f"{domain}.jsonl"
        grouped[domain].write_text("".join(json.dumps(record) + "\n" for record in records))
    pool = replace(load_pool(measured / "pool.yml"), data=grouped)
    _, selections, verdict = found
    with pytest.raises(InputError, match="now carries `group`.* cut by document"):
        check_choice(verdict.best_merge, verdict, selections, pool, rows, Setup())


@pytest.mark.parametrize("names", ["html+md", "html+js+md+perl+python"])
def test_weights_are_held_against_equal_ones_of_the_same_experts(measured, found, names):
    rows, (selection,), verdict = found
    subset = names.split("+")
    equal = Choice(dict.fromkeys(subset, 1 / len(subset)), 2.0, 2.0, 2.0)
    selections = Selections([replace(selection, by_size={len(subset): equal})])
    weights = {**equal.weights, "html": equal.weights["html"] / 2}
    weights["md"] += equal.weights["html"] / 2
    pool, setup = load_pool(measured / "pool.yml"), Setup(EvaluationOptions(max_tokens=3000))
    own, plain = (
        check_choice(averaged(each), verdict, selections, pool, rows, setup)
        for each in (weights, equal.weights)
    )
    name = "all experts" if len(subset) == 5 else names
    (rival,) = [rival for rival in own.rivals if rival.name == name]
    assert rival.loss.loss_nats == plain.loss.loss_nats != own.loss.loss_nats
    assert name not in [rival.name for rival in plain.rivals]


def test_a_merge_of_another_method_has_the_masks_that_calibrate_gave_it(measured, found):
    rows, (selection,), verdict = found
    selections = Selections([replace(selection, by_size={})])
    dare = {"density": 0.5}
    methods = {"average": {}, "dare": dare}
    pool = replace(load_pool(measured / "pool.yml"), methods=methods)
    contender = averaged({"html": 0.5, "md": 0.5}, "dare", json.dumps(dare))
    checked = []
    for seed in (3, 4):
        evaluation = EvaluationOptions(seed=seed, half="check")
        merge = subset_merge(pool, 0, "dare", contender.merge.subset, seed=seed)
        (one,) = Worker(pool, 0, Setup(evaluation)).measure([merge], [0])
        check = check_choice(contender, verdict, selections, pool, rows, Setup(evaluation))
        assert check.loss.loss_nats == pytest.approx(one.scores.macro().loss_nats, abs=1e-9)
        assert "all experts" in [rival.name for rival in check.rivals]
        assert verdict.expert.merge.name() in [rival.name for rival in check.rivals]
        checked.append(check.loss.loss_nats)
    assert checked[0] != checked[1]
    # What was measured says itself by which masks.
    seeded = replace(contender, merge=replace(contender.merge, seed="3"))
    check = check_choice(seeded, verdict, selections, pool, rows, Setup(evaluation))
    assert check.loss.loss_nats == checked[0]


def test_what_a_check_needs_is_said(measured, tmp_path):
    rows = measured / "selection" / "measurements.csv"
    run = cli("select", rows, "--check")
    assert run.returncode == 2
    assert "--check needs --pool" in run.stderr
    first = (EVAL / "html.jsonl").read_text("utf-8").splitlines()[0]
    (tmp_path / "one.jsonl").write_text(first + "\n")
    data = tmp_path / "one.jsonl"
    runs = [cli("evaluate", DEMO_POOL / "base", "--data", data, "--half", half) for half in HALVES]
    assert [run.returncode for run in runs].count(0) == 2
    assert sum("none of its 1 documents falls into" in run.stderr for run in runs) == 1


def test_a_pool_of_other_models_than_the_run_s_is_refused(measured, tmp_path):
    table, pool = measured / "selection" / "measurements.csv", measured / "pool.yml"
    data = json.loads(pool.read_text())
    experts = data["sizes"][0]["experts"]
    experts["html"], experts["js"] = experts["js"], experts["html"]
    (measured / "swapped.yml").write_text(json.dumps(data))
    ok = cli("select", table, "--pool", pool, "-o", tmp_path / "a.yml", "--anyway")
    assert (tmp_path / "a.yml").is_file(), ok.stderr
    for command in ("select", "suggest"):
        out = tmp_path / f"{command}.yml"
        args = "--pool", measured / "swapped.yml", "-o", out, "--anyway"
        run = cli(command, table, *args)
        assert run.returncode == 1
        assert "is not the one that the run" in run.stderr
        assert not out.exists()
    run = cli("select", table, "--pool", measured / "swapped.yml", "--check")
    assert run.returncode == 1
    assert "is not the one that the run" in run.stderr


def test_a_value_edited_beside_the_scores_is_warned_of(measured, tmp_path):
    run = shutil.copytree(measured / "selection", tmp_path / "run")
    table = run / "measurements.csv"
    assert "edited" not in cli("select", table).stderr
    rows = list(csv.reader(table.read_text().splitlines()))
    at = rows[0].index("loss_nats")
    rows[9][at] = f"{float(rows[9][at]) - 0.3:.8f}"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    for command in ("select", "suggest"):
        said = cli(command, table).stderr
        assert f"row 10: {rows[9][at]}"[:14] in said
        assert "the table was edited" in said
