"""YAML and JSON that parsers stumble over are our own errors, with their place, and at once."""

import time

import pytest

from mergeplan.errors import InputError, MergeplanError
from mergeplan.law.file import load_law, save_law
from mergeplan.law.fit import fit
from mergeplan.system.jsontext import parse_json
from mergeplan.system.yamlfile import count_documents, parse_yaml

DOUBLED = "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
YAML = {
    'x:\n  !!int ""': "line 2: expected a whole number, found ``",
    "x: !!bool foo": "line 1: expected true or false, found `foo`",
    "x: !!float abc": "line 1: expected a number, found `abc`",
    "x: !!timestamp foo": "line 1: expected a date, found `foo`",
    "x: !!binary '@@'": "line 1: expected a text, found the tag `binary`",
    "? !!set {a}\n: 1": "line 1: a key must be a word",
    "? [a]\n: 1": "line 1: a key must be a word",
    "!!map [a]": "line 1: expected a list or a mapping, found the tag `map`",
    "x: !!python/object:os.system {}": "found the tag `python/object:os.system`",
    "x: &a [*a]": "line 1: the anchor `a` contains itself",
    "x: *b": "line 1: there is no anchor `b`",
    f"unknown: &a0 [x, x]\n{DOUBLED}": "expected at most 100000 values, found more",
    f"x: [{'0.5,' * 300_000}]": "expected at most 100000 values, found more",
    f"x: {'9' * 5000}": "line 1: expected a number that fits, found `999",
    f"x: 0x{'f' * 5000}": "line 1: expected a number that fits, found `0xf",
    f"x: {'1:' * 5000}1": "line 1: expected a number that fits, found `1:1",
    "[" * 150: "nested too deeply",
    "[" * 100_000: "nest",
    'x: "\\ud800"': "invalid",
    f"a: 1\n{'k' * 500}: 1\n{'k' * 500}: 2": "stands twice (line 3, column 1)",
}


@pytest.mark.parametrize("text", YAML, ids=range(len(YAML)))
def test_yaml_at_fault_is_named_with_its_line(text):
    begun = time.process_time()
    with pytest.raises(InputError) as caught:
        parse_yaml(text)
    assert YAML[text] in caught.value.message
    assert len(caught.value.message) < 500
    assert count_documents(text) == 1
    assert time.process_time() - begun < 5


def test_plain_yaml_keeps_its_meaning():
    text = "a: &x {b: [1, 0.5, yes, ~, 2001-02-03]}\nc: {<<: *x, d: 1_000}\ne: 1e-5\n"
    found = parse_yaml(text)
    assert found["c"] == {**found["a"], "d": 1000}
    assert found["a"]["b"][:4] == [1, 0.5, True, None]
    assert found["e"] == "1e-5"


JSON = {
    "[" * 100_000: "nested more than 100 deep",
    "[" * 101 + "]" * 101: "nested more than 100 deep",
    f'{{"a": {"9" * 5000}}}': "expected a number that fits, found `999",
    '{"a": "\\ud800"}': "half a surrogate pair: `\\ud800`",
    '{"\\udc00": 1}': "half a surrogate pair",
    "{": "Expecting property name",
    b"\xff": "expected UTF-8, found byte 0xff",
}


@pytest.mark.parametrize("text", JSON, ids=range(len(JSON)))
def test_json_at_fault_is_named(text):
    with pytest.raises(InputError, match="cannot read it: ") as caught:
        parse_json(text, "it")
    assert JSON[text] in caught.value.message
    assert len(caught.value.message) < 300


def test_json_that_is_odd_and_whole_is_read():
    text = '{"a": [Infinity, -1e400, "\\ud83d\\ude00"], "b": ' + "[" * 98 + "]" * 98 + "}"
    assert parse_json(text, "it")["a"] == [float("inf"), float("-inf"), "\U0001f600"]


def test_the_law_of_a_pool_with_more_subsets_than_fit_into_64_bits_reads_back(tmp_path):
    rows = "".join(
        f"{k},{2 + 1 / k},10000,{'+'.join(f'e{i}' for i in range(k))}\n" for k in (1, 2, 40)
    )
    (tmp_path / "m.csv").write_text(f"k,loss_nats,pool_size,subset\n{rows}")
    law = fit(tmp_path / "m.csv")
    save_law(law, tmp_path / "law.json")
    assert load_law(tmp_path / "law.json").fits == law.fits


def test_a_pool_larger_than_any_is_refused_at_once(tmp_path):
    (tmp_path / "m.csv").write_text("k,loss_nats\n1,2\n2,1.5\n4,1.3\n")
    with pytest.raises(InputError, match="`pool_size`: expected a whole number from 1 to 10000"):
        fit(tmp_path / "m.csv", pool_size=10**18)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("a\nb\x1b[2J", "a\\nb\\x1b[2J"),
        ("half \ud800", "half \\ud800"),
        (f"`{'x' * 5000}` is it", f"`{'x' * 400}...{'x' * 100}` is it"),
    ],
)
def test_a_message_is_one_line_that_can_be_printed(given, told):
    assert str(MergeplanError(given)) == told
