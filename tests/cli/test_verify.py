"""`mergeplan verify` as a user meets it."""

import hashlib
import json

import pytest
import torch

from tests.support.checkpoints import load_tensors, save_checkpoint
from tests.support.commands import cli
from tests.support.merges import config_text


@pytest.fixture(params=[1, 3], ids=["one file", "shards"])
def merged(request, tmp_path):
    """A merge of float and integer tensors, one of them of several blocks."""
    generator = torch.Generator().manual_seed(0)
    for name in ("base", "a", "b"):
        tensors = {
            "big": torch.randn(70_000, 2, generator=generator).bfloat16(),
            "ids": torch.arange(70_000),
            "small": torch.randn(7, generator=generator).bfloat16(),
        }
        save_checkpoint(tmp_path / name, tensors)
    text = config_text(
        "ties",
        [tmp_path / "a", tmp_path / "b"],
        base=tmp_path / "base",
        parameters={"weight": 1, "density": 0.5},
    )
    (tmp_path / "c.yml").write_text(text)
    size = ("--out-shard-size", "10") if request.param > 1 else ()
    assert cli("merge", tmp_path / "c.yml", tmp_path / "out", *size).returncode == 0
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == request.param
    return tmp_path / "out"


def place_of(out, tensor):
    return next(p for p in sorted(out.glob("*.safetensors")) if tensor in load_tensors_of(p))


def load_tensors_of(path):
    from safetensors.torch import load_file

    return load_file(path)


def edit_manifest(out, **changes):
    path = out / "mergeplan_manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_merge_matches_its_manifest(merged):
    run = cli("verify", merged, "--inputs", "--threads", 3)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == f"{merged}: matches its manifest (3 tensors, 840 kB)\n"
    run = cli("verify", merged, "--quiet")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    data = json.loads(cli("verify", merged, "--json").stdout)
    assert (data["matches"], data["tensors"], data["differences"]) == (True, 3, [])


@pytest.mark.parametrize("tensor", ["big", "ids", "small"])
def test_one_flipped_bit_names_its_tensor(tensor, merged):
    path = place_of(merged, tensor)
    raw = bytearray(path.read_bytes())
    stored = load_tensors(merged)[tensor].contiguous().view(torch.uint8).numpy().tobytes()
    raw[raw.index(stored) + len(stored) - 1] ^= 1
    path.write_bytes(raw)
    run = cli("verify", merged)
    assert run.returncode == 1
    expected = json.loads((merged / "mergeplan_manifest.json").read_text())["tensors"][tensor]
    (line,) = run.stdout.splitlines()
    start = f"`{path.name}`: tensor `{tensor}`: expected content hash {expected}, found "
    assert line.startswith(start)
    data = json.loads(cli("verify", merged, "--json").stdout)
    (found,) = data["differences"]
    assert (found["file"], found["tensor"], data["matches"]) == (path.name, tensor, False)


def test_a_dtype_that_changed_in_the_header_alone_is_found(merged):
    path = place_of(merged, "small")
    path.write_bytes(path.read_bytes().replace(b"BF16", b"F16 ").replace(b'"F16 "', b'"F16" '))
    run = cli("verify", merged)
    assert run.returncode == 1
    assert "a header with SHA-256" in run.stdout


def test_a_missing_file_is_one_line_and_its_tensors_are_counted(merged):
    path = place_of(merged, "small")
    path.unlink()
    run = cli("verify", merged)
    assert run.returncode == 1
    assert f"`{path.name}`: expected a file, found nothing" in run.stdout.splitlines()
    assert "not checked" in run.stderr


def test_a_renamed_file_is_missing_and_unlisted(merged):
    path = place_of(merged, "small")
    path.rename(merged / "other.safetensors")
    lines = cli("verify", merged).stdout
    assert f"`{path.name}`: expected a file, found nothing" in lines
    assert "`other.safetensors`: expected no file that the manifest does not list" in lines


@pytest.mark.parametrize("change", [-3, 3])
def test_a_length_that_changed_is_told_once(change, merged):
    path = place_of(merged, "small")
    raw = path.read_bytes()
    path.write_bytes(raw[:change] if change < 0 else raw + bytes(change))
    run = cli("verify", merged)
    assert run.returncode == 1
    about = [line for line in run.stdout.splitlines() if path.name in line]
    assert about == [f"`{path.name}`: expected {len(raw)} bytes, found {len(raw) + change} bytes"]


def test_a_damaged_header_is_a_difference(merged):
    path = place_of(merged, "small")
    raw = bytearray(path.read_bytes())
    raw[8] = ord("]")
    path.write_bytes(raw)
    run = cli("verify", merged)
    assert run.returncode == 1
    assert f"`{path.name}`: expected a valid safetensors file, found " in run.stdout


def test_an_index_that_sends_a_tensor_elsewhere_is_found(merged):
    index = merged / "model.safetensors.index.json"
    files = sorted(path.name for path in merged.glob("*.safetensors"))
    weight_map = {tensor: place_of(merged, tensor).name for tensor in ("big", "ids", "small")}
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert cli("verify", merged).returncode == 0
    weight_map["small"] = "elsewhere.safetensors"
    del weight_map["ids"]
    index.write_text(json.dumps({"weight_map": weight_map | {"more": files[0]}}))
    run = cli("verify", merged)
    assert run.returncode == 1
    assert len(run.stdout.splitlines()) == 3
    assert "tensor `small`: expected `model" in run.stdout
    assert "tensor `more`: expected no such tensor" in run.stdout
    index.write_text("[")
    assert "expected a shard index" in cli("verify", merged).stdout
    index.unlink()
    assert cli("verify", merged).returncode == (0 if len(files) == 1 else 1)


def test_companions_are_checked_where_the_manifest_lists_them(merged):
    config = (merged / "README.md").read_bytes()
    companions = {"README.md": hashlib.sha256(config).hexdigest()}
    edit_manifest(merged, companions=companions)
    assert cli("verify", merged).returncode == 0
    (merged / "README.md").write_bytes(config + b"\n")
    assert "`README.md`: expected SHA-256 " in cli("verify", merged).stdout
    (merged / "README.md").unlink()
    assert "`README.md`: expected a file, found nothing" in cli("verify", merged).stdout


def test_inputs_are_checked_on_request(merged):
    path = merged.parent / "a" / "model.safetensors"
    path.touch()
    assert cli("verify", merged).returncode == 0
    run = cli("verify", merged, "--inputs")
    assert run.returncode == 1
    assert "a/model.safetensors`: expected an input last changed at " in run.stdout
    path.write_bytes(b"x")
    assert " bytes, found 1 bytes" in cli("verify", merged, "--inputs").stdout
    path.unlink()
    assert "expected an input file, found nothing" in cli("verify", merged, "--inputs").stdout


def test_a_tensor_that_went_and_one_that_came_are_named(merged):
    manifest = json.loads((merged / "mergeplan_manifest.json").read_text())
    tensors = manifest["tensors"] | {"gone": "0" * 16}
    came = tensors.pop("ids")
    edit_manifest(merged, tensors=tensors)
    run = cli("verify", merged)
    assert len(came) == 16
    assert "tensor `gone`: expected content hash 0000000000000000, found no tensor" in run.stdout
    assert "tensor `ids`: expected no tensor that the manifest does not list" in run.stdout
