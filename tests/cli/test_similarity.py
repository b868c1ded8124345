"""`mergeplan similarity` as a user meets it."""

import json
from pathlib import Path

import pytest

from tests.support.commands import cli


@pytest.mark.parametrize(
    ("words", "expected", "hint"),
    [
        (["nope.yml"], "cannot open pool `nope.yml`", "`mergeplan init FOLDER` writes a pool.yml"),
        (["empty"], "cannot read pool `empty`", "`mergeplan init FOLDER` writes a pool.yml"),
        (["full"], "cannot read pool `full`", f"name the file in it: `{Path('full', 'pool.yml')}`"),
        (["full/pool.yml", "-o", "no dir/g.json"], "no such folder", "`mkdir -p 'no dir'`"),
    ],
)
def test_what_is_not_there_is_told_with_what_to_do(words, expected, hint, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    # Models that are not there: an output without a folder is refused before they are opened.
    text = "sizes:\n- {base: base, experts: {a: a, b: b}}\n"
    (tmp_path / "full" / "pool.yml").write_text(text)
    run = cli("similarity", *words, cwd=tmp_path)
    assert run.returncode == 1
    error, said = run.stderr.split("\n\nhint: ")
    assert expected in error
    assert hint in said


def test_tables_numbers_and_a_picture(demo_pool, tmp_path):
    pool = demo_pool / "pool.yml"
    run = cli("similarity", pool, "-o", tmp_path / "g.json", "--plot", tmp_path / "g.png")
    assert run.returncode == 0, run.stderr
    assert "9 experts of a base of 80.6k parameters" in run.stdout
    assert "cosines, and above the diagonal" in run.stdout
    assert "layer 0" in run.stdout
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")
    data = json.loads((tmp_path / "g.json").read_text())
    assert data["sizes"][0]["experts"] == sorted(data["sizes"][0]["experts"])
    printed = json.loads(cli("similarity", pool, "--json", "-q").stdout)
    assert printed["sizes"] == data["sizes"]


def test_a_file_that_is_there_stays_and_a_missing_pool_is_named(demo_pool, tmp_path):
    (tmp_path / "g.json").write_text("mine")
    run = cli("similarity", demo_pool / "pool.yml", "-o", tmp_path / "g.json")
    assert run.returncode == 1
    assert (tmp_path / "g.json").read_text() == "mine"
    run = cli("similarity", tmp_path / "nothing.yml")
    assert run.returncode == 1
    assert "nothing.yml" in run.stderr
