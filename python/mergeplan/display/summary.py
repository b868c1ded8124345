"""Results that print as a summary of a screen at most, and tell the whole when asked."""

from abc import ABC, abstractmethod

# A terminal's usual size, less the prompt.
LINES, COLUMNS = 22, 120


class Summarized(ABC):
    """A result. In a notebook or a shell it shows the beginning of its summary."""

    @abstractmethod
    def summary(self) -> str:
        """The whole result in words and tables."""

    def __repr__(self) -> str:
        return on_a_screen(self.summary())


def on_a_screen(text: str) -> str:
    """The beginning of a text, as far as a screen shows it, and how much is left out.

    >>> on_a_screen("one line")
    'one line'
    >>> on_a_screen("line\\n" * 30).splitlines()[-1]
    '… 9 more lines: `summary()` has them'
    """
    lines = text.rstrip("\n").split("\n")
    shown = [line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "…" for line in lines]
    if len(lines) > LINES:
        left = len(lines) - LINES + 1
        shown = [*shown[: LINES - 1], f"… {left} more lines: `summary()` has them"]
    return "\n".join(shown)
