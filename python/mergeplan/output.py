"""The output folder: refuse what is unsafe, publish by one rename, write small files durably."""

import os
import shutil
from pathlib import Path

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

    A mount point cannot be renamed onto. There the files move in one by one, and last those
    without which no loader takes the folder for a model: a weaker guarantee.

    Raises:
        SurroundingsError: The system refuses.
    """
    from mergeplan import _native

    _native.fault("publish")
    if os.path.ismount(out):
        _move_into(data, out)
    elif out.exists() and any(out.iterdir()):
        # In one step where the system can exchange two folders; else in three renames.
        _native.exchange(data, out)
    else:
        if out.exists() and os.name == "nt":
            out.rmdir()  # elsewhere a rename replaces an empty folder
        data.rename(out)
    sync_folder(out.parent)
    _native.fault("published")


def _move_into(data: Path, out: Path) -> None:
    last = ("model.safetensors.index.json", "config.json")
    for name in last:
        (out / name).unlink(missing_ok=True)
    fresh = {path.name for path in data.iterdir()}
    for path in content_of(out):
        if path.is_file() and path.suffix == ".safetensors" and path.name not in fresh:
            path.unlink()
    for path in sorted(data.iterdir(), key=lambda path: (path.name in last, path.name)):
        path.replace(out / path.name)
    sync_folder(out)


def sync_folder(folder: Path) -> None:
    """Make names durable, where the system lets a folder be synced."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, text: str) -> None:
    """Write a small file beside its place, sync it, and put it there in one step."""
    beside = path.with_name(path.name + ".partial")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise SurroundingsError(f"cannot write `{path}`: {error.strerror}") from error


def copy_durably(source: Path, target: Path) -> None:
    """Copy a small file and sync it."""
    shutil.copyfile(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())


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
