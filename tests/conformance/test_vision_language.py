"""Qwen2.5-VL, of whose merger mergekit's description has each tensor once for each layer."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conformance.test_mergekit_planner import WORDS, save_tokenizer
from tests.support.checkpoints import load_tensors
from tests.support.merges import run_mergekit, run_mergeplan

MERGER = {f"visual.merger.mlp.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias")}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[Path]:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    sizes = {"hidden_size": 16, "intermediate_size": 24}
    config = Qwen2_5_VLConfig(
        text_config={
            **sizes,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 11,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [1, 1, 0],
                "rope_theta": 1e4,
            },
        },
        vision_config={
            **sizes,
            "depth": 2,
            "num_heads": 2,
            "out_hidden_size": 16,
            "fullatt_block_indexes": [1],
        },
        image_token_id=5,
        video_token_id=6,
        vision_start_token_id=7,
        vision_end_token_id=8,
    )
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    folder = tmp_path_factory.mktemp("qwen")
    for name in "abc":
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape))
        model.save_pretrained(folder / name)
        save_tokenizer(folder / name, WORDS)
    return [folder / name for name in "abc"]


def config(models: list[Path], first: float, last: float, **top: Any) -> dict[str, Any]:
    entries = [
        {"model": str(path), "parameters": {"weight": [first + 0.1 * place, last]}}
        for place, path in enumerate(models)
    ]
    return {"merge_method": "linear", "models": entries, "base_model": str(models[0]), **top}


@pytest.mark.parametrize("source", [{}, {"tokenizer_source": "base"}], ids=["plain", "tokenizer"])
def test_every_part_is_merged_and_gradients_run_as_in_mergekit(source, models, tmp_path):
    text = yaml.safe_dump(config(models, 0.2, 0.7, **source))
    run_mergeplan(text, tmp_path / "ours")
    run_mergekit(text, tmp_path / "theirs")
    ours, theirs = load_tensors(tmp_path / "ours"), load_tensors(tmp_path / "theirs")
    assert set(ours) == set(theirs) == set(load_tensors(models[0]))
    # Theirs are at the last layer's value, ours outside of the layers.
    assert {name for name in ours if not torch.equal(ours[name], theirs[name])} == MERGER


@pytest.mark.parametrize("last", [0.2, 0.7], ids=["equal", "gradient"])
def test_a_tensor_that_mergekit_plans_twice_is_one(last, models, tmp_path):
    data = config(models, 0.2, 0.7)
    for entry in data["models"]:
        entry["parameters"]["weight"] = 0.2 if last == 0.2 else [0.2, last]
    parts = ("text_decoder", "multi_modal_projector", "vision_tower")
    data["modules"] = {part: {"models": data["models"]} for part in parts}
    del data["models"]
    text = yaml.safe_dump(data)
    run_mergeplan(text, tmp_path / "ours")
    run_mergekit(text, tmp_path / "theirs")
    ours, theirs = load_tensors(tmp_path / "ours"), load_tensors(tmp_path / "theirs")
    assert set(ours) == set(theirs)
    # Of tensors that it plans with several values, mergekit keeps any.
    free = MERGER if last != 0.2 else set()
    assert {n for n in ours if not torch.equal(ours[n], theirs[n])} <= free
