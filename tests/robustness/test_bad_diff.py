"""`mergeplan diff` on what is not there, damaged, or hostile."""

import json
import os
import struct
import sys

import pytest
import torch

from tests.support.checkpoints import save_checkpoint
from tests.support.commands import cli


def test_what_is_not_there_is_named(small_models):
    run = cli("diff", small_models / "a", small_models / "nope")
    assert (run.returncode, "nope` does not exist" in run.stderr) == (1, True)
    assert "hint:" in run.stderr
    (small_models / "empty").mkdir()
    run = cli("diff", small_models / "empty", small_models / "a")
    assert (run.returncode, "no safetensors checkpoint" in run.stderr) == (1, True)


@pytest.mark.parametrize("cut", [0, 4, 20, -3])
def test_a_damaged_file_is_an_error_and_no_difference(cut, small_models):
    path = small_models / "b" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    run = cli("diff", small_models / "a", small_models / "b")
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.startswith("error: `")
    assert "b/model.safetensors" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_text_file_is_no_checkpoint(small_models):
    (small_models / "notes.txt").write_text("nothing of the kind, but longer than a prefix")
    run = cli("diff", small_models / "a", small_models / "notes.txt")
    assert run.returncode == 1
    assert "notes.txt` is a text file, and no model" in run.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("inside", [False, True])
def test_a_pipe_is_refused_and_not_waited_for(inside, small_models):
    (small_models / "p").mkdir()
    pipe = small_models / "p" / "model.safetensors"
    os.mkfifo(pipe)
    run = cli("diff", small_models / "a", small_models / "p" if inside else pipe)
    assert run.returncode == 1
    assert run.stderr.startswith("error: ")


@pytest.mark.skipif(sys.platform == "win32", reason="file names there have no control characters")
def test_control_characters_in_a_name_do_not_reach_the_terminal(tmp_path):
    save_checkpoint(tmp_path / "a", {"x": torch.ones(1)})
    header = json.dumps({"\x1b[2Jx\n": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    (tmp_path / "b.safetensors").write_bytes(
        struct.pack("<Q", len(header)) + header.encode() + bytes(4)
    )
    run = cli("diff", "a", "b.safetensors", cwd=tmp_path)
    assert run.returncode == 1
    assert "\x1b" not in run.stdout
    assert "\\x1b[2Jx\\n" in run.stdout


def test_an_unreadable_tolerance_is_a_matter_of_usage(small_models):
    run = cli("diff", small_models / "a", small_models / "a", "--tolerance-ulp", "-1")
    assert run.returncode == 2
