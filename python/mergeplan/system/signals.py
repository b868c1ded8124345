"""Ctrl-C and SIGTERM: they end a command even where the exception that they raise is lost.

Python raises it wherever it happens to be, and an import or a finaliser of a library may catch it.
"""

import signal
from types import FrameType
from typing import NoReturn

_asked: list[BaseException] = []


def arm() -> None:
    """Let both signals raise, and be remembered. One that is ignored, as by `nohup`, stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)


def disarm() -> None:
    """Let both signals end the process at once: a command has done its work, or has failed.

    Where SIGTERM has come, another changes nothing more: the process ends as it was asked to, with
    the exit code of that, and removes what is temporary. Ctrl-C is the way out if that takes long.
    """
    ending = any(isinstance(one, SystemExit) for one in _asked)
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is _stop:
            quiet = ending and number == signal.SIGTERM
            signal.signal(number, signal.SIG_IGN if quiet else signal.SIG_DFL)


def forget_interrupt() -> None:
    """Let the process end with its own exit code after a Ctrl-C that was caught.

    Where the exception has passed through an `exec` of text, as when it came while a dataclass was
    made, CPython notes it as one that nobody catches and ends the process by the signal, whatever
    `sys.exit` was told. The next text that is run takes the note back.
    """
    exec("")


def raise_again() -> None:
    """Raise again what was asked for, if the command goes on all the same.

    Raises:
        KeyboardInterrupt: Ctrl-C came.
        SystemExit: SIGTERM came.
    """
    if _asked:
        raise _asked[-1]


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    _asked.append(KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number))
    raise _asked[-1]
