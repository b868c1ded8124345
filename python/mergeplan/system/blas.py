"""Linear algebra on one thread, where matrices are small and the machine may be busy.

BLAS splits a product of a hundred rows over all cores, and its threads wait for each other by
spinning. Where other work has the cores, each of thousands of products waits for a thread that is
not running: `select` of 511 merges took 110 s beside other work, and 19 s on one thread. Results
then do not depend on how many cores there are, either.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import Lock
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def on_one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Call a function with BLAS bounded to one thread, in this process and meanwhile.

    Args:
        function: What multiplies and factorises.

    Returns:
        The same function, bounded.
    """

    @wraps(function)
    def bounded(*args: P.args, **kwargs: P.kwargs) -> R:
        with one_thread():
            return function(*args, **kwargs)

    return bounded


@contextmanager
def one_thread() -> Iterator[None]:
    """The bound is the process's: of calls that overlap the first sets it, the last lifts it."""
    # Not at the top: it costs 30 ms, and commands that fit nothing need none of it.
    from threadpoolctl import ThreadpoolController

    with _lock:
        if not _calls:
            _calls.append(ThreadpoolController().limit(limits=1, user_api="blas"))
        else:
            _calls.append(None)
    try:
        yield
    finally:
        with _lock:
            limit = _calls[0]
            _calls.pop()
            if not _calls:
                limit.restore_original_limits()


_lock = Lock()
_calls: list[Any] = []  # those that are running; the first is the bound
