"""Headers of checkpoints, and which tensor of each model belongs to which output tensor."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergeplan.errors import InputError, MissingInputError

# Heads that a checkpoint may leave out because they are tied to the embedding.
TIED_HEADS = {
    "lm_head.weight": (
        "model.embed_tokens.weight",
        "transformer.wte.weight",
        "model.language_model.embed_tokens.weight",
    ),
    "embed_out.weight": ("gpt_neox.embed_in.weight",),
}
# Buffers that old checkpoints carry, new ones do not, and no model reads.
IGNORED_ENDINGS = ("rotary_emb.inv_freq", "attn.masked_bias")


@dataclass(frozen=True)
class Tensor:
    """What a header says of a tensor; `dtype` is safetensors' name."""

    dtype: str
    shape: tuple[int, ...]
    file: str
    n_bytes: int


@dataclass(frozen=True)
class Checkpoint:
    """A model's folder: headers and `config.json`, no weights.

    Attributes:
        name: As the config writes it.
        path: Absolute folder.
        config: Contents of `config.json`; empty where there is none.
    """

    name: str
    path: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any]

    @property
    def files(self) -> list[Path]:
        """The safetensors files, sorted."""
        return [self.path / name for name in sorted({t.file for t in self.tensors.values()})]


def open_checkpoint(name: str) -> Checkpoint:
    """Read a local checkpoint's headers.

    Raises:
        MissingInputError, InputError: Every fault that headers, index or `config.json` show.
    """
    from mergeplan import _native

    path = Path(name).expanduser()
    if not path.is_dir():
        if path.exists():
            raise InputError(f"model `{name}` is a file", "give the folder that holds it")
        hint = "give the path of a local folder"
        if "+" in name:
            hint = "merge the LoRA adapter into its base first (peft's `merge_and_unload`)"
        elif name.count("/") == 1 and not name.startswith((".", "/")):
            model, _, revision = name.partition("@")
            which = f"{model} --revision {revision}" if revision else model
            hint = f"if it is a hub id, download it first: `hf download {which} --local-dir DIR`"
        raise MissingInputError(f"model `{name}` is not a folder", hint)
    path = path.resolve()
    rows = _native.read_checkpoint(path)
    tensors = {
        tensor: Tensor(dtype, tuple(shape), file, n_bytes)
        for tensor, dtype, shape, file, n_bytes in rows
    }
    return Checkpoint(name, path, tensors, _read_config(path / "config.json"))


def _read_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read `{path}`: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"`{path}`: expected a JSON object")
    return config


@dataclass(frozen=True)
class Match:
    """One output tensor and the tensor that each checkpoint contributes to it.

    Attributes:
        inputs: Tensor names, in the order of the checkpoints.
        tied: Whether some checkpoint contributes its embedding for a head that others have.
    """

    name: str
    inputs: tuple[str, ...]
    tied: bool = False


def match_tensors(
    checkpoints: list[Checkpoint], donor: Checkpoint
) -> tuple[list[Match], list[str]]:
    """Pair the checkpoints' tensors by name.

    The donor's tensors make the output, and a head that any of them has: where it is tied, the
    embedding stands in, as in mergekit.

    Returns:
        The matches, sorted as mergekit writes them, and warnings about tensors left out.

    Raises:
        MissingInputError: A checkpoint lacks a tensor that the others have.
        InputError: Shapes differ, or a dtype cannot be merged.
    """
    others = [set(c.tensors) for c in checkpoints if c is not donor]
    everywhere = set.intersection(*others) if others else set()
    names = set(donor.tensors) | everywhere
    extra: dict[str, list[str]] = {}
    for checkpoint in checkpoints:
        for name in sorted(set(checkpoint.tensors) - names):
            if name in TIED_HEADS:
                names.add(name)
            elif not name.endswith(IGNORED_ENDINGS):
                extra.setdefault(checkpoint.name, []).append(name)
    warnings = [
        f"`{model}`: left out {len(found)} tensors that `{donor.name}` does not have,"
        f" the first `{found[0]}`"
        for model, found in extra.items()
    ]
    matches = []
    for name in sorted(names):
        if name.endswith(IGNORED_ENDINGS):
            continue
        inputs = tuple(_input_for(name, checkpoint) for checkpoint in checkpoints)
        _check_alike(name, inputs, checkpoints, donor)
        matches.append(Match(name, inputs, tied=len(set(inputs)) > 1))
    matches.sort(key=lambda match: (max(match.inputs), match.name))
    return matches, warnings


def _input_for(name: str, checkpoint: Checkpoint) -> str:
    if name in checkpoint.tensors:
        return name
    if checkpoint.config.get("tie_word_embeddings", True):
        for embedding in TIED_HEADS.get(name, ()):
            if embedding in checkpoint.tensors:
                return embedding
    raise MissingInputError(
        f"model `{checkpoint.name}`: tensor `{name}` is missing, which the other models have",
        "all models of a merge must have the same architecture",
    )


def _check_alike(
    name: str, inputs: tuple[str, ...], checkpoints: list[Checkpoint], donor: Checkpoint
) -> None:
    reference = donor.tensors[inputs[checkpoints.index(donor)]]
    for tensor_name, checkpoint in zip(inputs, checkpoints, strict=True):
        tensor = checkpoint.tensors[tensor_name]
        if tensor.shape != reference.shape:
            hint = "all models of a merge must have the same shapes"
            if "embed" in name or name in TIED_HEADS:
                hint = "the vocabularies differ; bring them to one size first"
            raise InputError(
                f"`{checkpoint.path / tensor.file}`: tensor `{tensor_name}`: expected shape"
                f" {list(reference.shape)} as in `{donor.name}`, found {list(tensor.shape)}",
                hint,
            )
