"""Which of a folder's files hold its model: one file, an index with its shards, or shards alone.

As transformers and diffusers choose, and with a word about everything that they pass over in
silence.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.files import SHARD, Weights, read_weights
from mergeplan.errors import InputError, MissingInputError

_SAFETENSORS, _BIN = ".safetensors", ".bin"
_MODEL = re.compile(
    r"(model|pytorch_model|diffusion_pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?"
)
# What only Mistral's own layout of a model has, beside the one that transformers reads.
_MISTRALS_EMBEDDING = "tok_embeddings.weight"
# Either layout may leave the head out where it is tied.
_HEADS = ("lm_head.weight", "output.weight")
# Files that other words are said about, or none: adapters, and variants in another dtype.
_KNOWN = re.compile(r"(model|consolidated|adapter_model|diffusion_pytorch_model)\b.*")


def has_weights(folder: Path) -> bool:
    """Whether files of a folder have names of a model's weights."""
    return any(_MODEL.fullmatch(path.name) for path in folder.glob("*"))


def find_weights(folder: Path, config: Mapping[str, Any]) -> Weights | None:
    """The weights of a folder's model; `None` where there are none.

    Args:
        config: Contents of its `config.json`.

    Raises:
        MissingInputError: Shards are not there.
        InputError: A file is at fault, or it is not clear which files are the model.
    """
    named = config.get("transformers_weights")
    if isinstance(named, str):
        if (folder / named).parent != folder:
            raise InputError(
                f"`{folder}/config.json`: `transformers_weights`: expected a file of the folder,"
                f" found `{named}`"
            )
        return read_weights(folder / named)
    diffusers = "_class_name" in config
    for ending, stem in ((_SAFETENSORS, "model"), (_BIN, "pytorch_model")):
        stems = (stem, "diffusion_pytorch_model")
        for one in reversed(stems) if diffusers else stems:
            found = _of_stem(folder, one, ending)
            if found is not None:
                beside = _beside(folder, found) if ending == _SAFETENSORS else []
                return replace(found, warnings=(*found.warnings, *beside))
    return None


def _of_stem(folder: Path, stem: str, ending: str) -> Weights | None:
    """The model whose files have names with this beginning and ending."""
    single, index = folder / f"{stem}{ending}", folder / f"{stem}{ending}.index.json"
    shards = _shards(folder, stem, ending)
    sharded = None
    if index.exists():
        try:
            sharded = read_weights(index)
        except MissingInputError:
            # An index that was left behind when its shards became one file.
            if not single.exists() or shards:
                raise
        else:
            sharded = _with_leftovers(sharded, shards)
    elif shards:
        sharded = _without_index(folder, shards)
    if not single.exists():
        return sharded
    if sharded is None:
        found = read_weights(single)
        left = f"none of the files of `{index}` is there: `{single.name}` is read"
        return replace(found, warnings=(left,)) if index.exists() else found
    whole = read_weights(single)
    _refuse_difference(folder, whole, sharded)
    by_diffusers = stem.startswith("diffusion")
    first, other = (sharded, whole) if by_diffusers else (whole, sharded)
    loader = "diffusers" if by_diffusers else "transformers"
    twice = (
        f"`{folder}` holds its model twice: {first.named} is read, as {loader} does, and"
        f" {other.named} is passed over; whether their values agree was not looked at"
    )
    return replace(first, warnings=(*first.warnings, twice))


def _shards(folder: Path, stem: str, ending: str) -> dict[int, dict[int, Path]]:
    """Shards by how many the checkpoint has, then by number."""
    found: dict[int, dict[int, Path]] = {}
    for path in sorted(folder.glob(f"{stem}-*-of-*{ending}")):
        match = SHARD.fullmatch(path.name)
        if match and match["stem"] == stem:
            found.setdefault(int(match["count"]), {})[int(match["number"])] = path
    return found


