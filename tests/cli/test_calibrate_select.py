"""`mergeplan calibrate --for select`: from a pool to its best subset, in one command."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mergeplan
from mergeplan import subset_law
from mergeplan.calibration.calibrate import calibrate as calibrate_here
from mergeplan.calibration.limits import Budget
from mergeplan.calibration.options import CalibrateOptions, ChoiceGoal
from mergeplan.calibration.setup import Setup
from mergeplan.calibration.subset_report import summarize_choice
from mergeplan.errors import InputError
from mergeplan.evaluation.measured import read_scores
from mergeplan.evaluation.options import EvaluationOptions
from mergeplan.measurements.slopes import read_slopes
from mergeplan.pool.geometry.file import load_grams
from mergeplan.subset_law.fit import fit_few
from tests.support.commands import COMMAND, cli
from tests.support.pools import NAMES, write_pool
from tests.support.settings import DEMO_POOL, EVAL

pytestmark = pytest.mark.timeout(300)
METHODS = {"average": {}, "task_arithmetic": {"lambda": 0.8}, "ties": {"density": 0.5}}
ARGS = ("--quiet", "-j", "1", "--max-tokens", "100")
SELECT = ("--for", "select", "--free-sum")


def calibrate(pool: Path, run: Path, *more: object):
    return cli("calibrate", pool, "-o", run, *ARGS, *more)


def macro_rows(run: Path) -> list[dict[str, str]]:
    with (run / "measurements.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["domain"] == "macro"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A pool's folder with a run that has ended, in `run`; its JSON in `done.json`."""
    folder = tmp_path_factory.mktemp("chosen")
    done = calibrate(write_pool(folder, methods=METHODS), folder / "run", *SELECT, "--json")
    assert done.returncode == 0, done.stderr
    (folder / "done.json").write_text(done.stdout)
    return folder


def test_it_names_the_best_subset_and_the_files_that_go_on(finished, tmp_path):
    found = json.loads((finished / "done.json").read_text())
    first = found["selections"][0]
    run = finished / "run"
    own = [
        float(row["loss_nats"])
        for row in macro_rows(run)
        if (row["method"], json.loads(row["options"])) == (first["method"], first["options"])
    ]
    assert first["best"]["measured"]
    assert first["best"]["value"] == pytest.approx(min(own), abs=1e-8)
    # One document or two of a domain: no chance on texts of this kind is told.
    assert first["confidence"]["on_this_text"] == {"chance": 1.0, "regret": 0.0}
    assert cli("merge", run / "merge.yml", tmp_path / "out").returncode == 0
    # How the experts lie to each other, for `select` on the run's table.
    (gram,) = load_grams(run / "geometry.json")
    assert len(gram.experts) == 5
    assert {gram.pool_hash} == {row["pool_hash"] for row in macro_rows(run)}
    # Fewer than all the 31 subsets of each method were measured.
    assert found["n_measured"] == len(macro_rows(run)) < 1 + 3 * 31
    said = calibrate(finished / "pool.yml", run, *SELECT).stdout
    assert "no chance on texts of this kind is told" in said
    assert f"next: mergeplan merge {run / 'merge.yml'} OUT_DIR" in said
    assert f"other weights: mergeplan select {run / 'measurements.csv'}" in said


def test_a_damaged_geometry_is_made_anew_and_one_of_another_pool_stays(finished, tmp_path):
    run = shutil.copytree(finished / "run", tmp_path / "run")
    path, pool = run / "geometry.json", finished / "pool.yml"
    before = path.read_bytes()
    path.write_text("x")
    refused = cli("select", run / "measurements.csv")
    assert refused.returncode == 1
    assert "delete it: `calibrate --for select` compares" in refused.stderr
    again = calibrate(pool, run, *SELECT)
    assert again.returncode == 0, again.stderr
    assert json.loads(path.read_bytes()) == json.loads(before)
    path.write_text(json.dumps({**json.loads(before), "pool_hash": "other"}))
    assert calibrate(pool, run, *SELECT).returncode == 1
    assert load_grams(path)[0].pool_hash == "other"


