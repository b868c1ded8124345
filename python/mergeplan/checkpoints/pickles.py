"""Checkpoints in torch's own format (`.bin`, `.pt`, `.pth`): where each tensor lies, so that the
core can map it.

A pickle says which tensors are which parts of which storages (`unpickling`), and the zip archive
where each storage's bytes lie (`archive`). torch itself computes that, as if no other program wrote
archives.
"""

from math import prod
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.archive import Record, opened_archive
from mergeplan.checkpoints.checkpoint import Tensor
from mergeplan.checkpoints.dtypes import STORED_NAMES
from mergeplan.checkpoints.unpickling import SIZES, Other, Strided, unpickled
from mergeplan.display.text import cut
from mergeplan.errors import InputError, MissingInputError
from mergeplan.system.files import is_there
from mergeplan.system.jsontext import parse_json
from mergeplan.system.reading import INDEX, read_bytes

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
        weight_map = parse_json(read_bytes(index, INDEX), f"`{index}`")["weight_map"]
        files = [index.parent / name for name in sorted(set(weight_map.values()))]
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(f"cannot read `{index}`: {cut(error)}", _CONVERT) from error
    for file in files:
        if file.parent != index.parent:
            raise InputError(f"`{index}`: `{file}` lies outside the folder")
    if missing := [file.name for file in files if not is_there(file)]:
        raise MissingInputError(
            f"`{index}`: {len(missing)} of its {len(files)} files are not there, such as"
            f" `{missing[0]}`",
            "the checkpoint was not fetched or copied to its end; fetch it again",
        )
    return files, weight_map


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one file: a dict of them, or one under `state_dict` or `model`.

    Raises:
        MissingInputError: There is no such file, or it was not fetched.
        InputError: The file is none that `torch.save` writes of tensors alone, or they do not lie
            in it as they are.
    """
    with opened_archive(path) as archive:
        try:
            state = unpickled(archive.pickle)
        except ValueError as error:
            raise InputError(f"cannot read `{path}`: {error}", _CONVERT) from error
        if not isinstance(state, dict):
            raise InputError(f"`{path}`: expected tensors by name, found {_kind(state)}")
        named = _weights(path, state)
        found = {_name(path, name): _strided(path, name, value) for name, value in named.items()}
        stored = {tensor.storage.key for tensor in found.values() if tensor.storage.n_elements}
        places = archive.storages(stored)
    return {
        name: _placed(path, name, tensor, places.get(tensor.storage.key))
        for name, tensor in found.items()
    }


def _weights(path: Path, state: dict[Any, Any]) -> dict[Any, Any]:
    inner = [key for key in _INNER if isinstance(state.get(key), dict)]
    if len(inner) > 1:
        raise InputError(
            f"`{path}` holds weights under `{inner[0]}` and under `{inner[1]}`",
            "save the one that is meant by itself: `torch.save(loaded['model'], …)`",
        )
    return state[inner[0]] if inner else state


def _kind(value: Any) -> str:
    return value.what if isinstance(value, Other) else type(value).__name__


def _name(path: Path, name: Any) -> str:
    if not isinstance(name, str):
        raise InputError(
            f"`{path}`: expected names of tensors, found a key of type {_kind(name)}",
            "save the weights by their names: `torch.save(model.state_dict(), …)`",
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"`{path}`: the name of a tensor is no text", _CONVERT) from error
    return name


def _strided(path: Path, name: str, value: Any) -> Strided:
    if not isinstance(value, Strided):
        raise InputError(
            f"`{path}`: `{name}`: expected a tensor, found {_kind(value)}",
            "save the weights by themselves: `torch.save(model.state_dict(), …)`",
        )
    if value.dtype not in _PLAIN:
        raise InputError(f"`{path}`: tensor `{name}`: found {value.dtype}", _CONVERT)
    if not (value.is_contiguous and value.as_stored):
        raise InputError(f"`{path}`: tensor `{name}`: found a view that is not in order", _CONVERT)
    return value


def _placed(path: Path, name: str, tensor: Strided, record: Record | None) -> Tensor:
    """Where a tensor lies, inside its storage's record."""
    size = SIZES[tensor.dtype]
    begin, n_bytes = tensor.offset * size, prod(tensor.shape) * size
    expected = tensor.storage.n_bytes
    there = record.n_bytes if record else 0
    if expected > there or (n_bytes and begin + n_bytes > there):
        raise InputError(
            f"`{path}`: tensor `{name}`: expected {max(expected, begin + n_bytes)} bytes in record"
            f" `data/{tensor.storage.key[:100]}`, found {there}",
            "the file is damaged or was not copied to its end; fetch it again",
        )
    offset = record.offset + begin if record and n_bytes else 0
    return Tensor(STORED_NAMES[tensor.dtype], tensor.shape, path.name, n_bytes, offset)
