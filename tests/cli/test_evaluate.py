"""`mergeplan evaluate` as a user meets it."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
import threading

import pytest

from mergeplan import merge
from mergeplan.errors import InputError, MissingInputError
from mergeplan.evaluation.recording import append, columns_of, parse_merge
from mergeplan.evaluation.scores import DocumentLosses, Scores
from mergeplan.evaluation.sources import find_data
from mergeplan.measurements.file import load_measurements
from tests.support.checkpoints import load_tensors
from tests.support.commands import cli
from tests.support.settings import DEMO_POOL, EVAL


def test_everything_at_once(tmp_path):
    """One process, since most of its time goes into imports."""
    (tmp_path / "short.jsonl").write_text('{"text": "a"}\n{"text": "some text"}\n')
    out, documents = tmp_path / "m.csv", tmp_path / "d.csv"
    documents.write_text("domain,line,n_tokens,nll\nof an earlier run,1,2,3\n")
    run = cli(
        "evaluate", DEMO_POOL / "html", "--data", EVAL / "html.jsonl", "--data", "short.jsonl",
        "--data", f"two={EVAL / 'json.jsonl'}", "--against", DEMO_POOL / "base", "--threads", 1,
        "--max-tokens", 2000, "-o", out, "--as", "subset=html", "--as", "method=average",
        "--documents", documents, "--overwrite", cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stderr == (
        "warning: `short.jsonl`, line 1 is left out: a single token, nothing before it that could"
        " predict it\n"
    )
    table, _, paired = run.stdout.partition("\n\n")
    head, *rows = [line.split() for line in table.splitlines()]
    assert head == ["domain", "loss_nats", "se", "tokens", "documents"]
    assert [row[0] for row in rows] == ["html", "short", "two", "macro", "token-weighted"]
    losses = {row[0]: float(row[1]) for row in rows}
    assert losses["macro"] == pytest.approx((losses["html"] + losses["short"] + losses["two"]) / 3)
    assert [row[3:] for row in rows[:2]] == [["1920", "15"], ["8", "1"]]
    title, head, *rows = paired.splitlines()
    assert title == f"{DEMO_POOL / 'html'} - {DEMO_POOL / 'base'}, paired by document"
    assert head.split()[1] == "difference"
    name, change, se, *_ = rows[0].split()
    assert (name, float(change) < 0 < float(se) < -float(change)) == ("html", True)

    with documents.open() as file:
        lines = list(csv.DictReader(file))
    html = [line for line in lines if line["domain"] == "html"]
    total = sum(float(line["nll"]) for line in html)
    assert total / sum(int(line["n_tokens"]) for line in html) == pytest.approx(
        losses["html"], abs=1e-6
    )

    measured = load_measurements(out).rows
    assert [row.domain for row in measured] == ["html", "short", "two", "macro"]
    assert {(row.k, row.method, row.subset, row.n_params) for row in measured} == {
        (1, "average", ("html",), 80592.0)
    }
    assert measured[0].loss_nats == pytest.approx(losses["html"], abs=1e-6)
    assert (measured[0].loss_se > 0, measured[1].loss_se) == (True, None)


def test_a_model_with_nan_gets_a_table_and_a_warning_and_is_not_recorded(tmp_path):
    from safetensors.torch import save_file

    shutil.copytree(DEMO_POOL / "base", tmp_path / "broken")
    tensors = load_tensors(tmp_path / "broken")
    tensors["model.norm.weight"][0] = math.nan
    save_file(tensors, tmp_path / "broken" / "model.safetensors", metadata={"format": "pt"})
    run = cli(
        "evaluate", "broken", "--data", EVAL / "md.jsonl", "--json", "-o", "m.csv", "--as", "k=0",
        cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 1
    fault = "domain `md`: the score of 64 of 64 documents is not finite, the first on line 1"
    assert f"warning: model `broken`, {fault}" in run.stderr
    assert f"error: `m.csv`: nothing was appended: {fault}" in run.stderr
    assert json.loads(run.stdout)["scores"]["macro"]["loss_nats"] is None
    assert not (tmp_path / "m.csv").exists()


def test_json_holds_the_table(tmp_path):
    data = ["--data", EVAL / "md.jsonl"]
    run = cli("evaluate", DEMO_POOL / "md", *data, "--json", "--dtype", "bfloat16")
    assert (run.returncode, run.stderr) == (0, "")
    found = json.loads(run.stdout)
    assert set(found["scores"]) == {"md", "macro", "token-weighted"}
    assert found["scores"]["md"]["n_documents"] == 64
    assert (found["difference"], found["tasks"], len(found["data_hash"])) == (None, [], 64)


def test_texts_come_through_a_pipe_that_the_user_names_and_no_other(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    content = (EVAL / "md.jsonl").read_bytes()
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
    writer.start()
    run = cli("evaluate", DEMO_POOL / "md", "--data", f"md={tmp_path / 'pipe'}", "--json")
    writer.join()
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["scores"]["md"]["n_documents"] == 64
    pool = f"sizes: [{{base: base, experts: {{a: a}}}}]\ndata: {{md: {tmp_path / 'pipe'}}}\n"
    (tmp_path / "pool.yml").write_text(pool)
    run = cli("evaluate", DEMO_POOL / "md", "--data", tmp_path / "pool.yml")
    assert (run.returncode, "expected a plain file, as pool" in run.stderr) == (1, True)


def test_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys\nfrom mergeplan.cli import group\n"
        "group(['evaluate', '--help'], standalone_mode=False)\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'scipy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("given", [["-o", "m.csv"], ["--as", "k=0"]])
def test_out_and_as_belong_together(given):
    run = cli("evaluate", "model", "--data", "d.jsonl", *given)
    assert (run.returncode, "-o and --as belong together" in run.stderr) == (2, True)


def test_layers_of_several_models_have_to_be_named_and_their_manifest_is_said(tmp_path):
    slices = [
        {"sources": [{"model": str(DEMO_POOL / name), "layer_range": [number, number + 1]}]}
        for number, name in enumerate(("html", "js"))
    ]
    merge({"merge_method": "passthrough", "slices": slices}, tmp_path / "out")
    run = cli("evaluate", tmp_path / "out", "--data", "d.jsonl", "-o", tmp_path / "m.csv")
    assert run.returncode == 1
    assert "mergeplan_manifest.json` is of other weights, or of `passthrough`" in run.stderr
    assert "--as subset=code+algebra --as method=stack" in run.stderr


def test_a_merge_is_recorded_as_what_its_manifest_says(tmp_path):
    models = [{"model": str(DEMO_POOL / name)} for name in ("html", "js")]
    config = {"merge_method": "task_arithmetic", "base_model": str(DEMO_POOL / "base")}
    parameters = {"weight": 0.5, "lambda": 0.8}
    merge({**config, "models": models, "parameters": parameters}, tmp_path / "out")
    words = ["evaluate", "out", "--data", EVAL / "md.jsonl", "--max-tokens", 200, "-o", "m.csv"]
    run = cli(*words, "--as", "k=3", cwd=tmp_path)
    assert run.returncode == 1
    assert run.stderr.startswith(
        "error: --as `k=3` contradicts `out/mergeplan_manifest.json`: found k `2 (html+js)`\n"
    )
    run = cli(*words, "--as", "pool_size=9", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    said = "out, by its manifest: task arithmetic, λ 0.8, of html + js on base\n\ndomain"
    assert run.stdout.startswith(said)
    for row in load_measurements(tmp_path / "m.csv").rows:
        assert (row.method, row.options, row.k) == ("task_arithmetic", '{"lambda": 0.8}', 2)
        assert (row.subset, row.pool_size, row.weights) == (("html", "js"), 9, ())
    weights = tmp_path / "out" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2000] + bytes(2000))
    before = (tmp_path / "m.csv").read_bytes()
    run = cli(*words, cwd=tmp_path)
    assert (run.returncode, "is of other weights" in run.stderr) == (1, True)
    assert (tmp_path / "m.csv").read_bytes() == before
    run = cli(*words[:-2], cwd=tmp_path)
    assert run.stdout.startswith("out, by its manifest (its tensors were not hashed): task arith")
    (tmp_path / "out" / "mergeplan_manifest.json").write_text("{")
    run = cli(*words[:-2], cwd=tmp_path)
    assert (run.returncode, "warning: " in run.stderr) == (0, True)
    assert cli(*words, cwd=tmp_path).returncode == 1


def test_models_with_different_tokenizers_are_not_compared(tmp_path):
    shutil.copytree(DEMO_POOL / "base", tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    path.write_text(path.read_text().replace("<|endoftext|>", "<|end|>"))
    data = ["--data", EVAL / "md.jsonl"]
    run = cli("evaluate", DEMO_POOL / "base", *data, "--against", tmp_path / "other")
    assert (run.returncode, "have different tokenizers" in run.stderr) == (1, True)


def test_every_way_to_name_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.jsonl").write_text("")
    (tmp_path / "pool.yml").write_text(
        "sizes: [{base: b, experts: {x: x}}]\ndata: {code: eval/c.jsonl}"
    )
    domains = find_data((str(EVAL), "a=b.jsonl", "mine=there.jsonl", "pool.yml"))
    assert len(domains) == 9 + 3
    assert domains["a=b"].name == "a=b.jsonl"
    assert str(domains["mine"]) == "there.jsonl"
    assert domains["code"] == tmp_path / "eval" / "c.jsonl"


# Recording.


def scores(**nll: float) -> Scores:
    return Scores.from_data(
        {
            name: DocumentLosses((1, 2), (10, 10), (value * 10, value * 10 + 1))
            for name, value in nll.items()
        }
    )


def test_rows_are_appended_in_the_columns_that_a_file_has(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("subset,k,loss_nats,domain,note,method\na,1,2.5,x,kept,ties")
    merge = parse_merge(("subset=a+b", "method=ties"))
    append(path, scores(x=2.0, y=3.0), merge, data_hash="h")
    _, kept, *rows = path.read_text().splitlines()
    assert kept == "a,1,2.5,x,kept,ties"
    assert rows == ["a+b,2,2.05,x,,ties", "a+b,2,3.05,y,,ties", "a+b,2,2.55,macro,,ties"]


def test_rows_that_are_there_already_are_counted_and_lines_end_as_the_first_does(tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes(b"k,loss_nats,domain\r\n3,2.5,x")
    assert append(path, scores(x=1.0), parse_merge(("k=0",)), data_hash="h") == 0
    assert append(path, scores(x=1.0, y=2.0), parse_merge(("k=0",)), data_hash="h") == 1
    assert append(path, scores(x=1.0), parse_merge(("k=0",)), data_hash="h") == 2
    lines = path.read_bytes().split(b"\r\n")
    assert lines[:3] == [b"k,loss_nats,domain", b"3,2.5,x", b"0,1.05,x"]
    assert not any(b"\n" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--documents", "x.jsonl"], "`x.jsonl` is what is read"),
        (["--documents", "X/link.jsonl"], "`X/link.jsonl` is what is read"),
        (["--documents", "m/config.json"], "`m/config.json` is a part of `m`, which is read"),
        (["--documents", "blob"], "`blob` is a part of `m`, which is read"),
        (["--documents", "x.py", "--scorer", "x.py"], "`x.py` is what is read"),
        (["--documents", "notes.txt"], "`notes.txt` exists, and holds no table of such scores"),
        (["--documents", "d.csv", "-o", "./d.csv", "--as", "k=0"], "is to hold two outputs"),
        (["--documents", "d.csv", "--items", "d.csv", "--tasks", "t.yml"], "hold two outputs"),
        (["--items", "t.yml", "--tasks", "t.yml"], "`t.yml` is what is read"),
        (["-o", "d.csv", "--as", "k=0"], "--overwrite goes with --documents or --items"),
    ],
)
def test_what_is_read_or_is_something_else_is_never_replaced(words, told, tmp_path):
    (tmp_path / "m").mkdir()
    shutil.copy(DEMO_POOL / "base" / "config.json", tmp_path / "m")
    shutil.copy(DEMO_POOL / "base" / "model.safetensors", tmp_path / "blob")
    (tmp_path / "m" / "model.safetensors").symlink_to("../blob")
    (tmp_path / "x.jsonl").write_text('{"text": "some text"}\n')
    (tmp_path / "X").mkdir()
    os.link(tmp_path / "x.jsonl", tmp_path / "X" / "link.jsonl")
    (tmp_path / "x.py").write_text("def score(model, documents): raise SystemExit('too late')")
    for name in ("t.yml", "notes.txt"):
        (tmp_path / name).write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    run = cli("evaluate", "m", "--data", "x.jsonl", *words, "--overwrite", cwd=tmp_path)
    assert run.returncode in (1, 2)
    assert told in run.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["methd=ties", "k=1"], "unknown key `methd`"),
        (["k"], "expected one KEY=VALUE"),
        (["k=1", "k=2"], "expected one KEY=VALUE for each key"),
        (["method=ties"], "needs k, the number of experts"),
        (["k=two"], "found `two`"),
        (["k=1", "options=[1]"], "expected a JSON object"),
        (["k=1", "options={"], "expected a JSON object"),
    ],
)
def test_a_merge_that_is_not_said_right(given, words):
    with pytest.raises(InputError, match=words):
        parse_merge(tuple(given))


def test_a_file_without_a_needed_column_stays_as_it_is(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("k,loss_nats,domain\n")
    with pytest.raises(InputError, match="column `method` is missing"):
        columns_of(path, parse_merge(("k=1", "method=ties")))
    with pytest.raises(MissingInputError, match="no such folder"):
        append(tmp_path / "no" / "m.csv", scores(x=1.0), parse_merge(("k=0",)), data_hash="h")


def test_losses_that_are_not_finite_are_not_recorded(tmp_path):
    path = tmp_path / "m.csv"
    with pytest.raises(InputError, match="nothing was appended: domain `x`: the score of 2 of 2"):
        append(path, scores(x=math.nan), parse_merge(("k=0",)), data_hash="h")
    assert not path.exists()


def test_a_scorer_measures_another_metric_and_records_it(tmp_path):
    scorer = tmp_path / "short.py"
    scorer.write_text(
        "METRIC, BETTER = 'accuracy', 'higher'\n"
        "def score(model, documents):\n"
        "    return [(model.tokenizer(d['text'])['input_ids'][0] % 2, 1) for d in documents]\n"
    )
    model, out = DEMO_POOL / "base", tmp_path / "m.csv"
    words = ["evaluate", model, "--data", EVAL / "html.jsonl", "--scorer", scorer]
    run = cli(*words, "--against", model, "-o", out, "--as", "k=0")
    assert run.returncode == 0, run.stderr
    head, *rows = [line.split() for line in run.stdout.partition("\n\n")[0].splitlines()]
    assert head == ["domain", "accuracy", "se", "items", "documents"]
    assert [row[0] for row in rows] == ["html", "macro", "item-weighted"]
    with out.open() as file:
        [row, macro] = csv.DictReader(file)
    assert "loss_nats" not in row
    assert (row["metric"], row["better"], row["n_items"]) == ("accuracy", "higher", rows[0][3])
    assert 0 < float(row["value"]) < 1
    assert (
        float(row["value"]) == float(macro["value"]) == pytest.approx(float(rows[0][1]), abs=1e-6)
    )
    p, n = float(row["value"]), int(row["n_items"])
    assert float(row["value_se"]) == pytest.approx(math.sqrt(p * (1 - p) / (n - 1)), rel=1e-4)
    # Rows of a loss and of a metric do not go into one table that knows only the other.
    run = cli(*words[:-2], "-o", out, "--as", "k=0")
    assert (run.returncode, "column `loss_nats` is missing" in run.stderr) == (1, True)
    assert cli(*words[:2]).returncode == 2
