"""Append a model's losses to `measurements.csv`."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

from mergeplan.display.text import is_unicode, listed
from mergeplan.errors import InputError, MissingInputError, nearest
from mergeplan.evaluation.scores import Scores
from mergeplan.measurements.columns import COLUMNS, direction, write_se
from mergeplan.measurements.rows import MACRO
from mergeplan.system.csvtext import open_table
from mergeplan.system.ranges import parse_options
from mergeplan.system.reading import TABLE, read_bytes, read_text
from mergeplan.system.writing import ExistsError, holding, refuse_existing, write_durably

# What only who merged knows.
_MERGE = [column.name for column in COLUMNS if column.about == "merge"]
# What a row of another measure than a loss needs.
_METRIC = ("metric", "value", "better")


def parse_merge(given: tuple[str, ...]) -> dict[str, str]:
    """What `--as KEY=VALUE` say of the merge; k is counted where only the subset is given.

    Raises:
        InputError: An unknown key, no value, or neither k nor subset.
    """
    merge: dict[str, str] = {}
    for entry in given:
        key, equals, value = entry.partition("=")
        if key not in _MERGE:
            raise InputError(
                f"--as `{entry}`: unknown key `{key}`",
                nearest(key, _MERGE) or f"known are {', '.join(_MERGE)}",
            )
        if not is_unicode(value):
            raise InputError(f"--as `{entry}`: the value is no UTF-8")
        if not equals or key in merge:
            raise InputError(f"--as `{entry}`: expected one KEY=VALUE for each key")
        merge[key] = value.strip()
    if "k" not in merge and "subset" in merge:
        merge["k"] = str(len([name for name in merge["subset"].split("+") if name]))
    if not merge.get("k", "").isdecimal():
        raise InputError(
            f"a measurement needs k, the number of experts, found `{merge.get('k', '')}`",
            "say `--as k=0` for a base, or `--as subset=code+algebra --as method=ties`",
        )
    options = merge.setdefault("options", "{}")
    try:
        merge["options"] = json.dumps(parse_options(options), sort_keys=True)
    except ValueError as error:
        raise InputError(f"--as options: expected a JSON object, found `{options}`") from error
    return merge


def columns_of(path: Path, merge: Mapping[str, str], metric: str = "") -> list[str]:
    """The columns to write, which a file that exists decides.

    Args:
        merge: See `parse_merge`.
        metric: What is measured; empty for losses in nats.

    Raises:
        InputError: It lacks a column without which the rows would lose their meaning.
        SurroundingsError: It is no plain file, or its folder is not there.
    """
    refuse_existing(path, overwrite=True)
    try:
        _, columns = open_table(read_text(path, TABLE).splitlines(), path)
    except MissingInputError:
        left_out = "loss" if metric else "metric"
        # Here every model is scored on the whole text.
        return [c.name for c in COLUMNS if c.about != left_out and c.name != "text_se"]
    told = [key for key, value in merge.items() if value not in ("", "{}")]
    for column in (*told, "domain", *(_METRIC if metric else ("loss_nats",))):
        if column not in columns:
            raise InputError(
                f"`{path}`: column `{column}` is missing; found {listed(columns)}",
                "append to a file that has it, or write a new one",
            )
    return columns


def append(
    path: Path,
    scores: Scores,
    merge: Mapping[str, str],
    *,
    data_hash: str,
    metric: str = "",
    higher: bool = False,
) -> None:
    """Append a row for each domain and one for the macro mean, in one step.

    What is there stays byte for byte, and what another `append` adds meanwhile stays too.

    Args:
        merge: See `parse_merge`.
        data_hash: `Texts.sha256`.
        metric: What was measured; empty for losses in nats.
        higher: Whether more of it is better.

    Raises:
        InputError: A loss is not finite, or the file lacks a column.
        SurroundingsError: It cannot be written.
    """
    if faults := scores.faults():
        raise InputError(f"`{path}`: nothing was appended: {faults[0]}")
    while True:
        with holding(path) as exists:
            text = _rows(
                columns_of(path, merge, metric),
                _measured(scores, metric, higher),
                merge,
                data_hash,
                header=not exists,
            )
            before = read_bytes(path, TABLE) if exists else b""
            if before and not before.endswith(b"\n"):
                before += b"\n"
            try:
                return write_durably(path, before + text.encode(), replace=exists)
            except ExistsError:
                continue  # another has just begun the file


def _measured(scores: Scores, metric: str, higher: bool) -> dict[str, dict[str, object]]:
    """The cells of each domain and of the macro mean that say what was measured."""
    rows = {**scores.estimates(), MACRO: scores.macro()}
    if metric:
        better = direction(higher)
        return {
            name: {
                "metric": metric,
                "value": f"{row.loss_nats:.9g}",
                "value_se": write_se(row.se),
                "n_items": row.n_tokens,
                "better": better,
            }
            for name, row in rows.items()
        }
    return {
        name: {
            "loss_nats": f"{row.loss_nats:.9g}",
            "loss_se": write_se(row.se),
            "n_tokens": row.n_tokens,
        }
        for name, row in rows.items()
    }


def _rows(
    columns: list[str],
    measured: Mapping[str, Mapping[str, object]],
    merge: Mapping[str, str],
    data_hash: str,
    *,
    header: bool,
) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    if header:
        writer.writeheader()
    for name, cells in measured.items():
        writer.writerow({**merge, "domain": name, **cells, "data_hash": data_hash})
    return text.getvalue()
