"""Standard output while code runs that is not ours: what it prints there is no data of ours.

Its `print` is the least of it: libraries in C, `os.write` and processes that it starts write to the
descriptor, so that is what is turned.
"""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """All that is written to standard output goes to standard error; to nowhere if that is closed.

    Of the whole process: not for two threads at a time.
    """
    _flush()
    to = _copy(2)
    if to is None:
        to = os.open(os.devnull, os.O_WRONLY)
    # The lowest that is free: it is 1 where that was closed, and then there is nothing to keep.
    kept = None if to == 1 else _copy(1)
    if to == 1:
        os.set_inheritable(1, True)
    else:
        os.dup2(to, 1)
        os.close(to)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _flush()  # before it is ours again
        if kept is None:
            os.close(1)
        else:
            os.dup2(kept, 1)
            os.close(kept)


def _copy(descriptor: int) -> int | None:
    """Another descriptor of the same; `None` where it is closed."""
    try:
        return os.dup(descriptor)
    except OSError:
        return None


def _flush() -> None:
    """What Python and C still hold back of the process's own standard output."""
    if sys.__stdout__ is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.__stdout__.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
