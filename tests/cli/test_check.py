"""All that is wrong with a config or a pool is said in one run, each fault with its line."""

import importlib.util
import json
import os
import pickle
import re
from pathlib import Path

import pytest
import torch

import mergeplan
from mergeplan.checkpoints.hub import find_model
from mergeplan.config.config import CHAT_TEMPLATES
from mergeplan.errors import InputError, SeveralFaultsError
from mergeplan.evaluation.documents import read_documents
from mergeplan.merging.options import MergeRequest
from mergeplan.system.excerpts import with_excerpts
from tests.support.checkpoints import save_checkpoint
from tests.support.commands import cli
from tests.support.merges import config_text
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


@pytest.fixture
def seven(small_models, monkeypatch) -> Path:
    """The file, where its models are."""
    monkeypatch.chdir(small_models)
    path = small_models / "c.yml"
    path.write_text(SEVEN)
    return path


@pytest.mark.parametrize("command", ["merge", "check"])
def test_seven_faults_take_one_run(command, seven, tmp_path):
    path = seven
    out = (tmp_path / "out",) if command == "merge" else ()
    run = cli(command, path, *out)
    assert run.returncode == 1
    assert run.stderr.count("error: ") == 7
    assert places(run.stderr) == LINES
    assert run.stderr.count("did you mean") == 4


def test_in_python_they_are_one_error_that_travels(seven, tmp_path):
    path = seven
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
    assert "on html, python: `mergeplan calibrate` measures 71 merges at most, " in run.stdout
    data = json.loads(path.read_text())
    data["sizes"][0]["experts"] = {"js": "gone", "md": "lost"}
    data["data"]["html"] = "texts/none.jsonl"
    path.write_text(json.dumps(data, indent=1))
    run = cli("check", path)
    assert run.returncode == 1
    assert run.stderr.startswith(f"{path}: 3 faults\n")
    assert set(places(run.stderr).values()) == {'"gone"', '"lost"', '"texts/none.jsonl"'}
    for command in (("calibrate", path, "-o", tmp_path / "run"), ("similarity", path)):
        said = cli(*command).stderr
        texts = {'"texts/none.jsonl"'} if command[0] == "calibrate" else set()
        assert set(places(said).values()) == {'"gone"', '"lost"', *texts}
    assert not (tmp_path / "run").exists()
    path.write_text(
        "sizes: [{base: b}]\nmethods:\n  ties: {densty: 1}\ndatta: {}\nrandom_seed: x\n"
    )
    run = cli("calibrate", path, "-o", tmp_path / "run")
    assert places(run.stderr) == {1: "{base: b}", 3: "ties", 4: "datta", 5: "x"}
    path.write_text("sizes: [{base: b, experts: {c: b}}]\nmethods:\n  ties: {densty: 1}\n")
    run = cli("check", path)
    assert run.stderr.startswith(f"{path}: 4 faults\n")  # two of them that `b` is no folder
    assert places(run.stderr) == {1: "b", 3: "ties"}


def test_no_fault_of_a_pool_waits_for_another_to_be_mended(tmp_path):
    path = write_pool(tmp_path)
    data = json.loads(path.read_text())
    size = data["sizes"][0]
    first = next(iter(size["experts"].values()))
    save_checkpoint(tmp_path / "odd", {"w": torch.ones(3)})
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"\xff" * 20)
    bad = b'{"foo": 1}\n{"text": "fine"}\n{bad\n\xff\n'
    (tmp_path / "bad.jsonl").write_bytes(bad)
    size["experts"] = {"ok": first, "a+b": first, "odd": "odd", "dmg": "damaged", "gone": "gone"}
    size["foo"] = 1
    data |= {"zzz": 1, "data": {"x": [1], "bad": "bad.jsonl", "lost": "lost.jsonl"}}
    data["methods"] = {"avrage": {}, "ties": {"density": 2}}
    path.write_text(json.dumps(data, indent=1))
    faults = json.loads(cli("check", path, "--json").stdout)["faults"]
    assert all(fault["line"] and fault["excerpt"] for fault in faults)
    keys = [re.search("`((sizes|zzz|data|methods)[^`]*)`", f["message"])[1] for f in faults]
    assert sorted(keys) == sorted([
        "sizes[0].foo", "zzz", "sizes[0].experts", "data.x", "methods.avrage", "methods.ties",
        "sizes[0].experts.odd", "sizes[0].experts.odd", "sizes[0].experts.dmg",
        "sizes[0].experts.gone", "data.lost", "data.bad", "data.bad", "data.bad",
    ])  # fmt: skip
    lines = [n for n in range(1, 5) if any(f"jsonl`, line {n}: " in f["message"] for f in faults)]
    assert lines == [1, 3, 4]
    assert "known: base, experts, n_params" in [fault["hint"] for fault in faults]
    size["base"] = "nowhere"
    path.write_text(json.dumps(data, indent=1))
    said = cli("check", path).stderr
    assert all(f"`sizes[0].{key}`: " in said for key in ("base", "experts.dmg", "experts.gone"))


