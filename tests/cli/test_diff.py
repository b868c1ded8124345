"""`mergeplan diff` as a user meets it."""

import json
import os

import torch

from tests.support.checkpoints import save_checkpoint
from tests.support.commands import cli


def test_a_checkpoint_equals_itself(small_models):
    run = cli("diff", small_models / "a", small_models / "a")
    assert (run.returncode, run.stdout, run.stderr) == (0, "equal: 2 tensors\n", "")
    run = cli("diff", small_models / "a", small_models / "a", "--all")
    assert len(run.stdout.splitlines()) == 4


def test_the_table_lists_what_differs_worst_first(tmp_path):
    a = {"x": torch.ones(10), "y": torch.ones(10), "z": torch.ones(10)}
    b = {"x": torch.ones(10), "y": torch.ones(10) + 2**-23, "z": torch.ones(10) * 2}
    save_checkpoint(tmp_path / "a", a)
    save_checkpoint(tmp_path / "b", b)
    run = cli("diff", "a", "b", cwd=tmp_path)
    assert run.returncode == 1
    head, z, y, summary, whole = run.stdout.splitlines()
    assert head.split() == [
        *("tensor", "status", "share", "relative", "L2", "cosine", "differing"),
        *("max", "|d|", "max", "ULP", "NaN"),
    ]
    assert z.split() == ["z", "differs", "100", "%", "1", "1.000000", "100", "%", "1", ">128", "-"]
    assert y.split() == [
        *("y", "differs", "1.42e-12", "%", "1.19e-07", "1.000000"),
        *("100", "%", "1.19e-07", "1", "-"),
    ]
    assert summary == "2 of 3 tensors differ, 1 equal"
    assert whole == "in all: relative L2 0.577, cosine 0.942809"
    run = cli("diff", "a", "b", "--tolerance-ulp", 1, cwd=tmp_path)
    assert "1 of 3 tensors differ, 2 equal within 1 ULP" in run.stdout


def test_json_has_every_tensor(tmp_path):
    nan = float("nan")
    save_checkpoint(tmp_path / "a", {"x": torch.tensor([nan, 1.0]), "only": torch.ones(1)})
    save_checkpoint(tmp_path / "b", {"x": torch.tensor([2.0, 1.0])})
    run = cli("diff", "a", "b", "--json", cwd=tmp_path)
    assert run.returncode == 1
    data = json.loads(run.stdout, parse_constant=lambda name: pytest_fail(name))
    assert (data["equal"], data["differing"]) == (False, 2)
    first, second = data["tensors"]
    assert (first["tensor"], first["status"], first["b"]) == ("only", "only in a", None)
    assert second["distance"]["unmatched"] == 1
    assert (second["distance"]["finite"], second["distance"]["norm_a"]) == (1, 1.0)
    for found in (second["distance"], data["whole"]):
        assert [found[name] for name in ("relative_l2", "cosine", "norm_difference")] == [None] * 3
    assert second["distance"]["max_ulp"] is None
    assert second["a"] == {"dtype": "F32", "shape": [2], "file": "model.safetensors"}


def pytest_fail(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_a_file_is_a_checkpoint_too(small_models):
    a = small_models / "a"
    run = cli("diff", a / "model.safetensors", a)
    assert run.returncode == 0
    assert cli("diff", a, small_models / "b" / "model.safetensors").returncode == 1


def test_a_config_or_an_adapter_in_place_of_a_model_is_called_that(demo_pool, tmp_path):
    base, config = demo_pool / "base", tmp_path / "merge.yml"
    config.write_text("merge_method: linear\n")
    run = cli("diff", base, config)
    assert run.returncode == 1
    assert run.stderr == (
        f"error: `{config}` is a YAML file, and no model\n\n"
        f"hint: `mergeplan merge {config} OUT_DIR` makes the model of a merge's config;"
        f" `mergeplan verify DIR --config {config}` asks whether DIR is that model\n"
    )
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    for given in (adapter, f"{base}+{adapter}"):
        run = cli("diff", given, base)
        assert run.returncode == 1
        assert "not a whole model" in run.stderr
        assert "merge_method: passthrough" in run.stderr


def test_a_pipe_is_called_that(small_models, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for given in (tmp_path / "pipe", "/dev/null"):
        run = cli("diff", given, small_models / "a")
        assert run.returncode == 1
        assert run.stderr.startswith(f"error: `{given}` is neither a folder nor a regular file")
