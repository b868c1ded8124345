"""Files that are read whole: opened once, judged by the open file, and read up to a bound.

Links are followed, as the hub's cache is made of them. What a user names may be a pipe
(`/dev/stdin`, `<(…)`); what a file or a folder names must be a plain file.
"""

import io
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mergeplan.display.text import format_bytes
from mergeplan.errors import InputError, MissingInputError
from mergeplan.system.folders import folder_words


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        most_bytes: How long one may be.
        word: How messages call it, where its path does not say enough.
    """

    most_bytes: int
    word: str = ""


# Ten times and more of the largest that are known.
CONFIG = Kind(4_000_000, "config")
POOL = Kind(4_000_000, "pool")
COSTS = Kind(1_000_000, "costs")
TABLE = Kind(256_000_000)  # measurements.csv, subsets.csv
LAW = Kind(64_000_000, "law")
GEOMETRY = Kind(1_000_000_000, "geometry")
RUN = Kind(16_000_000, "run")
SCORES = Kind(4_000_000_000)
TEXTS = Kind(4_000_000_000)
SETTINGS = Kind(64_000_000)  # config.json, adapter_config.json and their like, chat templates
VOCABULARY = Kind(256_000_000)  # tokenizer.json and the other lists of tokens
CODE = Kind(4_000_000)
INDEX = Kind(256_000_000)  # of shards
HEADER = Kind(100_000_000)  # of a safetensors file: the format's own bound
MANIFEST = Kind(256_000_000, "manifest")  # where no plan says how many tensors there are
RECORD = Kind(256_000_000, "record")  # of what workers have merged
STATUS = Kind(1_000_000, "status")

_PIECE_BYTES = 1 << 20
# How long a pipe that a user names may be without a writer.
_NO_WRITER_SECONDS = 2.0
_WORDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_plain(path: Path) -> IO[bytes]:
    """Open a file that is none of a user's own naming; nothing else is waited for.

    Raises:
        InputError: It is no plain file.
        OSError: It cannot be opened.
    """
    return io.BufferedReader(_open_plain(path))


def _open_plain(path: Path) -> io.FileIO:
    file = _open(path)
    mode = os.fstat(file.fileno()).st_mode
    if not stat.S_ISREG(mode):
        file.close()
        found = next((word for test, word in _WORDS if test(mode)), "a folder")
        raise InputError(f"`{path}`: expected a plain file, found {found}")
    return file


def read_bytes(
    path: Path,
    kind: Kind,
    hint: str | None = None,
    *,
    given: bool = False,
    most_bytes: int | None = None,
) -> bytes:
    """The bytes of a file.

    Args:
        hint: What to do where it cannot be read.
        given: Whether the user names it, so that it may be a pipe or a device.
        most_bytes: The bound, where more is known than the kind.

    Raises:
        MissingInputError: There is no such file.
        InputError: It cannot be read, is no plain file, or is too long.
    """
    named = f"{kind.word} `{path}`".lstrip()
    most = kind.most_bytes if most_bytes is None else most_bytes
    try:
        with _open(path) if given else _open_plain(path) as file:
            found = os.fstat(file.fileno())
            first = _wait_for_writer(file, named) if stat.S_ISFIFO(found.st_mode) else b""
            if not stat.S_ISREG(found.st_mode):
                os.set_blocking(file.fileno(), True)
            length = found.st_size
            content = first + _read(file, most - len(first), length) if length <= most else b""
    except InputError as error:
        raise InputError(error.message, error.hint or hint) from error
    except FileNotFoundError as error:
        raise MissingInputError(f"cannot open {named}: no such file", hint) from error
    except IsADirectoryError as error:
        what, hint = folder_words(path, hint)
        raise InputError(f"cannot read {named}: it is {what}", hint) from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot read {named}: {why}", hint) from error
    if max(length, len(content)) > most:
        exact = format_bytes(length) if length > most else "more"
        raise InputError(f"{named}: expected at most {format_bytes(most)}, found {exact}", hint)
    return content


def _open(path: Path) -> io.FileIO:
    """Without waiting for the writer of a pipe, as opening one does otherwise."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    return io.FileIO(os.open(path, flags))


def _wait_for_writer(file: io.FileIO, named: str) -> bytes:
    """What comes first through a pipe; nothing where a writer is there and has not begun."""
    end = time.monotonic() + _NO_WRITER_SECONDS
    while time.monotonic() < end:
        first = file.read(_PIECE_BYTES)
        if first is None:
            return b""
        if first:
            return first
        time.sleep(0.02)
    raise InputError(f"cannot read {named}: nobody writes to that pipe")


def _read(file: io.FileIO, most: int, length: int) -> bytes:
    """As much as there is, or one byte more than `most`."""
    found = bytearray()
    while piece := file.read(min(max(length, _PIECE_BYTES), most - len(found)) + 1):
        found += piece
    return bytes(found)


def decode(raw: bytes, path: Path) -> str:
    """The text of a file's bytes; a byte order mark is passed over.

    Raises:
        InputError: It is no UTF-8; the message names the line.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = raw.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"`{path}`, line {number}: expected UTF-8, found byte 0x{raw[error.start]:02x}",
            "convert the file to UTF-8; compressed files must be unpacked first",
        ) from error


def read_text(
    path: Path,
    kind: Kind,
    hint: str | None = None,
    *,
    given: bool = False,
    most_bytes: int | None = None,
) -> str:
    """The text of a file, where every line ends in `\\n`; see `read_bytes` and `decode`.

    Raises:
        MissingInputError, InputError: As for those.
    """
    text = decode(read_bytes(path, kind, hint, given=given, most_bytes=most_bytes), path)
    return text.replace("\r\n", "\n").replace("\r", "\n")
