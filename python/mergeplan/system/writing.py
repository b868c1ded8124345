"""One way to write: whole or not at all, and over nothing that is not to be replaced.

A file is written under a private name that nobody can guess, made anew in its target's folder,
synced, and put in place in one step. Links among the folders are followed; a link, a folder, a pipe
or a device in the place itself is refused. A hard link is never written through, since the name
gets another file. New files have the mode that the umask leaves, replaced ones keep theirs.

Files that grow instead are opened by `open_own`, which looks at what was opened.
"""

import io
import os
import shlex
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO

from mergeplan.errors import MissingInputError, SurroundingsError
from mergeplan.system.files import is_there, telling
from mergeplan.system.private import is_private, private_name
from mergeplan.system.reading import open_plain

# Windows has none of these; there a link is found by looking before.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_PLAIN = _NO_LINK | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
# A pipe that nobody writes to must not stop us before we have seen what it is.
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
_PERMISSIONS = 0o777
# So long one waits for another that adds to the same file.
_PATIENCE_SECONDS, _PAUSE_SECONDS = 60.0, 0.02

_KINDS = (
    (stat.S_ISLNK, "a symbolic link", "name what it leads to, or move it away"),
    (stat.S_ISDIR, "a folder", "name a file in it, or choose another name"),
    (stat.S_ISFIFO, "a pipe", "choose another name"),
    (stat.S_ISSOCK, "a socket", "choose another name"),
    (stat.S_ISCHR, "a device", "choose another name"),
    (stat.S_ISBLK, "a device", "choose another name"),
)


class ExistsError(SurroundingsError):
    """There is a file already, and nothing says that it may be replaced."""


def refuse_existing(path: Path, *, overwrite: bool, inputs: Iterable[Path | None] = ()) -> None:
    """Refuse, before the work, a file that could not be written at its end.

    Args:
        overwrite: Whether a file that is there may be replaced.
        inputs: What is read, which is never replaced: a folder with all that is in it.

    Raises:
        ExistsError: It exists, and is not to be replaced.
        MissingInputError: There is no such folder.
        SurroundingsError: It is a link, a folder, a pipe or a device, or nothing can be written
            into its folder.
    """
    with saying(path):
        exists = _mode_of(path) is not None
        # Also without `overwrite`, so that it is no hint.
        for one in filter(None, inputs) if exists else ():
            _refuse_read(path, one)
        if exists and not overwrite:
            raise ExistsError(f"`{path}` exists", "choose another name, or pass `--overwrite`")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise MissingInputError(
            f"cannot write `{path}`: there is no such folder",
            f"make it first, such as by `mkdir -p {shlex.quote(str(path.parent))}`",
        )
    # A file that is replaced is made anew beside it.
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SurroundingsError(
            f"cannot write `{path}`: its folder may not be written to", "choose another folder"
        )


def refuse_one_place(paths: Iterable[Path | None]) -> None:
    """Refuse outputs of which one would take the other's place.

    Raises:
        ExistsError: Two are one file.
    """
    seen: dict[str, Path] = {}
    for path in filter(None, paths):
        place = os.path.realpath(path)
        if place in seen:
            raise ExistsError(f"`{path}` is to hold two outputs", "give each a name of its own")
        seen[place] = path


def refuse_unlike(path: Path, beginning: str, what: str) -> None:
    """Refuse to replace a file that does not begin as what it is to be; an empty one may go.

    Args:
        what: What it is to be, in words.

    Raises:
        ExistsError: It begins otherwise.
    """
    try:
        with open_plain(path) as file:
            found = file.read(len(beginning.encode()))
    except FileNotFoundError:
        return
    if found not in (b"", beginning.encode()):
        raise ExistsError(
            f"`{path}` exists, and holds no {what}",
            "`--overwrite` replaces its own kind alone: choose another name, or move it away",
        )


def _refuse_read(path: Path, one: Path) -> None:
    if not is_there(one):
        return
    if one.samefile(path):
        raise ExistsError(f"`{path}` is what is read", "choose another name")
    if not one.is_dir():
        return
    place, entries = Path(os.path.realpath(path)), []
    with suppress(PermissionError):  # which whoever reads it says
        entries = list(one.iterdir())
    # The hub's cache is made of links to what lies elsewhere.
    if Path(os.path.realpath(one)) in place.parents or any(
        entry.is_symlink() and Path(os.path.realpath(entry)) == place for entry in entries
    ):
        raise ExistsError(f"`{path}` is a part of `{one}`, which is read", "choose another name")


def write_durably(path: Path, content: str | bytes, *, replace: bool) -> None:
    """Write a small file.

    Args:
        replace: Whether a plain file may be there.

    Raises:
        ExistsError: Something is there, and nothing may be.
        SurroundingsError: It is no plain file, or the system refuses.
    """
    data = content.encode() if isinstance(content, str) else content
    _fill(path, io.BytesIO(data), replace=replace)


def copy_durably(source: Path, target: Path, *, replace: bool) -> None:
    """Copy a small file in the same way."""
    with open_plain(source) as file:
        _fill(target, file, replace=replace)


def _fill(path: Path, content: IO[bytes], *, replace: bool) -> None:
    with writing(path, replace=replace) as file:
        shutil.copyfileobj(content, file)


