"""What a run measures: pool, texts, arithmetic. A change of any of it is noticed.

Every file of every model is hashed whole once, when a run begins. Later it counts as unchanged
where its length, the times when its content and when anything of it was changed, its inode and its
device are those that are recorded. Where one differs (a change, but a copy, a restored backup or
another mount too), it is hashed again, and its content decides. Texts go by what is scored of them.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Annotated, Any

from annotated_types import Predicate

from mergeplan.checkpoints.adapters.folder import CONFIG as ADAPTER_CONFIG
from mergeplan.checkpoints.checkpoint import CONFIG_FILE, Checkpoint
from mergeplan.checkpoints.header_bytes import header_sha256
from mergeplan.checkpoints.opening import open_expert
from mergeplan.errors import InputError
from mergeplan.evaluation.options import BY_DOCUMENT, Cut
from mergeplan.pool.pool import Pool
from mergeplan.system.files import sha256_of
from mergeplan.system.machine import worker_threads
from mergeplan.system.pathtext import path_text
from mergeplan.system.ranges import version_is
from mergeplan.system.reading import open_plain

# 2: files have a hash of their content, and all that tells a change.
VERSION = 2
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """A file of a model.

    Attributes:
        stat: Bytes, times of the content's change and of any change in ns, inode, device.
        header: Hash of what says how to read it; empty for settings.
        sha256: Of its content; empty where it was not read yet.
        path: Where it is. Not recorded: what counts is what it holds.
    """

    name: str
    stat: tuple[int, int, int, int, int]
    header: str = ""
    sha256: str = ""
    path: str = ""


Models = dict[str, tuple[ModelFile, ...]]


@dataclass(frozen=True)
class RunIdentity:
    """`run.json`: sections, each a mapping from what it is about to its identity.

    Attributes:
        models: Files of each model.
        texts: Hash of the tokens that are scored, for each size.
        arithmetic: Options that decide what a loss is.
        halves: How the halves of the texts are cut, and what standard errors go by.
        metric: What decides; empty for losses in nats.
        higher: Whether more of it is better.
    """

    models: Models
    texts: dict[str, str]
    arithmetic: dict[str, Any]
    halves: Cut = BY_DOCUMENT
    metric: str = ""
    higher: bool = False
    version: Annotated[int, Predicate(version_is(VERSION, f"version {VERSION}"))] = VERSION

    def json(self) -> str:
        data = asdict(self)
        for files in data["models"].values():
            for file in files:
                del file["path"]
        return json.dumps(data, indent=1, sort_keys=True)

    def pool_hash(self) -> str:
        """Which models they are, by their content."""
        return short_hash(
            {
                name: [(file.name, file.header, file.sha256) for file in files]
                for name, files in self.models.items()
            }
        )

    def task_hashes(self) -> dict[str, str]:
        """Of downstream tasks, by name."""
        return {
            name.removeprefix("task ").strip("`"): str(value[0])[:16]
            for name, value in self.arithmetic.items()
            if name.startswith("task `")
        }

    def with_content(self) -> "RunIdentity":
        """The same, where every file was read; nothing is read twice.

        Raises:
            InputError: One cannot be read, or changes meanwhile.
        """
        missing = list(dict.fromkeys(file for file in self.files() if not file.sha256))
        found = _hash_files([Path(file.path) for file in missing])
        pairs = zip(missing, found, strict=True)
        return self._with({file: replace(file, sha256=content) for file, content in pairs})

    def as_found(self) -> "RunIdentity":
        """The same files as they look now, not read.

        Raises:
            InputError: One is no longer there.
        """
        try:
            seen = {file: _seen(Path(file.path).stat()) for file in self.files()}
        except OSError as error:
            raise InputError(f"cannot read `{error.filename}`: {error.strerror}") from error
        return self._with({file: replace(file, stat=seen[file], sha256="") for file in seen})

    def files(self) -> Iterator[ModelFile]:
        for files in self.models.values():
            yield from files

    def _with(self, new: dict[ModelFile, ModelFile]) -> "RunIdentity":
        models = {name: tuple(new.get(f, f) for f in files) for name, files in self.models.items()}
        return replace(self, models=models)


def models_of(pool: Pool) -> Models:
    """Each model's files. Weights are not hashed here: that reads every expert.

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


def _files_of(folder: Path, base: Path) -> tuple[ModelFile, ...]:
    checkpoint = open_expert(folder, base)
    files = [
        ModelFile(
            path_text(file.name), _seen(file.stat()), _header_of(file, checkpoint), path=str(file)
        )
        for file in sorted(checkpoint.files)
    ]
    for name in (CONFIG_FILE, ADAPTER_CONFIG):
        if (file := folder / name).is_file():
            content = sha256_of(file)
            files.append(ModelFile(name, _seen(file.stat()), sha256=content, path=str(file)))
    return tuple(files)


def _seen(found: os.stat_result) -> tuple[int, int, int, int, int]:
    times = found.st_mtime_ns, found.st_ctime_ns
    return found.st_size, *times, found.st_ino, found.st_dev


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


def _hash_files(paths: Sequence[Path]) -> list[str]:
    stop = Event()
    with ThreadPoolExecutor(max(1, min(worker_threads(), len(paths)))) as threads:
        try:
            return list(threads.map(partial(_hash_file, stop=stop), paths))
        except BaseException:
            stop.set()  # or Ctrl-C would wait for whole files
            raise


def _hash_file(path: Path, stop: Event) -> str:
    digest = hashlib.sha256()
    try:
        with open_plain(path) as file:
            before = _seen(os.fstat(file.fileno()))
            while not stop.is_set() and (piece := file.read(_PIECE_BYTES)):
                digest.update(piece)
        after = _seen(path.stat())
    except OSError as error:
        raise InputError(f"cannot read `{path}`: {error.strerror}") from error
    if before != after:
        raise InputError(f"`{path}` changed while it was read", "wait until it is whole")
    return digest.hexdigest()


def contents(identity: RunIdentity) -> dict[str, list[tuple[object, ...]]]:
    """What counts of each model's files, whose content was read."""
    return {
        name: [(file.name, file.header, file.stat[0], file.sha256) for file in files]
        for name, files in identity.models.items()
    }


def read_where_changed(before: RunIdentity, now: RunIdentity) -> RunIdentity:
    """With the recorded hash where a file looks the same, and a new one where it does not; with one
    of nothing where its length, or what says how to read it, has changed. New models are read.

    Raises:
        InputError: A file cannot be read.
    """
    known: dict[ModelFile, ModelFile] = {}
    for name, files in now.models.items():
        if name not in before.models:
            continue
        recorded = {file.name: file for file in before.models[name]}
        for file in files:
            old = recorded.get(file.name)
            if old is None or (old.stat[0], old.header) != (file.stat[0], file.header):
                known[file] = replace(file, sha256="none")
            elif old.stat == file.stat and not file.sha256:
                known[file] = replace(file, sha256=old.sha256)
    return now._with(known).with_content()
