"""`OUT.partial` as a folder: made under a private name, held by a lock, moved away to be removed.

What is at the path at any moment is whole: a record that says that it is ours, a lock and the data.
"""

import json
import os
import stat
import time
from collections.abc import Collection
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, NoReturn

from mergeplan.errors import MergeplanError, SurroundingsError
from mergeplan.merging.replacing import is_folder, unknown_in
from mergeplan.system.files import LOCK, lock, remove, sync_folder
from mergeplan.system.private import is_private, private_name
from mergeplan.system.reading import RECORD as RECORD_FILE
from mergeplan.system.reading import read_bytes
from mergeplan.system.writing import write_durably

RECORD, DATA, JOURNAL, PUBLISHING, SHARDS = "merge.json", "data", "journal", "publishing", "shards"
# What was read, and a journal that is being written anew, lie beside it.
_NAMES = {RECORD, DATA, JOURNAL, "journal.inputs", "journal.new", PUBLISHING, SHARDS, LOCK}
# How every record of ours begins.
HEAD = '{"mergeplan_merge": 2, "files": ['
# A folder that is being made is locked within this many seconds.
_YOUNG = 60


def create_work(folder: Path, record: str) -> IO[str] | None:
    """Make a work folder and hold its lock; `None` where something has its name by now."""
    from mergeplan._native import fault, rename_new

    private = folder.with_name(private_name())
    private.mkdir()
    held = lock(private)
    try:
        fault("begin")
        (private / DATA).mkdir()
        write_durably(private / RECORD, record, replace=True)
        sync_folder(private)
        if rename_new(private, folder):
            return held
    except BaseException:
        with suppress(OSError):
            _empty(private, held)
        raise
    _empty(private, held)
    return None


def hold_work(folder: Path) -> IO[str] | None:
    """Lock a work folder; `None` where it has gone meanwhile.

    Raises:
        SurroundingsError: Another run works there.
    """
    try:
        return lock(folder)
    except SurroundingsError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def remove_work(folder: Path, held: IO[str]) -> Path | None:
    """Give a work folder up, with all in it that is ours.

    It loses its name first: whoever comes meanwhile finds no folder, and no half of one.

    Returns:
        Where things stay that others have put into it; `None` if there are none.

    Raises:
        SurroundingsError: A worker of a cluster still works in it.
    """
    private = folder.with_name(private_name())
    with ExitStack() as workers:
        try:
            for path in worker_locks(folder):
                workers.enter_context(lock(path.parent, "worker"))
        except SurroundingsError:
            held.close()
            raise
        if os.name == "nt":
            # There a folder with an open file has to keep its name.
            workers.close()
            held.close()
        folder.rename(private)
    if _empty(private, held):
        return None
    from mergeplan._native import rename_new

    return folder if rename_new(private, folder) else private


def worker_locks(folder: Path) -> list[Path]:
    """What the workers of a cluster hold in a work folder, each where it works."""
    places = folder / SHARDS
    if not is_folder(places):
        return []
    return [path / LOCK for path in places.iterdir() if is_folder(path) and (path / LOCK).exists()]


def _empty(private: Path, held: IO[str]) -> bool:
    """Remove what is ours; whether that was all.

    The record and the lock go last: by them the next run knows what to sweep up.
    """
    written = _written(private)
    for path in private.iterdir():
        if path.name == DATA and is_folder(path):
            clear_known(path, written)
        elif path.name not in (RECORD, LOCK) and _is_ours_by_name(path.name):
            remove(path)
    (private / RECORD).unlink(missing_ok=True)
    if os.name == "nt":
        held.close()
    (private / LOCK).unlink(missing_ok=True)
    held.close()
    if any(private.iterdir()):
        return False
    private.rmdir()
    return True


def clear_known(data: Path, written: Collection[str]) -> None:
    """Remove what a merge may have put into a data folder, and the folder if that was all."""
    unknown = {name.partition("/")[0] for name in unknown_in(data, written, unfinished=True)}
    for path in list(data.iterdir()):
        if path.name not in unknown:
            remove(path)
    if not unknown:
        data.rmdir()


def _is_ours_by_name(name: str) -> bool:
    return name in _NAMES or is_private(name)


def sweep(parent: Path) -> None:
    """Remove what runs left that were killed while they made or removed a work folder."""
    with suppress(OSError):
        for path in parent.iterdir():
            if is_private(path.name) and path.is_dir() and not path.is_symlink():
                with suppress(OSError, MergeplanError):
                    _sweep(path)


def _sweep(private: Path) -> None:
    names = {path.name for path in private.iterdir()}
    young = time.time() - private.stat().st_mtime < _YOUNG
    ours = is_ours(private) or names <= {LOCK}
    if ours and not young and names:
        _empty(private, lock(private))


def is_ours(folder: Path) -> bool:
    """Whether a folder holds the record that we write; no link is followed to it."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return False
        with os.fdopen(os.open(folder / RECORD, flags), "rb") as file:
            plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            return plain and file.read(len(HEAD)) == HEAD.encode()
    except OSError:
        return False


def refuse_foreign(folder: Path) -> None:
    """Refuse a work folder that is not ours, or that holds what is not.

    Raises:
        SurroundingsError: The message names what it is or holds.
    """
    hint = "move it out of the way, or choose another output"
    if folder.is_symlink() or not folder.is_dir():
        what = "a link" if folder.is_symlink() else "no folder"
        raise SurroundingsError(f"`{folder}` is {what}, where the merge is to work", hint)
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return
    unknown = next((name for name in names if not _is_ours_by_name(name)), None)
    if not is_ours(folder):
        raise SurroundingsError(
            f"`{folder}` was not made by mergeplan: it has no `{RECORD}` as a merge writes it"
            + (f", and holds `{unknown}`" if unknown else ""),
            hint,
        )
    if unknown is None and (folder / DATA).is_dir():
        inside = unknown_in(folder / DATA, _written(folder), unfinished=True)
        unknown = next((f"{DATA}/{name}" for name in inside), None)
    if unknown is not None:
        refuse_removal(folder / unknown)


def refuse_removal(path: Path) -> NoReturn:
    """Say of something in a work folder that no merge wrote it there."""
    raise SurroundingsError(
        f"`{path}` was not made by mergeplan, and would be deleted",
        "move it out of that folder",
    )


def _written(folder: Path) -> list[str]:
    """The names of files that the record lists, for the data folder."""
    try:
        listed = json.loads(read_bytes(folder / RECORD, RECORD_FILE))["files"]
        return [name for name in listed if isinstance(name, str)]
    except (MergeplanError, ValueError, LookupError, TypeError, RecursionError):
        return []
