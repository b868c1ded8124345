"""The script for a machine with a GPU runs where there is none, so that it runs there at once."""

import json

from tests.tools import gpu_run


def test_the_prepared_run_measures_and_prints(tmp_path, capsys):
    file = tmp_path / "found.json"
    words = ["--device", "cpu", "--shape", "small", "--no-tests", "--json", str(file)]
    found = gpu_run.main([*words, "--dir", str(tmp_path)])
    assert json.loads(file.read_text()) == found
    assert [row["method"] for row in found["rows"]] == sorted(
        [*gpu_run.METHODS] * 2, key=gpu_run.METHODS.index
    )
    on_device = [row for row in found["rows"] if row["limit_mib"]]
    assert all(row["by_device"] > 0.9 and row["seconds"] > 0 for row in on_device)
    assert not found["left_out"]
    printed = capsys.readouterr().out
    assert all(method in printed for method in gpu_run.METHODS)


def test_without_time_nothing_is_begun_and_that_is_said(tmp_path):
    words = ["--device", "cpu", "--shape", "small", "--minutes", "0", "--dir", str(tmp_path)]
    found = gpu_run.main([*words, "--json", str(tmp_path / "found.json")])
    assert found["rows"] == []
    assert found["left_out"][0] == "tests"