def test_a_budget_that_is_too_small_to_predict_by_ends_with_a_verdict_at_each_size(tmp_path):
    experts = {name: str(DEMO_POOL / name) for name in NAMES[:4]}
    sizes = [
        {"base": str(DEMO_POOL / "base"), "experts": experts, "n_params": n} for n in (1e9, 8e9)
    ]
    pool = write_pool(tmp_path, sizes=sizes, methods={"average": {}})
    asked = ("--for", "select", "--budget", "3 merges", "--json")
    dry = json.loads(calibrate(pool, tmp_path / "run", *asked, "--dry-run").stdout)
    done = calibrate(pool, tmp_path / "run", *asked)
    found = json.loads(done.stdout)
    assert dry["most"]["merges"] == found["n_measured"] == 6
    assert found["verdict"]["kind"] in done.stdout
    assert any("are too few" in text for text in found["warnings"])


@pytest.mark.parametrize("method", ["average", "task_arithmetic"])
def test_select_uses_the_points_at_half_strength(finished, tmp_path, method):
    table, pool = finished / "run" / "measurements.csv", finished / "pool.yml"
    out = tmp_path / "free.yml"
    more = ("--method", method, "--pool", pool, "-o", out, "--weights", "free", "--json")
    done = cli("select", table, *more)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["selections"]
    # No worse than the best of sum 1, which may itself be the best of any sum.
    assert found["free"]["value"] <= found["weighted"]["value"] + 1e-9
    halves = [row for row in macro_rows(finished / "run") if json.loads(row["options"])]
    strengths = {
        (row["method"], json.loads(row["options"])["lambda"], row["k"])
        for row in halves
        if row["method"] != "ties" and json.loads(row["options"])["lambda"] != 0.8
    }
    # Single experts, all five, and some of the other subsets of the first round.
    for label, strength in (("average", 0.5), ("task_arithmetic", 0.4)):
        assert {k for name, value, k in strengths if (name, value) == (label, strength)} >= {
            "1",
            "5",
        }
        assert (label, strength / 2, "5") in strengths
    assert len({(name, value) for name, value, _ in strengths}) == 4


