"""Every fault gives one clear error and exit code 1, before the first output byte."""

import json
import shutil
import struct

import pytest
import torch

from tests.support.checkpoints import load_tensors, save_checkpoint
from tests.support.commands import cli
from tests.support.merges import config_text


def write_header(path, header: dict | bytes, data_bytes: int = 0) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(data_bytes))


def break_file(folder, how: str) -> None:
    path = folder / "model.safetensors"
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-3])
    elif how == "longer":
        path.write_bytes(path.read_bytes() + b"x")
    elif how == "header too long":
        path.write_bytes(struct.pack("<Q", 10**6) + path.read_bytes()[8:])
    elif how == "header bomb":
        path.write_bytes(struct.pack("<Q", 2**63) + path.read_bytes()[8:])
    elif how == "not json":
        write_header(path, b"{]")
    elif how == "overlap":
        x = {"dtype": "F32", "shape": [8, 6], "data_offsets": [0, 192]}
        y = {"dtype": "F32", "shape": [5], "data_offsets": [180, 200]}
        write_header(path, {"x": x, "y": y}, 200)
    elif how == "wrong length":
        x = {"dtype": "F32", "shape": [8, 6], "data_offsets": [0, 96]}
        write_header(path, {"x": x}, 96)
    elif how == "unknown dtype":
        x = {"dtype": "F7", "shape": [8], "data_offsets": [0, 7]}
        write_header(path, {"x": x}, 7)
    else:
        tensors = load_tensors(folder)
        if how == "tensor missing":
            del tensors["y"]
        elif how == "shape":
            tensors["y"] = torch.ones(6)
        elif how == "dtype":
            tensors["y"] = torch.ones(5, dtype=torch.complex64)
        elif how == "mixed with integers":
            tensors["y"] = torch.ones(5, dtype=torch.int32)
        shutil.rmtree(folder)
        save_checkpoint(folder, tensors)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", ["no safetensors checkpoint", "model.safetensors"]),
        ("empty", ["is empty: expected a safetensors file"]),
        ("truncated", ["describes a file of", "found"]),
        ("longer", ["describes a file of", "found"]),
        ("header too long", ["header length is 1000000 bytes"]),
        ("header bomb", ["header length is 9223372036854775808 bytes"]),
        ("not json", ["invalid header"]),
        ("overlap", ["tensor `y`", "expected its data at offset 192, found 180"]),
        ("wrong length", ["tensor `x`", "need 192 bytes, its offsets span 96"]),
        ("unknown dtype", ["tensor `x`", "F7"]),
        ("tensor missing", ["tensor `y` is missing", "/b`"]),
        ("shape", ["tensor `y`", "expected shape [5]", "found [6]"]),
        ("dtype", ["tensor `y`", "C64"]),
        ("mixed with integers", ["tensor `y`", "I32"]),
    ],
)
@pytest.mark.parametrize("method", ["linear", "ties"])
def test_a_damaged_expert_is_named_before_anything_is_written(how, words, method, small_models):
    break_file(small_models / "b", how)
    text = config_text(
        method,
        [small_models / "a", small_models / "b"],
        base=small_models / "base" if method == "ties" else None,
        parameters={"weight": 1},
    )
    (small_models / "c.yml").write_text(text)
    run = cli("merge", small_models / "c.yml", small_models / "out")
    assert run.returncode == 1, run.stderr
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("error:") == 1
    for word in words:
        assert word in run.stderr
    assert not (small_models / "out").exists()
    assert not (small_models / "out.partial").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("merge_method: tise\nmodels: [{model: a}]", ["unknown method `tise`", "`ties`"]),
        ("merge_method: linear\nmodles: [{model: a}]", ["unknown key `modles`", "`models`"]),
        ("merge_method: linear\nmodels: [{model: a}]\nweight: 1", ["`weight`", "`parameters`"]),
        ("merge_method: linear\nmodels: [{model: a}]", ["`weight` is missing for model `a`"]),
        ("merge_method: linear\nmodels: [{model: nope}]", ["model `nope` is not a folder"]),
        ("merge_method: linear\nmodels: [{model: me/nope}]", ["hub id", "hf download me/nope"]),
        ("merge_method: linear\nmodels: [{model: a+lora}]", ["`lora` is not a folder"]),
        (
            "merge_method: linear\nmodels: [{model: a}, {model: ./a}]\nparameters: {weight: 1}",
            ["are the same folder"],
        ),
        (
            "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}},"
            " {model: b, parameters: {weight: -1}}]",
            ["the weights sum to zero"],
        ),
        (
            "merge_method: linear\nmodels: [{model: a, parameters: {weight: 0.3}},"
            " {model: b, parameters: {weight: -0.3}}]",
            ["the weights sum to zero"],
        ),
        (
            "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1.0e-46}}]",
            ["the weights sum to zero"],
        ),
        (
            "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1.0e+39}}]",
            ["too large for float32"],
        ),
        (
            "merge_method: ties\nbase_model: base\nmodels: [{model: a}]\ndtype: float16\n"
            "parameters: {weight: 70000}",
            ["too large for `float16`"],
        ),
        (
            "merge_method: ties\nbase_model: base\nmodels: [{model: a}]\n"
            "parameters: {weight: 1, lambda: 1.0e+200}",
            ["too large for `float32`"],
        ),
        ("merge_method: [ties]\nmodels: [{model: a}]", ["unknown method"]),
        ("merge_method: linear\nmodels: [{model: a}]\nx: 2001-99-99", ["line 3: expected a date"]),
        ("[" * 5000, ["invalid YAML"]),
        (
            "merge_method: ties\nbase_model: base\nmodels: [{model: a}]\n"
            "parameters: {weight: 1, density: 1.2}",
            ["`parameters.density`: expected a number from 0 to 1, found 1.2"],
        ),
    ],
)
def test_a_config_at_fault_is_named_with_a_hint(text, words, small_models):
    (small_models / "c.yml").write_text(text)
    run = cli("merge", "c.yml", "out", cwd=small_models)
    assert run.returncode == 1, run.stderr
    for word in words:
        assert word in run.stderr
    assert "Traceback" not in run.stderr
    assert not (small_models / "out").exists()


