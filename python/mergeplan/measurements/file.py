"""`measurements.csv`: read it and check every row; write it."""

import csv
import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mergeplan.display.text import listed, parse_count, shown
from mergeplan.errors import InputError, SeveralMetricsError
from mergeplan.measurements.columns import COLUMNS, Column
from mergeplan.measurements.metrics import rows_about
from mergeplan.measurements.one_pool import refuse_two_hashes
from mergeplan.measurements.rows import LOSS_NAMES, PARTLY, Measurement, Measurements
from mergeplan.system.csvtext import open_table
from mergeplan.system.files import expanded
from mergeplan.system.folders import folder_words
from mergeplan.system.reading import TABLE, decode, read_bytes


def load_measurements(path: str | Path, metric: str | None = None) -> Measurements:
    """Read the losses of equally weighted merges from a CSV file, or their values of a metric.

    Args:
        metric: Its name; `None` for the losses, or the only metric of a table without losses.

    Returns:
        The rows, in the order of the file.

    Raises:
        MissingInputError: There is no such file.
        InputError: A column is missing or a value is wrong; the message names row and column. Or
            the metric is not there, or has to be named.
    """
    every, sha256 = read_rows(path)
    try:
        some = rows_about(every, metric)
    except SeveralMetricsError:
        raise
    except InputError as error:
        raise InputError(f"`{path}`: {error.message}", error.hint) from error
    whole = [row for row in some if row.text_se is None]
    rows = tuple(row for row in whole if not row.weights)
    if not rows:
        what = "no rows of equally weighted merges" if every else "no rows"
        hint = "measure some: `mergeplan sample`, or `mergeplan calibrate`"
        raise InputError(f"`{path}` has {what}", hint)
    return Measurements(rows, sha256, len(whole) - len(rows), len(some) - len(whole))


def read_rows(path: str | Path) -> tuple[tuple[Measurement, ...], str]:
    """Every row of a CSV file, other metrics and weights included, and the file's SHA-256.

    Raises:
        MissingInputError: There is no such file.
        InputError: A column is missing or a value is wrong; the message names row and column.
    """
    path = expanded(path)
    if path.is_dir():
        there = path / "measurements.csv"
        what, hint = folder_words(path, "give a CSV file")
        if there.is_file():
            what, hint = "a folder", f"give the table in it: `{there}`"
        raise InputError(f"cannot read `{path}`: it is {what}", hint)
    raw = read_bytes(path, TABLE, given=True)
    return _parse_rows(decode(raw, path), str(path)), hashlib.sha256(raw).hexdigest()


def _instead_of(missing: str, columns: list[str]) -> str:
    """What to do about a column that is not there."""
    for mark, named in ((";", "`;`"), ("\t", "tabs")):
        if len(columns) == 1 and mark in columns[0]:
            return f"columns are separated by commas, and not by {named}"
    by_spelling = {column.lower(): column for column in columns}
    if near := get_close_matches(missing, by_spelling, n=1):
        return f"if `{by_spelling[near[0]]}` is meant, name it `{missing}`"
    return "needed are `k` and `loss_nats`, or `metric`, `value` and `better` instead"


def _parse_rows(text: str, path: str) -> tuple[Measurement, ...]:
    reader, columns = open_table(text.splitlines(), path)
    for column in COLUMNS:
        if columns.count(column.name) > 1:
            raise InputError(f"`{path}`: column `{column.name}` stands twice")
    for name in ("k",) if "metric" in columns else ("k", "loss_nats"):
        if name not in columns:
            raise InputError(
                f"`{path}`: column `{name}` is missing; found {listed(columns)}",
                _instead_of(name, columns),
            )
    try:
        rows = tuple(_row(record, reader.line_num) for record in reader)
    except csv.Error as error:
        raise InputError(f"`{path}`, row {reader.line_num}: {error}") from error
    except InputError as error:
        raise InputError(f"`{path}`, {error.message}", error.hint) from error
    # Before repetitions: of two pools the base is there twice.
    refuse_two_hashes(path, rows)
    _refuse_repetition(path, rows)
    return rows