def test_of_very_many_bad_lines_the_first_are_said(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text("{\n" * 30)
    with pytest.raises(SeveralFaultsError) as caught:
        read_documents(path)
    assert len(caught.value.faults) == 6
    assert caught.value.faults[-1].message == f"`{path}`: 25 more lines are at fault"


def test_models_that_may_not_be_read_are_told_like_any_other(config, monkeypatch):
    folder = config.parent
    closed = {folder / "a", folder / "b" / "model.safetensors"}
    found = os.stat

    # A user who may read everything, as of a container, cannot be refused otherwise.
    def stat(path, **more):
        if not isinstance(path, int) and closed & {Path(path).parent, Path(path)}:
            raise PermissionError(13, "Permission denied", str(path))
        return found(path, **more)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) not in closed)
    models = "".join(f"  - model: {folder / name}\n" for name in ("a", "b", "gone"))
    config.write_text(f"merge_method: linear\nparameters: {{weight: 1}}\nmodels:\n{models}")
    faults = mergeplan.check(config).faults
    assert [fault.line for fault in faults] == [4, 5, 6]
    for fault, place in zip(faults, ("a", "b/model.safetensors"), strict=False):
        assert f"cannot read `{folder / place}`: Permission denied" in fault.message
        assert f"`chmod -R a+rX {folder / place}`" in fault.hint
    with pytest.raises(SeveralFaultsError) as caught:
        mergeplan.merge(config, folder / "out")
    assert [one.line for one in caught.value.faults] == [4, 5, 6]
    pool = folder / "pool.yml"
    pool.write_text(
        f"sizes: [{{base: {folder / 'base'}, experts: {{x: {folder / 'a'}}}}}]\n"
        f"data: {{t: {folder / 'a' / 't.jsonl'}}}\n"
    )
    assert [fault.line for fault in mergeplan.check(pool).faults] == [1, 2]


def test_of_very_many_faults_the_first_are_said(tmp_path):
    path = tmp_path / "c.yml"
    keys = "".join(f"zz{n}: 1\n" for n in range(30))
    path.write_text(f"merge_method: linear\nmodels: [{{model: a}}]\n{keys}")
    run = cli("merge", path, tmp_path / "out")
    assert len(places(run.stderr)) == 20
    assert run.stderr.endswith("error: and 11 other faults\n")  # the model is none


def test_every_fault_has_its_line_however_many_there_are(tmp_path):
    config, pool = tmp_path / "c.yml", tmp_path / "pool.yml"
    models = "".join(f"  - model: ./lost{n}\n" for n in range(15))
    keys = "".join(f"zz{n}: 1\n" for n in range(15))
    config.write_text(f"merge_method: linear\nparameters: {{weight: 1}}\nmodels:\n{models}{keys}")
    faults = json.loads(cli("check", config, "--json").stdout)["faults"]
    assert sorted(fault["line"] for fault in faults) == list(range(4, 34))
    pool.write_text("".join(f"zz{n}: 1\n" for n in range(30)) + "sizes: [{base: b}]\n")
    faults = json.loads(cli("check", pool, "--json").stdout)["faults"]
    # The last line lacks experts, and its base is none.
    assert sorted(fault["line"] for fault in faults) == [*range(1, 32), 31]


