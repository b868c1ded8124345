"""Tables for a terminal: columns as wide as their longest cell."""

from collections.abc import Sequence


def align_columns(rows: Sequence[Sequence[str]], left: int, words: int = 0) -> list[str]:
    """A line for each row, the head among them.

    Args:
        left: How many columns, of names and words, are set to the left; numbers go to the right.
        words: How many of the last columns are set to the left too.

    >>> align_columns([("domain", "loss"), ("md", "1.25"), ("html", "12.5")], left=1)
    ['domain  loss', 'md      1.25', 'html    12.5']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if left <= column < len(row) - words else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