@pytest.fixture
def config(small_models):
    text = config_text(
        "ties", [small_models / "a"], base=small_models / "base", parameters={"weight": 1}
    )
    (small_models / "c.yml").write_text(text)
    return small_models / "c.yml"


@pytest.mark.parametrize("place", ["a", "a/out", "base/deep/out", "link/out"])
def test_an_output_inside_an_input_is_refused(place, config, small_models):
    (small_models / "link").symlink_to(small_models / "a")
    before = sorted(path.name for path in (small_models / "a").iterdir())
    run = cli("merge", config, small_models / place, "--overwrite")
    assert run.returncode == 1
    assert "lies inside input" in run.stderr
    assert sorted(path.name for path in (small_models / "a").iterdir()) == before


def test_an_output_that_holds_an_input_is_never_overwritten(config, small_models):
    run = cli("merge", config, small_models, "--overwrite")
    assert run.returncode == 1
    assert "holds input" in run.stderr
    assert (small_models / "a" / "model.safetensors").exists()


def test_an_output_that_cannot_be_made_is_refused(config, small_models):
    (small_models / "file").write_text("")
    run = cli("merge", config, small_models / "file")
    assert (run.returncode, "is a file" in run.stderr) == (1, True)
    run = cli("merge", config, small_models / "file" / "out")
    assert (run.returncode, "cannot create" in run.stderr) == (1, True)


