"""Checkpoints, configs and both ways to merge them, for all tests."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from mergeplan.config import parse_config
from mergeplan.merge_checks import MergeOptions
from mergeplan.merging import MergeReport, merge


def save_checkpoint(
    folder: Path, tensors: dict[str, Any], config: dict[str, Any] | None = None, shards: int = 1
) -> Path:
    """Write torch tensors as a checkpoint folder, in one file or in shards with an index."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    names = sorted(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        weight_map = {}
        for i in range(shards):
            file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
            part = {name: tensors[name] for name in names[i::shards]}
            save_file(part, folder / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(part, file)
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config or {}))
    return folder


def config_text(
    method: str,
    models: list[Path],
    *,
    base: Path | None = None,
    per_model: list[dict[str, Any]] | None = None,
    parameters: dict[str, Any] | None = None,
    **top: Any,
) -> str:
    """A mergekit YAML."""
    entries: list[dict[str, Any]] = []
    for number, model in enumerate(models):
        entry: dict[str, Any] = {"model": str(model)}
        if per_model and per_model[number]:
            entry["parameters"] = per_model[number]
        entries.append(entry)
    data: dict[str, Any] = {"merge_method": method, "models": entries, **top}
    if base is not None:
        data["base_model"] = str(base)
    if parameters:
        data["parameters"] = parameters
    return yaml.safe_dump(data, sort_keys=False)


def run_mergeplan(text: str, out: Path, **options: Any) -> MergeReport:
    """Merge with the Rust core."""
    return merge(parse_config(text), out, MergeOptions(**options))


def run_mergekit(text: str, out: Path, **options: Any) -> None:
    """Merge with mergekit 0.1.5, one thread, in this process."""
    import torch
    from mergekit.config import MergeConfiguration
    from mergekit.io.tasks import LoaderCache
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions as MergekitOptions

    torch.set_num_threads(1)
    # A class attribute: it would otherwise serve the checkpoints of an earlier test.
    LoaderCache.loaders = {}
    config = MergeConfiguration.model_validate(yaml.safe_load(text))
    run_merge(config, str(out), MergekitOptions(quiet=True, **options), config_source=text)


def load_tensors(folder: Path) -> dict[str, Any]:
    """All tensors of a checkpoint folder, with torch."""
    from safetensors.torch import load_file

    tensors: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def weights_of(folder: Path) -> dict[str, bytes]:
    """The safetensors files of a folder, byte for byte."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def cli(*args: object, cwd: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does: in a process of its own."""
    command = [sys.executable, "-m", "mergeplan", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100, **options)


def remove(folder: Path) -> None:
    shutil.rmtree(folder)