@pytest.mark.long
def test_killed_at_several_moments_it_ends_with_the_same_table(finished, tmp_path):
    run, pool = tmp_path / "run", finished / "pool.yml"
    scores = run / "scores.jsonl"
    command = [*COMMAND, "calibrate", pool, "-o", run, *ARGS, *SELECT]
    kills = 0
    for enough in (1, 15, 40):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if scores.exists() and scores.read_bytes().count(b"\n") >= enough:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 2
    done = calibrate(pool, run, *SELECT, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_kept"] > 0
    for name in ("measurements.csv", "merge.yml"):
        assert (run / name).read_bytes() == (finished / "run" / name).read_bytes(), name


def test_a_folder_goes_on_with_the_other_question(tmp_path):
    pool, run = write_pool(tmp_path, methods={"average": {}}), tmp_path / "run"
    first = json.loads(calibrate(pool, run, "--json").stdout)
    second = json.loads(calibrate(pool, run, *SELECT, "--json").stdout)
    assert second["n_kept"] == first["n_measured"]
    # Base, single experts and all of them are there; half strengths are not.
    assert second["n_measured"] >= 5
    rows = {(row["options"], row["subset"]) for row in macro_rows(run)}
    assert len(rows) == len(macro_rows(run)) == second["n_kept"] + second["n_measured"]
    third = calibrate(pool, run, "--json")
    assert third.returncode == 0, third.stderr
    assert json.loads(third.stdout)["n_measured"] == 0


def test_a_dry_run_forecasts_and_writes_nothing(tmp_path):
    pool = write_pool(tmp_path, methods={"average": {}})
    done = calibrate(pool, tmp_path / "run", *SELECT, "--dry-run", "--json")
    found = json.loads(done.stdout)
    assert (found["least"]["merges"], found["most"]["merges"]) == (1 + 10 + 9, 1 + 31 + 9)
    # Six models of 80,592 parameters in bf16 or f32, and the headers of their files.
    weights = [path.stat().st_size for name in ("base", *NAMES) for path in _weights(name)]
    assert found["compared_bytes"] == sum(weights) > 6 * 2 * 80592
    assert "are read once" in calibrate(pool, tmp_path / "run", *SELECT, "--dry-run").stdout
    curve = json.loads(calibrate(pool, tmp_path / "run", "--dry-run", "--json").stdout)
    assert curve["compared_bytes"] == 0
    sloped = (*SELECT, "--gradients", "--dry-run")
    (slopes,) = json.loads(calibrate(pool, tmp_path / "run", *sloped, "--json").stdout)["slopes"]
    assert slopes["read_bytes"] == slopes["reads"] * sum(weights)
    assert f"at most {slopes['memory_bytes'] / 1e6:.0f} MB" in (
        calibrate(pool, tmp_path / "run", *sloped).stdout
    )
    few = ("--memory-limit", "1MB")
    assert "gradients take" in calibrate(pool, tmp_path / "run", *sloped, *few).stderr
    assert not (tmp_path / "run").exists()


def _weights(name: str) -> list[Path]:
    return list((DEMO_POOL / name).glob("*.safetensors"))


def test_a_dry_run_says_why_a_larger_size_leans_on_no_smaller_one(tmp_path):
    experts = json.loads(write_pool(tmp_path).read_text())["sizes"][0]["experts"]
    del experts["perl"]
    pool = two_sizes(tmp_path, experts=experts)
    said = calibrate(pool, tmp_path / "run", "--for", "select", "--dry-run").stdout
    assert "400k base, leaning on no smaller one: `perl` at 80.6k and not at 400k:\n" in said
    off = ("--for", "select", "--transfer", "off", "--dry-run")
    assert "leaning" not in calibrate(pool, tmp_path / "run", *off).stdout


def test_a_domain_decides_and_a_wrong_one_is_refused_first(tmp_path):
    pool, run = write_pool(tmp_path, methods={"average": {}}), tmp_path / "run"
    wrong = calibrate(pool, run, "--for", "select", "--domains", "pyton")
    assert wrong.returncode == 1
    assert "no domain `pyton`" in wrong.stderr
    assert "python" in wrong.stderr.split("hint:")[1]
    assert not run.exists()
    done = calibrate(pool, run, "--for", "select", "--domains", "python=2,html", "--json")
    assert json.loads(done.stdout)["selections"][0]["target"] == "python=2,html"
    assert "--domains python=2,html" in json.loads(done.stdout)["next"]


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("select", ("--target-loss", "1.9")),
        ("select", ("--target", "1.9")),
        ("select", ("--fraction", "0.8")),
        ("select", ("--until", "k +- 1")),
        ("select", ("--k", "1,2")),
        ("select", ("--no-lambda-scan",)),
        ("suggest", ("--domains", "python")),
        ("suggest", ("--free-sum",)),
    ],
)
def test_options_of_the_other_question_are_usage_errors(tmp_path, kind, option):
    done = calibrate(write_pool(tmp_path), tmp_path / "run", "--for", kind, *option)
    assert done.returncode == 2
    assert f"has no meaning with --for {kind}" in done.stderr
    assert "--" in done.stderr.split("error:")[1].split("has no")[0]
    assert not (tmp_path / "run").exists()


def two_sizes(folder: Path, **changes: object) -> Path:
    """The same models as two sizes, the larger one named first."""
    models = json.loads(write_pool(folder).read_text())["sizes"][0]
    sizes = [{**models, "n_params": 400_000, **changes}, models]
    return write_pool(folder, sizes=sizes, methods={"average": {}})


def test_a_larger_size_leans_on_the_smaller_one(tmp_path):
    pool, run = two_sizes(tmp_path), tmp_path / "run"
    plan = calibrate(pool, run, "--for", "select", "--dry-run").stdout
    assert "the 80.6k base:\n  at least: 11 merges" in plan
    assert "the 400k base, leaning on a smaller one:\n  at least: 7 merges" in plan
    done = calibrate(pool, run, "--for", "select", "--json")
    assert done.returncode in (0, 4), done.stderr
    small, large = (
        [row for row in macro_rows(run) if float(row["n_params"]) == n_params]
        for n_params in (80592, 400000)
    )
    assert 7 <= len(large) < len(small)
    found = {one["n_params"]: one for one in json.loads(done.stdout)["selections"]}
    assert found[400000]["transfer"]["used"]
    assert found[400000]["transfer"]["n_params"] == 80592
    assert found[400000]["best"]["subset"] == found[80592]["best"]["subset"]
    # The same command finds all of it measured.
    again = cli("calibrate", pool, "-o", run, *ARGS[1:], "--for", "select")
    assert "measured 0 merges in" in again.stdout
    assert f"{len(small) + len(large)} were there already" in again.stdout
    # Few documents at both sizes, and several rounds at each.
    assert again.stderr.count("groups of documents") == 1


