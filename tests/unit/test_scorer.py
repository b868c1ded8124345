"""A measure of one's own: what a scorer's file may be, and what is made of it."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

import mergeplan
from mergeplan.errors import InputError, MissingInputError
from mergeplan.evaluation.documents import read_documents, read_objects
from mergeplan.evaluation.measured import read_scores
from mergeplan.evaluation.options import EvaluationOptions
from mergeplan.evaluation.own_documents import OwnDocuments, read_files
from mergeplan.evaluation.scorer import Scorer
from mergeplan.measurements.file import read_rows
from mergeplan.system import signals
from tests.support.commands import cli, cli_process
from tests.support.pools import write_pool
from tests.support.settings import DEMO_POOL, EVAL

# What `evaluate` does by itself, in few words.
LOSS = """
import torch

def score(model, documents):
    found = []
    for document in documents:
        ids = torch.tensor([model.tokenizer(document["text"])["input_ids"]])
        loss = model(input_ids=ids, labels=ids).loss
        found.append((float(loss) * (ids.shape[1] - 1), ids.shape[1] - 1))
    return found
"""


def written(folder, source, name="mine.py"):
    path = folder / name
    path.write_text(source)
    return path


def scoring(folder, source, **options):
    return EvaluationOptions(scorer=mergeplan.load_scorer(written(folder, source)), **options)


def lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def prepared(folder, source, records=({"text": "a"}, {"text": "b"}), **options):
    data = {"x": lines(folder / "x.jsonl", records)}
    return OwnDocuments.prepare(data, scoring(folder, source, **options))


class Model:
    """Whatever a scorer is given passes through."""

    training = False

    def eval(self):
        return self

    def train(self, mode):
        return self


def test_a_scorer_of_losses_gives_what_evaluate_gives(tmp_path):
    data = {name: EVAL / f"{name}.jsonl" for name in ("html", "python")}
    for options in ({}, {"half": "selection"}):
        own = EvaluationOptions(**options)
        model = DEMO_POOL / "python"
        expected = mergeplan.evaluate_fully(model, data, own, device="cpu")
        found = mergeplan.evaluate_fully(
            model, data, scoring(tmp_path, LOSS, **options), device="cpu"
        )
        assert (found.metric, found.warnings) == ("", expected.warnings)
        for name, domain in expected.scores.domains.items():
            mine = found.scores.domains[name]
            assert np.array_equal(mine.lines, domain.lines)
            assert np.array_equal(mine.n_tokens, domain.n_tokens)
            assert np.allclose(mine.nll, domain.nll, rtol=1e-5)
        assert found.data_hash != expected.data_hash


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def score(model, documents:", "line 1: "),
        ("x = 1\ny = x.z\n", "line 2: AttributeError: 'int' object has no attribute 'z'"),
        ("def scores(model, documents): ...", "function `score` is missing"),
        ("score = 3", "`score`: expected a function, found `3`"),
        ("METRIC = 'accuracy'\ndef score(m, d): ...", "without a direction: expected `BETTER`"),
        (
            "METRIC = 'a'\nBETTER = 'more'\ndef score(m, d): ...",
            "`lower` or `higher`, found `'more",
        ),
        (
            "METRIC = 'loss'\nBETTER = 'lower'\ndef score(m, d): ...",
            "`METRIC`: expected another measure than a loss in nats, found `loss`",
        ),
        ("METRIC = 3\nBETTER = 'lower'\ndef score(m, d): ...", "`METRIC`: expected a name, found"),
        ("BETTER = 'lower'\ndef score(m, d): ...", "`BETTER` without `METRIC`"),
        (
            "import numpy\nMETRIC, BETTER = 'a', numpy.ones(2)\ndef score(m, d): ...",
            "`lower` or `higher`, found `array",
        ),
        ("METRIC, BETTER = 10**5000, 'lower'\ndef score(m, d): ...", "something of type `int`"),
    ],
)
def test_a_file_that_is_no_scorer_is_named(source, message, tmp_path):
    path = written(tmp_path, source)
    with pytest.raises(InputError) as caught:
        mergeplan.load_scorer(path)
    assert caught.value.message.startswith(f"scorer `{path}`")
    assert message in caught.value.message


def test_a_scorer_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingInputError, match=r"no\.py"):
        mergeplan.load_scorer(tmp_path / "no.py")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [(float('nan'), 1)] * 2", "document 1: expected a finite sum, found nan"),
        ("return [(1.0, 1), (float('inf'), 1)]", "document 2: expected a finite sum"),
        ("return [(-3.0, 1)] * 2", "expected losses in nats, above 0, found -3 for `"),
        ("return [(1.0, 0)] * 2", "document 1: expected a whole count from 1 to 1e+12, found 0"),
        (
            "return [(1.0, 1.5)] * 2",
            "document 1: expected a whole count from 1 to 1e+12, found 1.5",
        ),
        ("return [1.0, 2.0]", "document 1: expected a sum and a count"),
        ("return [(1.0, None)] * 2", "document 1: expected a sum and a count"),
        ("return [(10**400, 1)] * 2", "document 1: expected a finite sum, found nan or one beyond"),
        ("return [(1.0, 10**400)] * 2", "expected a whole count from 1 to 1e+12, found inf"),
        ("return [(1.0, 1e13)] * 2", "expected a whole count from 1 to 1e+12, found 1e+13"),
        ("return [(1.0, True)] * 2", "document 1: expected a sum and a count"),
        ("import torch; return [(1.0, torch.tensor(True))] * 2", "expected a sum and a count"),
        ("return [(1j, 1)] * 2", "document 1: expected a sum and a count"),
        ("import numpy; return [(numpy.complex64(1), 1)] * 2", "expected a sum and a count"),
        ("import numpy; return [numpy.array([None, 1])] * 2", "expected a sum and a count"),
        ("import torch; return [(torch.ones(2), 1)] * 2", "document 1: expected a sum and a count"),
        ("import torch; return torch.ones(())", "for each of 2 documents, found `tensor(1.)`"),
        ("return ['11', '11']", "document 1: expected a sum and a count"),
        ("return [('1', 1)] * 2", "document 1: expected a sum and a count"),
        ("return [(10**5000, [])] * 2", "found something of type `tuple`"),
        ("return [(1.0, 1)]", "for each of 2 documents, found 1 of them"),
        ("return 3.0", "for each of 2 documents, found `3.0`"),
        ("return None", "for each of 2 documents, found nothing"),
        ("return [(1.0 + n, 1) for n, _ in enumerate(documents)]", "come in reverse"),
        ("return documents[5]", "line 2: IndexError"),
    ],
)
def test_what_a_scorer_gives_is_checked_on_the_base(body, message, tmp_path):
    own = prepared(tmp_path, f"def score(model, documents):\n    {body}\n")
    with pytest.raises(InputError) as caught:
        own.check(Model())
    assert message in caught.value.message
    assert "mine.py" in caught.value.message


@pytest.mark.parametrize(
    "value", ["True", "Decimal(1)", "Fraction(1)", "ones(1, requires_grad=True)"]
)
def test_a_sum_may_be_any_real_number(value, tmp_path):
    source = "from decimal import *\nfrom fractions import *\nfrom torch import ones\n"
    source += f"def score(m, d):\n    return [({value}, 1)] * len(d)\n"
    assert prepared(tmp_path, source).score(Model()).macro().loss_nats == 1


@pytest.mark.parametrize(
    "metric", ["a,b", 'a"b', "a'b", "a\nb", "a\x1bb", " a", "a\t", "a:b", "a=b"]
)
def test_a_name_that_tables_and_options_cannot_hold_is_no_metric(metric, tmp_path):
    source = f"METRIC, BETTER = {metric!r}, 'lower'\ndef score(m, d): ..."
    with pytest.raises(InputError, match="`METRIC`: expected a name without commas, quotes"):
        mergeplan.load_scorer(written(tmp_path, source))
    for name in ("a", "top-1 %", "f1"):
        named = written(tmp_path, f"METRIC, BETTER = {name!r}, 'lower'\ndef score(m, d): ...")
        assert mergeplan.load_scorer(named).metric == name


def test_a_document_without_a_score_is_named_by_its_file_before_any_merge(tmp_path):
    # The fifth is none of those on which a scorer is tried.
    source = "def score(m, d):\n    return [(1.0, 1)] * 4 + [(float('nan'), 1)] * (len(d) - 4)\n"
    with pytest.raises(InputError, match=r"html\.jsonl`, document 5: expected a finite sum"):
        run(tmp_path, written(tmp_path, source), data={"html": str(EVAL / "html.jsonl")})
    assert not (tmp_path / "run").exists()


def test_documents_of_a_half_are_named_by_their_lines(tmp_path):
    records = [{"n": n} for n in range(1, 41)]
    source = "def score(m, d):\n    return [(1.0, 0 if x['n'] == bad else 1) for x in d]\nbad = "
    half = prepared(tmp_path, source + "0", records, half="check").domains["x"].lines
    own = prepared(tmp_path, f"{source}{half[2]}", records, half="check")
    with pytest.raises(InputError, match=rf"x\.jsonl`, document {half[2]}: expected a whole count"):
        own.check(Model())


def test_a_scorer_may_have_data_classes(tmp_path):
    source = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass A:\n    x: float = 1.5\n"
        "def score(m, d):\n    return [(A().x, 1) for _ in d]\n"
    )
    assert prepared(tmp_path, source).score(Model()).macro().loss_nats == 1.5


@pytest.mark.parametrize("source", ["import sys\nsys.exit(0)", "def score(m, d):\n    exit(0)"])
def test_a_scorer_does_not_end_the_command(source, tmp_path):
    with pytest.raises(InputError, match=r"mine\.py`, line 2: SystemExit: 0"):
        prepared(tmp_path, source).check(Model())


STOPPED = "import os, signal, sys\nos.kill(os.getpid(), signal.SIGTERM)\nsys.exit(3)\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a signal of POSIX")
def test_a_command_that_is_stopped_while_a_scorer_runs_is_not_the_scorers_fault(
    tmp_path, monkeypatch
):
    words = ["--data", EVAL / "html.jsonl", "--scorer", written(tmp_path, STOPPED)]
    done = cli_process("evaluate", DEMO_POOL / "python", *words)
    assert (done.returncode, "mine.py" in done.stderr) == (143, False), done.stderr
    # A scorer may catch it, and make something else of it.
    own = prepared(tmp_path, "def score(m, d):\n    raise RuntimeError('a worker has died')\n")
    with pytest.raises(InputError, match="a worker has died"):
        own.check(Model())
    monkeypatch.setattr(signals, "_asked", [SystemExit(143)])
    with pytest.raises(SystemExit, match="143"):
        own.check(Model())


def test_a_count_that_depends_on_the_model_is_refused(tmp_path):
    own = prepared(tmp_path, "def score(model, documents):\n    return [(1.0, model.n)] * 2\n")
    model = Model()
    model.n = 1
    assert own.score(model).domains["x"].n_tokens.tolist() == [1, 1]
    model.n = 2
    with pytest.raises(InputError, match="domain `x`, document 1: a count of 2, and of 1 for"):
        own.score(model)


def test_a_model_that_gives_no_finite_score_is_kept_as_such(tmp_path):
    own = prepared(tmp_path, "def score(m, d):\n    return [(float('inf'), 1), (2.0, 1)]\n")
    [fault] = own.score(Model()).faults()
    assert fault == "domain `x`: the score of 1 of 2 documents is not finite, the first on line 1"


def test_lines_of_any_keys_have_halves_and_groups(tmp_path):
    records = [{"pixels": [n, 0], "label": n % 3, "group": n // 2} for n in range(40)]
    path = lines(tmp_path / "x.jsonl", records)
    file = read_objects(path)
    assert (file.kind, file.grouped, list(file.objects)) == ("objects", True, records)
    own = "def score(m, documents):\n    return [(d['label'], 1) for d in documents]\n"
    halves = [prepared(tmp_path, own, records, half=half) for half in ("selection", "check")]
    labels = [half.score(Model()).domains["x"] for half in halves]
    assert sum(len(one.lines) for one in labels) == 40
    assert not {*labels[0].groups} & {*labels[1].groups}
    for one in labels:
        assert one.nll.tolist() == [records[line - 1]["label"] for line in one.lines]
    # Text stays in the half that it has as text.
    texts = EVAL / "html.jsonl"
    assert [d.half for d in read_objects(texts).documents] == [
        d.half for d in read_documents(texts).documents
    ]


def test_a_scorer_may_make_its_documents_and_needs_no_file(tmp_path):
    source = (
        "METRIC, BETTER = 'accuracy', 'higher'\n"
        "def load_documents(path):\n"
        "    assert path is None\n    return [{'n': n} for n in range(5)]\n"
        "def score(model, documents):\n    return [(d['n'] % 2, 1) for d in documents]\n"
    )
    own = OwnDocuments.prepare({}, scoring(tmp_path, source))
    assert (own.metric, own.higher, own.n_tokens, list(own.domains)) == (
        "accuracy", True, 5, ["mine"],
    )  # fmt: skip
    assert own.score(Model()).macro().loss_nats == pytest.approx(0.4)
    with pytest.raises(InputError, match="no `data`, and scorer .* has no `load_documents`"):
        OwnDocuments.prepare({}, scoring(tmp_path, LOSS))


@pytest.mark.parametrize("found", ["None", "3", "[]", "'abc'"])
def test_documents_that_are_none_are_named(found, tmp_path):
    source = f"{LOSS}\ndef load_documents(path): return {found}\n"
    with pytest.raises(InputError, match=r"scorer .*mine\.py.*load_documents"):
        OwnDocuments.prepare({}, scoring(tmp_path, source))


@pytest.mark.parametrize("option", ["max_tokens", "max_length", "stride", "batch_tokens"])
def test_options_of_tokens_have_no_meaning_with_a_scorer(option, tmp_path):
    with pytest.raises(InputError, match=f"`{option}` has no meaning with a scorer"):
        prepared(tmp_path, LOSS, **{option: 50})


def test_documents_of_no_file_are_known_by_what_they_hold(tmp_path):
    elsewhere = tmp_path / "numbers.npy"
    source = (
        f"{LOSS}\ndef load_documents(path):\n"
        f"    import numpy\n    return [{{'x': numpy.load({str(elsewhere)!r}), 3: 4}}]\n"
    )

    def sha256(numbers):
        np.save(elsewhere, np.array(numbers))
        return OwnDocuments.prepare({}, scoring(tmp_path, source)).sha256

    assert sha256([1.0, 2.0]) == sha256([1.0, 2.0]) != sha256([1.0, 3.0])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("b'a'", "b'b'"),
        ("D(1.0)", "D(2.0)"),
        ("torch.tensor([1.0])", "torch.tensor([2.0])"),
        ("torch.tensor(1.0, dtype=torch.bfloat16)", "torch.tensor(2.0, dtype=torch.bfloat16)"),
        ("np.array(['ab', 3], object)", "np.array(['ab', 4], object)"),
        ("np.zeros(2)", "np.zeros((2, 1))"),
    ],
)
def test_what_made_documents_hold_decides_their_hash(one, other, tmp_path):
    source = (
        "import numpy as np, torch, dataclasses\n@dataclasses.dataclass\nclass D:\n    x: float\n"
        "def score(m, d): ...\ndef load_documents(path): return [{'x': FOUND}]\n"
    )

    def content(found):
        scorer = mergeplan.load_scorer(written(tmp_path, source.replace("FOUND", found)))
        [file] = read_files({}, scorer).values()
        return file.sha256

    assert content(one) == content(one) != content(other)


@pytest.mark.parametrize("found", ["{'x': object()}", "{(1, 2): 3}", "{'x': {1, 2}}"])
def test_made_documents_of_which_there_is_no_hash_are_refused(found, tmp_path):
    source = f"{LOSS}\ndef load_documents(path): return [{found}]\n"
    with pytest.raises(InputError, match=r"mine\.py.*load_documents.*no hash of its documents"):
        OwnDocuments.prepare({}, scoring(tmp_path, source))


def test_a_scorer_travels_as_its_text(tmp_path):
    path = written(tmp_path, LOSS)
    scorer = mergeplan.load_scorer(path)
    path.write_text("changed")
    again = pickle.loads(pickle.dumps(scorer))
    assert (again, again.sha256, again.metric) == (scorer, scorer.sha256, "")


# In a calibration.


def run(tmp_path, scorer, **changes):
    pool = write_pool(tmp_path, methods={"average": {}}, **changes)
    setup = mergeplan.Setup(EvaluationOptions(scorer=mergeplan.load_scorer(scorer)), device="cpu")
    options = mergeplan.CalibrateOptions(ks=(1, 5), scan=False, setup=setup)
    return mergeplan.calibrate(pool, tmp_path / "run", options)


def test_a_calibration_by_a_scorer_is_bound_to_its_file(tmp_path, monkeypatch):
    scorer = written(tmp_path, LOSS)
    done = run(tmp_path, scorer)
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())
    assert recorded["arithmetic"]["`--scorer`"] == mergeplan.load_scorer(scorer).sha256
    rows = mergeplan.load_measurements(done.table).rows
    assert {row.k for row in rows} == {0, 1, 5}
    expected = mergeplan.evaluate(DEMO_POOL / "base", tmp_path / "texts", device="cpu")
    base = {row.domain: row for row in rows if row.k == 0}
    for name, mean in expected.estimates().items():
        assert base[name].loss_nats == pytest.approx(mean.loss_nats, abs=1e-6)
    # What is measured was tried: nothing is scored again.
    scored = tmp_path / "scored"
    monkeypatch.setattr(Scorer, "score", lambda *_, **__: scored.touch())
    assert run(tmp_path, scorer).n_measured == 0
    assert not scored.exists()
    monkeypatch.undo()
    scorer.write_text(LOSS + "\n# another\n")
    with pytest.raises(InputError, match="`--scorer` has changed since the run"):
        run(tmp_path, scorer)


def test_a_target_may_be_below_0_where_a_metric_may(tmp_path):
    signed = LOSS.replace("def score", "METRIC, BETTER = 'loglikelihood', 'higher'\n\ndef score")
    signed = signed.replace("def score(", "def losses(") + (
        "\ndef score(model, documents):\n"
        "    return [(-value, count) for value, count in losses(model, documents)]\n"
    )
    pool = write_pool(tmp_path, methods={"average": {}})
    words = ["calibrate", pool, "-o", tmp_path / "run", "--k", "1,5", "--no-lambda-scan"]
    refused = cli(*words, "--target", "-2")
    assert refused.returncode == 1
    assert "a loss is above 0, and the target is -2" in refused.stderr
    done = cli(*words, "--target", "-2", "--scorer", written(tmp_path, signed), "--json")
    assert json.loads(done.stdout)["verdict"]["target"] == -2, done.stderr


def test_a_scorer_at_fault_leaves_no_run(tmp_path):
    scorer = written(tmp_path, "def score(m, d):\n    return [(float('nan'), 1)] * len(d)\n")
    with pytest.raises(InputError, match="expected a finite sum, found nan"):
        run(tmp_path, scorer)
    assert not (tmp_path / "run").exists()


# Whether a small network reads a point right: neither model nor data is of transformers.
POINTS = """
METRIC, BETTER = "accuracy", "higher"

