"""Checkpoints in torch's own format (`.bin`, `.pt`, `.pth`): where each tensor lies, so that the
core can map it.

torch reads the pickle, weights only, with tensors that have no memory; their bytes lie uncompressed
in the zip archive, each storage in one piece.
"""

import json
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.checkpoint import Tensor
from mergeplan.checkpoints.dtypes import STORED_NAMES
from mergeplan.checkpoints.lfs import refuse_pointer
from mergeplan.errors import InputError, MissingInputError

ENDINGS = (".bin", ".pt", ".pth", ".ckpt")
# Of torch's names, those that its own format is known to hold plainly.
_FLOATING = ("float64", "float32", "float16", "bfloat16")
_PLAIN = (*_FLOATING, "int64", "int32", "int16", "int8", "uint8", "bool")
# Where trainers put the weights beside what else they save.
_INNER = ("state_dict", "model")
_CONVERT = "save it anew as safetensors: `from_pretrained`, then `save_pretrained`"


def read_index(index: Path) -> tuple[list[Path], dict[str, str]]:
    """The files that an index of `.bin` shards names, and the file of each tensor.

    Raises:
        MissingInputError: A shard is not there.
        InputError: The index cannot be read, or leads out of its folder.
    """
    try:
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
        files = [index.parent / name for name in sorted(set(weight_map.values()))]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(f"cannot read `{index}`: {error}", _CONVERT) from error
    for file in files:
        if file.parent != index.parent:
            raise InputError(f"`{index}`: `{file}` lies outside the folder")
    if missing := [file.name for file in files if not file.exists()]:
        raise MissingInputError(
            f"`{index}`: {len(missing)} of its {len(files)} files are not there, such as"
            f" `{missing[0]}`",
            "the checkpoint was not fetched or copied to its end; fetch it again",
        )
    return files, weight_map


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one file: a dict of them, or one under `state_dict` or `model`.

    Raises:
        MissingInputError: torch is not installed, or the file was not fetched.
        InputError: The file cannot be read without running code of its own, or its tensors do not
            lie in it as they are.
    """
    try:
        import torch
        from torch._subclasses.fake_tensor import FakeTensorMode
    except ImportError as error:
        raise MissingInputError(
            f"`{path}`: torch is needed to read it", "`pip install torch`, or use safetensors"
        ) from error
    refuse_pointer(path)
    try:
        with FakeTensorMode():
            state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        # Whatever pickle, zip and torch find wrong with a file.
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"cannot read `{path}`: {reason}", _CONVERT) from error
    if not isinstance(state, dict):
        raise InputError(f"`{path}`: expected tensors by name, found {type(state).__name__}")
    named = _weights(path, state)
    return {str(name): _tensor(path, str(name), value) for name, value in named.items()}


def _weights(path: Path, state: dict[Any, Any]) -> dict[Any, Any]:
    inner = [key for key in _INNER if isinstance(state.get(key), dict)]
    if len(inner) > 1:
        raise InputError(
            f"`{path}` holds weights under `{inner[0]}` and under `{inner[1]}`",
            "save the one that is meant by itself: `torch.save(loaded['model'], …)`",
        )
    return state[inner[0]] if inner else state


def _tensor(path: Path, name: str, value: Any) -> Tensor:
    import torch

    if not isinstance(value, torch.Tensor):
        raise InputError(
            f"`{path}`: `{name}`: expected a tensor, found {type(value).__name__}",
            "save the weights by themselves: `torch.save(model.state_dict(), …)`",
        )
    begin = getattr(value.untyped_storage(), "_checkpoint_offset", None)
    if begin is None:
        raise InputError(f"`{path}` was written by torch before 1.6", _CONVERT)
    name_of_dtype = str(value.dtype).removeprefix("torch.")
    if name_of_dtype not in _PLAIN or not value.is_contiguous():
        how = "a view that is not in order" if name_of_dtype in _PLAIN else str(value.dtype)
        raise InputError(f"`{path}`: tensor `{name}`: found {how}", _CONVERT)
    size = value.element_size()
    offset = begin + value.storage_offset() * size
    n_bytes = value.numel() * size
    return Tensor(STORED_NAMES[name_of_dtype], tuple(value.shape), path.name, n_bytes, offset)