def test_without_transfer_neither_rounds_nor_verdict_nor_summary_lean(tmp_path, monkeypatch):
    """The last two leaned all the same."""
    pool, run = two_sizes(tmp_path), tmp_path / "run"

    def fit(*args, smaller=None, **given):
        assert smaller is None
        return fit_few(*args, **given)

    monkeypatch.setattr(subset_law.transfer, "fit_few", fit)
    found = []

    def conclude(folder, verdict):
        found.append(summarize_choice(folder, pool, None, verdict, transfer="off"))

    evaluation = EvaluationOptions(max_tokens=100)
    options = CalibrateOptions(
        choosing=ChoiceGoal(transfer="off"),
        budget=Budget(merges=16),
        setup=Setup(evaluation=evaluation, threads=1),
    )
    done = calibrate_here(pool, run, options, conclude=conclude)
    assert done.verdict is not None
    [summary] = found
    assert {one.table.n_params for one in summary.selections} == {80592, 400000}
    assert all(one.law.transfer is None for one in summary.selections)
    assert " --transfer off " in summary.next_command


def test_the_command_line_hands_transfer_to_the_summary(tmp_path):
    pool, run = two_sizes(tmp_path), tmp_path / "run"
    more = ("--for", "select", "--transfer", "off", "--budget", "16 merges", "--json")
    found = json.loads(calibrate(pool, run, *more).stdout)
    assert [one["transfer"] for one in found["selections"]] == [None, None]


def test_transfer_that_is_required_needs_sizes_of_the_same_experts(tmp_path):
    one = calibrate(write_pool(tmp_path), tmp_path / "run", *SELECT, "--transfer", "required")
    assert one.returncode == 1
    assert "error: a smaller size was asked for, and the pool has one size only" in one.stderr
    models = json.loads((tmp_path / "pool.yml").read_text())["sizes"][0]
    fewer = dict(list(models["experts"].items())[1:])
    pool = two_sizes(tmp_path, experts=fewer)
    other = calibrate(pool, tmp_path / "run", *SELECT, "--transfer", "required")
    assert other.returncode == 1
    lacking = next(iter(models["experts"]))
    assert f"`sizes[1].experts` has `{lacking}`, and `sizes[0].experts` has not" in other.stderr


def partly(**changes) -> CalibrateOptions:
    given = {"choosing": ChoiceGoal(), "tokens": "where-needed", "setup": Setup(threads=1)}
    return CalibrateOptions(methods=("average",), half="all", **given | changes)


def pool_of_many_texts(folder: Path) -> Path:
    """Sixteen documents of each domain, so that an eighth is no half."""
    pool = write_pool(folder, methods={"average": {}})
    for path in (folder / "texts").glob("*.jsonl"):
        lines = (EVAL / path.name).read_text("utf-8").splitlines()[:16]
        path.write_text("\n".join(lines) + "\n")
    return pool


