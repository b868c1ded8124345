"""Adapters that do not fit their base, or are not computed here."""

import json
from typing import Any

import torch
from safetensors.torch import save_file

from tests.support.commands import Done
from tests.support.troubles.bench import Bench, produces

MODULE = "model.layers.0.self_attn.q_proj"


def merge(bench: Bench, module: str = MODULE, model: str = "base+lora", **settings: Any) -> Done:
    """Merge a LoRA of rank 4, as peft saves one."""
    folder = bench.folder / "lora"
    folder.mkdir()
    a, b = (f"base_model.model.{module}.lora_{factor}.weight" for factor in "AB")
    weights = {a: torch.ones(4, 48), b: torch.ones(48, 4)}
    save_file(weights, folder / "adapter_model.safetensors")
    known = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "base"}
    (folder / "adapter_config.json").write_text(json.dumps({**known, **settings}))
    return bench.merge(text=f"merge_method: passthrough\nmodels: [{{model: {model}}}]\n")


@produces("`FOLDER`: the base that the adapter names: model `NAME` is not a folder, …")
def base_elsewhere(bench: Bench) -> Done:
    return merge(bench, model="lora", base_model_name_or_path="organisation/base")


@produces("`FOLDER`: the adapter was trained on `NAME`, which is quantised")
def trained_on_four_bits(bench: Bench) -> Done:
    return merge(bench, model="lora", base_model_name_or_path="unsloth/llama-3-8b-bnb-4bit")


@produces("`FOLDER`: the adapter changes `TENSOR`, which `NAME` does not have, and …")
def of_a_deeper_base(bench: Bench) -> Done:
    return merge(bench, module="model.layers.31.self_attn.q_proj")


@produces("`FILE`: `use_dora` is set: …, which is not computed while streaming")
def dora(bench: Bench) -> Done:
    return merge(bench, use_dora=True)


@produces("`FOLDER` holds `FILE` without its `adapter_config.json`")
def without_settings(bench: Bench) -> Done:
    assert merge(bench).returncode == 0
    (bench.folder / "lora" / "adapter_config.json").unlink()
    return bench.run("inspect", "lora")
