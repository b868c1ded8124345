"""`mergeplan verify --config` and `--adapter` as a user meets them."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from tests.support.checkpoints import load_tensors, save_checkpoint
from tests.support.commands import cli
from tests.support.merges import config_text


@pytest.fixture
def merged(small_models, config):
    assert cli("merge", config, small_models / "out").returncode == 0
    return small_models / "out"


def test_a_merge_is_verified_without_its_manifest_and_nothing_is_written(merged, config):
    (merged / "mergeplan_manifest.json").unlink()
    before = sorted(path.name for path in merged.parent.rglob("*"))
    run = cli("verify", merged, "--config", config)
    assert (run.returncode, run.stdout) == (0, "verified: 2 of 2 tensors equal\n"), run
    assert sorted(path.name for path in merged.parent.rglob("*")) == before
    assert cli("verify", merged, "--config", config, "--quiet").stdout == ""
    listed = cli("verify", merged, "--config", config, "--all").stdout.splitlines()
    assert [line.split()[:2] for line in listed[2:]] == [["x", "equal"], ["y", "equal"]]
    data = json.loads(cli("verify", merged, "--config", config, "--json").stdout)
    assert (data["verified"], data["answer"], data["counts"]) == (True, "verified", {"equal": 2})


def test_what_differs_is_a_row_the_worst_first(merged, config):
    base, tensors = load_tensors(merged.parent / "base"), load_tensors(merged)
    half = {"x": (base["x"] + tensors["x"]) / 2, "y": tensors["y"] * 2}
    save_checkpoint(merged.parent / "half", half)
    run = cli("verify", merged.parent / "half", "--config", config)
    assert run.returncode == 1
    verdict, note, head, *rows = run.stdout.splitlines()
    assert verdict == "not verified: 0 of 2 tensors equal, 1 at another strength, 1 unknown"
    assert note == "the factor 0.5 fits all 1: 0 is the base, 1 this merge"
    assert [row.split()[:2] for row in rows] == [["y", "unknown"], ["x", "strength"]]
    assert head.endswith("factor")
    assert rows[1].endswith(" 0.5")
    run = cli("verify", merged.parent / "half", "--config", config, "--json", "--quiet")
    first, second = json.loads(run.stdout)["tensors"]
    assert (run.returncode, first["tensor"], second["status"]) == (1, "y", "strength")
    assert second["factor"] == pytest.approx(0.5, abs=1e-5)


def test_a_copy_of_the_base_was_not_merged(merged, config):
    shutil.copytree(merged.parent / "base", merged.parent / "copy")
    run = cli("verify", merged.parent / "copy", "--config", config)
    assert run.returncode == 1
    assert run.stdout.startswith("not verified: 0 of 2 tensors equal, 2 not applied\nnothing of")
    run = cli("verify", merged.parent / "base", "--config", config)
    assert (run.returncode, run.stdout) == (1, "")
    assert "is an input of the merge itself" in run.stderr


def test_values_that_are_not_finite_are_another_tensor(merged, config):
    tensors = load_tensors(merged)
    tensors["x"][0, 0] = float("nan")
    save_checkpoint(merged.parent / "nan", tensors)
    run = cli("verify", merged.parent / "nan", "--config", config, "--json")
    data = json.loads(run.stdout)
    worst = data["tensors"][0]
    assert (run.returncode, worst["status"], worst["relative_l2"]) == (1, "unknown", None)
    assert (worst["changes"], worst["detail"]) == (True, "1 not finite here or in the merge")
    every = {name: tensor * float("nan") for name, tensor in tensors.items()}
    save_checkpoint(merged.parent / "nans", every)
    run = cli("verify", merged.parent / "nans", "--config", config)
    assert run.returncode == 1
    assert "another base" not in run.stdout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_an_adapter_that_changes_nothing_one_cannot_tell(dtype, small_models):
    # What is -0 in the base is 0 with a change of 0 added.
    base = {"x.weight": torch.tensor([[1.0, -0.0], [2.0, 3.0]]), "n": torch.arange(3)}
    save_checkpoint(small_models / "whole", base)
    for scale, code in ((0.0, 1), (1.0, 0)):
        adapter = small_models / f"ad{code}"
        adapter.mkdir()
        factors = {"A": torch.ones(1, 2), "B": scale * torch.ones(2, 1)}
        save_file(
            {f"base_model.model.x.lora_{name}.weight": one for name, one in factors.items()},
            adapter / "adapter_model.safetensors",
        )
        settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["x"]}
        (adapter / "adapter_config.json").write_text(json.dumps(settings))
        change = scale * torch.ones(2, 2)
        merged = {"x.weight": (base["x.weight"] + change).to(dtype), "n": base["n"]}
        save_checkpoint(small_models / f"m{code}", merged)
        run = cli(
            *("verify", small_models / f"m{code}", "--adapter", adapter),
            *("--base", small_models / "whole", "--json"),
        )
        data = json.loads(run.stdout)
        assert (run.returncode, data["counts"]) == (code, {"equal": 2})
        assert data["answer"] == ("could not tell" if code else "verified")
        assert [note.split("`")[0] for note in data["notes"]] == (
            ["this merge changes nothing of "] if code else []
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--config", "c.yml", "--adapter", "a"), "exclude each other"),
        (("--config", "c.yml", "--base", "b"), "--base goes with --adapter"),
        (("--config", "c.yml", "--inputs"), "knows nothing"),
        (("--base", "b"), "--base goes with"),
        (("--random-seed", 0), "--random-seed goes with"),
        (("--tolerance-ulp", 0), "--tolerance-ulp goes with"),
        (("--all",), "--all goes with"),
        (("--config", "c.yml", "--tolerance-ulp", -1), "--tolerance-ulp"),
        (("--config", "c.yml", "--tolerance-ulp", "1e20"), "--tolerance-ulp"),
        (("--config", "c.yml", "--tolerance-ulp", "nan"), "--tolerance-ulp"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words, merged):
    run = cli("verify", merged, *options)
    assert (run.returncode, run.stdout) == (2, "")
    assert words in run.stderr


def test_a_seed_may_be_given(small_models):
    text = config_text(
        "dare_linear",
        [small_models / "a"],
        base=small_models / "base",
        parameters={"weight": 1, "density": 0.5},
    )
    (small_models / "c.yml").write_text(text)
    out, given = small_models / "out", ("--random-seed", 5)
    assert cli("merge", small_models / "c.yml", out, *given).returncode == 0
    assert cli("verify", out, "--config", small_models / "c.yml", *given).returncode == 0
    run = cli("verify", out, "--config", small_models / "c.yml")
    assert run.returncode == 1
    assert run.stdout.startswith("could not tell: 0 of 2 tensors equal")


def test_names_from_strangers_move_no_cursor(merged, config, tmp_path):
    evil = tmp_path / "e\x1b[2J"
    tensors = {f"\x1b{name}": tensor for name, tensor in load_tensors(merged.parent / "a").items()}
    for name in ("base", "copy"):
        save_checkpoint(evil / name, tensors)
    save_checkpoint(evil / "a", {name: tensor + 1 for name, tensor in tensors.items()})
    text = config_text(
        "task_arithmetic", [evil / "a"], base=evil / "base", parameters={"weight": 1}
    )
    config.write_text(text)
    run = cli("verify", evil / "copy", "--config", config)
    assert (run.returncode, run.stdout.count("\\x1b")) == (1, 3)
    assert run.stdout.replace("\n", "").isprintable()