@contextmanager
def writing(path: Path, *, replace: bool) -> Iterator[IO[bytes]]:
    """A file that gets its name at the end; nothing is left of one that is not finished.

    Args:
        replace: As for `write_durably`.

    Raises:
        ExistsError, SurroundingsError: As for that.
    """
    with saying(path):
        if not replace and os.path.lexists(path):
            raise _exists(path)
        mode = _mode_of(path)
        private = path.with_name(private_name())
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN
        file = os.fdopen(os.open(private, flags, 0o666 if mode is None else mode), "wb")
        try:
            with file:
                if mode is not None and hasattr(os, "fchmod"):
                    # The umask may have taken some of it; some file systems keep no modes.
                    with suppress(OSError):
                        os.fchmod(file.fileno(), mode)
                yield file
                file.flush()
                os.fsync(file.fileno())
            if replace:
                private.replace(path)
            else:
                _put_new(private, path)
        finally:
            with suppress(OSError):
                private.unlink(missing_ok=True)


def _put_new(private: Path, path: Path) -> None:
    """Give a file a name that nothing has: in one step, since something may just have got it."""
    try:
        os.link(private, path)
        return
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError:
        pass  # a file system without hard links: an empty file of ours claims the name
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN))
    except FileExistsError as error:
        raise _exists(path) from error
    private.replace(path)


def _exists(path: Path) -> ExistsError:
    return ExistsError(f"`{path}` exists", "choose another name, or move it away")


def saying(path: Path) -> AbstractContextManager[None]:
    """Say of what the system refuses inside that the file cannot be written; see `telling`."""
    return telling("write", path)


def _mode_of(path: Path) -> int | None:
    """The permissions of the plain file at a path; `None` where there is nothing.

    Raises:
        SurroundingsError: Something else is there.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    _refuse_odd(path, found)
    return stat.S_IMODE(found.st_mode) & _PERMISSIONS


def _refuse_odd(path: Path, found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode):
        return
    for is_kind, name, hint in _KINDS:
        if is_kind(found.st_mode):
            raise SurroundingsError(f"cannot write `{path}`: it is {name}", hint)
    raise SurroundingsError(f"cannot write `{path}`: it is no plain file", "choose another name")


def open_own(path: Path, *, create: bool = False) -> IO[bytes]:
    """Open a file of a folder that is ours, to change it where it is: what was opened is plain, has
    this one name, and belongs to us or to whom the folder belongs.

    Args:
        create: Whether to make it where it is absent, and to add to its end.

    Raises:
        SurroundingsError: It is none such, or the system refuses.
    """
    more = os.O_CREAT | os.O_APPEND if create else 0
    with saying(path):
        with suppress(FileNotFoundError):
            _refuse_odd(path, path.lstat())
        handle = os.open(path, os.O_RDWR | more | _NO_WAIT | _PLAIN, 0o666)
        try:
            found = os.fstat(handle)
            _refuse_odd(path, found)
            if found.st_nlink > 1:
                raise SurroundingsError(
                    f"cannot write `{path}`: the file has {found.st_nlink} names (hard links)",
                    "put a copy in its place",
                )
            owners = {path.absolute().parent.stat().st_uid}
            if hasattr(os, "geteuid"):
                owners.add(os.geteuid())
            if found.st_uid not in owners:
                raise SurroundingsError(
                    f"cannot write `{path}`: it belongs to another user, of number {found.st_uid}",
                    "move it away, or choose another folder",
                )
        except BaseException:
            os.close(handle)
            raise
        return os.fdopen(handle, "a+b" if create else "r+b")


def add_line(file: IO[bytes], path: Path, line: bytes) -> None:
    """Add to the end of what `open_own` has created, durably.

    Past the file's buffer, which would be written once more when it is closed: on a full disk that
    error, without a name, would stand for ours.

    Raises:
        SurroundingsError: The disk refuses it; a part of the line may be there.
    """
    with saying(path):
        while line:
            line = line[os.write(file.fileno(), line) :]
        os.fsync(file.fileno())


@contextmanager
def holding(path: Path) -> Iterator[bool]:
    """Hold a file of the user's while it is read and replaced: of two that add to it at once,
    neither loses what the other added. Where it is absent, write it with `replace=False`, and begin
    anew after an `ExistsError`.

    Yields:
        Whether it exists.

    Raises:
        SurroundingsError: It is no plain file, or another has been holding it for a minute.
    """
    with saying(path):
        handle = _hold(path)
        exists = handle is not None or _mode_of(path) is not None
    try:
        yield exists
    finally:
        if handle is not None:
            os.close(handle)


def _hold(path: Path) -> int | None:
    """A locked handle on the file that is at the path; `None` where there is none to lock."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    until = time.monotonic() + _PATIENCE_SECONDS
    while _mode_of(path) is not None:
        try:
            handle = os.open(path, os.O_RDWR | _NO_WAIT | _PLAIN)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have put another file in its place.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.lstat()):
                    return handle
        except BlockingIOError as error:
            if time.monotonic() > until:
                os.close(handle)
                raise SurroundingsError(
                    f"another program is holding `{path}`", "wait for it, or choose another name"
                ) from error
        except OSError:
            return handle  # a file system without locks
        os.close(handle)
        time.sleep(_PAUSE_SECONDS)
    return None


def remove_unfinished(folder: Path) -> None:
    """Remove what runs that were killed have left of files, from a folder that is ours and locked.

    In a folder of the user's they stay: another run may be writing there.
    """
    for path in folder.iterdir():
        if is_private(path.name) and not path.is_dir():
            path.unlink(missing_ok=True)
