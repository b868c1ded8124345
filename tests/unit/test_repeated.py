"""Documents that stand in a domain more than once are one document to a standard error."""

import json

import numpy as np
import pytest

from mergeplan.evaluation.compare import compare
from mergeplan.evaluation.documents import Document
from mergeplan.evaluation.evaluate import evaluate_fully
from mergeplan.evaluation.halves import count_halves
from mergeplan.evaluation.options import EvaluationOptions
from mergeplan.evaluation.own_documents import OwnDocuments
from mergeplan.evaluation.scorer import load_scorer
from tests.support.settings import DEMO_POOL, EVAL

SCORER = """
def load_model(path, dtype, device): pass
def score(model, documents): return [(len(one["text"]), 1) for one in documents]
"""


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


@pytest.fixture
def some():
    lines = (EVAL / "js.jsonl").read_text("utf-8").splitlines()
    return [{"text": json.loads(line)["text"]} for line in lines[:3]]


def test_repeats_make_no_difference_surer(some, tmp_path):
    models = [DEMO_POOL / "base", DEMO_POOL / "js"]
    once = compare(models, {"js": write(tmp_path / "once.jsonl", some)})
    often = compare(models, {"js": write(tmp_path / "often.jsonl", some * 5)})
    for one, other in zip(once.columns, often.columns, strict=True):
        assert (one.n_groups, other.n_groups) == (3, 3)
        assert not other.separated
        for own, theirs in zip(one.values, other.values, strict=True):
            assert theirs.se == pytest.approx(own.se, rel=1e-4)
    assert once.warnings == ()
    (warning,) = often.warnings
    assert warning == (
        "domain `js`: documents repeat others word by word, so that 15 documents or groups count as"
        " 3 in standard errors: leave the repeats out"
    )


def test_one_document_six_times_has_no_standard_error(some, tmp_path):
    data = {"js": write(tmp_path / "js.jsonl", some[:1] * 6)}
    found = evaluate_fully(DEMO_POOL / "base", data, against=DEMO_POOL / "js")
    assert np.isnan(found.scores.macro().se)
    assert found.data()["difference"]["js"]["se"] is None


def test_groups_that_share_a_document_are_one(some, tmp_path):
    records = [{**one, "group": name} for one, name in zip(some + some[:1], "abca", strict=True)]
    data = {"js": write(tmp_path / "js.jsonl", records)}
    found = evaluate_fully(DEMO_POOL / "base", data)
    assert (len(set(found.scores.domains["js"].group_keys())), found.warnings) == (3, ())
    records[-1]["group"] = "b"
    found = evaluate_fully(DEMO_POOL / "base", {"js": write(tmp_path / "js.jsonl", records)})
    assert len(set(found.scores.domains["js"].group_keys())) == 2
    assert len(found.warnings) == 1


def test_halves_are_counted_without_repeats():
    one, other = Document(1, "one"), Document(2, "two")
    many = (one, other, *(Document(line, "one") for line in range(3, 40)))
    assert count_halves(many) == count_halves((one, other))
    assert len({document.half for document in many if document.text == "one"}) == 1


def test_a_scorers_documents_are_the_same_where_all_that_it_is_given_is(tmp_path):
    (tmp_path / "mine.py").write_text(SCORER)
    options = EvaluationOptions(scorer=load_scorer(tmp_path / "mine.py"))
    records = [{"text": "what is it?", "image": name} for name in "abb"]
    data = {"seen": write(tmp_path / "seen.jsonl", records)}
    own = OwnDocuments.prepare(data, options)
    assert own.domains["seen"].groups == (None, "text of line 2", "text of line 2")
    assert len(own.faults) == 1
