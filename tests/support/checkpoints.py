"""Checkpoint folders: written and read with torch."""

import json
from pathlib import Path
from typing import Any


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
