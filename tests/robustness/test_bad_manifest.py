"""A manifest that is missing, damaged or hostile gives one clear error, and reads nothing else."""

import json
import os

import pytest

from tests.support.commands import cli
from tests.support.merges import config_text

MANIFEST = "mergeplan_manifest.json"


@pytest.fixture
def merged(small_models):
    text = config_text("linear", [small_models / "a"], parameters={"weight": 1})
    (small_models / "c.yml").write_text(text)
    assert cli("merge", small_models / "c.yml", small_models / "out").returncode == 0
    return small_models / "out"


def refused(out, *words):
    run = cli("verify", out, "--inputs")
    assert run.returncode == 1, run.stderr
    assert run.stdout == ""
    assert run.stderr.startswith("error: ")
    assert "\nhint: " in run.stderr
    for word in words:
        assert word in run.stderr, run.stderr
    assert "Traceback" not in run.stderr


def test_no_manifest_no_folder_and_a_file_are_told_apart(merged):
    refused(merged.parent / "nope", "nope` is not a folder")
    refused(merged / "README.md", "README.md` is not a folder")
    refused(merged.parent / "a", "no manifest in", MANIFEST)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "nul", '{"a": "\\u00"}'])
def test_a_damaged_manifest_is_refused(text, merged):
    (merged / MANIFEST).write_bytes(text.encode("latin-1"))
    refused(merged, "cannot read manifest")


def test_a_manifest_that_is_no_text_is_refused(merged):
    (merged / MANIFEST).write_bytes(b'{"a":\n"\xff"}')
    refused(merged, MANIFEST, "line 2: expected UTF-8, found byte 0xff")
    (merged / MANIFEST).write_text('{"manifest_version": 1, "config": "\\ud800"}')
    refused(merged, MANIFEST, "half a surrogate pair")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", ".", "", "c:x", "a\\b"])
@pytest.mark.parametrize("key", ["files", "companions", "headers"])
def test_names_that_leave_the_folder_are_refused(key, name, merged):
    (merged.parent / "secret").write_text("secret")
    data = json.loads((merged / MANIFEST).read_text())
    if key == "companions" and name == "a/b":
        name = "a/../b"  # a folder beside the manifest may have companions
    data[key] = {name: 6 if key == "files" else "0" * 64}
    (merged / MANIFEST).write_text(json.dumps(data))
    refused(merged, f"`{key}`", "expected a plain file name")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ([], ["manifest.json`: expected a mapping, found []"]),
        ({"manifest_version": 2}, ["expected `manifest_version` 1, found 2"]),
        ({"manifest_version": None}, ["`manifest_version`: expected a whole number, found None"]),
        ({"files": None}, ["`files`: expected a mapping, found None"]),
        (
            {"files": {"m.safetensors": -1}},
            ["`files.m.safetensors`: expected a number of at least 0, found -1"],
        ),
        ({"files": {"m.safetensors": True}}, ["found True"]),
        ({"files": {"m\0": 1}}, ["expected a plain file name"]),
        ({"tensors": {"x": "00"}}, ["`tensors.x`: expected 16 hexadecimal digits, found '00'"]),
        ({"tensors": {"x\x1b": 5}}, ["tensors.x\\x1b"]),
        ({"companions": {"c": "q" * 64}}, ["`companions.c`: expected 64 hexadecimal digits"]),
        ({"headers": {"other": "0" * 64}}, ["headers of files that it lists, and not of `other`"]),
        ({"inputs": 5}, ["`inputs`: expected a list, found 5"]),
        (
            {"inputs": [{"model": "m", "files": [{"path": 1}]}]},
            ["`inputs[0].files[0].path`: expected a text"],
        ),
        (
            {"inputs": [{"model": "m", "files": [{"path": "x", "bytes": 1, "mtime_ns": "y"}]}]},
            ["mtime_ns`: expected a whole number"],
        ),
    ],
)
def test_a_value_that_cannot_be_is_named(change, words, merged):
    data = json.loads((merged / MANIFEST).read_text())
    data = data | change if isinstance(change, dict) else change
    (merged / MANIFEST).write_text(json.dumps(data))
    refused(merged, *words)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json", "README.md"])
def test_a_pipe_in_place_of_a_file_is_a_difference(name, merged):
    data = json.loads((merged / MANIFEST).read_text()) | {"companions": {"README.md": "0" * 64}}
    (merged / MANIFEST).write_text(json.dumps(data))
    (merged / name).unlink(missing_ok=True)
    os.mkfifo(merged / name)
    run = cli("verify", merged)
    assert run.returncode == 1
    assert f"`{name}`: expected" in run.stdout
    assert "found something that is no regular file" in run.stdout


def test_a_folder_and_a_dead_link_in_place_of_a_file_are_differences(merged):
    path = merged / "model.safetensors"
    path.unlink()
    path.mkdir()
    assert "expected a file, found a folder" in cli("verify", merged).stdout
    path.rmdir()
    path.symlink_to("nowhere")
    assert "expected a file, found a link to nothing" in cli("verify", merged).stdout


def test_names_with_control_characters_do_not_reach_the_terminal(merged):
    data = json.loads((merged / MANIFEST).read_text())
    data["tensors"]["\x1b[2J\n"] = "0" * 16
    (merged / MANIFEST).write_text(json.dumps(data))
    run = cli("verify", merged)
    assert run.returncode == 1
    assert len(run.stdout.splitlines()) == 1
    assert "\x1b" not in run.stdout
