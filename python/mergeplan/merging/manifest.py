"""`mergeplan_manifest.json`: written last, and read strictly, since it may come from anywhere."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

from mergeplan._native import __version__
from mergeplan.checkpoints.checkpoint import header_sha256
from mergeplan.config.config import MergeConfig
from mergeplan.display.text import printable
from mergeplan.errors import InputError, MissingInputError
from mergeplan.merging.publishing import INDEX
from mergeplan.planning.plan import MergePlan, canonical_json
from mergeplan.system.files import write_durably

NAME = "mergeplan_manifest.json"
VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_XXH3 = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class InputFile:
    """A file that was merged: where it was, its length, and when it was last changed."""

    path: str
    n_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Manifest:
    """What a merge said of itself.

    Attributes:
        files: Length in bytes of each safetensors file.
        tensors: Content hash of each tensor, 16 hexadecimal digits.
        headers: SHA-256 of the header of each safetensors file: names, dtypes, shapes, offsets.
            Empty where the manifest lists none.
        companions: SHA-256 of each file beside the weights; empty where it lists none.
        inputs: The files that were merged.
    """

    path: Path
    files: dict[str, int]
    tensors: dict[str, str]
    headers: dict[str, str]
    companions: dict[str, str]
    inputs: tuple[InputFile, ...]


def load_manifest(folder: Path) -> Manifest:
    """Read the manifest of a merge.

    Raises:
        MissingInputError: No such folder, or it has no manifest.
        InputError: The manifest is damaged, of another version, or names files outside its folder.
    """
    if not folder.is_dir():
        raise MissingInputError(f"`{folder}` is not a folder", "give the folder that a merge wrote")
    path = folder / NAME
    if not path.is_file():
        raise MissingInputError(
            f"no manifest in `{folder}`: expected `{NAME}`",
            "only a folder that `mergeplan merge` wrote can be verified; `mergeplan diff` compares"
            " any two checkpoints",
        )
    try:
        data = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"cannot read manifest `{path}`: {error}", "the manifest is damaged; merge again"
        ) from error
    version = data.get("manifest_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise InputError(
            f"`{path}`: expected `manifest_version` {VERSION}, found {version}",
            "a newer mergeplan wrote it; verify with that version",
        )
    return _Reader(path).manifest(data)


class _Reader:
    """Checks of one manifest's values; every failure names the key."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def manifest(self, data: Any) -> Manifest:
        data = self._object(data, "the file")
        if data.get("manifest_version") != VERSION:
            found = data.get("manifest_version")
            self._fail("manifest_version", f"{VERSION}", found)
        files = self._names(data, "files")
        for name, length in files.items():
            self._count(length, f"files.{name}")
        tensors = self._object(data.get("tensors"), "tensors")
        for name, digest in tensors.items():
            self._digest(digest, _XXH3, 16, f"tensors.{name}")
        headers = self._digests(data, "headers")
        for name in headers:
            if name not in files:
                self._fail("headers", "only names that `files` lists", name)
        companions = self._digests(data, "companions")
        inputs = tuple(self._inputs(data.get("inputs", [])))
        return Manifest(self._path, files, tensors, headers, companions, inputs)

    def _names(self, data: dict[str, Any], key: str) -> dict[str, Any]:
        found = self._object(data.get(key), key)
        for name in found:
            if not is_plain(name):
                raise InputError(
                    f"`{self._path}`: `{key}`: {name!r} is not a plain file name",
                    "a manifest names only files beside it; this one was not written by mergeplan",
                )
        return found

    def _digests(self, data: dict[str, Any], key: str) -> dict[str, str]:
        found = self._names(data, key) if key in data else {}
        for name, digest in found.items():
            self._digest(digest, _SHA256, 64, f"{key}.{name}")
        return found

    def _inputs(self, models: Any) -> list[InputFile]:
        found = []
        for number, model in enumerate(self._list(models, "inputs")):
            where = f"inputs[{number}].files"
            entries = self._object(model, f"inputs[{number}]").get("files", [])
            for entry in self._list(entries, where):
                entry = self._object(entry, where)
                path = entry.get("path")
                if not isinstance(path, str) or "\0" in path:
                    self._fail(f"{where}.path", "a path", path)
                length = self._count(entry.get("bytes"), f"{where}.bytes")
                mtime = entry.get("mtime_ns")
                if not isinstance(mtime, int) or isinstance(mtime, bool):
                    self._fail(f"{where}.mtime_ns", "nanoseconds", mtime)
                found.append(InputFile(path, length, mtime))
        return found

    def _object(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._fail(where, "a JSON object", value)
        return value

    def _list(self, value: Any, where: str) -> list[Any]:
        if not isinstance(value, list):
            self._fail(where, "a list", value)
        return value

    def _count(self, value: Any, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self._fail(where, "a number of bytes", value)
        return value

    def _digest(self, value: Any, pattern: re.Pattern[str], digits: int, where: str) -> None:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self._fail(where, f"{digits} hexadecimal digits", value)

    def _fail(self, where: str, expected: str, found: Any) -> NoReturn:
        shown = repr(found)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        raise InputError(
            f"`{self._path}`: {printable(where)}: expected {expected}, found {shown}",
            "the manifest is damaged or was not written by mergeplan",
        )


def is_plain(name: str) -> bool:
    """Whether a name stays in its folder, by the rules of every system.

    >>> is_plain("model.safetensors"), is_plain("../model.safetensors"), is_plain("c:x")
    (True, False, False)
    """
    if name in ("", ".", "..") or "\0" in name:
        return False
    return PurePosixPath(name).name == name and PureWindowsPath(name).name == name


InputRows = list[list[tuple[str, int, int]]]


def write_manifest(
    folder: Path,
    plan: MergePlan,
    config: MergeConfig,
    inputs: InputRows,
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
        "manifest_version": VERSION,
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
    write_durably(folder / NAME, json.dumps(manifest, indent=2) + "\n")


def plan_hash(plan: dict[str, Any]) -> str:
    """SHA-256 of a plan's canonical text."""
    return hashlib.sha256(canonical_json(plan).encode()).hexdigest()
