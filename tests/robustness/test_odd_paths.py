"""Paths that are no UTF-8, which POSIX systems allow, are paths like any other."""

import os
import shutil
import sys

import pytest

import mergeplan
from mergeplan.errors import InputError
from mergeplan.evaluation.recording import parse_merge
from mergeplan.evaluation.sources import find_data
from tests.support.commands import cli

ODD = os.fsdecode(b"caf\xe9")


@pytest.fixture
def odd(tmp_path, config):
    """`small_models` with their config, in a folder whose name is no UTF-8."""
    if sys.platform != "linux":
        pytest.skip("this system has no such paths")
    folder = tmp_path / ODD
    folder.mkdir()
    for name in ("base", "a", "b"):
        shutil.move(tmp_path / name, folder / name)
    text = config.read_text().replace(f"{tmp_path}/", "")
    (folder / f"{ODD}.yml").write_text(text)
    return folder


def test_models_configs_and_outputs_lie_wherever_the_system_lets_them(odd):
    out = odd / f"{ODD}-out"
    run = cli("merge", f"{ODD}.yml", out, cwd=odd)
    assert run.returncode == 0, run.stderr
    assert (out / "model.safetensors").exists()
    assert "caf\\udce9-out" in (out / "README.md").read_text()
    run = cli("verify", out, "--inputs", cwd=odd)
    assert run.returncode == 0, run.stderr
    assert cli("merge", f"{ODD}.yml", out, "--resume", "--overwrite", cwd=odd).returncode == 0
    assert cli("merge", f"{ODD}.yml", "plain", "--json", cwd=odd).returncode == 0
    assert cli("diff", out, "plain", cwd=odd).returncode == 0
    assert cli("inspect", f"{ODD}.yml", cwd=odd).returncode == 0


def test_a_file_of_weights_has_any_name(odd):
    (odd / "a" / "model.safetensors").rename(odd / "a" / f"{ODD}.safetensors")
    run = cli("diff", f"a/{ODD}.safetensors", "a/../base", cwd=odd)
    assert (run.returncode, "error" in run.stderr) == (1, False), run.stderr


def test_what_is_not_there_is_named_legibly(odd):
    run = cli("merge", f"{ODD}-2.yml", "out", cwd=odd)
    assert run.returncode == 1
    assert "cannot open config `caf\\udce9-2.yml`: no such file" in run.stderr


@pytest.mark.parametrize("command", ["sample", "suggest", "select"])
def test_a_yaml_that_could_not_name_its_models_is_refused(command, few_measured, tmp_path):
    shutil.copytree(mergeplan.DEMO_POOL, tmp_path / ODD)
    pool = tmp_path / ODD / "pool.yml"
    how = ("--method", "task_arithmetic")
    words = {
        "sample": (pool, "--k", 1, *how),
        "suggest": (few_measured, "--target-loss", 1.95, "--pool", pool, *how),
        "select": (few_measured, "--pool", pool, *how),
    }[command]
    run = cli(command, *words, "-o", tmp_path / "out")
    assert run.returncode == 1
    assert "caf\\udce9/base` is no UTF-8: no YAML can name it\n\nhint: rename it" in run.stderr
    assert not (tmp_path / "out").exists()


def test_names_for_a_table_are_text(tmp_path):
    with pytest.raises(InputError, match="is no UTF-8"):
        parse_merge((f"subset={ODD}",))
    (tmp_path / f"{ODD}.jsonl").write_text('{"text": "a"}')
    with pytest.raises(InputError, match="no UTF-8"):
        find_data((str(tmp_path),))
    assert list(find_data((f"html={tmp_path / ODD}.jsonl",))) == ["html"]
