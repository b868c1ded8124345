"""Our own files with one value replaced: read to an answer, or refused by name; never our fault."""

import copy
import json

import pytest

from mergeplan.errors import InputError
from mergeplan.law.costs import load_costs
from mergeplan.law.file import law_data, load_law
from mergeplan.law.fit import fit
from mergeplan.law.recommend import recommend
from mergeplan.pool.geometry.compare import similarity
from mergeplan.pool.geometry.file import geometry_data, gram_for, load_grams
from mergeplan.pool.pool import load_pool
from tests.support.settings import DATA
from tests.support.shares import spread

# Another type, a number out of range, one beyond float64, and nothing at all.
NASTY = (None, "x", -1, 0, 1e308, -1e308, 10**400, [], {}, True, 0.5, 1e-300)


def places(value, before=()):
    """The way to every value in a document, lists and mappings among them."""
    if not isinstance(value, dict | list):
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*before, key)
        yield from places(inner, (*before, key))


def damaged(data, count):
    """Copies of a document, each with one value replaced."""
    for way in spread(list(places(data)), count):
        for nasty in NASTY:
            changed = copy.deepcopy(data)
            inside = changed
            for key in way[:-1]:
                inside = inside[key]
            inside[way[-1]] = nasty
            yield changed


def read_all(path, documents, read):
    """Read each document; returns how many were refused."""
    refused = []
    for document in documents:
        path.write_text(json.dumps(document))
        try:
            read(path)
        except InputError as error:
            refused.append(error.message)
    assert all(str(path) in message for message in refused)
    return len(refused)


def test_a_law(tmp_path):
    data = law_data(fit(DATA / "measured_llama3b_16_experts.csv", domain="overall"))

    def read(path):
        law = load_law(path)
        law.summary()
        recommend(law, 0.66).summary()

    documents = list(damaged(json.loads(json.dumps(data)), 25))
    refused = read_all(tmp_path / "law.json", documents, read)
    assert len(documents) / 2 < refused < len(documents)


def test_a_law_over_sizes(tmp_path):
    rows = [
        f"average,{n}B,{k},{0.3 + 0.2 / n**0.5 + 0.1 / k}\n" for n in (0.5, 1, 2) for k in (1, 2, 4)
    ]
    (tmp_path / "m.csv").write_text("method,n_params,k,loss_nats\n" + "".join(rows))
    data = law_data(fit(tmp_path / "m.csv"))
    del data["fits"][1:]

    def read(path):
        recommend(load_law(path), 0.5, sizes=(7e9,)).summary()

    joint = json.loads(json.dumps(data))["joints"][0]
    documents = ({**data, "joints": [one]} for one in damaged(joint, 8))
    assert read_all(tmp_path / "law.json", documents, read) > 40


def test_a_geometry(demo_pool, tmp_path):
    (geometry,) = similarity(demo_pool / "pool.yml")
    data = json.loads(json.dumps(geometry_data((geometry,))))
    data["sizes"][0]["by_layer"] = {}

    def read(path):
        gram_for(load_grams(path), None, ["js", "md"])

    documents = list(damaged(data, 25))
    assert read_all(tmp_path / "geometry.json", documents, read) > len(documents) / 2


@pytest.mark.parametrize(
    ("text", "load"),
    [
        ('{"train": 1.5, "train_fixed": 2, "merge": 0.5, "serve": 1, "unit": "euro"}', load_costs),
        (
            '{"sizes": [{"base": "b", "experts": {"x": "x", "y": "y"}, "n_params": "1B"}],'
            ' "data": {"x": "x.jsonl"}, "methods": {"ties": {"density": 0.5, "lambda": 1}}}',
            load_pool,
        ),
    ],
)
def test_a_file_that_a_user_wrote(text, load, tmp_path):
    documents = list(damaged(json.loads(text), 10**6))
    assert read_all(tmp_path / "file.yml", documents, load) > len(documents) / 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot read"),
        ("{", "cannot read"),
        ("[" * 100_000, "nested more than 100 deep"),
        ('{"law_version": NaN}', "`NaN` is no number that fits"),
        ('{"law_version": 1e999}', "`1e999` is no number that fits"),
        ('{"law_version": 1, "law_version": 1}', "key `law_version` stands twice"),
        ('{"law_version": ' + "9" * 5000 + "}", "cannot read"),
        ("[]", "expected a mapping, found []"),
        ('{"law_version": 1}', "expected law version 4, found 1"),
    ],
)
def test_what_is_no_document_of_its_kind(text, words, tmp_path):
    path = tmp_path / "law.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_law(path)
    assert words in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.hint == "fit one: `mergeplan fit MEASUREMENTS.csv -o law.json`"
