"""`mergeplan similarity` as a user meets it."""

import json

from tests.support.commands import cli


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
