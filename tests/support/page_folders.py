"""What a page takes for given beside the folder of the first one."""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

import mergeplan


def prepare(page: str, folder: Path) -> None:
    """Make it in the folder in which the page runs."""
    if made := _PREPARED.get(Path(page).stem):
        made(folder)


def _adapter(folder: Path, base: Path, part: str) -> None:
    """A LoRA adapter of the layers in whose names `part` stands, the same factors in each."""
    random, factors = np.random.default_rng(0), {}
    for name, tensor in load_file(base / "model.safetensors").items():
        if "_proj.weight" in name:
            rows, columns = tensor.shape
            module = "base_model.model." + name.removesuffix("weight")
            down, up = random.normal(0, 0.1, (4, columns)), random.normal(0, 0.1, (rows, 4))
            if part in name:
                factors[module + "lora_A.weight"] = down.astype("float32")
                factors[module + "lora_B.weight"] = up.astype("float32")
    folder.mkdir()
    save_file(factors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": sorted({name.split(".")[-3] for name in factors}),
        "base_model_name_or_path": str(base),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def _merge(folder: Path) -> None:
    _adapter(folder / "first" / "adapter", folder / "first" / "models" / "base", "q_proj")


def _verify(folder: Path) -> None:
    """`published`, which an adapter reached in the attention alone."""
    shutil.copytree(folder / "first" / "models" / "base", folder / "base")
    _adapter(folder / "adapter", folder / "base", "")
    _adapter(folder / "attention", folder / "base", "self_attn")
    models = [{"model": "base+attention", "parameters": {"weight": 1.0}}]
    config = {"merge_method": "linear", "models": models, "dtype": "float32"}
    (folder / "merge.yml").write_text(json.dumps(config))
    models[0]["model"] = f"{folder / 'base'}+{folder / 'attention'}"
    mergeplan.merge(config, folder / "published")


def _compare(folder: Path) -> None:
    """Chat templates, of which one forgets the generation prompt."""
    prompt = "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    for name, end in (("base", prompt), ("md", "")):
        shutil.copytree(folder / "first" / "models" / name, folder / name)
        path = folder / name / "tokenizer_config.json"
        turn = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}\n{% endfor %}"
        told = json.loads(path.read_text()) | {"chat_template": turn + end}
        path.write_text(json.dumps(told))


def _usage(folder: Path) -> None:
    """What lists of commands name: a user's models, texts, configs, tables and runs."""
    models = folder / "first" / "models"
    there = {
        "models": models,
        "base": models / "base",
        "a": models / "python",
        "b": models / "md",
        "eval": folder / "first" / "texts",
        "stranger": folder / "merged",
    }
    for name, path in there.items():
        shutil.copytree(path, folder / name)
    _adapter(folder / "adapter", folder / "base", "q_proj")
    shutil.copy(folder / "two.yml", folder / "config.yml")
    lora = (folder / "two.yml").read_text().replace("first/models/python", "base+adapter")
    (folder / "lora.yml").write_text(lora)
    shutil.copy(folder / "run" / "measurements.csv", folder)
    shutil.rmtree(folder / "merged")


def _without_pool(folder: Path) -> None:
    _usage(folder)
    (folder / "pool.yml").unlink()


_PREPARED = {
    "merge": _merge,
    "verify": _verify,
    "compare": _compare,
    "commands": _without_pool,
    "calibration": _without_pool,
}
for _page in ("README", "json", "plugin", "report", "select"):
    _PREPARED[_page] = _usage
