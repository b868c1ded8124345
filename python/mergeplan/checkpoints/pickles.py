"""Checkpoints in torch's own format (`.bin`): where each tensor lies, so that the core can map it.

torch reads the pickle, weights only, with tensors that have no memory; their bytes lie uncompressed
in the zip archive, each storage in one piece.
"""

import json
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.checkpoint import Tensor
from mergeplan.checkpoints.dtypes import STORED_NAMES
from mergeplan.errors import InputError, MissingInputError

INDEX = "pytorch_model.bin.index.json"
# Of torch's names, those that its own format is known to hold plainly.
_FLOATING = ("float64", "float32", "float16", "bfloat16")
_PLAIN = (*_FLOATING, "int64", "int32", "int16", "int8", "uint8", "bool")
_CONVERT = "save it anew as safetensors: `from_pretrained`, then `save_pretrained`"


def read_tensors(folder: Path, files: list[Path] | None = None) -> dict[str, Tensor]:
    """The tensors of `pytorch_model.bin`, of its shards, or of given files.

    Raises:
        MissingInputError: torch is not installed, or a shard is not there.
        InputError: A file cannot be read without running code of its own, or its tensors do not
            lie in it as they are.
    """
    if files is None:
        files = _shards(folder)
    tensors: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in _read(file).items():
            if name in tensors:
                raise InputError(f"`{folder}`: two files hold tensor `{name}`", _CONVERT)
            tensors[name] = tensor
    return tensors


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX
    if not index.is_file():
        return [folder / "pytorch_model.bin"]
    try:
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        files = [folder / name for name in sorted(names)]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(f"cannot read `{index}`: {error}", _CONVERT) from error
    for file in files:
        if file.parent != folder:
            raise InputError(f"`{index}`: `{file}` lies outside the folder")
    return files


def _read(path: Path) -> dict[str, Tensor]:
    try:
        import torch
        from torch._subclasses.fake_tensor import FakeTensorMode
    except ImportError as error:
        raise MissingInputError(
            f"`{path}`: torch is needed to read it", "`pip install torch`, or use safetensors"
        ) from error
    try:
        with FakeTensorMode():
            state = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise MissingInputError(f"`{path}` is not there") from None
    except Exception as error:
        # Whatever pickle, zip and torch find wrong with a file.
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"cannot read `{path}`: {reason}", _CONVERT) from error
    if not isinstance(state, dict):
        raise InputError(f"`{path}`: expected tensors by name, found {type(state).__name__}")
    return {str(name): _tensor(path, str(name), value) for name, value in state.items()}


def _tensor(path: Path, name: str, value: Any) -> Tensor:
    import torch

    if not isinstance(value, torch.Tensor):
        raise InputError(
            f"`{path}`: `{name}`: expected a tensor, found {type(value).__name__}", _CONVERT
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