def load_model(path, dtype, device):
    from safetensors.torch import load_model
    import torch
    model = torch.nn.Linear(2, 2)
    load_model(model, path / "model.safetensors")
    return model.to(device)

def load_documents(path):
    return [{"x": [n % 7 - 3.03, n % 5 - 2.07], "y": n % 7 > 3} for n in range(60)]

def score(model, documents):
    import torch
    found = model(torch.tensor([d["x"] for d in documents])).argmax(1).tolist()
    return [(float(y == d["y"]), 1) for y, d in zip(found, documents)]
"""
WEIGHTS = {"base": (0.01, 0.11), "a": (0.91, -2.13), "b": (-0.37, 0.89), "c": (0.33, 0.53)}


@pytest.fixture
def points(tmp_path):
    """A pool of linear classifiers, without `data`, and their scorer."""
    import torch
    from safetensors.torch import save_file

    for name, (slope, bias) in WEIGHTS.items():
        (tmp_path / name).mkdir()
        tensors = {
            "weight": torch.tensor([[0.0, 0.1], [slope, 0.2]]),
            "bias": torch.tensor([0.0, bias]),
        }
        save_file(tensors, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text('{"model_type": "points"}')
    experts = {name: name for name in WEIGHTS if name != "base"}
    pool = {"sizes": [{"base": "base", "experts": experts}], "methods": {"average": {}}}
    (tmp_path / "pool.yml").write_text(json.dumps(pool))
    return written(tmp_path, POINTS, "points.py")


def accuracy(subset, lines):
    """Of the average of some experts, on some of the documents."""
    slope, bias = np.mean([WEIGHTS[name] for name in subset or ("base",)], axis=0)
    right = []
    for number in lines:
        n = number - 1
        x, z = n % 7 - 3.03, n % 5 - 2.07
        second = slope * x + 0.2 * z + bias > 0.1 * z
        right.append(float(second == (n % 7 > 3)))
    return np.array(right)


def of_points(tmp_path, scorer, half, **options):
    setup = mergeplan.Setup(EvaluationOptions(scorer=mergeplan.load_scorer(scorer)), device="cpu")
    options = mergeplan.CalibrateOptions(setup=setup, half=half, scan=False, **options)
    return mergeplan.calibrate(tmp_path / "pool.yml", tmp_path / half, options)


def test_classifiers_are_merged_and_chosen_by_accuracy_paired_by_document(points, tmp_path):
    done = of_points(tmp_path, points, "selection", choosing=mergeplan.ChoiceGoal())
    every = {}
    for one in read_scores(tmp_path / "selection"):
        domain = one.scores.domains["points"]
        assert domain.nll.tolist() == accuracy(one.merge.subset, domain.lines).tolist()
        every[one.merge.subset] = domain
    assert len(every) == 8
    rows, _ = read_rows(done.table)
    for row in rows:
        values = every[row.subset].nll
        assert (row.metric, row.higher, row.n_items) == ("accuracy", True, len(values))
        assert row.loss_nats == pytest.approx(values.mean(), abs=1e-8)
        expected = values.std(ddof=1) / np.sqrt(len(values))
        assert row.value_se == pytest.approx(expected, rel=1e-4)
    verdict = done.verdict
    means = {subset: domain.nll.mean() for subset, domain in every.items()}
    assert verdict.higher
    assert verdict.chosen.value == pytest.approx(max(means.values()))
    gain = verdict.gains[0]
    paired = every[verdict.chosen.merge.subset].nll - every[()].nll
    assert gain.value == pytest.approx(paired.mean())
    # By documents drawn anew, nothing to do with how far the two values move by themselves.
    half = 1.645 * paired.std(ddof=1) / np.sqrt(len(paired))
    assert (gain.high - gain.low) / 2 == pytest.approx(half, rel=0.15)
    # On the other half the gain is of the same sign as it is told with.
    held = done.held_back
    other = sorted({*range(1, 61)} - {*every[()].lines.tolist()})
    apart = accuracy(verdict.chosen.merge.subset, other) - accuracy((), other)
    assert held.gains[0].gain.loss_nats == pytest.approx(apart.mean())
    assert held.loss.loss_nats == pytest.approx(accuracy(verdict.chosen.merge.subset, other).mean())
    # The table says the same beside its run's scores.
    again = mergeplan.verdict_of(done.table)
    assert again.chosen.merge == verdict.chosen.merge
    assert again.gains[0] == gain
    [selection] = mergeplan.select(done.table)
    assert selection.best.value == verdict.chosen.value
    assert selection.confidence.chance_on_texts is not None
    words = ["select", done.table, "--pool", tmp_path / "pool.yml", "-o", tmp_path / "m.yml"]
    checked = cli(*words, "--check", "--scorer", points, "--device", "cpu")
    assert checked.returncode == 0, checked.stderr
    name = verdict.chosen.merge.name()
    assert f"checked on {len(other)} other documents: {name}" in checked.stdout
    assert f"{apart.mean():.4f} better than base" in checked.stdout
    assert "may have had a part" not in checked.stderr
    refused = cli(*words, "--check", "--overwrite")
    assert (
        refused.returncode,
        "cannot be checked: documents are scored here" in refused.stderr,
    ) == (
        1,
        True,
    )


def test_how_many_classifiers_to_merge_is_asked_by_accuracy(points, tmp_path):
    wish = mergeplan.CurveGoal(target_loss=0.75)
    done = of_points(tmp_path, points, "all", wish=wish)
    means = [accuracy(subset, range(1, 61)).mean() for subset in ("a", "b", "c")]
    fit = mergeplan.fit(done.table).fits[0]
    assert fit.series.points[0].loss == pytest.approx(np.mean(means))
    assert "k = " in done.reasons[0]
    recorded = json.loads((tmp_path / "all" / "run.json").read_text())
    assert (recorded["metric"], recorded["higher"]) == ("accuracy", True)


LOUD = """
import ctypes, os, subprocess, sys

