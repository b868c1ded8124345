"""Is a merged checkpoint still what its manifest says?"""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.checkpoint import INDEX_ENDING, WEIGHTS_FILE
from mergeplan.checkpoints.header_bytes import header_sha256
from mergeplan.display.summary import Summarized
from mergeplan.display.text import format_bytes, printable, shown
from mergeplan.errors import InputError
from mergeplan.merging.manifest import Manifest, load_manifest
from mergeplan.system.files import expanded, sha256_of
from mergeplan.system.jsontext import loads
from mergeplan.system.machine import worker_threads
from mergeplan.system.pathtext import path_of
from mergeplan.system.progress import Progress, Shown, shown_as_bar
from mergeplan.system.reading import INDEX, read_bytes


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the manifest says.

    Attributes:
        file: Name in the folder, or path of an input.
        tensor: The tensor, where it is about one.
    """

    file: str
    tensor: str | None
    expected: str
    found: str

    def __str__(self) -> str:
        """One line, whatever characters the names hold."""
        tensor = "" if self.tensor is None else f": tensor `{self.tensor}`"
        return printable(f"`{self.file}`{tensor}: expected {self.expected}, found {self.found}")


@dataclass(repr=False)
class Verification(Summarized):
    """What was checked, and what differs.

    Attributes:
        tensors: Tensors whose content was hashed.
        unchecked: Tensors of the manifest that may lie in files that could not be read.
        read_bytes: Bytes of safetensors files that were read.
    """

    out: Path
    tensors: int = 0
    files: int = 0
    companions: int = 0
    inputs: int = 0
    unchecked: int = 0
    read_bytes: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def matches(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    def verdict(self) -> str:
        """One line."""
        if self.matches:
            checked = f"{self.tensors} tensors, {format_bytes(self.read_bytes)}"
            return f"{self.out}: matches its manifest ({checked})"
        unchecked = f"; {self.unchecked} tensors not checked" if self.unchecked else ""
        words = "difference" if len(self.differences) == 1 else "differences"
        return f"{self.out}: {len(self.differences)} {words}{unchecked}"

    def summary(self) -> str:
        """The verdict, and a line for each difference."""
        return "\n".join([self.verdict(), *map(str, self.differences)])

    def records(self) -> list[dict[str, Any]]:
        """A row for each difference."""
        return [asdict(difference) for difference in self.differences]

    def differs(self, file: str, expected: str, found: str, tensor: str | None = None) -> None:
        """Note a difference."""
        self.differences.append(Difference(file, tensor, expected, found))


def verify(
    out: str | Path,
    *,
    inputs: bool = False,
    threads: int | None = None,
    progress: Shown = None,
) -> Verification:
    """Check a merge against the manifest that it left.

    Args:
        out: The merge's folder.
        inputs: Also check that the merged files still have the recorded length and time of change.
        threads: Worker threads; `None` for one a usable core.
        progress: Called some ten times a second with bytes done and bytes in all; or true for a
            bar, false for none, `None` for one in a notebook.

    Returns:
        What was checked, and every difference; `matches` says whether there is none.

    Raises:
        MissingInputError, InputError: There is no manifest, or it is damaged.
        SurroundingsError, OSError: A file cannot be read.

    Example:
        >>> import mergeplan
        >>> config = {"merge_method": "passthrough", "models": [{"model": "pool/js"}]}
        >>> mergeplan.verify(mergeplan.merge(config, "merged").out).matches
        True
    """
    folder = expanded(out)
    manifest = load_manifest(folder)
    result = verify_weights(out, manifest, threads=threads, progress=progress)
    for name, digest in sorted(manifest.companions.items()):
        _check_companion(folder, name, digest, result)
    if inputs:
        for entry in manifest.input_files:
            _check_input(path_of(entry.path), entry.bytes, entry.mtime_ns, result)
    return result


def verify_weights(
    out: str | Path, manifest: Manifest, *, threads: int | None = None, progress: Shown = None
) -> Verification:
    """The same of the weights alone: the safetensors files, each tensor in them, and their index.

    Args:
        manifest: That of `out`.

    Returns:
        As `verify`.

    Raises:
        SurroundingsError, OSError: A file cannot be read.
    """
    folder, result = expanded(out), Verification(Path(out))
    readable = _check_files(folder, manifest, result)
    with shown_as_bar(progress, "B") as told:
        places = _check_tensors(folder, manifest, readable, result, threads, told)
    _check_index(folder, manifest, places, result)
    return result


def _check_files(folder: Path, manifest: Manifest, result: Verification) -> list[str]:
    """Presence and length of the safetensors files; returns those that can be looked into."""
    readable = []
    for name, length in sorted(manifest.files.items()):
        result.files += 1
        path = folder / name
        if not path.is_file():
            result.differs(name, "a file", _what_is(path))
            continue
        found = path.stat().st_size
        if found != length:
            result.differs(name, f"{length} bytes", f"{found} bytes")
        readable.append(name)
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() == ".safetensors" and path.name not in manifest.files:
            result.differs(path.name, "no file that the manifest does not list", _what_is(path))
    return readable


def _check_tensors(
    folder: Path,
    manifest: Manifest,
    readable: list[str],
    result: Verification,
    threads: int | None,
    progress: Progress | None,
) -> dict[str, str]:
    """Hash everything; returns the file of each tensor that was found."""
    from mergeplan._native import content_hashes

    lengths = {name: (folder / name).stat().st_size for name in readable}
    total = sum(lengths.values())
    places: dict[str, str] = {}
    unreadable = len(manifest.files) - len(readable)
    for name in readable:
        before = result.read_bytes
        try:
            hashes = content_hashes(
                folder / name,
                threads=threads or worker_threads(),
                progress=_shifted(progress, before, total),
            )
        except InputError as error:
            unreadable += 1
            # A truncated file has been reported by its length.
            if lengths[name] == manifest.files[name]:
                result.differs(name, "a valid safetensors file", error.message)
            continue
        result.read_bytes = before + lengths[name]
        if name in manifest.headers:
            found = header_sha256(folder / name)
            if found != manifest.headers[name]:
                expected = f"a header with SHA-256 {manifest.headers[name]}"
                result.differs(name, expected, found)
        for tensor, digest in sorted(hashes.items()):
            result.tensors += 1
            listed = manifest.tensors.get(tensor)
            if tensor in places:
                result.differs(name, f"it only in `{places[tensor]}`", "it here too", tensor)
            elif listed is None:
                result.differs(name, "no tensor that the manifest does not list", "it", tensor)
            elif listed != digest:
                result.differs(name, f"content hash {listed}", digest, tensor)
            places.setdefault(tensor, name)
    missing = sorted(set(manifest.tensors) - set(places))
    if unreadable:
        result.unchecked = len(missing)
    else:
        for tensor in missing:
            where = next(iter(manifest.files)) if len(manifest.files) == 1 else _index(manifest)
            result.differs(where, f"content hash {manifest.tensors[tensor]}", "no tensor", tensor)
    return places


def _shifted(progress: Progress | None, before: int, total: int) -> Callable[[int], object] | None:
    if progress is None:
        return None
    return lambda done: progress(before + done, total)


def _index(manifest: Manifest) -> str:
    """The name of the index of some shards, or of one file were it in shards."""
    first = next(iter(manifest.files), WEIGHTS_FILE)
    return re.sub(r"(-\d+-of-\d+)?\.safetensors$", INDEX_ENDING, first)


def _check_index(
    folder: Path, manifest: Manifest, places: dict[str, str], result: Verification
) -> None:
    """The index must send every tensor to the file that has it."""
    name = _index(manifest)
    path = folder / name
    if not path.is_file():
        if len(manifest.files) > 1 or path.exists():
            result.differs(name, "a shard index", _what_is(path))
        return
    try:
        index: Any = loads(read_bytes(path, INDEX))
        weight_map = index["weight_map"]
        entries = list(weight_map.items())
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        result.differs(name, "a shard index", f"{type(error).__name__}: {shown(error)}")
        return
    for tensor, file in sorted(entries):
        known = places.get(tensor)
        # What lies in files that could not be read is told by the manifest alone.
        if known is None and result.unchecked and tensor in manifest.tensors:
            continue
        if known is None or file != known:
            place = f"`{known}`" if known else "no such tensor"
            result.differs(name, place, repr(file), tensor)
    for tensor in sorted(set(places) - set(weight_map)):
        result.differs(name, f"`{places[tensor]}`", "no entry", tensor)


def _check_companion(folder: Path, name: str, digest: str, result: Verification) -> None:
    result.companions += 1
    if not (folder / name).is_file():
        result.differs(name, "a file", _what_is(folder / name))
    elif (found := sha256_of(folder / name)) != digest:
        result.differs(name, f"SHA-256 {digest}", found)


def _check_input(path: Path, length: int, mtime_ns: int, result: Verification) -> None:
    result.inputs += 1
    if not path.is_file():
        result.differs(str(path), "an input file", _what_is(path))
        return
    status = path.stat()
    if status.st_size != length:
        result.differs(str(path), f"an input of {length} bytes", f"{status.st_size} bytes")
    elif status.st_mtime_ns != mtime_ns:
        found = f"{status.st_mtime_ns} ns"
        result.differs(str(path), f"an input last changed at {mtime_ns} ns", found)


def _what_is(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    if path.is_file():
        return "a file"
    if path.is_symlink() and not path.exists():
        return "a link to nothing"
    return "something that is no regular file" if path.exists() else "nothing"
