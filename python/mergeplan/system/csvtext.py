"""CSV files by the names of their columns."""

import csv
from collections.abc import Iterable
from pathlib import Path

from mergeplan.errors import InputError


def open_table(lines: Iterable[str], path: str | Path) -> tuple["csv.DictReader[str]", list[str]]:
    """The rows of a table, still to be read, and the columns that its head names.

    Raises:
        InputError: The head cannot be read.
    """
    reader = csv.DictReader(lines)
    try:
        columns = [name.strip() for name in reader.fieldnames or []]
    except csv.Error as error:
        raise InputError(f"`{path}`, row 1: {error}") from error
    reader.fieldnames = columns
    return reader, columns
