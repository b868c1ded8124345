"""Paths, folders, locks, hashes and room on the disk; `writing` writes files."""

import hashlib
import os
import shutil
import stat
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from errno import ENAMETOOLONG
from pathlib import Path, PurePath
from typing import IO

from mergeplan.display.text import cut, format_bytes, shown
from mergeplan.errors import InputError, MergeplanError, MissingInputError, SurroundingsError
from mergeplan.system.reading import open_plain

_PIECE_BYTES = 1 << 20
# Input files that the core keeps open; it opens others for each read.
MOST_KEPT_OPEN = 256


def expanded(path: str | Path) -> Path:
    """A path with `~` resolved; `~name` of nobody is a folder of that name.

    Raises:
        InputError: It is no path of any system.
    """
    if not isinstance(path, str | PurePath) or "\0" in str(path):
        raise InputError(f"expected a path, found {cut(repr(path))}")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def input_path(path: str | Path) -> Path:
    """The same of what is to be read.

    Raises:
        InputError: It is no path, or has a name that is too long for the system.
    """
    found = expanded(path)
    try:
        found.exists()
    except OSError as error:
        if error.errno == ENAMETOOLONG:
            raise InputError(f"expected a path, found a name too long: {shown(path)}") from error
    return found


def is_there(path: Path) -> bool:
    """Whether there is something of that name; there is nothing of a name that no system takes."""
    try:
        return path.exists()
    except OSError:
        return False


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open_plain(path) as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def most_open_files() -> int | None:
    """How many files this process may have open at the most; `None` where there is no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def kept_open(inputs: int) -> int:
    """How many of so many input files the core keeps open at the most; see its `may_stay_open`."""
    try:
        import resource
    except ImportError:  # Windows
        return inputs
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = MOST_KEPT_OPEN if soft == resource.RLIM_INFINITY else min(MOST_KEPT_OPEN, soft // 4)
    return min(inputs, most)


def open_files() -> int:
    """How many files this process has open."""
    try:
        return sum(1 for _ in Path("/dev/fd").iterdir())
    except OSError:  # Windows
        return 3


def allow_open_files(count: int) -> None:
    """Raise the soft limit on open files, as far as the hard one allows, if `count` needs it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + 64
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


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


def check_readable(path: Path) -> int:
    """Open a file that will be copied; returns its bytes.

    Raises:
        MissingInputError, InputError: It cannot be opened, or is no plain file.
    """
    try:
        with open_plain(path) as file:
            return os.fstat(file.fileno()).st_size
    except FileNotFoundError as error:
        raise MissingInputError(f"cannot open `{path}`: no such file") from error
    except OSError as error:
        raise InputError(f"cannot open `{path}`: {error.strerror}") from error


def clear_folder(folder: Path, keep: Container[str] = ()) -> None:
    """Remove what is in a folder; links go, and what they lead to stays."""
    for path in folder.iterdir():
        if path.name not in keep:
            remove(path)


def walk(folder: Path) -> Iterator[Path]:
    """All that is below a folder, sorted, folders before what is in them; links are not followed.

    Raises:
        OSError: A folder cannot be read; `rglob` would pass over it.
    """

    def fail(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=fail):
        folders.sort()
        yield from (Path(place) / name for name in sorted([*folders, *files]))


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextmanager
def telling(action: str, path: Path) -> Iterator[None]:
    """Say of what the system refuses inside what cannot be done to a path.

    Raises:
        SurroundingsError: The system refuses; our own errors go through.
    """
    try:
        yield
    except MergeplanError:
        raise
    except OSError as error:
        raise SurroundingsError(f"cannot {action} `{path}`: {error.strerror or error}") from error


def creating(folder: Path) -> AbstractContextManager[None]:
    """Say of what fails inside that the folder cannot be created; see `telling`."""
    return telling("create", folder)


def make_folder(folder: Path) -> None:
    """Create a folder and those that it lies in, where they are not there yet.

    Raises:
        SurroundingsError: It cannot be created.
    """
    with creating(folder):
        folder.mkdir(parents=True, exist_ok=True)


def sync_folder(folder: Path) -> None:
    """Make names durable, where the system lets a folder be synced."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


LOCK = "lock"


def lock(folder: Path, what: str = "merge") -> IO[str]:
    """Hold a file while this process lives, so that no two runs write to one place.

    What is held is the file at that path: one that was removed or moved away while we waited is
    given up, and the next one tried.

    Raises:
        SurroundingsError: Another process holds it, or the folder cannot be written to.
    """
    path = folder / LOCK
    in_use = SurroundingsError(
        f"another {what} is working in `{folder}`", "wait for it, or choose another output"
    )
    try:
        import fcntl
    except ImportError:
        try:  # Windows refuses to remove a file that is open, which serves as well
            path.unlink(missing_ok=True)
        except PermissionError as error:
            raise in_use from error
        return path.open("w", encoding="utf-8")
    while True:
        file = _open_lock(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise in_use from error
        except OSError:
            pass  # a file system without locks
        with suppress(FileNotFoundError):
            if os.path.samestat(path.lstat(), os.fstat(file.fileno())):
                return file
        file.close()


def is_held(path: Path) -> bool:
    """Whether a process holds a lock; the file is neither created nor changed.

    A file system without locks, and Windows, are taken at the file's word: none does.
    """
    try:
        import fcntl

        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (ImportError, OSError):
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def _open_lock(path: Path) -> IO[str]:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        file = os.fdopen(os.open(path, flags, 0o666), "r+", encoding="utf-8")
    except OSError as error:
        raise SurroundingsError(f"cannot open `{path}`: {error.strerror or error}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise SurroundingsError(f"cannot open `{path}`: it is no plain file")
    return file
