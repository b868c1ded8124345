"""`mergeplan merge` as a user meets it."""

import json
import re
import shutil

import pytest

from mergeplan.merging.manifest import NAME
from tests.support.checkpoints import load_tensors, save_checkpoint, weights_of
from tests.support.commands import cli
from tests.support.merges import config_text


def test_a_merge_writes_what_mergekit_leaves_and_a_manifest(config, small_models):
    run = cli("merge", config, small_models / "out")
    assert run.returncode == 0
    # These models have weights and nothing else, and that is said.
    assert "no config.json" in run.stderr
    assert "no tokenizer" in run.stderr
    assert "2 tensors" in run.stdout
    assert {path.name for path in (small_models / "out").iterdir()} == {
        "model.safetensors",
        "README.md",
        "mergekit_config.yml",
        "mergeplan_manifest.json",
    }
    manifest = json.loads((small_models / "out" / "mergeplan_manifest.json").read_text())
    assert manifest["config"] == config.read_text()
    assert set(manifest["tensors"]) == {"x", "y"}
    assert not (small_models / "out.partial").exists()


def test_json_reports_what_was_done(config, small_models):
    run = cli("merge", config, small_models / "out", "--json", "--random-seed", 5)
    report = json.loads(run.stdout)
    assert report["tensors"] == 2
    assert report["seed"] == 5
    written = (small_models / "out" / "model.safetensors").stat().st_size
    assert report["written_bytes"] == written


def test_a_dry_run_says_what_inspect_says_or_as_json_the_plan_and_writes_nothing(
    config, small_models
):
    out = small_models / "out"
    run = cli("merge", config, out, "--dry-run")
    assert "\n  this merge can run\n" in run.stdout
    measured = re.compile(r"  writes .*|  memory .*")  # of the disk and of this process
    inspected = cli("inspect", config, "--out", out).stdout
    assert measured.sub("", run.stdout) == measured.sub("", inspected)
    found = json.loads(cli("merge", config, out, "--dry-run", "--json").stdout)
    assert [job["tensor"] for job in found["plans"][0]["jobs"]] == ["x", "y"]
    assert not out.exists()


def test_a_dry_run_warns_of_what_inspect_warns_of(config, small_models):
    config.write_text(config.read_text() + "dtype: float32\n")
    for name in ("base", "a", "b"):
        tensors = {k: t.bfloat16() for k, t in load_tensors(small_models / name).items()}
        shutil.rmtree(small_models / name)
        save_checkpoint(small_models / name, tensors)
    said = cli("inspect", config).stderr
    assert "tensors become float32 out of 16-bit inputs" in said
    assert cli("merge", config, small_models / "out", "--dry-run").stderr == said
    assert cli("merge", config, small_models / "out", "--dry-run", "-q").stderr == ""


def test_paths_in_a_config_are_relative_to_where_it_runs(small_models):
    text = config_text("linear", ["a", "b"], parameters={"weight": 1})
    (small_models / "c.yml").write_text(text)
    assert cli("merge", "c.yml", "out", cwd=small_models).returncode == 0


@pytest.mark.parametrize("size", ["100", "0.1kB", "100b", "1KiB"])
def test_shard_sizes_take_units(config, small_models, size):
    run = cli("merge", config, small_models / "out", "--out-shard-size", size)
    assert run.returncode == 0
    assert len(weights_of(small_models / "out")) == (2 if size in ("100", "0.1kB") else 1)
    assert set(load_tensors(small_models / "out")) == {"x", "y"}


def test_a_dry_run_refuses_what_a_run_would_refuse(config, small_models):
    (small_models / "full").mkdir()
    (small_models / "full" / "x").write_text("")
    for out in ("full", "a/out"):
        assert cli("merge", config, small_models / out, "--dry-run").returncode == 1


@pytest.mark.parametrize("kind", ["dot", "link", "dangling"])
def test_the_output_may_be_here_or_behind_a_link(kind, config, small_models):
    real = small_models / "real"
    if kind != "dangling":
        real.mkdir()
    (small_models / "link").symlink_to(real)
    if kind == "dot":
        run = cli("merge", config, ".", cwd=real)
    else:
        run = cli("merge", config, small_models / "link")
    assert run.returncode == 0, run.stderr
    assert (real / "model.safetensors").exists()
    assert (small_models / "link").is_symlink()


def test_a_linked_output_is_replaced_where_it_really_is(config, small_models):
    real = small_models / "real"
    real.mkdir()
    (real / "model.bin").write_bytes(b"PK\x03\x04")
    (small_models / "link").symlink_to(real)
    assert cli("merge", config, small_models / "link", "--overwrite").returncode == 0
    assert (small_models / "link").is_symlink()
    assert sorted(p.name for p in real.iterdir())[0] == "README.md"
    assert not (small_models / "real.partial").exists()


