"""Downstream tasks through lm-evaluation-harness, as a user meets them."""

import csv
import json
import math
import sys
from itertools import pairwise

import numpy as np
import pytest

import mergeplan
from mergeplan.errors import InputError, MissingInputError
from mergeplan.evaluation.harness import check_tasks, paired
from mergeplan.evaluation.measured import read_scores
from mergeplan.evaluation.scores import TaskScore
from mergeplan.measurements.file import read_rows
from tests.support.commands import cli
from tests.support.pools import write_pool
from tests.support.settings import DEMO_POOL, EVAL

# Those of the harness and its packages.
pytestmark = pytest.mark.filterwarnings("ignore")

TASK = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_target: answer
doc_to_choice: choices
target_delimiter: ""
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
ITEMS = 24


def test_tasks_without_the_harness_say_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(MissingInputError, match="need lm-evaluation-harness") as caught:
        check_tasks(("arc_easy",))
    assert "pip install 'mergeplan[harness]'" in caught.value.hint


def test_differences_of_tasks_are_paired_by_item():
    ours = TaskScore("t", "acc", 0.75, 0.25, "higher", 4, (1.0, 1.0, 0.0, 1.0))
    theirs = TaskScore("t", "acc", 0.25, 0.25, "higher", 4, (0.0, 1.0, 0.0, 0.0))
    [apart] = paired([ours], [theirs])
    assert (apart.value, apart.items) == (0.5, (1.0, 0.0, 0.0, 1.0))
    assert apart.se == pytest.approx(math.sqrt(4 / 3 + 1) / 4)  # with half an item on either side
    [bare] = paired(
        [TaskScore("t", "f1", 0.5, 0.1, "higher", 4)], [TaskScore("t", "f1", 0, 0, "", 4)]
    )
    assert (bare.value, math.isnan(bare.se), bare.items) == (0.5, True, ())


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A task whose data lie beside it: by which of two texts a text goes on."""
    pytest.importorskip("lm_eval", reason="needs the extra `harness`, which brings scikit-learn")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    texts = [
        json.loads(line)["text"]
        for line in (EVAL / "python.jsonl").read_text("utf-8").splitlines()[: ITEMS + 1]
    ]
    records = []
    for i, (text, other) in enumerate(pairwise(texts)):
        choices = [text[60:70], other[60:70]][:: 1 - 2 * (i % 2)]
        records.append({"question": text[:60], "choices": choices, "answer": i % 2})
    data = tmp_path / "tiny.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    path = tmp_path / "tiny_choice.yaml"
    path.write_text(TASK.format(data=data))
    return path


def test_tasks_stand_in_the_same_table_with_each_items_score(task, tmp_path):
    words = ["evaluate", DEMO_POOL / "python", "--data", EVAL / "python.jsonl", "--tasks", task]
    words += ["--max-tokens", 500, "--against", DEMO_POOL / "html", "--items", tmp_path / "i.csv"]
    run = cli(*words)
    assert run.returncode == 0, run.stderr
    table, _, apart = run.stdout.partition("\n\n")
    head, *rows = [line.split() for line in table.splitlines()]
    assert head == ["domain", "metric", "value", "se", "tokens", "documents"]
    assert [row[:2] for row in rows[:2]] == [["python", "loss_nats"], ["macro", "loss_nats"]]
    name, metric, accuracy, se, documents = rows[-1]
    assert (name, metric, documents) == ("tiny_choice", "acc", f"{ITEMS}")
    with (tmp_path / "i.csv").open() as file:
        items = list(csv.DictReader(file))
    assert [(row["task"], row["metric"], int(row["item"])) for row in items] == [
        ("tiny_choice", "acc", number) for number in range(1, ITEMS + 1)
    ]
    values = [float(row["value"]) for row in items]
    p = sum(values) / ITEMS
    assert 0.5 < p < 1
    assert float(accuracy) == pytest.approx(p, abs=1e-6)
    assert float(se) == pytest.approx(math.sqrt(p * (1 - p) / (ITEMS - 1)), abs=1e-6)
    title, *_, last = apart.splitlines()
    assert title.endswith("paired by document and item")
    assert last.split()[:2] == ["tiny_choice", "acc"]

    found = json.loads(cli(*words[:-2], "--json").stdout)
    assert found["tasks"][0]["items"] == values
    [difference] = found["task_differences"]
    assert difference["value"] == pytest.approx(float(last.split()[2]), abs=1e-6)
    assert difference["se"] == pytest.approx(float(last.split()[3]), abs=1e-6)
    assert (cli(*words).returncode, cli(*words[:4], "--items", "x.csv").returncode) == (1, 2)


def test_tasks_need_no_data_and_stand_in_the_table_of_measurements(task, tmp_path):
    out, alone = tmp_path / "m.csv", tmp_path / "alone.csv"
    words = ["evaluate", DEMO_POOL / "python", "--tasks", task, "--as", "subset=python", "-o"]
    texts = ["--data", EVAL / "python.jsonl", "--max-tokens", 500]
    without, beside = cli(*words, alone, "--json"), cli(*words, out, *texts, "--json")
    assert (without.returncode, beside.returncode) == (0, 0), (without.stderr, beside.stderr)
    found = json.loads(without.stdout)
    [score] = found["tasks"]
    assert score["value"] == found["value"] == json.loads(beside.stdout)["tasks"][0]["value"]
    assert (found["metric"], found["better"]) == ("acc", "higher")
    rows, _ = read_rows(out)
    assert [(row.domain, row.metric) for row in rows] == [
        ("python", ""), ("macro", ""), ("tiny_choice", "acc"),
    ]  # fmt: skip
    row = rows[-1]
    assert (row.loss_nats, row.higher, row.n_items) == (
        pytest.approx(score["value"]), True, ITEMS,
    )  # fmt: skip
    assert row.value_se == pytest.approx(score["se"], rel=1e-5)
    bare, _ = read_rows(alone)
    assert [(r.domain, r.metric) for r in bare] == [("tiny_choice", "acc"), ("macro", "acc")]
    assert (bare[0].value_se, bare[0].n_items) == (row.value_se, ITEMS)
    # As a calibration writes the same merge.
    done = calibrated(tmp_path, task)
    ours = next(r for r in read_rows(done.table)[0] if r.metric and r.subset == ("python",))
    assert (row.data_hash, row.n_items) == (ours.data_hash, ours.n_items)
    assert (row.loss_nats, row.value_se) == pytest.approx((ours.loss_nats, ours.value_se))
    shown = cli(*words[:4], "--against", DEMO_POOL / "html")
    assert shown.returncode == 0, shown.stderr
    table, _, apart = shown.stdout.partition("\n\n")
    assert table.count("tiny_choice") == apart.count("tiny_choice") == 1
    assert table.split()[:3] == ["domain", "acc", "se"]
    out.write_text("k,subset,n_params,loss_nats,domain\n")
    refused = cli(*words, out, *texts)
    assert "column `metric` is missing" in refused.stderr
    halved = cli(*words[:4], "--half", "check")
    assert "items of tasks have no halves" in halved.stderr
    nothing = cli(*words[:2])
    assert (nothing.returncode, "--data is missing" in nothing.stderr) == (2, True)


def calibrated(tmp_path, task, **changes):
    pool = write_pool(tmp_path, methods={"average": {}}, **changes)
    setup = mergeplan.Setup(device="cpu", tasks=(str(task),))
    options = mergeplan.CalibrateOptions(ks=(1, 5), scan=False, setup=setup)
    return mergeplan.calibrate(pool, tmp_path / "run", options)


def test_a_calibration_runs_tasks_on_every_merge_and_keeps_each_items_score(task, tmp_path):
    done = calibrated(tmp_path, task)
    assert {"chosen", "base"} <= set(done.to_frame().role)
    rows, _ = read_rows(done.table)
    losses = {row.merge_key: row for row in rows if row.domain == "macro"}
    scores = {row.merge_key: row for row in rows if row.metric == "acc"}
    assert losses.keys() == scores.keys()
    assert len(losses) == 7
    measured = {one.merge.merge_key: one for one in read_scores(tmp_path / "run")}
    for key, row in scores.items():
        [kept] = measured[key].tasks
        assert (row.domain, row.higher, row.n_items) == ("tiny_choice", True, ITEMS)
        assert row.loss_nats == pytest.approx(np.mean(kept.items), abs=1e-8)
        assert row.value_se == pytest.approx(
            np.std(kept.items, ddof=1) / math.sqrt(ITEMS), rel=1e-4
        )
    # In memory as from a checkpoint: the expert alone is the expert.
    python = next(row for key, row in scores.items() if key[3] == ("python",))
    words = ["evaluate", DEMO_POOL / "python", "--data", EVAL / "python.jsonl", "--tasks", task]
    run = cli(*words, "--max-tokens", 50, "--json")
    assert run.returncode == 0, run.stderr
    [alone] = json.loads(run.stdout)["tasks"]
    assert python.loss_nats == pytest.approx(alone["value"])

    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["arithmetic"]
    sha256, count = recorded["task `tiny_choice`"]
    assert (len(sha256), count) == (64, ITEMS)
    assert {row.data_hash for row in scores.values()} == {sha256[:16]}
    assert recorded["lm-evaluation-harness"]
    assert calibrated(tmp_path, task).n_measured == 0
    data = tmp_path / "tiny.jsonl"
    data.write_text(data.read_text().replace('"answer": 1', '"answer": 0', 1))
    with pytest.raises(InputError, match="task `tiny_choice` has changed since the run"):
        calibrated(tmp_path, task)


def test_tasks_decide_where_a_pool_has_no_data(task, tmp_path):
    done = calibrated(tmp_path, task, data=None)
    rows, _ = read_rows(done.table)
    assert {(row.metric, row.domain) for row in rows} == {("acc", "tiny_choice"), ("acc", "macro")}
    best = max(row.loss_nats for row in rows)
    assert done.verdict.aim == "acc:macro"
    assert done.verdict.chosen.value == best
    gain = done.verdict.gains[0]
    assert gain.low < gain.value < gain.high
    assert calibrated(tmp_path, task, data=None).n_measured == 0
    setup = mergeplan.Setup(mergeplan.EvaluationOptions(half="check"), tasks=(str(task),))
    options = mergeplan.CalibrateOptions(setup=setup)
    with pytest.raises(InputError, match="items of tasks have no halves"):
        mergeplan.calibrate(tmp_path / "pool.yml", tmp_path / "other", options)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("dataset_path: json", "dataset_path: nobody/nothing"),
        ("test_split: test", "test_split: exam"),
        ("doc_to_target: answer", "doc_to_target: '{{ 1 // 0 }}'"),
    ],
)
def test_a_task_that_cannot_be_had_is_named_before_any_merge(old, new, task, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    task.write_text(task.read_text().replace(old, new))
    with pytest.raises(InputError) as caught:
        calibrated(tmp_path, task)
    assert caught.value.message.startswith(f"cannot load task `{task}`: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("item", "metric", "message"),
    [
        (2, "nats", "task `tiny_choice`, item 2: expected a finite `nats`, found"),
        (7, "nats", "task `tiny_choice`, item 7: expected a finite `nats`, found"),
        (99, "loss", "task `tiny_choice`: expected the name of another metric than a loss"),
    ],
)
def test_an_odd_score_of_a_task_is_named_where_tasks_decide(item, metric, message, task, tmp_path):
    (tmp_path / "scored.py").write_text(
        "import math\ndef scored(doc, results):\n"
        f"    return {{'{metric}': math.inf if doc['number'] == {item} else 1.0}}\n"
    )
    data = tmp_path / "tiny.jsonl"
    records = [json.loads(line) for line in data.read_text().splitlines()]
    data.write_text(
        "".join(json.dumps(one | {"number": n}) + "\n" for n, one in enumerate(records, 1))
    )
    text = task.read_text().replace("metric: acc", f"metric: {metric}")
    task.write_text(text + "process_results: !function scored.scored\n")
    with pytest.raises(InputError, match=message):
        calibrated(tmp_path, task, data=None)


ACC = "metric: acc, aggregation: mean, higher_is_better: true"


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("doc_to_text:", "doc_to_txt:", "unknown key `doc_to_txt`", "did you mean `doc_to_text`?"),
        (
            "test_split: test",
            "test_split: exam",
            "key `test_split`: expected `test`, found `exam`",
            None,
        ),
        (
            "test_split: test",
            "test_split: test\ntest_split: train",
            "key `test_split` stands twice",
            "leave one of them",
        ),
        (
            "doc_to_target: answer",
            "doc_to_target: anser",
            "key `doc_to_target`: expected a column of the data, found `anser`",
            "did you mean `answer`?",
        ),
        (
            "doc_to_target: answer",
            "doc_to_target: '{{ anser }}'",
            "key `doc_to_target`: expected a column of the data, found `anser`",
            "did you mean `answer`?",
        ),
        (
            "doc_to_target: answer",
            "doc_to_target: 2",
            "key `doc_to_target`: expected one of the item's choices, ",
            None,
        ),
        (
            # As one who counts from 1: the last choice is none.
            "doc_to_target: answer",
            "doc_to_target: '{{ answer + 1 }}'",
            f"found `2` for item 2, and none for {ITEMS // 2} of {ITEMS} items",
            None,
        ),
        (
            ACC,
            ACC.replace(", higher_is_better: true", ""),
            "key `metric_list`, metric `acc`: key `higher_is_better` is missing",
            "write `higher_is_better: true`, or false where less is better",
        ),
        (
            "tiny.jsonl",
            "tny.jsonl",
            "key `dataset_kwargs`: no such file `",
            None,
        ),
        (
            "doc_to_choice: choices",
            "doc_to_choice: options",
            "key `doc_to_choice`: expected a column of the data, found `options`",
            "columns are: question, choices, answer; a text is written `\"{{ 'text' }}\"`",
        ),
        (
            "doc_to_text: question",
            "doc_to_text: qestion",
            "key `doc_to_text`: expected a column of the data, found `qestion`",
            "did you mean `question`?",
        ),
        (
            ACC,
            ACC.replace("acc", "accuracy_of"),
            "key `metric_list`: expected a metric that lm-evaluation-harness knows, found"
            " `accuracy_of`",
            "it knows: ",
        ),
        (
            ACC,
            ACC.replace("aggregation", "agregation"),
            "key `metric_list`, metric `acc`: expected `metric`, `aggregation`,"
            " `higher_is_better`, `hf_evaluate`, found `agregation`",
            "did you mean `aggregation`?",
        ),
        (
            ACC,
            ACC.replace("mean", "meen"),
            "key `metric_list`, metric `acc`, key `aggregation`: expected `",
            "did you mean `mean`?",
        ),
        (
            ACC,
            ACC.replace("true", "up"),
            "key `metric_list`, metric `acc`, key `higher_is_better`: expected true or false, found"
            " `up`",
            None,
        ),
        (
            ACC,
            ACC.replace("acc", "bleu"),
            "key `metric_list`: expected metrics of `output_type: multiple_choice`, found no value"
            " of `bleu`",
            None,
        ),
    ],
)
def test_what_a_tasks_file_says_and_the_harness_would_drop_is_named(
    old, new, message, hint, task, tmp_path, monkeypatch
):
    # Where the harness looks for a metric that it does not know, on the network too.
    monkeypatch.setitem(sys.modules, "evaluate", None)
    text = task.read_text()
    assert old in text
    task.write_text(text.replace(old, new))
    with pytest.raises(InputError) as caught:
        calibrated(tmp_path, task)
    assert str(task) in caught.value.message
    assert message in caught.value.message
    assert (caught.value.hint or "").startswith(hint or "")
    assert hint or not caught.value.hint
    assert not list((tmp_path / "run").glob("*.csv"))


def test_a_metric_of_generated_text_has_settings_of_its_own_and_no_misspelt_key(task):
    text = task.read_text().replace("multiple_choice", "generate_until")
    for key, known in (("ignore_case: true", True), ("agregation: mean", False)):
        entry = f"metric: exact_match, {key}, higher_is_better: true"
        task.write_text(text.replace("doc_to_choice: choices\n", "").replace(ACC, entry))
        if known:
            assert check_tasks((str(task),)).counts == {"tiny_choice": ITEMS}
        else:
            with pytest.raises(InputError, match="found `agregation`"):
                check_tasks((str(task),))


def test_a_task_that_is_a_class_is_held_to_no_columns(task, tmp_path):
    (tmp_path / "own.py").write_text(
        "from lm_eval.api.task import Task\n"
        "class Own(Task):\n"
        "    VERSION, OUTPUT_TYPE = 0, 'loglikelihood'\n"
        "    def __init__(self, config=None): super().__init__(config=config)\n"
        "    def download(self, *_, **__): pass\n"
        "    def has_training_docs(self): return False\n"
        "    def has_validation_docs(self): return False\n"
        "    def has_test_docs(self): return True\n"
        "    def test_docs(self): return [{'x': 'a'}, {'x': 'b'}]\n"
        "    def doc_to_text(self, doc): return doc['x']\n"
        "    def doc_to_target(self, doc): return doc['x']\n"
        "    def construct_requests(self, doc, ctx, **_): ...\n"
        "    def process_results(self, doc, results): return {'acc': 1.0}\n"
        "    def aggregation(self): return {'acc': sum}\n"
        "    def higher_is_better(self): return {'acc': True}\n"
    )
    path = tmp_path / "own.yaml"
    path.write_text("task: own\nclass: !function own.Own\n")
    assert check_tasks((str(path),)).counts == {"own": 2}


def test_a_text_that_is_the_same_for_all_items_is_no_column_that_the_data_lack(task):
    text = task.read_text()
    for new in ("doc_to_text: ''", "doc_to_text: \"{{ 'Which' }}\"", "doc_to_text: Which one?"):
        task.write_text(text.replace("doc_to_text: question", new))
        assert check_tasks((str(task),)).counts == {"tiny_choice": ITEMS}
    fixed = text.replace("doc_to_choice: choices", "doc_to_choice: [yes, no]")
    task.write_text(fixed.replace("doc_to_target: answer", "doc_to_target: 'yes'"))
    with pytest.raises(InputError, match="answer"):
        check_tasks((str(task),))


def test_tasks_that_the_harness_does_not_know(task, tmp_path):
    with pytest.raises(InputError, match="knows no task `arc_eazy`") as caught:
        check_tasks(("arc_eazy",))
    assert caught.value.hint == "did you mean `arc_easy`?"
    with pytest.raises(MissingInputError, match="cannot open task"):
        check_tasks((str(tmp_path / "no.yaml"),))
    (tmp_path / "bad.yaml").write_text("group: x")
    with pytest.raises(InputError, match="key `task` is missing"):
        check_tasks((str(tmp_path / "bad.yaml"),))


def test_a_file_is_the_task_that_it_holds_and_what_lies_beside_it_does_not_run(task, tmp_path):
    other = tmp_path / "aother.yaml"
    other.write_text(task.read_text().replace("tiny.jsonl", "few.jsonl"))
    (tmp_path / "few.jsonl").write_text(
        (tmp_path / "tiny.jsonl").read_text()[:-1].rpartition("\n")[0]
    )
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef f(doc): ...")
    code = task.read_text().replace("doc_to_text: question", "doc_to_text: !function evil.f")
    (tmp_path / "arc.yaml").write_text(code.replace("tiny_choice", "arc_easy"))
    assert check_tasks((str(task),)).counts == {"tiny_choice": ITEMS}
    assert check_tasks((str(other),)).counts == {"tiny_choice": ITEMS - 1}
    with pytest.raises(InputError, match=r"aother\.yaml` both have a task `tiny_choice`"):
        check_tasks((str(task), str(other)))
    assert not (tmp_path / "ran").exists()
    # Named, it does.
    check_tasks((str(tmp_path / "arc.yaml"),))
    assert (tmp_path / "ran").exists()


def test_what_a_tasks_own_code_writes_to_stdout_is_no_data_of_ours(task, tmp_path, capfd):
    (tmp_path / "loud.py").write_text(
        "import os\nos.write(1, b'loaded ')\n"
        "def text(doc):\n    os.write(1, b'written ')\n    print('printed')\n"
        "    return doc['question']\n"
    )
    code = task.read_text().replace("doc_to_text: question", "doc_to_text: !function loud.text")
    task.write_text(code)
    words = ["evaluate", DEMO_POOL / "python", "--data", EVAL / "python.jsonl", "--tasks", task]
    run = cli(*words, "--max-tokens", 50, "--json")
    assert (run.returncode, json.loads(run.stdout)["tasks"][0]["task"]) == (0, "tiny_choice")
    assert "printed" in run.stderr
    out, err = capfd.readouterr()
    assert ("loaded" in err, "written" in err, out) == (True, True, "")


OWN = """
def text(doc):
    raise SystemExit(0)