def test_on_few_documents_first_it_stops_and_goes_on_with_the_same_table(tmp_path):
    """Cut back to several moments, the scores lead to the same looks: every file is the same."""
    pool, run = pool_of_many_texts(tmp_path), tmp_path / "run"
    done = calibrate_here(pool, run, partly())
    rows = macro_rows(run)
    some = [row for row in rows if row["text_se"]]
    assert 0 < len(some) < len(rows)
    assert all(float(row["text_se"]) > 0 for row in some)
    hashes = {row["data_hash"] for row in rows if not row["text_se"]}
    assert len(hashes) == 1
    assert all(row["data_hash"].startswith(f"{min(hashes)}, part ") for row in some)
    tokens = {int(row["n_tokens"]) for row in rows if not row["text_se"]}
    assert all(int(row["n_tokens"]) < min(tokens) for row in some)
    scored, every = sum(int(row["n_tokens"]) for row in rows), len(rows) * min(tokens)
    assert (len(tokens), done.n_tokens) == (1, (scored, every))
    assert f"{100 * scored / every:.0f} % of the" in done.tally()
    chosen = done.verdict.best_merge
    assert chosen.measured
    lines = (run / "scores.jsonl").read_bytes().splitlines(keepends=True)
    table = (run / "measurements.csv").read_bytes()
    assert len(lines) > done.n_measured == len(rows)
    for kept in (len(rows) // 2, len(lines) - 1):
        (run / "scores.jsonl").write_bytes(b"".join(lines[:kept]))
        again = calibrate_here(pool, run, partly())
        assert (run / "measurements.csv").read_bytes() == table
        assert again.n_measured + again.n_kept >= len(rows)
        mine = (run / "scores.jsonl").read_bytes().splitlines()
        assert len(mine) == len(lines)
    # `select` takes rows with their errors; of what was left whole for being good no curve is.
    with pytest.raises(InputError, match="no mean of all merges of its k"):
        mergeplan.fit(run / "measurements.csv")
    (found,) = mergeplan.select(run / "measurements.csv")
    assert found.best.subset
    # On everything after all, every row is whole.
    calibrate_here(pool, run, partly(tokens="all", listed=None))
    assert not [row for row in macro_rows(run) if row.get("text_se") and row["k"] == "5"]


def test_where_needed_belongs_to_the_search_for_the_best_subset(tmp_path):
    pool = write_pool(tmp_path, methods={"average": {}})
    refused = calibrate(pool, tmp_path / "run", "--tokens", "where-needed")
    assert refused.returncode == 2
    assert "--tokens has no meaning with --for suggest" in refused.stderr
    with pytest.raises(InputError, match="only the search for the best subset"):
        CalibrateOptions(tokens="where-needed")
    with pytest.raises(InputError, match="there is no `where-neded`"):
        CalibrateOptions(tokens="where-neded")


def test_gradients_are_kept_beside_the_values_and_say_how_these_move(tmp_path):
    pool = write_pool(tmp_path, methods={"average": {}, "dare": {"density": 0.7}})
    args = ("--for", "select", "--method", "average", "--budget", "8 merges")
    plain = calibrate(pool, tmp_path / "plain", *args)
    more = ("--gradients", "--dtype", "float32", "--memory-limit", "1GB")
    done = calibrate(pool, tmp_path / "run", *args, *more)
    assert (plain.returncode, done.returncode) == (0, 0), done.stderr
    slopes = read_slopes(tmp_path / "run" / "gradients.csv")
    assert not (tmp_path / "plain" / "gradients.csv").exists()
    scored = {one.merge.merge_key: one for one in read_scores(tmp_path / "run")}
    by_merge = {}
    for row in slopes:
        by_merge.setdefault((row.merge_key, row.domain), {})[row.expert] = row.slope_nats
    # Every merge, each domain, each expert.
    assert len(by_merge) == 2 * len(scored)
    assert all(set(found) == set(NAMES) for found in by_merge.values())
    # A mean of few differs from all by what the slopes between say, to second order.
    values = {
        (key, name): estimate.loss_nats
        for key, one in scored.items()
        for name, estimate in one.scores.estimates().items()
    }
    whole = next(key for key, _ in by_merge if len(key[3]) == len(NAMES))
    for (key, domain), there in by_merge.items():
        if len(key[3]) <= 1:  # the base, or an expert alone
            away = {name: 1 / len(NAMES) - (name in key[3]) for name in NAMES}
            mean = sum(away[n] * (there[n] + by_merge[whole, domain][n]) / 2 for n in NAMES)
            assert mean == pytest.approx(values[whole, domain] - values[key, domain], rel=0.35)
    # What was measured stays as it is, and goes on.
    before = (tmp_path / "run" / "gradients.csv").read_bytes()
    again = calibrate(pool, tmp_path / "run", *args, "--gradients", "--dtype", "float32")
    assert again.returncode == 0
    assert (tmp_path / "run" / "gradients.csv").read_bytes() == before
    rows = macro_rows(tmp_path / "run")
    assert len(rows) == len(scored)


def test_gradients_without_torch_are_refused_by_name(tmp_path, monkeypatch):
    pool = write_pool(tmp_path, methods={"average": {}})
    monkeypatch.setitem(sys.modules, "torch", None)
    done = calibrate(pool, tmp_path / "run", "--for", "select", "--gradients")
    assert done.returncode == 1
    assert "needs torch" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--method", "ties"), "elect signs"),
        (("--tokens", "where-needed", "--method", "average"), "on all documents"),
        (("--scorer", "SCORER", "--method", "average"), "a scorer's measure has none"),
        (("--memory-limit", "1MB", "--method", "average"), "gradients take"),
    ],
)
def test_what_has_no_gradient_is_refused_before_anything_is_measured(tmp_path, more, message):
    pool = write_pool(tmp_path, methods=METHODS)
    scorer = tmp_path / "scorer.py"
    scorer.write_text("def score(model, tokenizer, documents):\n    return [0.0]\n")
    more = tuple(str(scorer) if word == "SCORER" else word for word in more)
    done = calibrate(pool, tmp_path / "run", "--for", "select", "--gradients", *more)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