def _with_leftovers(listed: Weights, shards: Mapping[int, Mapping[int, Path]]) -> Weights:
    """Judge the shards that an index does not name: of the same checkpoint, or of another."""
    names = {tensor.file for tensor in listed.tensors.values()}
    others = []
    for of_one in shards.values():
        left = [path for path in of_one.values() if path.name not in names]
        if left and len(left) < len(of_one):
            raise InputError(
                f"`{listed.place}` names only {len(of_one) - len(left)} of the"
                f" {len(of_one)} shards beside it, and not `{left[0].name}`",
                "fetch the index again, or remove it: then all shards are read; or give the index"
                " itself as the model",
            )
        others += left
    if not others:
        return listed
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    warning = f"`{listed.place}` does not name `{others[0].name}`{more}: passed over"
    return replace(listed, warnings=(*listed.warnings, warning))


def _without_index(folder: Path, shards: Mapping[int, Mapping[int, Path]]) -> Weights:
    if len(shards) > 1:
        one, other = (next(iter(of_one.values())).name for of_one in list(shards.values())[:2])
        raise InputError(
            f"`{folder}` holds shards of several checkpoints and no index: `{one}` and `{other}`",
            "keep the files of one checkpoint alone in its folder",
        )
    ((count, found),) = shards.items()
    first = min(found.keys() | {1})
    missing = [number for number in range(first, first + count) if number not in found]
    if missing:
        like = next(iter(found.values())).name
        raise MissingInputError(
            f"`{folder}`: {len(missing)} of {count} shards are not there, such as number"
            f" {missing[0]}; found `{like}`",
            "the checkpoint was not fetched or copied to its end; fetch it again",
        )
    weights = read_weights(tuple(found[number] for number in sorted(found)))
    warning = f"`{folder}` has {count} shards and no index: all of them are read"
    return replace(weights, warnings=(warning,))


def _refuse_difference(folder: Path, one: Weights, other: Weights) -> None:
    if one.alike == other.alike:
        return
    name = min(dict(one.alike.items() ^ other.alike.items()))
    first, second = (weights.tensors.get(name) for weights in (one, other))
    if first and second:
        what = (
            f"tensor `{name}` is {first.dtype} {list(first.shape)} in {one.named} and"
            f" {second.dtype} {list(second.shape)} in {other.named}"
        )
    else:
        what = f"tensor `{name}` is in {(one if first else other).named} alone"
    ways = [f"`{w.place}`" for w in (one, other) if isinstance(w.place, Path)]
    raise InputError(
        f"`{folder}` holds {one.named} and {other.named}, which are not the same model: {what}",
        f"give the one that is meant as the model, {' or '.join(ways)}; or move the other away",
    )


def _beside(folder: Path, found: Weights) -> list[str]:
    """Words about further weights in the folder, which loaders pass over."""
    warnings = []
    consolidated = _of_stem(folder, "consolidated", _SAFETENSORS)
    if consolidated is not None:
        is_mistrals = any(name.endswith(_MISTRALS_EMBEDDING) for name in consolidated.tensors)
        apart = found.tensors.keys().isdisjoint(consolidated.tensors)
        if is_mistrals and apart and _elements(found) == _elements(consolidated):
            how = "holds the same model under Mistral's own names"
        else:
            _refuse_difference(folder, found, consolidated)
            how = "holds the same tensors; whether their values agree was not looked at"
        warnings.append(
            f"`{folder}`: {consolidated.named} {how}: passed over, as transformers does"
        )
    names = {tensor.file for tensor in found.tensors.values()}
    stray = [
        path.name
        for path in sorted(folder.glob(f"*{_SAFETENSORS}"))
        if path.name not in names and not _KNOWN.fullmatch(path.name)
    ]
    if stray:
        more = f" and {len(stray) - 1} more" if len(stray) > 1 else ""
        warnings.append(
            f"`{folder}`: `{stray[0]}`{more} is no part of {found.named}: passed over, as"
            " transformers does"
        )
    return warnings


def _elements(weights: Weights) -> int:
    """Elements of all tensors but the head."""
    return sum(tensor.n_elements for name, tensor in weights.tensors.items() if name not in _HEADS)
