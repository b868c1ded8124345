"""Stopped or killed at any moment, a merge leaves `OUT` absent or complete."""

import json
import signal
import struct
import subprocess
import sys
import time

import pytest

from helpers import cli, config_text

ELEMENTS = 1 << 27


@pytest.fixture
def long_merge(tmp_path):
    """A merge of half a gigabyte of zeros: sparse files, some seconds of work."""
    x = {"dtype": "F32", "shape": [ELEMENTS], "data_offsets": [0, 4 * ELEMENTS]}
    header = json.dumps({"x": x}).encode()
    for name in ("base", "a", "b", "c"):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "model.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.truncate(8 + len(header) + 4 * ELEMENTS)
    text = config_text(
        "ties",
        [tmp_path / name for name in "abc"],
        base=tmp_path / "base",
        parameters={"weight": 1, "density": 0.5},
    )
    (tmp_path / "c.yml").write_text(text)
    return tmp_path


def start(folder) -> subprocess.Popen:
    command = [sys.executable, "-m", "mergeplan", "merge", "c.yml", "out", "--threads", "1"]
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in a shell's background inherits an ignored Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 30
    while not (folder / "out.partial" / "model.safetensors").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals to send")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_orderly_stop_leaves_nothing(number, code, long_merge):
    process = start(long_merge)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert not (long_merge / "out").exists()
    assert not (long_merge / "out.partial").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals to send")
def test_a_killed_merge_leaves_no_output_and_the_next_says_how_to_go_on(long_merge):
    process = start(long_merge)
    process.kill()
    process.communicate(timeout=20)
    assert not (long_merge / "out").exists()
    run = cli("merge", "c.yml", "out", cwd=long_merge)
    assert run.returncode == 1
    assert "out.partial" in run.stderr
    assert "--discard" in run.stderr
    assert cli("merge", "c.yml", "out", "--discard", cwd=long_merge).returncode == 0
    assert (long_merge / "out" / "model.safetensors").exists()
    assert not (long_merge / "out.partial").exists()


def test_an_output_is_replaced_whole(small_models):
    text = config_text("linear", [small_models / "a"], parameters={"weight": 1})
    (small_models / "c.yml").write_text(text)
    (small_models / "out").mkdir()
    (small_models / "out" / "old").write_text("old")
    # A failing merge leaves the old output as it was.
    (small_models / "a" / "model.safetensors").rename(small_models / "aside")
    assert cli("merge", "c.yml", "out", "--overwrite", cwd=small_models).returncode == 1
    assert (small_models / "out" / "old").read_text() == "old"