def test_what_is_no_config_at_all_is_told_at_once():
    text = "{" + ", ".join(f"zz{n}: {n}" for n in range(4000)) + "}"
    faults = with_excerpts([InputError(f"unknown key `zz{n}`") for n in range(4000)], text)
    assert all(places(one.excerpt) == {1: f"zz{n}"} for n, one in enumerate(faults))


def test_keys_that_stand_twice_are_all_told_where_they_stand_again(tmp_path):
    path = tmp_path / "c.yml"
    path.write_text(
        "merge_method: linear\nmerge_method: linear\nmodels:\n"
        "  - {model: ./gone, model: ./lost, parameters: {weight: 1, weight: 2}}\nzzz: 1\n"
    )
    faults = mergeplan.check(path).faults
    below = [one.excerpt.split("| ")[-1] for one in faults]
    at = [(len(one) - len(one.lstrip()), one.count("^")) for one in below]
    expected = {(2, 0, 12), (4, 20, 5), (4, 59, 6), (5, 0, 3), (4, 27, 6)}
    assert {(one.line, *place) for one, place in zip(faults, at, strict=True)} == expected
    assert len(faults) == 5


@pytest.mark.parametrize("end", ["\x85", "\u2028", "\u2029"])
def test_lines_are_counted_as_editors_count_them(end, tmp_path):
    path = tmp_path / "c.yml"
    text = f"merge_method: linear # x{end}zzz: 1\nmodels:\n  - model: ./gone\n"
    path.write_text(text + "    parameters: {weight: 1}\n")
    said = cli("check", path).stderr
    assert places(said) == {1: "zzz", 3: "./gone"}
    path.write_text(text + "   a\n")
    assert "invalid YAML: line 4, column 4" in cli("check", path).stderr
    path.write_text(text + "    model: b\n")
    assert "`model` stands twice (line 4, column 5)" in cli("check", path).stderr


def test_a_caret_stands_below_wide_letters_and_in_long_lines():
    text = "模型: {a: 1}\nb: " + "x" * 300 + "\n"
    first, second = with_excerpts([InputError("`模型.a`: odd"), InputError("`b`: odd")], text)
    assert first.excerpt == "  1 | 模型: {a: 1}\n    | " + " " * 10 + "^"
    assert max(map(len, second.excerpt.splitlines())) <= 110


def broken_models(folder):
    """Models that cannot be opened, each in a way of its own, and what is said of it."""
    for name in ("shards", "damaged", "empty"):
        (folder / name).mkdir()
    index = {"weight_map": {"w": "model-00001-of-00001.safetensors"}}
    (folder / "shards" / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "damaged" / "model.safetensors").write_bytes(b"\xff" * 20)
    settings = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    save_checkpoint(folder / "quantised", {"w.qweight": torch.ones(2, dtype=torch.int32)}, settings)
    return {
        "gone": "not a folder",
        "shards": "model-00001-of-00001.safetensors",
        "damaged": "header",
        "quantised": "gptq",
        "empty": "no safetensors checkpoint",
    }


def test_json_has_every_fault_with_its_line_or_what_the_file_would_do(config, tmp_path):
    run = cli("check", config, "--json")
    found = json.loads(run.stdout)
    assert (run.returncode, found["fine"], found["faults"]) == (0, True, [])
    assert found["does"].startswith(f"{config}: ties on ")
    config.write_text(SEVEN.replace("base_model: base\n", f"base_model: {tmp_path}/base\n", 1))
    run = cli("check", config, "--json", cwd=config.parent)
    found = json.loads(run.stdout)
    assert (run.returncode, run.stderr, found["fine"], found["does"]) == (1, "", False, "")
    assert {one["line"] for one in found["faults"]} == LINES.keys()
    pool = json.loads(cli("check", write_pool(tmp_path / "pool"), "--json").stdout)
    assert (pool["fine"], pool["path"]) == (True, str(tmp_path / "pool" / "pool.yml"))


@pytest.mark.parametrize("command", ["merge", "dry run", "inspect", "check"])
def test_models_that_cannot_be_opened_take_one_run_on_every_command(command, config):
    folder = config.parent
    told = broken_models(folder)
    models = "".join(f"  - model: {folder / name}\n" for name in told)
    config.write_text(f"merge_method: linear\nparameters: {{weight: 1}}\nmodels:\n{models}")
    out = (folder / "out",) if command in ("merge", "dry run") else ()
    more = ("--dry-run",) if command == "dry run" else ()
    run = cli("merge" if more else command, config, *out, *more)
    assert run.returncode == 1
    said = run.stdout if command == "inspect" else run.stderr
    lines = {number: str(folder / name) for number, name in enumerate(told, 4)}
    assert places(said) == lines
    assert all(words in said for words in told.values())
    assert not (folder / "out").exists()


