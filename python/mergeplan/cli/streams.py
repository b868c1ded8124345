"""Standard streams as commands find them: closed, broken, or of an encoding that lacks characters.

What goes to stderr never stops a command; what goes to stdout is data, whose loss is told.
"""

import io
import os
import sys
from typing import Any, TextIO

from mergeplan.errors import SurroundingsError


class ReaderLeftError(Exception):
    """Whoever read our output went away, as `head` does; nothing is wrong."""


class _Output(io.FileIO):
    """Standard output: the first failure is told, and what is left in buffers after it is not."""

    _failed = False

    def write(self, data: Any) -> int:
        if self._failed:
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            self._failed = True
            if isinstance(error, BrokenPipeError):
                raise ReaderLeftError from error
            raise SurroundingsError(
                f"cannot write to the standard output: {error.strerror}",
                "the command printed what it was asked for, and it could not be kept",
            ) from error


class _Messages(io.FileIO):
    """Standard error: who does not listen misses what is said, and no more."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def prepare() -> None:
    """Stand in for the streams of this process; those that others put in their place stay."""
    _occupy()
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Messages(2, "w", closefd=False), sys.stderr)


def _occupy() -> None:
    """Where a stream is closed, the next file that is opened would be taken for it."""
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # Writing to a stdout of this kind fails, as it does where it is closed.
            os.open(os.devnull, flags)


def _text(raw: io.FileIO, before: TextIO | None) -> TextIO:
    if os.name == "nt" and before is not None:
        before.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]
        return before  # its console is no file
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=raw.isatty(),
        write_through=False,
    )