SIX = (*NAMES, "json")
SCORER = "def score(model, documents):\n    return [(1.0, 1) for _ in documents]\n"


def pool_of_six(folder, **changes):
    experts = {name: str(DEMO_POOL / name) for name in SIX}
    sizes = [{"base": str(DEMO_POOL / "base"), "experts": experts}]
    given = {"sizes": sizes, "methods": {"average": {}, "ties": {"density": 0.5}}}
    return write_pool(folder, **given | changes)


def unasked(pool, run, said, **changes):
    """A search to which nothing was said of gradients."""
    setup = Setup(evaluation=EvaluationOptions(max_tokens=60), threads=1)
    given = {"choosing": ChoiceGoal(), "budget": Budget(merges=10), "setup": setup}
    return calibrate_here(pool, run, CalibrateOptions(**given | changes), say=said.append)


def test_of_six_experts_a_few_merges_have_slopes_unasked(tmp_path):
    """Those of the first round, by the method that has some; cut back it goes on alike."""
    pool, run = pool_of_six(tmp_path), tmp_path / "run"
    said = []
    unasked(pool, run, said)
    sloped = {row.merge_key for row in read_slopes(run / "gradients.csv")}
    assert {(key[1], len(key[3])) for key in sloped} == {("average", 3), ("average", 6)}
    assert len(sloped) == 3
    assert not [text for text in said if "without slopes" in text]
    assert any("3 with slopes" in text for text in said)
    made = {name: (run / name).read_bytes() for name in ("gradients.csv", "measurements.csv")}
    lines = (run / "scores.jsonl").read_bytes().splitlines(keepends=True)
    # The base and single experts alone, of which nothing tells that others have slopes.
    (run / "scores.jsonl").write_bytes(b"".join(lines[:4]))
    unasked(pool, run, said)
    assert {name: (run / name).read_bytes() for name in made} == made
    # Of another question nothing is changed by it.
    unasked(pool, run, said, choosing=None, budget=Budget(merges=1))


@pytest.mark.parametrize(
    ("why", "pool", "options"),
    [
        ("gradients take", {}, {"memory_limit": 6 << 20}),
        ("this is bfloat16", {}, {"dtype": "bfloat16"}),
        ("elect signs", {"methods": {"ties": {"density": 0.5}}}, {}),
        ("fewer than 6 experts", {"sizes": None}, {}),
        ("all documents", {}, {"tokens": "where-needed"}),
        ("losses on texts", {}, {"scorer": True}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unasked_what_lacks_for_slopes_is_said_and_values_are_measured(
    tmp_path, why, pool, options
):
    path = write_pool(tmp_path) if "sizes" in pool else pool_of_six(tmp_path, **pool)
    given = {name: options[name] for name in ("memory_limit", "dtype") if name in options}
    scorer = None
    if "scorer" in options:
        (tmp_path / "scorer.py").write_text(SCORER)
        scorer = mergeplan.load_scorer(tmp_path / "scorer.py")
    setup = Setup(
        evaluation=EvaluationOptions(max_tokens=None if scorer else 60, scorer=scorer),
        threads=1,
        **given,
    )
    changes = {"tokens": options["tokens"], "half": "all"} if "tokens" in options else {}
    said = []
    unasked(path, tmp_path / "run", said, setup=setup, budget=Budget(merges=2), **changes)
    assert [text for text in said if text.startswith("without slopes: ") and why in text]
    assert not (tmp_path / "run" / "gradients.csv").exists()


def test_a_run_that_began_without_slopes_goes_on_without_unless_it_is_told(tmp_path):
    pool, run, said = pool_of_six(tmp_path, methods={"average": {}}), tmp_path / "run", []
    unasked(pool, run, said, gradients=False, budget=Budget(merges=3))
    assert not said or not any("without slopes" in text for text in said)
    unasked(pool, run, said, budget=Budget(merges=4))
    assert "without slopes: so this run began" in said
    assert not (run / "gradients.csv").exists()