def test_what_is_wrong_with_the_config_and_its_models_is_said_together(config):
    folder = config.parent
    text = f"merge_method: linear\ndtipe: x\nmodels:\n  - model: {folder / 'gone'}\n"
    config.write_text(text + f"    parameters: {{weight: 1}}\n  - model: {folder / 'a'}\n")
    run = cli("merge", config, folder / "out")
    assert places(run.stderr) == {2: "dtipe", 4: str(folder / "gone")}
    with pytest.raises(SeveralFaultsError) as caught:
        mergeplan.merge(config, folder / "out")
    assert [one.line for one in caught.value.faults] == [2, 4]


def test_what_may_be_of_the_hub_is_said_with_the_rest_and_not_downloaded(config, monkeypatch):
    asked = []
    monkeypatch.chdir(config.parent)
    monkeypatch.setattr(
        "mergeplan.checkpoints.opening.find_model",
        lambda name, *, cache, download: (
            asked.append(download) or find_model(name, cache=cache, download=download)
        ),
    )
    models = "".join(f"  - model: {name}\n" for name in ("linear", "./lost"))
    text = f"merge_method: linear\nparameters: {{weight: 1}}\nmodels:\n{models}"
    for more, line in (("", 4), ("dtipe: x\n", 5)):
        config.write_text(more + text)
        run = cli("merge", config, "out")
        expected = {line: "linear", line + 1: "./lost"} | ({1: "dtipe"} if more else {})
        assert places(run.stderr) == expected
    assert not any(asked)


def test_an_absent_source_of_the_tokenizer_is_told(demo_pool, config):
    models = [demo_pool / "base", demo_pool / "js"]
    text = config_text("linear", models, parameters={"weight": 1}, tokenizer_source="gone")
    config.write_text(text)
    run = cli("merge", config, config.parent / "out")
    assert (
        "there is no folder `gone`: a tokenizer's source is `base`, `union` or a model"
        in run.stderr
    )


def test_a_slip_in_what_the_tokenizer_is_made_of_is_told_with_the_rest(config):
    text = config.read_text() + "tokenizer_source: unoin\nchat_template: chatlm\nzzz: 1\n"
    config.write_text(text)
    for command in (("check", config), ("merge", config, config.parent / "out")):
        run = cli(*command)
        assert set(places(run.stderr).values()) == {"zzz", "chatlm", "unoin"}
        assert "hint: did you mean `union`?" in run.stderr
        assert "hint: did you mean `chatml`?" in run.stderr
    config.write_text(text.replace("zzz: 1\n", "").replace("chatlm", "chatml"))
    assert list(places(cli("check", config).stderr).values()) == ["unoin"]
    config.write_text(text.replace("zzz: 1\n", "").replace("unoin", "union"))
    assert list(places(cli("check", config).stderr).values()) == ["chatlm"]


def test_the_names_of_chat_templates_are_those_that_mergekit_brings():
    (folder,) = importlib.util.find_spec("mergekit").submodule_search_locations
    found = (Path(folder) / "_data" / "chat_templates").glob("*.jinja")
    assert tuple(sorted(path.stem for path in found)) == CHAT_TEMPLATES


def test_many_merges_say_all_faults_of_all_configs_and_their_models(config):
    folder = config.parent
    texts = {
        "a": config.read_text().replace("ties", "tise"),
        "b": config.read_text() + "dtpye: x\n",
        "c": re.sub(r"/b\b", "/gone", config.read_text()),
    }
    wanted = []
    for name, text in texts.items():
        (folder / f"{name}.yml").write_text(text)
        wanted.append(MergeRequest(folder / f"{name}.yml", folder / f"out-{name}"))
    with pytest.raises(SeveralFaultsError) as caught:
        mergeplan.merge_many(wanted)
    said = [one.message for one in caught.value.faults]
    for name, words in {"a": "`tise`", "b": "`dtpye`", "c": f"`{folder / 'gone'}`"}.items():
        assert any(m.startswith(f"`{folder / name}.yml`: ") and words in m for m in said)
    assert len(said) == 3
    assert all(one.excerpt for one in caught.value.faults)


