"""The output folder: refuse what is unsafe, publish by one rename, write small files durably."""

import io
import os
import shutil
from collections.abc import Container
from contextlib import suppress
from pathlib import Path
from typing import IO

from mergeplan.errors import InputError, SurroundingsError


def check_output(out: Path, inputs: list[Path], *, overwrite: bool) -> None:
    """Refuse an output that would hurt an input or something that is there already.

    Args:
        out: A resolved path.
        inputs: Folders and files that are read, links or not.

    Raises:
        SurroundingsError: It has content, or is a file.
        InputError: It is an input, lies inside one, or holds one.
    """
    for path in inputs:
        source = path.resolve()
        if source.is_dir() and any(_same(place, source) for place in (out, *out.parents)):
            raise InputError(f"output `{out}` lies inside input `{path}`", "choose another folder")
        if overwrite and any(_same(place, out) for place in source.parents):
            raise InputError(f"output `{out}` holds input `{path}`", "choose another folder")
    if not out.exists():
        return
    if not out.is_dir():
        raise SurroundingsError(f"output `{out}` is a file", "choose another folder")
    if content_of(out) and not overwrite:
        raise SurroundingsError(
            f"output `{out}` is not empty", "choose another folder, or pass `--overwrite`"
        )


def _same(a: Path, b: Path) -> bool:
    """Whether two paths are one folder, also where letter case or mounts hide it."""
    return a == b or (a.exists() and b.exists() and a.samefile(b))


# The shard index, by its name on the hub.
INDEX = "model.safetensors.index.json"
# What a file system keeps in its root, and where a merge onto a mount point works.
_NO_CONTENT = {"lost+found", ".mergeplan.partial"}


def content_of(folder: Path) -> list[Path]:
    """What is in an output folder, but for what does not count as content."""
    return [path for path in folder.iterdir() if path.name not in _NO_CONTENT]


def check_space(folder: Path, needed_bytes: int) -> None:
    """Refuse a merge whose files would not fit.

    Raises:
        SurroundingsError: `folder`, or its nearest parent that exists, has less room.
    """
    existing = next(p for p in (folder, *folder.resolve().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise SurroundingsError(
            f"no space for the output: expected {format_bytes(needed_bytes)} free at `{existing}`,"
            f" found {format_bytes(free)}",
            "free some space, or write to another disk",
        )


def publish(data: Path, out: Path) -> None:
    """Give finished data its name: one rename, or one exchange with what was there.

    Raises:
        SurroundingsError: The system refuses.
    """
    from mergeplan import _native

    _native.fault("publish")
    if out.exists() and any(out.iterdir()):
        # In one step where the system can exchange two folders; else in three renames.
        _native.exchange(data, out)
    else:
        if out.exists() and os.name == "nt":
            out.rmdir()  # elsewhere a rename replaces an empty folder
        data.rename(out)
    sync_folder(out.parent)
    _native.fault("published")


def move_into(data: Path, out: Path, names: list[str]) -> None:
    """Publish onto a mount point, which cannot be renamed onto: the files move in one by one.

    Last come those without which no loader takes the folder for a model. Whoever was stopped in
    between calls again with the same names.

    Args:
        names: All files that `out` is to have; those that are not in `data` have moved already.
    """
    from mergeplan import _native

    _native.fault("publish")
    last = (INDEX, "config.json")
    left = sorted(path.name for path in data.iterdir())
    left.sort(key=lambda name: last.index(name) if name in last else -1)
    if any(name not in last for name in left):
        for name in last:
            (out / name).unlink(missing_ok=True)
    for path in content_of(out):
        weights = path.suffix in (".safetensors", ".bin")
        if path.is_file() and weights and path.name not in names:
            path.unlink()
    for name in left:
        _native.fault("move")
        (data / name).replace(out / name)
    sync_folder(out)
    _native.fault("published")


def clear_folder(folder: Path, keep: Container[str] = ()) -> None:
    """Remove what is in a folder; links go, and what they lead to stays."""
    for path in folder.iterdir():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def sync_folder(folder: Path) -> None:
    """Make names durable, where the system lets a folder be synced."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, content: str | bytes) -> None:
    """Write a small file beside its place, sync it, and put it there in one step."""
    _place_durably(path, io.BytesIO(content.encode() if isinstance(content, str) else content))


def copy_durably(source: Path, target: Path) -> None:
    """Copy a small file in the same way."""
    with source.open("rb") as file:
        _place_durably(target, file)


def _place_durably(path: Path, content: IO[bytes]) -> None:
    beside = path.with_name(path.name + ".partial")
    try:
        # What is there was left by a run that was stopped, or is a link that must not be followed.
        beside.unlink(missing_ok=True)
        with beside.open("xb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise SurroundingsError(f"cannot write `{path}`: {error.strerror}") from error


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Refuse to write over a file unless told.

    Raises:
        SurroundingsError: It exists.
    """
    if path.exists() and not overwrite:
        raise SurroundingsError(f"`{path}` exists", "choose another name, or pass `--overwrite`")


def format_bytes(count: float) -> str:
    """Bytes for people, in decimal units as disks are sold.

    >>> format_bytes(1_234_567)
    '1.23 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
