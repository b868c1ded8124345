"""Tiny real models of one family, and configs of every way to give an option."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from tests.support.checkpoints import load_tensors, save_checkpoint
from tests.support.merges import config_text
from tests.support.settings import DEMO_POOL

LAYERS = 3
SCENARIOS: dict[str, dict[str, Any]] = {
    "plain": {"parameters": {"weight": 1.0, "density": 0.5}},
    "gradient": {"parameters": {"weight": [0.2, 1.0, 0.6], "density": [0.3, 0.9]}},
    "filter": {
        "parameters": {
            "weight": [
                {"filter": "self_attn", "value": [0.1, 0.9]},
                {"filter": "mlp", "value": 0.5},
                {"value": 1.0},
            ],
            "density": 0.4,
        }
    },
    "per-model": {
        "per_model": [{"weight": 0.7, "density": [0.1, 0.5]}, {"weight": 0.4}, {}],
        "parameters": {"weight": 1, "density": 0.8, "normalize": False},
    },
    "options": {
        "parameters": {
            "weight": 0.5,
            "normalize": [True, False],
            "lambda": [0.5, 1.5],
            "int8_mask": True,
            "density": 0.6,
        }
    },
}


def tiny_model(family: str, tied: bool, dtype: torch.dtype, seed: int):
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 96,
        "tie_word_embeddings": tied,
    }
    config = {"qwen2": Qwen2Config, "llama": LlamaConfig}[family](**sizes)
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).to(dtype)


def save_family(
    folder: Path, family: str, dtype: str, *, tied: bool = False, shards: int = 1, experts: int = 3
) -> tuple[Path, list[Path]]:
    """A base and experts of one architecture; the experts move a little from the base."""
    model = tiny_model(family, tied, getattr(torch, dtype), seed=0)
    model.save_pretrained(folder / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO_POOL / "base" / name, folder / "base" / name)
    base = load_tensors(folder / "base")
    config = json.loads((folder / "base" / "config.json").read_text())
    found = []
    for number in range(experts):
        generator = torch.Generator().manual_seed(number + 1)
        moved = {
            name: (tensor.float() + 0.01 * torch.randn(tensor.shape, generator=generator)).to(
                tensor.dtype
            )
            for name, tensor in base.items()
        }
        path = folder / f"expert{number}"
        found.append(save_checkpoint(path, moved, config, shards=shards if number else 1))
    return folder / "base", found


def text_for(method: str, base: Path, experts: list[Path], scenario: str, **top: Any) -> str:
    wanted = {
        key: dict(value) if isinstance(value, dict) else list(value)
        for key, value in SCENARIOS[scenario].items()
    }
    if method == "linear":
        known = {"weight", "normalize"}
        wanted["parameters"] = {k: v for k, v in wanted["parameters"].items() if k in known}
        wanted["per_model"] = [
            {k: v for k, v in entry.items() if k in known} for entry in wanted.get("per_model", [])
        ]
    return config_text(
        method,
        experts,
        base=base,
        per_model=wanted.get("per_model"),
        parameters=wanted["parameters"],
        **top,
    )
