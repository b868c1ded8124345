"""`mergeplan bench` at a size that takes seconds."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mergeplan
from mergeplan.bench.bench import CASES
from mergeplan.config.methods import METHODS
from tests.support.commands import COMMAND, cli, cli_process

TINY = ("bench", "--shape", "tiny", "--rounds", 1)
KNOWN = [name for name in CASES if name in METHODS]


def test_the_table_has_a_row_for_each_case_and_keeps_nothing(tmp_path):
    environment = {"TMPDIR": str(tmp_path)}
    run = cli_process(*TINY, "--no-mergekit", "--k", 2, "--threads", 1, env=environment)
    assert (run.returncode, run.stderr) == (0, "")
    rows = [line for line in run.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 2 * len(KNOWN)
    assert len({row.count("|") for row in rows}) == 1
    for method in CASES:
        assert (method in METHODS) == any(f"| {method}" in row for row in rows)
    assert "mergekit ran" not in run.stdout
    assert list(tmp_path.iterdir()) == []


def test_json_has_every_run_and_the_machine(tmp_path):
    args = (*TINY, "--no-mergekit", "--k", 2, "--methods", "linear", "--rounds", 2, "--json")
    run = cli(*args, "--dir", tmp_path / "d")
    data = json.loads(run.stdout)
    copy, *merges = data["runs"]
    assert (copy["contender"], len(copy["runs"])) == ("copy", 2)
    assert [m["dtype"] for m in merges] == ["bfloat16", "float32"]
    for row, merge in zip(data["table"], merges, strict=True):
        seconds = sorted(run["seconds"] for run in merge["runs"])
        assert row["mergeplan_seconds"] == sum(seconds) / 2
        assert row["copy_seconds"] == min(run["seconds"] for run in copy["runs"])
        assert row["over_copy"] == row["mergeplan_seconds"] / row["copy_seconds"]
        assert row["mergekit_seconds"] is None
    assert {"cpu", "cores", "memory_bytes", "date", "mergeplan"} <= set(data["machine"])
    # Models are kept, and nothing else.
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["base", "e0", "e1"]
    made = (tmp_path / "d" / "e1" / "model.safetensors").stat().st_mtime_ns
    assert cli(*args, "--dir", tmp_path / "d").returncode == 0
    assert (tmp_path / "d" / "e1" / "model.safetensors").stat().st_mtime_ns == made


def test_another_mergeplan_takes_turns_and_is_compared_pair_by_pair():
    other = Path(mergeplan.__file__).parents[1]
    args = (*TINY, "--no-mergekit", "--methods", "linear", "--rounds", 2, "--k", 2)
    run = cli(*args, "--against", other, "--json")
    assert run.returncode == 0, run.stderr
    data = json.loads(run.stdout)
    by_name = {m["contender"]: m for m in data["runs"] if m["dtype"] != "float32"}
    pairs = zip(by_name["mergeplan"]["runs"], by_name["against"]["runs"], strict=True)
    ratios = [theirs["seconds"] / ours["seconds"] for ours, theirs in pairs]
    assert data["table"][0]["against_over_mergeplan"] == ratios
    assert len(ratios) == 2
    run = cli(*args, "--against", other)
    assert "median of the pairs" in run.stdout
    assert "is started and planned in" in run.stdout


def test_the_serial_part_is_what_the_phases_of_each_run_say(tmp_path):
    run = cli(*TINY, "--no-mergekit", "--methods", "ties", "--k", 2, "--json")
    data = json.loads(run.stdout)
    assert data["bound"]["large_plan"] > 0
    assert data["bound"]["large_factor"] > 1000
    for row, merge in zip(data["table"], data["runs"][1:], strict=True):
        (measured,) = merge["runs"]
        serial = measured["seconds"] - measured["phases"]["merge"]
        assert row["serial_seconds"] == pytest.approx(serial)
        assert sum(row["serial"].values()) == pytest.approx(serial)


@pytest.mark.long
def test_mergekit_runs_the_same_config():
    pytest.importorskip("mergekit")
    run = cli(*TINY, "--mergekit", "--k", "1,2", "--methods", "linear", "--json")
    assert run.returncode == 0, run.stderr
    data = json.loads(run.stdout)
    assert data["machine"]["mergekit"] == "0.1.5"
    # Of k = 1 and 2, the nearest to 4.
    measured = [(row["k"], row["dtype"]) for row in data["table"] if row["mergekit_seconds"]]
    assert measured == [(2, "bfloat16")]
    assert data["notes"] == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--shape", "3b"), "expected one of 0.5b, 1.5b, 7b, tiny, found `3b`"),
        (("--methods", "tise"), "found `tise`"),
        (("--k", "2,x"), "expected numbers from 1 to 64"),
        (("--k", "0"), "expected numbers from 1 to 64"),
        (("--k", "9" * 5000), "expected numbers from 1 to 64"),
        (("--rounds", "0"), "0"),
        (("--mergekit-k", "3"), "is not among --k"),
    ],
)
def test_what_cannot_be_measured_is_a_matter_of_usage(args, words):
    run = cli("bench", *args)
    assert run.returncode == 2
    assert words in run.stderr


@pytest.mark.parametrize("methods", ["", "ties,,linear", "ties,"])
def test_a_method_without_a_name_is_refused(methods):
    run = cli("bench", "--methods", methods)
    assert run.returncode == 2
    assert "found ``" in run.stderr
    assert "--methods" in run.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="programs of another kind")
def test_what_is_no_other_mergeplan_is_refused_before_anything_is_made(tmp_path):
    own = Path(mergeplan.__file__).parent
    unbuilt = tmp_path / "unbuilt" / "python" / "mergeplan"
    unbuilt.mkdir(parents=True)
    (unbuilt / "__init__.py").write_text("")
    (unbuilt / "_native").mkdir()
    (tmp_path / "empty").mkdir()
    text = tmp_path / "notes.txt"
    text.write_text("words")
    # An interpreter that loads none of the packages beside it.
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -I "$@"\n')
    bare.chmod(0o755)
    given = {
        tmp_path / "empty": "a folder without `python/mergeplan`",
        unbuilt.parents[1]: "whose core cannot be loaded",
        own: "a folder without `python/mergeplan`",
        text: "a file that is no program",
        bare: "No module named 'mergeplan'",
        Path("/bin/true"): "a program that has none",
    }
    for place, found in given.items():
        run = cli(*TINY, "--no-mergekit", "--against", place, "--dir", tmp_path / "models")
        assert run.returncode == 2, place
        assert run.stderr.startswith("error: --against: expected a checkout with its core built")
        assert found in run.stderr
        assert "\nhint: " in run.stderr
        assert "--help" not in run.stderr
    assert not (tmp_path / "models").exists()


def test_a_folder_with_models_of_someone_else_is_refused(small_models):
    run = cli(*TINY, "--no-mergekit", "--dir", small_models)
    assert run.returncode == 1
    assert "no model that `bench` made" in run.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals to send")
def test_a_stop_removes_the_temporary_folder_and_the_measured_process(tmp_path):
    command = [*COMMAND, *map(str, TINY), "--rounds", "1000"]
    process = subprocess.Popen(
        [*command, "--no-mergekit"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("*/run-*/out*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 143
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
