"""The output folder: refuse what is unsafe, work beside it, publish by one rename."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mergeplan.errors import InputError, SurroundingsError


def check_output(out: Path, inputs: list[Path], *, overwrite: bool) -> None:
    """Refuse an output that would hurt an input or something that is there already.

    Args:
        out: A resolved path.
        inputs: Folders and files that are read, links or not.

    Raises:
        SurroundingsError: It has content, is a file, or is a mount point.
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
    if os.path.ismount(out):
        raise SurroundingsError(f"output `{out}` is a mount point", "give a folder inside it")
    if any(out.iterdir()) and not overwrite:
        raise SurroundingsError(
            f"output `{out}` is not empty", "choose another folder, or pass `--overwrite`"
        )


def _same(a: Path, b: Path) -> bool:
    """Whether two paths are one folder, also where letter case or mounts hide it."""
    return a == b or (a.exists() and b.exists() and a.samefile(b))


def partial_folder(out: Path) -> Path:
    """Where the work for `out` happens: a sibling, so that publishing is one rename."""
    return out.with_name(out.name + ".partial")


def clear_leftover(out: Path, *, discard: bool) -> None:
    """Remove what an interrupted run left, if that is wanted.

    Raises:
        SurroundingsError: There is something, and it is not to be discarded.
    """
    work = partial_folder(out)
    if not work.exists():
        return
    if not discard:
        raise SurroundingsError(
            f"an earlier run left `{work}`",
            "if no other merge is writing there, pass `--discard` to start over",
        )
    shutil.rmtree(work)


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


@contextmanager
def publishing(out: Path) -> Iterator[Path]:
    """A fresh folder that becomes `out` when the block ends, and vanishes when it fails.

    A process that is killed outright leaves the `.partial` folder behind, never a half-written
    `out`.

    Raises:
        SurroundingsError: The system refuses.
    """
    work = partial_folder(out)
    try:
        work.mkdir(parents=True)
    except OSError as error:
        raise SurroundingsError(f"cannot create `{work}`: {error.strerror}") from error
    try:
        yield work
        _sync_folder(work)
        _publish(work, out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _publish(work: Path, out: Path) -> None:
    from mergeplan import _native

    if out.exists() and any(out.iterdir()):
        # In one step where the system can exchange two folders; else in three renames.
        _native.exchange(work, out)
        shutil.rmtree(work)
    else:
        if out.exists() and os.name == "nt":
            out.rmdir()  # elsewhere a rename replaces an empty folder
        work.rename(out)
    _sync_folder(out.parent)


def _sync_folder(folder: Path) -> None:
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
