"""`gradients.csv`: how measured losses move with the experts' weights; read and written here alone.

A row says of one merge and domain by how many nats per token the loss rises for one more of an
expert's weight α, in base + Σ α v with v what the method makes of the expert's delta, lambda
included: an average of k has α = 1/k. The weights of the others stay, so that their sum moves. Rows
of the base, which name no method and no subset, are along the deltas as they are.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mergeplan.display.text import parse_count, shown
from mergeplan.errors import InputError
from mergeplan.measurements.columns import LARGEST_LOSS, join_cell
from mergeplan.measurements.rows import MergeKey, domain_name
from mergeplan.system.csvtext import open_table
from mergeplan.system.ranges import parse_options
from mergeplan.system.reading import TABLE, decode, read_bytes

# In a run's folder, beside `measurements.csv`.
GRADIENTS = "gradients.csv"
COLUMNS = (
    "n_params",
    "method",
    "options",
    "subset",
    "seed",
    "domain",
    "expert",
    "slope_nats",
    "pool_hash",
    "data_hash",
)


@dataclass(frozen=True)
class Slope:
    """One row.

    Attributes:
        merge_key: As `Measurement.merge_key` has it; equally weighted merges alone.
        slope_nats: Nats per token for one more of the expert's weight.
    """

    merge_key: MergeKey
    domain: str
    expert: str
    slope_nats: float
    pool_hash: str = ""
    data_hash: str = ""


def slopes_text(rows: Iterable[Slope]) -> str:
    """Rows as the text of the file, which reads back to the same rows."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        n_params, method, options, subset, seed = row.merge_key
        count = "" if n_params is None else f"{n_params:.0f}"
        merge = [count, method, options, join_cell(subset), seed]
        slope = [row.domain, row.expert, repr(row.slope_nats)]
        writer.writerow([*merge, *slope, row.pool_hash, row.data_hash])
    return file.getvalue()


def read_slopes(path: Path) -> tuple[Slope, ...]:
    """Every row.

    Raises:
        MissingInputError: There is no such file.
        InputError: A column is missing, a value is wrong, or a slope stands twice; the message
            names row and column.
    """
    reader, columns = open_table(decode(read_bytes(path, TABLE), path).splitlines(), path)
    if missing := [name for name in COLUMNS if name not in columns]:
        raise InputError(f"`{path}`: column `{missing[0]}` is missing")
    rows = []
    seen: dict[tuple[object, ...], int] = {}
    try:
        for record in reader:
            row = _row(record, f"`{path}`, row {reader.line_num}")
            first = seen.setdefault((row.merge_key, row.domain, row.expert), reader.line_num)
            if first != reader.line_num:
                raise InputError(f"`{path}`, row {reader.line_num}: repeats row {first}")
            rows.append(row)
    except csv.Error as error:
        raise InputError(f"`{path}`, row {reader.line_num}: {error}") from error
    return tuple(rows)


def _row(record: Mapping[str, str | None], where: str) -> Slope:
    cells = {name: (record.get(name) or "").strip() for name in COLUMNS}

    def fail(column: str, expected: str) -> InputError:
        found = shown(cells[column]) if cells[column] else "nothing"
        return InputError(f"{where}, column `{column}`: expected {expected}, found {found}")

    is_base = not cells["method"] and not cells["subset"]
    for column in ("domain", "expert") if is_base else ("method", "subset", "domain", "expert"):
        if not cells[column]:
            raise fail(column, "a name")
    try:
        n_params = parse_count(cells["n_params"], smallest=1) if cells["n_params"] else None
    except ValueError as error:
        raise fail("n_params", "a number of parameters") from error
    try:
        options = json.dumps(parse_options(cells["options"]), sort_keys=True)
    except ValueError as error:
        raise fail("options", "a JSON object") from error
    try:
        slope = float(cells["slope_nats"])
    except ValueError:
        slope = math.nan
    if not abs(slope) <= LARGEST_LOSS:
        raise fail("slope_nats", f"a number from {-LARGEST_LOSS:,.0f} to {LARGEST_LOSS:,.0f}")
    subset = () if is_base else tuple(sorted(cells["subset"].split("+")))
    key = n_params, cells["method"], options, subset, cells["seed"]
    domain = domain_name(cells["domain"])
    return Slope(key, domain, cells["expert"], slope, cells["pool_hash"], cells["data_hash"])
