"""What a run measures, by content: pool, texts, arithmetic. A change of any of it is noticed."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Predicate

from mergeplan.checkpoints.adapters.folder import CONFIG as ADAPTER_CONFIG
from mergeplan.checkpoints.checkpoint import CONFIG_FILE, Checkpoint, header_sha256
from mergeplan.checkpoints.opening import open_expert
from mergeplan.errors import InputError
from mergeplan.pool.pool import Pool
from mergeplan.system.files import sha256_of
from mergeplan.system.ranges import version_is

VERSION = 1


# Name, bytes, time of change in ns and header's hash of a file; or name and hash.
FileRow = tuple[int | str, ...]


@dataclass(frozen=True)
class RunIdentity:
    """`run.json`: sections, each a mapping from what it is about to its identity.

    Attributes:
        models: Files of each model.
        texts: Hash of the tokens that are scored, for each size.
        arithmetic: Options that decide what a loss is.
    """

    models: dict[str, tuple[FileRow, ...]]
    texts: dict[str, str]
    arithmetic: dict[str, Any]
    version: Annotated[int, Predicate(version_is(VERSION, f"version {VERSION}"))] = VERSION

    def json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)


def models_of(pool: Pool) -> dict[str, tuple[FileRow, ...]]:
    """Each model's files: name, bytes, time of change in ns, and the hash of what says how to read
    it. Weights are not hashed: that would read every expert once more.

    Raises:
        InputError: A model's headers are at fault.
    """
    found = {}
    for number, size in enumerate(pool.sizes):
        models = {"base": size.base} | {f"expert `{n}`": p for n, p in size.experts.items()}
        for name, folder in models.items():
            where = f"{name} of size {number + 1}" if len(pool.sizes) > 1 else name
            found[where] = _files_of(folder, size.base)
    return found


def _files_of(folder: Path, base: Path) -> tuple[FileRow, ...]:
    checkpoint = open_expert(folder, base)
    rows: list[FileRow] = []
    for file in sorted(checkpoint.files):
        stat = file.stat()
        rows.append((file.name, stat.st_size, stat.st_mtime_ns, _header_of(file, checkpoint)))
    for name in (CONFIG_FILE, ADAPTER_CONFIG):
        if (folder / name).is_file():
            rows.append((name, sha256_of(folder / name)))
    return tuple(rows)


def _header_of(file: Path, checkpoint: Checkpoint) -> str:
    """A hash of what says how to read a file; that of torch's format has no header of its own."""
    if file.suffix == ".safetensors":
        return header_sha256(file)
    return short_hash(
        sorted(
            (name, tensor.dtype, tensor.shape, tensor.offset)
            for source in checkpoint.sources
            for name, tensor in source.tensors.items()
            if source.path / tensor.file == file
        )
    )


def short_hash(data: Any) -> str:
    """Sixteen digits of the SHA-256 of some data as JSON."""
    text = json.dumps(data, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def refuse_changes(folder: Path, before: RunIdentity, now: RunIdentity) -> None:
    """Refuse to go on with a run whose pool, texts or arithmetic changed.

    Raises:
        InputError: Something differs; the message names it.
    """
    for section in ("models", "texts", "arithmetic"):
        found, recorded = getattr(now, section), getattr(before, section)
        for name in sorted(set(found) | set(recorded)):
            if found.get(name) == recorded.get(name):
                continue
            what = "is new in" if name not in recorded else "has changed since"
            what = "is no longer in" if name not in found else what
            raise InputError(
                f"{name} {what} the run in `{folder}`: what was measured there cannot be mixed with"
                " new measurements",
                "put it back, or begin a new run in another folder",
            )