def _row(record: Mapping[str | None, Any], row: int) -> Measurement:
    cells = {name: (cell or "").strip() for name, cell in record.items() if isinstance(name, str)}

    def fail(column: str, expected: str, hint: str | None = None) -> InputError:
        found = shown(cells[column]) if cells.get(column) else "nothing"
        where = f"row {row}, column `{column}`"
        return InputError(f"{where}: expected {expected}, found {found}", hint)

    if any(cell.strip() for cell in record.get(None) or ()):
        raise InputError(
            f"row {row}: more cells than the head has columns", "write decimals with a point: 2.5"
        )
    for name in ("metric", "value") if cells.get("loss_nats") else ():
        if cells.get(name) and cells[name].lower() not in LOSS_NAMES:
            raise fail(
                name,
                "nothing beside `loss_nats`",
                "give the metric a row of its own, with `metric`, `value` and `better`",
            )
    other = "metric" if cells.get("loss_nats") or not cells.get("metric") else "loss"
    values: dict[str, Any] = {"row": row}
    for column in COLUMNS:
        text = cells.get(column.name, "")
        needed = column.name in ("k", "loss_nats", "value", "better")
        if column.read is None or column.about == other or not (text or needed):
            continue
        try:
            # Only `calibrate` writes the hash of a pool, and counts the parameters itself.
            is_ours = column.name == "n_params" and cells.get("pool_hash")
            values[column.field] = parse_count(text, smallest=1) if is_ours else column.read(text)
        except (ValueError, RecursionError) as error:
            hint = str(error) if column.name == "n_params" else None
            raise fail(column.name, column.expected, hint) from error
    k, subset = values["k"], values.get("subset", ())
    if subset and not len(subset) == len(set(subset)) == k:
        raise fail("subset", f"{k} different experts joined by `+`")
    if k > values.get("pool_size", k):
        raise fail("k", f"at most the pool size, {values['pool_size']}")
    if PARTLY in values.get("data_hash", "") and "text_se" not in values:
        raise fail(
            "text_se",
            f"a standard error, as `data_hash` says that a part was scored ({values['data_hash']})",
            "such a row counts with its error only: take the table as `calibrate` wrote it",
        )
    weights = values.get("weights", ())
    if subset and len(weights) not in (0, k):
        raise fail("weights", f"{k} numbers joined by `+`")
    # Of a sum the order does not matter: names are sorted, and the weights with them.
    order = sorted(range(len(subset)), key=lambda i: subset[i])
    values["subset"] = tuple(subset[i] for i in order)
    if _equal(weights):
        values["weights"] = ()
    elif subset:
        values["weights"] = tuple(weights[i] for i in order)
    return Measurement(**values)


def _equal(weights: tuple[float, ...]) -> bool:
    """Whether all are 1, which says equal shares as in a YAML, or all are 1/k."""
    return len(set(weights)) <= 1 and all(
        weight == 1 or math.isclose(weight * len(weights), 1, rel_tol=1e-4) for weight in weights
    )


def _refuse_repetition(path: str, rows: tuple[Measurement, ...]) -> None:
    """A merge that stands twice is a mistake, unless a seed tells the two apart."""
    seen: dict[tuple[object, ...], Measurement] = {}
    for row in rows:
        if not row.subset and row.k > 0:
            continue
        what_of = (row.domain, row.metric, row.k, row.subset, row.weights, row.seed)
        key = (row.method, row.options, row.n_params, *what_of)
        first = seen.setdefault(key, row)
        if first is row:
            continue
        column = "value" if row.metric else "loss_nats"
        what = "repeats" if first.loss_nats == row.loss_nats else "contradicts"
        raise InputError(
            f"`{path}`, row {row.row}, column `{column}`: {row.loss_nats} {what} row {first.row},"
            f" {first.loss_nats}: the same merge on the same domain",
            "keep one of them, or tell them apart by a column `seed`",
        )


def table_text(rows: Iterable[Measurement], columns: Sequence[Column]) -> str:
    """Rows as the text of a CSV file, which reads back to the same rows."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(column.name for column in columns)
    writer.writerows([column.cell(row) for column in columns] for row in rows)
    return file.getvalue()
