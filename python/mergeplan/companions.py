"""The files around the weights: config.json, tokenizer, index and manifest."""

import hashlib
import json
from pathlib import Path
from typing import Any

from mergeplan import __version__
from mergeplan.checkpoints import TIED_HEADS
from mergeplan.config import MergeConfig
from mergeplan.manifest import NAME as MANIFEST
from mergeplan.manifest import VERSION as MANIFEST_VERSION
from mergeplan.manifest import header_sha256
from mergeplan.output import INDEX, copy_durably, write_durably
from mergeplan.plan import Companions, MergePlan, canonical_json

Inputs = list[list[tuple[str, int, int]]]

VOCABULARIES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tiktoken.model",
    "tekken.json",
    "vocab.txt",
    "vocab.json",
)
TOKENIZER_FILES = (
    *VOCABULARIES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "normalizer.json",
    "video_preprocessor_config.json",
)


def write_config(folder: Path, plan: MergePlan, hashes: dict[str, str]) -> None:
    """The planned `config.json`, with the dtype and the tying that the merged tensors have.

    Args:
        hashes: Content hash of each tensor.
    """
    if not plan.model_config:
        return
    config = dict(plan.model_config)
    key = "dtype" if "dtype" in config else "torch_dtype"
    config[key] = plan.out_dtype
    if plan.unties_head or _has_own_head(hashes):
        config["tie_word_embeddings"] = False
    write_durably(folder / "config.json", json.dumps(config, indent=2) + "\n")


def _has_own_head(hashes: dict[str, str]) -> bool:
    """Whether some head differs from its embedding, so that loaders must not tie it.

    A checkpoint may hold a head and say that it is tied; they part where options differ.
    """
    return any(
        hashes[head] != hashes[embedding]
        for head, embeddings in TIED_HEADS.items()
        for embedding in embeddings
        if head in hashes and embedding in hashes
    )


def write_planned(folder: Path, companions: Companions) -> None:
    """The files that the planner made or chose."""
    for name, content in companions.files.items():
        write_durably(folder / name, content)


def copy_tokenizer(folder: Path, plan: MergePlan) -> None:
    """The donor's tokenizer and generation settings."""
    for name in TOKENIZER_FILES:
        source = plan.donor.path / name
        if source.is_file():
            copy_durably(source, folder / name)


def missing_companions(plan: MergePlan) -> list[str]:
    """What the donor lacks, so that nobody expects it in the output."""
    donor = plan.donor
    found = []
    if not donor.config:
        found.append(f"`{donor.name}` has no config.json: the output cannot be loaded without one")
    if not any((donor.path / name).is_file() for name in VOCABULARIES):
        found.append(f"`{donor.name}` has no tokenizer that could be copied")
    return found


def write_index(folder: Path, files: list[tuple[str, int, list[str]]], tensor_bytes: int) -> None:
    """The shard index, where there is more than one shard.

    Args:
        files: Name, length and tensors of each shard.
        tensor_bytes: Bytes of all tensors, without headers.
    """
    if len(files) < 2:
        return
    index = {
        "metadata": {"total_size": tensor_bytes, "mergeplan_version": __version__},
        "weight_map": {tensor: name for name, _, tensors in files for tensor in tensors},
    }
    path = folder / INDEX
    write_durably(path, json.dumps(index, indent=2) + "\n")


def write_manifest(
    folder: Path,
    plan: MergePlan,
    config: MergeConfig,
    inputs: Inputs,
    files: dict[str, int],
    hashes: dict[str, str],
) -> None:
    """What was merged from what: enough to say later whether an output is still that merge.

    Tensor hashes are xxh3 of the stored bytes, over blocks of 65,536 elements. Dtypes, shapes and
    places stand in the headers, which have hashes of their own.

    Args:
        inputs: For each model that is stored, path, bytes and mtime in nanoseconds of its files.
        files: Bytes of each file that was written.
        hashes: Content hash of each tensor.
    """
    keys = ("path", "bytes", "mtime_ns")
    # The index is checked by what it says, and may be written anew.
    beside = sorted(path for path in folder.iterdir() if path.name not in {*files, INDEX})
    manifest: dict[str, Any] = {
        "mergeplan_version": __version__,
        "manifest_version": MANIFEST_VERSION,
        "seed": plan.data["seed"],
        "config": config.text,
        "plan_sha256": plan_hash(plan.data),
        "inputs": [
            {"model": model.name, "files": [dict(zip(keys, row, strict=True)) for row in rows]}
            for model, rows in zip(plan.stored, inputs, strict=True)
        ],
        "files": files,
        "headers": {name: header_sha256(folder / name) for name in files},
        "companions": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in beside},
        "tensors": hashes,
    }
    write_durably(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def plan_hash(plan: dict[str, Any]) -> str:
    """SHA-256 of a plan's canonical text."""
    return hashlib.sha256(canonical_json(plan).encode()).hexdigest()
