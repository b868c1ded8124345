"""Tables for a terminal: columns as wide as their longest cell."""

from collections.abc import Sequence


def align_columns(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """A line for each row, the head among them.

    Args:
        left: How many columns, of names and words, are set to the left; numbers go to the right.

    >>> align_columns([("domain", "loss"), ("md", "1.25"), ("html", "12.5")], left=1)
    ['domain  loss', 'md      1.25', 'html    12.5']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