def test_models_are_looked_at_though_the_method_is_not_known(config):
    text = config.read_text().replace("ties", "tise")
    config.write_text(re.sub(r"(/a)\b", r"\1-gone", text))
    for command in (("merge", config, config.parent / "out"), ("check", config)):
        said = places(cli(*command).stderr)
        assert set(said.values()) == {"tise", str(config.parent / "a-gone")}
    run = cli("inspect", config)
    assert f"{config}: no method that is known" in run.stdout
    assert json.loads(cli("inspect", config, "--json").stdout)["merges"][0]["method"] is None


def test_models_that_do_not_fit_are_all_named_and_options_that_some_lack(config):
    folder = config.parent
    odd = {"p": (3, 3), "q": (2, 2)}
    for name, shape in odd.items():
        save_checkpoint(folder / name, {"w": torch.ones(shape)})
    models = "".join(f"  - model: {folder / name}\n" for name in ("a", "b", *odd))
    config.write_text(f"merge_method: linear\nparameters: {{weight: 1}}\nmodels:\n{models}")
    run = cli("merge", config, folder / "out")
    assert set(places(run.stderr).values()) >= {str(folder / name) for name in odd}
    models = f"  - model: {folder / 'a'}\n  - model: {folder / 'b'}\n"
    config.write_text(f"merge_method: linear\nmodels:\n{models}")
    run = cli("merge", config, folder / "out")
    assert places(run.stderr) == {3: str(folder / "a"), 4: str(folder / "b")}
    assert run.stderr.count("`weight` is missing") == 2


def test_a_sweep_says_each_fault_once_by_the_config_that_has_it_first(config):
    gone = [config.parent / f"gone-{n}" for n in range(2)]
    wanted = []
    for number, models in enumerate(([gone[0]], gone)):
        path = config.parent / f"c{number}.yml"
        path.write_text(config_text("linear", models, parameters={"weight": 1}))
        wanted.append(MergeRequest(path, config.parent / f"out{number}"))
    with pytest.raises(SeveralFaultsError) as caught:
        mergeplan.merge_many(wanted)
    said = [(one.message.split("`")[1], one.about) for one in caught.value.faults]
    expected = [(config.parent / f"c{n}.yml", gone[n]) for n in range(2)]
    assert said == [(str(path), str(model)) for path, model in expected]
    notes = caught.value.__notes__
    assert any(str(gone[1]) in note for note in notes)


def test_mergekit_plans_and_merges_in_memory_say_all_models_too(config):
    gone = [config.parent / f"gone-{n}" for n in range(2)]
    for more in ({}, {"tokenizer_source": "union"}, {"dtype": "float64"}):
        text = config_text("linear", gone, parameters={"weight": 1}, **more)
        config.write_text(text)
        with pytest.raises(SeveralFaultsError) as caught:
            mergeplan.Sweep([config])
        assert [one.about for one in caught.value.faults] == list(map(str, gone))
        assert all(one.excerpt for one in caught.value.faults)


def test_what_is_given_in_the_place_of_another_is_called_what_it_is(tmp_path, demo_pool):
    config, pool, table = tmp_path / "c.yml", demo_pool / "pool.yml", demo_pool / "measurements.csv"
    config.write_text(config_text("linear", [demo_pool / "js"], parameters={"weight": 1}))
    texts = tmp_path / "d.jsonl"
    texts.write_text('{"text": "some words"}\n')
    for command, words in (
        (("merge", pool, tmp_path / "out"), "it is a pool, and no config of a merge"),
        (("calibrate", config, "-o", tmp_path / "run"), "it is the config of a merge, and no pool"),
        (("compare", config, demo_pool / "js", "--data", texts), "is a YAML file, and no model"),
        (("evaluate", table, "--data", texts), "is a table, and no model"),
    ):
        run = cli(*command)
        assert (run.returncode, run.stderr.count("error: ")) == (1, 1), run.stderr
        assert words in run.stderr
