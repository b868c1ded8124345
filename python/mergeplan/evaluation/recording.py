"""Append what a model came to to `measurements.csv`."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from mergeplan.display.text import is_unicode, listed
from mergeplan.errors import InputError, MissingInputError, nearest
from mergeplan.evaluation.contradictions import filled
from mergeplan.evaluation.provenance import Provenance
from mergeplan.evaluation.scores import Scores, TaskScore
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


def parse_merge(given: tuple[str, ...], known: Provenance | None = None) -> dict[str, str]:
    """What `--as KEY=VALUE` say of the merge; k is counted where only the subset is given.

    Args:
        known: What its manifest says, which fills the gaps.

    Raises:
        InputError: An unknown key, no value, neither k nor subset, or the manifest says otherwise.
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
    if known is not None:
        merge = filled(merge, known)
    if "k" not in merge and "subset" in merge:
        merge["k"] = str(len([name for name in merge["subset"].split("+") if name]))
    if known is not None and known.unnamed and "k" not in merge:
        raise InputError(
            f"`{known.path}` says how this merge was made, and not of which experts:"
            f" {known.unnamed}",
            "name them as the table should have them: `--as subset=code+algebra`, and `--as"
            " weights=0.7+0.3` where they are not equal",
        )
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


def columns_of(
    path: Path, merge: Mapping[str, str], *, losses: bool = True, metrics: bool = False
) -> list[str]:
    """The columns to write, which a file that exists decides.

    Args:
        merge: See `parse_merge`.
        losses, metrics: Of which there will be rows.

    Raises:
        InputError: It lacks a column without which the rows would lose their meaning.
        SurroundingsError: It is no plain file, or its folder is not there.
    """
    refuse_existing(path, overwrite=True)
    try:
        _, columns = open_table(read_text(path, TABLE).splitlines(), path)
    except MissingInputError:
        left_out = [about for about, some in (("loss", losses), ("metric", metrics)) if not some]
        # Here every model is scored on the whole text.
        return [c.name for c in COLUMNS if c.about not in left_out and c.name != "text_se"]
    told = [key for key, value in merge.items() if value not in ("", "{}")]
    needed = (*(("loss_nats",) if losses else ()), *(_METRIC if metrics else ()))
    for column in (*told, "domain", *needed):
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
    tasks: Sequence[TaskScore] = (),
    task_hashes: Mapping[str, str] | None = None,
) -> int:
    """Append a row for each domain, one for the macro mean and one for each task, in one step.

    What is there stays byte for byte, and what another `append` adds meanwhile stays too. Lines end
    as the first one does.

    Args:
        merge: See `parse_merge`.
        data_hash: `Texts.sha256`.
        metric: What was measured; empty for losses in nats.
        higher: Whether more of it is better.
        tasks: Of them, what says which way is better and is finite.
        task_hashes: Of each task.

    Returns:
        How many of the rows were there already, cell for cell.

    Raises:
        InputError: A loss is not finite, or the file lacks a column.
        SurroundingsError: It cannot be written.
    """
    if faults := scores.faults():
        raise InputError(f"`{path}`: nothing was appended: {faults[0]}")
    measured = _measured(scores, metric, higher, data_hash)
    measured += [
        _task_cells(one, (task_hashes or {}).get(one.task, ""))
        for one in tasks
        if one.better and math.isfinite(one.value)
    ]
    metrics = any("metric" in cells for cells in measured)
    while True:
        with holding(path) as exists:
            columns = columns_of(path, merge, losses=not metric, metrics=metrics)
            before = read_bytes(path, TABLE) if exists else b""
            end = "\r\n" if before.partition(b"\n")[0].endswith(b"\r") else "\n"
            text = _rows(columns, measured, merge, end, header=not exists)
            if before and not before.endswith(b"\n"):
                before += end.encode()
            try:
                write_durably(path, before + text.encode(), replace=exists)
            except ExistsError:
                continue  # another has just begun the file
            return _repeated(text, before.decode("utf-8-sig"))


def _repeated(rows: str, before: str) -> int:
    there = set(map(tuple, csv.reader(io.StringIO(before, newline=""))))
    return sum(tuple(row) in there for row in csv.reader(io.StringIO(rows, newline="")))


def _measured(scores: Scores, metric: str, higher: bool, data_hash: str) -> list[dict[str, object]]:
    """The cells of each domain and of the macro mean that say what was measured."""
    rows = {**scores.estimates(), MACRO: scores.macro()}
    if metric:
        return [
            {
                "domain": name,
                "metric": metric,
                "value": f"{row.loss_nats:.9g}",
                "value_se": write_se(row.se),
                "n_items": row.n_tokens,
                "better": direction(higher),
                "data_hash": data_hash,
            }
            for name, row in rows.items()
        ]
    return [
        {
            "domain": name,
            "loss_nats": f"{row.loss_nats:.9g}",
            "loss_se": write_se(row.se),
            "n_tokens": row.n_tokens,
            "data_hash": data_hash,
        }
        for name, row in rows.items()
    ]


def _task_cells(score: TaskScore, data_hash: str) -> dict[str, object]:
    """The same of a task, as a calibration's table has it."""
    se = write_se(score.se)
    return {
        "domain": score.task,
        "metric": score.metric,
        "value": f"{score.value:.9g}",
        "value_se": se,
        # Without an error it would be taken for a share of the items.
        "n_items": score.n_documents or "" if se else "",
        "better": score.better,
        "data_hash": data_hash,
    }


def _rows(
    columns: list[str],
    measured: Sequence[Mapping[str, object]],
    merge: Mapping[str, str],
    end: str,
    *,
    header: bool,
) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator=end)
    if header:
        writer.writeheader()
    writer.writerows({**merge, **cells} for cells in measured)
    return text.getvalue()
