"""How far work is: one line on stderr, or a bar in a notebook."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mergeplan.display.text import format_bytes
from mergeplan.errors import InputError
from mergeplan.system import signals

# Called with what is done, and with all that there is to do.
Progress = Callable[[int, int], None]
# The same; or whether there is a bar, by default in a notebook only.
Shown = Progress | bool | None

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
        if not self.due():
            return
        elapsed = self._drawn - self._begun
        rate = done / elapsed if elapsed else 0.0
        left = f"{(total - done) / rate:.0f} s left" if rate else ""
        share = 100 * done / total if total else 100.0
        line = (
            f"{share:3.0f} %  {self._amount(done)} of {self._amount(total)}"
            f"  {self._amount(rate)}/s  {left}"
        )
        self.draw(line)

    def due(self) -> bool:
        """Whether to draw now: where a person watches, ten times a second."""
        signals.raise_again()
        now = time.monotonic()
        if not self._shown or now - self._drawn < _INTERVAL_SECONDS:
            return False
        self._drawn = now
        return True

    def draw(self, line: str) -> None:
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line."""
        if self._shown and self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


@contextmanager
def shown_as_bar(progress: Shown, unit: str) -> Iterator[Progress | None]:
    """What to call for a function's `progress`; a bar is gone at the end.

    Args:
        progress: What to call; or true for a bar, false for none, `None` for one in a notebook,
            where tqdm is installed.
        unit: What is counted: `B` for bytes.

    Raises:
        InputError: A bar is wanted, and tqdm is not installed.
    """
    if callable(progress) or not (_in_notebook() if progress is None else progress):
        yield progress if callable(progress) else None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        if progress is None:
            yield None
            return
        hint = "install it: pip install tqdm"
        raise InputError("a progress bar needs tqdm", hint) from error
    with tqdm(unit=unit, unit_scale=True, leave=False) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tell


def _in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this: a shell of IPython in a terminal is none."""
    get = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return getattr(get(), "kernel", None) is not None
