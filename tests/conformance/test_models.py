"""Whole merges of real (tiny) transformers models: mergekit's output and ours, file by file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.checkpoints import load_tensors, save_checkpoint
from tests.support.families import SCENARIOS, save_family, text_for
from tests.support.merges import config_text, run_mergekit, run_mergeplan
from tests.support.shares import paired


def header(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return {"names": list(file.keys()), "metadata": file.metadata()}


def assert_same_output(ours: Path, theirs: Path) -> None:
    """The same weights, names, dtypes, metadata, shards and config."""
    from transformers import AutoConfig

    mine = {p.name for p in ours.iterdir()} - {"mergeplan_manifest.json"}
    assert mine == {p.name for p in theirs.iterdir()}
    for path in ours.glob("*.safetensors"):
        assert header(path) == header(theirs / path.name)
    for name, tensor in load_tensors(theirs).items():
        found = load_tensors(ours)[name]
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor), name
    found_config, expected = (AutoConfig.from_pretrained(p).to_dict() for p in (ours, theirs))
    for config in (found_config, expected):
        config.pop("_name_or_path", None)
    assert found_config == expected


def merge_both(text: str, folder: Path, shard_bytes: int = 5_000_000_000) -> tuple[Path, Path]:
    run_mergeplan(text, folder / "ours", max_shard_bytes=shard_bytes)
    run_mergekit(text, folder / "theirs", out_shard_size=shard_bytes)
    return folder / "ours", folder / "theirs"


# In 16 bit many magnitudes tie at the threshold, and mergekit keeps any of them: TIES is compared
# here in float32, and element by element in `test_tensors`.
COMBINATIONS = [("linear", "float32"), ("task_arithmetic", "float32"), ("ties", "float32")]
COMBINATIONS += [(m, d) for m in ("linear", "task_arithmetic") for d in ("bfloat16", "float16")]


@pytest.mark.parametrize(("merge", "scenario"), paired(COMBINATIONS, list(SCENARIOS)), ids=str)
def test_options_resolve_as_in_mergekit(merge, scenario, tmp_path):
    method, dtype = merge
    base, experts = save_family(tmp_path, "qwen2", dtype)
    assert_same_output(*merge_both(text_for(method, base, experts, scenario), tmp_path))


@pytest.mark.parametrize("shard_bytes", [5_000_000_000, 20_000])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_architectures_shards_and_heads(family, tied, shard_bytes, tmp_path):
    base, experts = save_family(tmp_path, family, "bfloat16", tied=tied, shards=3)
    text = text_for("linear", base, experts, "plain", dtype="float32", out_dtype="bfloat16")
    ours, theirs = merge_both(text, tmp_path, shard_bytes)
    assert_same_output(ours, theirs)
    assert ("lm_head.weight" in load_tensors(ours)) is not tied
    if shard_bytes == 20_000:
        mine, his = (
            json.loads((p / "model.safetensors.index.json").read_text()) for p in (ours, theirs)
        )
        assert len(set(mine["weight_map"].values())) >= 3
        assert mine["weight_map"] == his["weight_map"]
        assert mine["metadata"]["total_size"] == his["metadata"]["total_size"]


def test_tied_and_untied_models_merge_into_an_untied_one(tmp_path):
    base, experts = save_family(tmp_path, "qwen2", "float32", tied=True)
    tensors = load_tensors(experts[0])
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 1.5
    config = json.loads((experts[0] / "config.json").read_text())
    untied = save_checkpoint(tmp_path / "untied", tensors, {**config, "tie_word_embeddings": False})
    text = text_for("task_arithmetic", base, [experts[1], untied], "plain")
    ours, theirs = merge_both(text, tmp_path)
    for name, tensor in load_tensors(theirs).items():
        assert torch.equal(load_tensors(ours)[name], tensor)
    assert header(ours / "model.safetensors") == header(theirs / "model.safetensors")
    # mergekit leaves the base's `true`, so that loaders tie the head and lose the merged one.
    assert json.loads((ours / "config.json").read_text())["tie_word_embeddings"] is False


@pytest.mark.parametrize(
    ("dtypes", "top"),
    [
        (("bfloat16", "float16"), {}),
        (("bfloat16", "float32"), {}),
        (("float32", "float32"), {"dtype": "bfloat16"}),
        (("bfloat16", "bfloat16"), {"dtype": "float32"}),
        (("float16", "float32"), {"dtype": "float16", "out_dtype": "bfloat16"}),
    ],
    ids=str,
)
def test_dtypes_mix_as_in_mergekit(dtypes, top, tmp_path):
    base, experts = save_family(tmp_path, "llama", dtypes[0], experts=2)
    wide = {k: v.to(getattr(torch, dtypes[1])) for k, v in load_tensors(experts[1]).items()}
    config = json.loads((base / "config.json").read_text())
    other = save_checkpoint(tmp_path / "other", wide, config)
    text = text_for("task_arithmetic", base, [experts[0], other], "plain", **top)
    ours, theirs = merge_both(text, tmp_path)
    for name, tensor in load_tensors(theirs).items():
        found = load_tensors(ours)[name]
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor), name


@pytest.mark.parametrize("method", ["dare_ties", "dare_linear"])
def test_random_methods_leave_the_same_files(method, tmp_path):
    base, experts = save_family(tmp_path, "qwen2", "float32")
    ours, theirs = merge_both(text_for(method, base, experts, "plain"), tmp_path)
    for path in ours.glob("*.safetensors"):
        assert header(path) == header(theirs / path.name)
    for name, tensor in load_tensors(theirs).items():
        assert load_tensors(ours)[name].shape == tensor.shape


@pytest.mark.parametrize("method", ["linear", "ties", "dare_ties"])
def test_the_result_loads_and_generates(method, demo_pool, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    experts = [demo_pool / name for name in ("python", "perl", "md")]
    text = config_text(
        method,
        experts,
        base=demo_pool / "base",
        parameters={"weight": 0.4} if method == "linear" else {"weight": 0.4, "density": 0.5},
        per_model=None,
    )
    run_mergeplan(text, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    prompt = tokenizer("import ", return_tensors="pt")
    generated = model.generate(**prompt, max_new_tokens=5, do_sample=False)
    assert generated.shape[1] == prompt["input_ids"].shape[1] + 5
