"""One line on stderr: share, amount, rate and time left."""

import sys
import time
from collections.abc import Callable

from mergeplan.display.text import format_bytes
from mergeplan.system import signals

# Called with what is done, and with all that there is to do.
Progress = Callable[[int, int], None]

_INTERVAL_SECONDS = 0.1


class ProgressLine:
    """Draws progress where a person watches; elsewhere, and with `quiet`, it is silent.

    A command that was asked to stop, and makes progress nevertheless, stops here.

    Args:
        amount: How what is done is written, with its unit.
    """

    def __init__(self, *, quiet: bool, amount: Callable[[float], str] = format_bytes) -> None:
        self._amount = amount
        self._shown = not quiet and sys.stderr.isatty()
        self._begun = time.monotonic()
        self._drawn = 0.0

    def __call__(self, done: int, total: int) -> None:
        signals.raise_again()
        now = time.monotonic()
        if not self._shown or now - self._drawn < _INTERVAL_SECONDS:
            return
        self._drawn = now
        elapsed = now - self._begun
        rate = done / elapsed if elapsed else 0.0
        left = f"{(total - done) / rate:.0f} s left" if rate else ""
        share = 100 * done / total if total else 100.0
        line = (
            f"{share:3.0f} %  {self._amount(done)} of {self._amount(total)}"
            f"  {self._amount(rate)}/s  {left}"
        )
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line."""
        if self._shown and self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
