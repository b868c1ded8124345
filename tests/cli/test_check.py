"""All that is wrong with a config or a pool is said in one run, each fault with its line."""

import json
import pickle
import re

import pytest

import mergeplan
from mergeplan.errors import InputError, SeveralFaultsError
from mergeplan.system.excerpts import with_excerpts
from tests.support.commands import cli
from tests.support.pools import write_pool

SEVEN = """\
merge_method: tiez
base_model: base
models:
  - model: a
    paramters: {weight: 1}
  - path: b
dtype: float17
tokenizer: 3
modles: []
random_seed: -1
"""
LINES = {1: "tiez", 5: "paramters", 6: "path: b", 7: "float17", 8: "3", 9: "modles", 10: "-1"}


def places(text: str) -> dict[int, str]:
    """What carets stand below, by line."""
    found = {}
    for number, line, below in re.findall(r"^  (\d+) \| (.*)\n +\| ( *\^+)$", text, re.MULTILINE):
        start = len(below) - len(below.lstrip())
        found[int(number)] = line[start : len(below)]
    return found


@pytest.mark.parametrize("command", ["merge", "check"])
def test_seven_faults_take_one_run(command, tmp_path):
    path = tmp_path / "c.yml"
    path.write_text(SEVEN)
    out = (tmp_path / "out",) if command == "merge" else ()
    run = cli(command, path, *out)
    assert run.returncode == 1
    assert run.stderr.count("error: ") == 7
    assert places(run.stderr) == LINES
    assert run.stderr.count("did you mean") == 4


def test_in_python_they_are_one_error_that_travels(tmp_path):
    path = tmp_path / "c.yml"
    path.write_text(SEVEN)
    with pytest.raises(SeveralFaultsError, match="unknown key `modles`; and 6 other") as caught:
        mergeplan.merge(path, tmp_path / "out")
    again = pickle.loads(pickle.dumps(caught.value))
    assert [str(one) for one in again.faults] == [str(one) for one in caught.value.faults]


def test_options_are_checked_where_the_method_is_known_and_yaml_by_its_line(tmp_path):
    path = tmp_path / "c.yml"
    path.write_text("merge_method: ties\nmodels:\n  - model: a\n    parameters: {density: 3}\n")
    assert places(cli("check", path).stderr) == {1: "ties", 3: "a", 4: "3"}
    path.write_text("merge_method: ties\nmodels:\n  - model: a\n   - model: b\n")
    assert places(cli("merge", path, tmp_path / "out").stderr) == {4: "- model: b"}


def test_models_of_a_config_that_cannot_be_opened_are_said_together(config):
    text = config.read_text()
    assert cli("check", config).stdout.startswith(f"{config} is fine\n{config}: ties on ")
    folder = config.parent
    config.write_text(re.sub(rf"({re.escape(str(folder))}/[ab])\b", r"\1-gone", text))
    run = cli("check", config)
    assert (run.returncode, run.stdout) == (1, "")
    assert set(places(run.stderr).values()) == {str(folder / f"{n}-gone") for n in "ab"}


def test_a_pool_says_all_of_it_too_or_what_calibrate_would_do(tmp_path):
    path = write_pool(tmp_path)
    run = cli("check", path)
    assert run.returncode == 0, run.stderr
    assert "5 experts of `" in run.stdout
    assert "on html, python: `mergeplan calibrate` measures 72 merges at most, " in run.stdout
    data = json.loads(path.read_text())
    data["sizes"][0]["experts"] = {"js": "gone", "md": "lost"}
    data["data"]["html"] = "texts/none.jsonl"
    path.write_text(json.dumps(data, indent=1))
    run = cli("check", path)
    assert run.returncode == 1
    assert run.stderr.startswith(f"{path}: 3 faults\n")
    assert set(places(run.stderr).values()) == {'"gone"', '"lost"', '"texts/none.jsonl"'}
    path.write_text(
        "sizes: [{base: b}]\nmethods:\n  ties: {densty: 1}\ndatta: {}\nrandom_seed: x\n"
    )
    run = cli("calibrate", path, "-o", tmp_path / "run")
    assert places(run.stderr) == {1: "{base: b}", 4: "datta", 5: "x"}
    path.write_text("sizes: [{base: b, experts: {c: b}}]\nmethods:\n  ties: {densty: 1}\n")
    run = cli("check", path)
    assert run.stderr.startswith(f"{path}: 2 faults\n")
    assert places(run.stderr) == {1: "b", 3: "ties"}


def test_of_very_many_faults_the_first_are_said(tmp_path):
    path = tmp_path / "c.yml"
    keys = "".join(f"zz{n}: 1\n" for n in range(30))
    path.write_text(f"merge_method: linear\nmodels: [{{model: a}}]\n{keys}")
    run = cli("merge", path, tmp_path / "out")
    assert len(places(run.stderr)) == 20
    assert run.stderr.endswith("error: and 10 other faults\n")


def test_a_caret_stands_below_wide_letters_and_in_long_lines():
    text = "模型: {a: 1}\nb: " + "x" * 300 + "\n"
    first, second = with_excerpts([InputError("`模型.a`: odd"), InputError("`b`: odd")], text)
    assert first.excerpt == "  1 | 模型: {a: 1}\n    | " + " " * 10 + "^"
    assert max(map(len, second.excerpt.splitlines())) <= 110
