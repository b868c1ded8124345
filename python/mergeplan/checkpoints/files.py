"""The files of a model, and their headers: one file, an index with its shards, or shards alone."""

import re
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import TYPE_CHECKING

from mergeplan.checkpoints.beside import json_beside
from mergeplan.checkpoints.checkpoint import INDEX_ENDING, Tensor
from mergeplan.checkpoints.pickles import ENDINGS, read_file, read_index
from mergeplan.display.text import shown
from mergeplan.errors import InputError

if TYPE_CHECKING:
    from mergeplan._native import Headers

SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<count>\d+)(?P<ending>\.safetensors|\.bin)")

# Beyond it names are none of a model's, and looking for patterns in them takes long.
_LONGEST_NAME = 4_096


@dataclass(frozen=True)
class Weights:
    """The files of one model, and their headers.

    Attributes:
        place: What is opened: an index or one file; all files where shards have no index.
        headers: The same for the core, where it has read them.
    """

    place: Path | tuple[Path, ...]
    tensors: dict[str, Tensor]
    warnings: tuple[str, ...] = ()
    headers: "Headers | None" = None

    @property
    def named(self) -> str:
        """What is opened, for messages."""
        if isinstance(self.place, Path):
            return f"`{self.place.name}`"
        return f"`{self.place[0].name}` and the other shards"

    @property
    def alike(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """What makes two copies of a model the same, as far as headers tell."""
        return {name: (tensor.dtype, tensor.shape) for name, tensor in self.tensors.items()}


def shard_of(file: Path) -> int:
    """Of how many shards a file is one, by its name; 1 for a whole checkpoint."""
    match = SHARD.fullmatch(file.name)
    return int(match["count"]) if match else 1


def read_weights(place: Path | tuple[Path, ...]) -> Weights:
    """Read an index with its shards, one file, or shards without an index.

    Raises:
        MissingInputError: A file is not there.
        InputError: A file is at fault, or a tensor is in two of them.
    """
    if isinstance(place, tuple):
        return Weights(place, _joined(place))
    if not place.name.endswith(".index.json"):
        tensors, headers = _of_file(place)
        return Weights(place, tensors, headers=headers)
    if place.name.endswith(INDEX_ENDING):
        tensors, unlisted, headers = _of_index(place)
    else:
        files, weight_map = read_index(place)
        tensors = _joined(tuple(files))
        for name, file in weight_map.items():
            if name not in tensors or tensors[name].file != file:
                raise InputError(
                    f"`{place}`: tensor `{name}` is not in `{file}`",
                    "fetch the checkpoint again, with its index and all of its shards",
                )
        unlisted, headers = [name for name in tensors if name not in weight_map], None
    if not unlisted:
        return Weights(place, tensors, headers=headers)
    first = unlisted[0]
    return Weights(
        place,
        tensors,
        (
            f"`{place}` does not list {len(unlisted)} of the tensors that its files hold, such as"
            f" `{first}` in `{tensors[first].file}`: they are read too, as transformers does",
        ),
        headers,
    )


def _of_file(path: Path) -> tuple[dict[str, Tensor], "Headers | None"]:
    if path.suffix in ENDINGS:
        return read_file(path), None
    tensors, _, headers = _native_headers(path)
    return tensors, headers


def _of_index(index: Path) -> tuple[dict[str, Tensor], list[str], "Headers"]:
    try:
        return _native_headers(index)
    except InputError as error:
        if "stands in another shard" in error.message:
            names = sorted(set(json_beside(index)["weight_map"].values()))
            _joined(tuple(index.parent / name for name in names))  # raises, and names both files
        raise


def _native_headers(path: Path) -> tuple[dict[str, Tensor], list[str], "Headers"]:
    from mergeplan._native import read_checkpoint

    if path.suffix == ".safetensors" and path.is_file() and not path.stat().st_size:
        raise InputError(
            f"`{path}` is empty: expected a safetensors file",
            "the file was not copied, or not written; fetch it again",
        )
    names, numbers, kinds, unlisted, headers = read_checkpoint(path)
    if long := next((name for name in names if len(name) > _LONGEST_NAME), None):
        raise InputError(
            f"`{path}`: expected names of tensors of at most {_LONGEST_NAME} characters, found"
            f" {shown(long)} of {len(long)}"
        )
    # A hundred thousand tensors share what few are apart in, and all models their names.
    alike = [Tensor(*kind) for kind in kinds]
    tensors = dict(zip(map(intern, names), map(alike.__getitem__, numbers), strict=True))
    return tensors, unlisted, headers


def _joined(files: tuple[Path, ...]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in _of_file(file)[0].items():
            if name in tensors:
                raise InputError(
                    f"`{file}`: tensor `{name}` stands in `{tensors[name].file}` too",
                    "fetch the checkpoint again, and keep the files of one alone in its folder",
                )
            tensors[name] = tensor
    return dict(sorted(tensors.items()))
