"""`OUT.partial` as a folder: made under a private name, held by a lock, moved away to be removed.

What is at the path at any moment is whole: a record that says that it is ours, a lock and the data.
"""

import json
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, NoReturn

from mergeplan.errors import MergeplanError, SurroundingsError
from mergeplan.merging.replacing import first_unknown
from mergeplan.system.files import LOCK, clear_folder, lock, sync_folder
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


def remove_work(folder: Path, held: IO[str]) -> None:
    """Give a work folder up, with all that is in it.

    It loses its name first: whoever comes meanwhile finds no folder, and no half of one.
    """
    private = folder.with_name(private_name())
    if os.name == "nt":
        held.close()  # there a folder with an open file has to keep its name
    folder.rename(private)
    _empty(private, held)


def _empty(private: Path, held: IO[str]) -> None:
    """The record and the lock go last: by them the next run knows what to sweep up."""
    clear_folder(private, keep=(RECORD, LOCK))
    (private / RECORD).unlink(missing_ok=True)
    if os.name == "nt":
        held.close()
    (private / LOCK).unlink(missing_ok=True)
    private.rmdir()
    held.close()


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
    unknown = next((name for name in names if name not in _NAMES and not is_private(name)), None)
    if not is_ours(folder):
        raise SurroundingsError(
            f"`{folder}` was not made by mergeplan: it has no `{RECORD}` as a merge writes it"
            + (f", and holds `{unknown}`" if unknown else ""),
            hint,
        )
    if unknown is None and (folder / DATA).is_dir():
        unknown = first_unknown(folder / DATA) and first_unknown(folder / DATA, _written(folder))
        unknown = unknown and f"{DATA}/{unknown}"
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