def test_output_with_content_is_only_replaced_on_request(config, small_models):
    out = small_models / "out"
    assert cli("merge", config, out).returncode == 0
    (out / "model-00001-of-00001.safetensors").write_text("old")
    run = cli("merge", config, out)
    assert run.returncode == 1
    assert "is not empty" in run.stderr
    assert "--overwrite" in run.stderr
    assert cli("merge", config, out, "--overwrite").returncode == 0
    assert not (out / "model-00001-of-00001.safetensors").exists()
    assert not (small_models / "out.partial").exists()


def test_an_empty_output_folder_is_used(config, small_models):
    (small_models / "out").mkdir()
    assert cli("merge", config, small_models / "out").returncode == 0


def test_settings_of_the_base_are_said_to_do_nothing(small_models):
    text = config_text(
        "ties",
        [small_models / "base", small_models / "a"],
        base=small_models / "base",
        per_model=[{"weight": 0.5}, {"weight": 1}],
    )
    (small_models / "c.yml").write_text(text)
    run = cli("merge", small_models / "c.yml", small_models / "out")
    assert "warning: `weight` of the base model has no effect" in run.stderr
    quiet = cli("merge", small_models / "c.yml", small_models / "out2", "--quiet")
    assert quiet.stderr == ""


def test_tensors_that_only_some_models_have_are_refused_or_left_out_by_name(small_models):
    import torch

    from tests.support.checkpoints import save_checkpoint

    tensors = load_tensors(small_models / "a") | {"value_head": torch.ones(3)}
    save_checkpoint(small_models / "more", tensors)
    text = config_text(
        "ties",
        [small_models / "more", small_models / "b"],
        base=small_models / "base",
        parameters={"weight": 1},
    )
    (small_models / "c.yml").write_text(text)
    command = ("merge", small_models / "c.yml", small_models / "out")
    for refused in (command, (*command, "--dry-run"), ("inspect", small_models / "c.yml")):
        run = cli(*refused)
        assert run.returncode == 1
        assert "tensor `value_head` is one that `" in run.stdout + run.stderr
        assert "--allow-left-out 'value_head'" in run.stdout + run.stderr
    run = cli(*command, "--allow-left-out", "value_*")
    assert run.returncode == 0
    assert "left out 1 tensors" in run.stderr
    out = small_models / "out"
    assert "value_head" not in load_tensors(out)
    reason = "as `--allow-left-out` asks"
    assert json.loads((out / NAME).read_text())["left_out"] == {"value_head": reason}
    assert f"- `value_head`: {reason}" in (out / "README.md").read_text()


def test_integer_buffers_are_copied_where_all_agree(small_models):
    import torch

    from tests.support.checkpoints import save_checkpoint

    for name in ("base", "a", "b"):
        tensors = load_tensors(small_models / name) | {"ids": torch.arange(7)}
        save_checkpoint(small_models / f"{name}2", tensors)
    models = [small_models / "a2", small_models / "b2"]
    text = config_text("linear", models, parameters={"weight": 1}, dtype="bfloat16")
    (small_models / "c.yml").write_text(text)
    assert cli("merge", small_models / "c.yml", small_models / "out").returncode == 0
    ids = load_tensors(small_models / "out")["ids"]
    assert ids.tolist() == list(range(7))
    assert ids.dtype == torch.int64


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], 2, "missing argument"),
        (["c.yml"], 2, "expected CONFIG.yml and OUT_DIR"),
        (["c.yml", "out", "--threads", "0"], 2, "threads"),
        (["c.yml", "out", "--out-shard-size", "5 apples"], 2, "expected bytes such as 5GB"),
        (["c.yml", "out", "--random-seed", "-1"], 2, "random-seed"),
        (["none.yml", "out"], 1, "cannot open config `none.yml`"),
    ],
)
def test_usage(args, code, message, tmp_path):
    run = cli("merge", *args, cwd=tmp_path)
    assert run.returncode == code
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_a_command_that_is_misspelt_is_guessed():
    run = cli("mergee")
    assert run.returncode == 2
    assert "`merge`" in run.stderr


def test_a_path_that_is_empty_or_choices_that_exclude_each_other_are_usage(config, small_models):
    for words in (
        (config, ""),
        ("", small_models / "out"),
        (config, "out", "--resume", "--discard"),
    ):
        run = cli("merge", *words, cwd=small_models)
        assert run.returncode == 2
        assert "exclude each other" in run.stderr or "expected a path" in run.stderr
