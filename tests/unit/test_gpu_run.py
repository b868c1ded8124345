"""The script for a machine with a GPU runs where there is none, so that it runs there at once."""

import json
from dataclasses import replace

import pytest
import torch

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
    assert not any(row["over_the_limit"] for row in found["rows"])
    assert not found["left_out"]
    printed = capsys.readouterr().out
    assert all(method in printed for method in gpu_run.METHODS)


def test_without_time_nothing_is_begun_and_that_is_said(tmp_path):
    words = ["--device", "cpu", "--shape", "small", "--minutes", "0", "--dir", str(tmp_path)]
    found = gpu_run.main([*words, "--json", str(tmp_path / "found.json")])
    assert found["rows"] == []
    assert found["left_out"][0] == "tests"


def test_a_peak_over_the_limit_is_flagged_and_the_run_goes_on(tmp_path, capsys, monkeypatch):
    def over(*args):
        report = merge(*args)
        return replace(report, peak_vram_bytes=1 << 40 if report.device_bytes else 0)

    merge = gpu_run.merge
    monkeypatch.setattr(gpu_run, "merge", over)
    monkeypatch.setattr(gpu_run, "ROUNDS", 1)
    words = ["--device", "cpu", "--shape", "small", "--no-tests", "--dir", str(tmp_path)]
    found = gpu_run.main([*words, "--json", str(tmp_path / "found.json")])
    assert len(found["rows"]) == 2 * len(gpu_run.METHODS)
    assert all(row["over_the_limit"] == bool(row["limit_mib"]) for row in found["rows"])
    assert capsys.readouterr().out.count("OVER THE LIMIT") == len(gpu_run.METHODS)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cpu:3", "expected `auto`, `cpu`, `cuda` or `cuda:0`"),
        ("cuda", "torch finds no GPU"),
        ("cuda:0", "torch finds no GPU"),
        ("auto", "finds no GPU"),
    ],
)
def test_a_device_that_is_not_there_is_told_in_one_line(device, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as caught:
        gpu_run.main(["--device", device, "--json", str(tmp_path / "found.json")])
    assert expected in caught.value.code
    assert "\n" not in caught.value.code
