"""Results in notebooks: tables as HTML, and as frames of pandas or polars."""

from collections.abc import Sequence
from html import escape
from typing import Any

from mergeplan.display.text import printable
from mergeplan.errors import InputError

Record = dict[str, Any]

# Rows that a notebook shows.
ROWS = 20


def frame_of(records: Sequence[Record]) -> Any:
    """The records as a frame of pandas, or of polars where only that is installed.

    Raises:
        InputError: Neither is installed.
    """
    try:
        import pandas
    except ImportError:
        pass
    else:
        return pandas.DataFrame.from_records(list(records))
    try:
        import polars
    except ImportError as error:
        raise InputError(
            "a frame needs pandas or polars", "install one of them: pip install pandas"
        ) from error
    return polars.DataFrame(list(records), infer_schema_length=None)


def html_of(summary: str, text: str, records: Sequence[Record]) -> str:
    """The first line of a summary, a table of the records, and the summary as far as it is shown.

    All of it is text, whatever names from files hold.

    Args:
        text: Of the summary, what is shown.
    """
    head = summary.lstrip("\n").split("\n", 1)[0]
    # Columns are no sentence: the table says it.
    parts = [] if "  " in head else [f"<p>{_text(head)}</p>"]
    if records:
        parts.append(_table(records[:ROWS]))
    if len(records) > ROWS:
        parts.append(f"<p>… {len(records) - ROWS} more rows: <code>to_frame()</code> has them</p>")
    parts.append(f"<details><summary>summary</summary><pre>{escape(text)}</pre></details>")
    return "<div>" + "\n".join(parts) + "</div>"


def _table(records: Sequence[Record]) -> str:
    names = list(dict.fromkeys(name for record in records for name in record))
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    rows = (
        "<tr>" + "".join(f"<td>{_cell(record.get(name))}</td>" for name in names) + "</tr>"
        for record in records
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return _text(f"{value:.6g}" if isinstance(value, float) else str(value))


def _text(text: str) -> str:
    return escape(printable(text))