def last(doc):
    return 0 if doc["question"] != "LAST" else 1 // 0
"""
LAST = r"key `doc_to_target`, `.*own\.py`, line 5: ZeroDivisionError"


@pytest.mark.parametrize(
    ("key", "function", "message"),
    [
        ("doc_to_text", "own.text", r"key `doc_to_text`, `.*own\.py`, line 3: SystemExit: 0"),
        ("doc_to_target", "own.last", LAST),
        ("doc_to_text", "broken.text", r"`.*broken\.py`, line 2: AttributeError: 'int' object"),
    ],
)
def test_a_tasks_function_that_fails_is_named_with_its_key_and_line(
    key, function, message, task, tmp_path
):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("x = 1\nx.y\n")
    data = tmp_path / "tiny.jsonl"
    last = json.loads(data.read_text().splitlines()[-1]) | {"question": "LAST"}
    data.write_text(data.read_text() + json.dumps(last) + "\n")
    text = task.read_text()
    [line] = [line for line in text.splitlines() if line.startswith(f"{key}:")]
    task.write_text(text.replace(line, f"{key}: !function {function}"))
    with pytest.raises(InputError, match=message):
        check_tasks((str(task),))


def test_a_function_that_fails_on_a_models_answer_is_named(task, tmp_path):
    (tmp_path / "own.py").write_text("def scored(doc, results):\n    return {'acc': results[9]}\n")
    task.write_text(task.read_text() + "process_results: !function own.scored\n")
    with pytest.raises(InputError, match=r"key `process_results`, `.*own\.py`, line 2: IndexErr"):
        calibrated(tmp_path, task)


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_of_data_without_items_is_named(content, task, tmp_path):
    (tmp_path / "tiny.jsonl").write_text(content)
    with pytest.raises(InputError, match=r"`.*tiny\.jsonl` has no items") as caught:
        check_tasks((str(task),))
    assert caught.value.hint is None


def test_of_tasks_that_are_named_one_by_one_none_is_dropped(task):
    words = ["evaluate", DEMO_POOL / "python", "--data", EVAL / "python.jsonl"]
    run = cli(*words, "--tasks", "no_such_task", "--tasks", task)
    assert run.returncode == 1
    assert "no task `no_such_task`" in run.stderr