def test_a_disk_too_small_for_the_layout_is_said_before_it_is_touched(tmp_path):
    # Sparse files: as large as they like, and no block of theirs on the disk.
    elements = (shutil.disk_usage(tmp_path).free + 10**10) // 4
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        path = folder / "model.safetensors"
        x = {"dtype": "F32", "shape": [elements], "data_offsets": [0, 4 * elements]}
        write_header(path, {"x": x})
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size + 4 * elements)
    (tmp_path / "c.yml").write_text(
        config_text("linear", [tmp_path / "a", tmp_path / "b"], parameters={"weight": 1})
    )
    run = cli("merge", tmp_path / "c.yml", tmp_path / "out")
    assert run.returncode == 1
    assert "no space for the output" in run.stderr
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("method", ["linear", "ties", "dare_linear"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_value_that_is_not_finite_stops_the_merge(dtype, method, value, tmp_path):
    x = torch.ones(100, 70, dtype=dtype)
    save_checkpoint(tmp_path / "base", {"x": x, "y": x.clone()})
    bad = x.clone()
    bad[50, 3] = value
    save_checkpoint(tmp_path / "bad", {"x": bad, "y": x.clone()})
    text = config_text(
        method,
        [tmp_path / "bad"],
        base=None if method == "linear" else tmp_path / "base",
        parameters={"weight": 1} if method == "linear" else {"weight": 1, "density": 0.5},
    )
    (tmp_path / "c.yml").write_text(text)
    run = cli("merge", tmp_path / "c.yml", tmp_path / "out")
    assert run.returncode == 1
    assert "bad/model.safetensors`: tensor `x`: element 3503 is" in run.stderr
    assert "--allow-nonfinite" in run.stderr
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()
    assert cli("merge", tmp_path / "c.yml", tmp_path / "out", "--allow-nonfinite").returncode == 0


def test_what_is_copied_keeps_values_that_are_not_finite_and_what_is_computed_stops(tmp_path):
    mask = torch.tensor([0.0, float("-inf"), float("nan")])
    save_checkpoint(tmp_path / "a", {"mask": mask})
    for number, parameters in enumerate((None, {"scale": 0.5})):
        text = config_text("passthrough", [tmp_path / "a"], parameters=parameters)
        (tmp_path / "c.yml").write_text(text)
        run = cli("merge", tmp_path / "c.yml", tmp_path / f"out{number}")
        assert run.returncode == number, run.stderr
    assert "tensor `mask`: element 1 is -inf" in run.stderr
    copied = load_tensors(tmp_path / "out0")["mask"]
    assert copied.numpy().tobytes() == mask.numpy().tobytes()


def test_a_value_too_large_for_the_working_dtype_is_not_finite_there(tmp_path):
    save_checkpoint(tmp_path / "a", {"x": torch.tensor([1.0, 70_000.0])})
    text = config_text("linear", [tmp_path / "a"], parameters={"weight": 1}, dtype="float16")
    (tmp_path / "c.yml").write_text(text)
    run = cli("merge", tmp_path / "c.yml", tmp_path / "out")
    assert run.returncode == 1
    assert "element 1 is 70000, not a finite `float16`" in run.stderr


def test_a_result_that_overflows_the_output_dtype_is_refused(tmp_path):
    save_checkpoint(tmp_path / "a", {"x": torch.tensor([1.0, 1e6])})
    text = config_text("linear", [tmp_path / "a"], parameters={"weight": 1}, out_dtype="float16")
    (tmp_path / "c.yml").write_text(text)
    run = cli("merge", tmp_path / "c.yml", tmp_path / "out")
    assert run.returncode == 1
    assert "output tensor `x`: element 1 is not finite in `float16`" in run.stderr
    assert not (tmp_path / "out").exists()
    assert cli("merge", tmp_path / "c.yml", tmp_path / "out", "--allow-nonfinite").returncode == 0


def test_an_input_that_lies_in_the_output_through_a_link_is_kept(small_models):
    out = small_models / "out"
    out.mkdir()
    (small_models / "a" / "model.safetensors").rename(out / "model.safetensors")
    (small_models / "a" / "model.safetensors").symlink_to(out / "model.safetensors")
    text = config_text("linear", [small_models / "a"], parameters={"weight": 1})
    (small_models / "c.yml").write_text(text)
    run = cli("merge", small_models / "c.yml", out, "--overwrite")
    assert run.returncode == 1
    assert "holds input" in run.stderr
    assert (out / "model.safetensors").exists()


def test_checkpoints_without_tensors_are_refused(tmp_path):
    for name in ("a", "b"):
        save_checkpoint(tmp_path / name, {})
    text = config_text("linear", [tmp_path / "a", tmp_path / "b"], parameters={"weight": 1})
    (tmp_path / "c.yml").write_text(text)
    run = cli("merge", tmp_path / "c.yml", tmp_path / "out")
    assert run.returncode == 1
    assert "nothing to merge" in run.stderr


@pytest.mark.parametrize("command", ["merge", "dry run", "inspect"])
def test_integer_buffers_that_differ_are_refused(command, tmp_path):
    for number, name in enumerate(("a", "b")):
        tensors = {"ids": torch.arange(5) + number, "x": torch.ones(2)}
        save_checkpoint(tmp_path / name, tensors)
    text = config_text("linear", [tmp_path / "a", tmp_path / "b"], parameters={"weight": 1})
    (tmp_path / "c.yml").write_text(text)
    arguments = {
        "merge": ("merge", "c.yml", "out"),
        "dry run": ("merge", "c.yml", "out", "--dry-run"),
        "inspect": ("inspect", "c.yml"),
    }[command]
    run = cli(*arguments, cwd=tmp_path)
    assert run.returncode == 1
    said = run.stderr + run.stdout
    assert f"`{tmp_path / 'b' / 'model.safetensors'}`: tensor `ids`: expected the values" in said
    assert "hint: " in said
    assert not list(tmp_path.glob("out*"))