def say(*words):
    try:
        print("print", flush=True)
        sys.__stdout__.write("buffered ")
    except OSError:
        pass  # standard error is closed
    os.write(1, b"descriptor ")
    subprocess.run(["echo", "process"])
    if os.name == "posix":
        ctypes.CDLL(None).printf(b"C ")

say()

def score(model, documents):
    say()
    return [(1.0, 1)] * len(documents)
"""


@pytest.mark.parametrize("closed", ["", "1", "2", "12", "012"])
def test_what_a_scorer_writes_to_stdout_is_no_data_of_ours(closed, tmp_path):
    file = written(tmp_path, LOUD, "loud.py")
    ours = (
        "import mergeplan, os, sys\n"
        "sys.stdout.write('before ')\n"
        f"if '1' in {closed!r}: sys.stdout.flush()\n"
        f"for closed in {closed!r}: os.close(int(closed))\n"
        f"found = mergeplan.load_scorer({str(file)!r}).score(None, ['a'])\n"
        "assert found == [(1.0, 1)]\n"
        "try: os.write(1, b'after')\n"
        f"except OSError: assert '1' in {closed!r}\n"
        f"else: assert '1' not in {closed!r}\n"
        f"for closed in {closed!r}: os.open(os.devnull, os.O_RDWR)\n"
    )
    done = subprocess.run([sys.executable, "-c", ours], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("before " if "1" in closed else "before after")
    if "2" not in closed:
        for word in ("print", "buffered", "descriptor", "process", "C"):
            assert done.stderr.split().count(word) == 2, (word, done.stderr)
