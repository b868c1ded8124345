"""Results that print as a summary of a screen at most, and tell the whole when asked."""

from abc import ABC, abstractmethod
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any

# A terminal's usual size, less the prompt.
LINES, COLUMNS = 22, 120


class Summarized(ABC):
    """A result. In a shell it shows the beginning of its summary, in a notebook a table too."""

    @abstractmethod
    def summary(self) -> str:
        """The whole result in words and tables."""

    def records(self) -> list[dict[str, Any]]:
        """What is tabular in the result, a dict for each row; by default one of its plain values.

        Returns:
            Text, numbers, truth values and `None`; experts of a subset are joined by `+`.
        """
        assert is_dataclass(self)
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        paths = {name: str(one) for name, one in values.items() if isinstance(one, PurePath)}
        return [{name: one for name, one in (values | paths).items() if _is_plain(one)}]

    def to_frame(self) -> Any:
        """The records as a table.

        Returns:
            A `pandas.DataFrame`, or a `polars.DataFrame` where only that is installed.

        Raises:
            InputError: Neither is installed.
        """
        from mergeplan.display.notebook import frame_of

        return frame_of(self.records())

    def __repr__(self) -> str:
        return on_a_screen(self.summary())

    def _repr_html_(self) -> str:
        from mergeplan.display.notebook import html_of

        summary = self.summary()
        return html_of(summary, on_a_screen(summary), self.records())


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return "\n" not in value
    return value is None or isinstance(value, int | float)


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
