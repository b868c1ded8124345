"""`measurements.csv`: read it and check every row."""

import csv
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

from mergeplan.display.text import parse_count
from mergeplan.errors import InputError, MissingInputError, nearest

MACRO = "macro"
ALIASES = {"overall": MACRO}
# Beyond these a number is no loss of a language model, and arithmetic runs out of digits.
SMALLEST_LOSS, LARGEST_LOSS = 1e-6, 1e6
LARGEST_POOL = 10_000
# Columns of a table of losses.
_LOSSES = ("k", "loss_nats")


@dataclass(frozen=True)
class Measurement:
    """One row: a mean token cross-entropy of one merge on one domain, or another metric of it.

    Attributes:
        row: Line in the file, for messages.
        k: Experts merged; 0 is the base.
        n_params: Parameters of the base, or `None` where the file does not say.
        subset: Names of the experts, sorted; empty where the file does not say.
        loss_se: Standard error of the loss, from the evaluation text.
        weights: Of the experts in the order of `subset`, where they differ or do not sum to 1.
        metric: Name of what was measured instead of a loss; `loss_nats` holds its value then.
        higher: Whether higher values of the metric are better.
    """

    row: int
    k: int
    loss_nats: float
    method: str = ""
    options: str = "{}"
    n_params: float | None = None
    domain: str = ""
    subset: tuple[str, ...] = ()
    pool_size: int | None = None
    loss_se: float | None = None
    seed: str = ""
    weights: tuple[float, ...] = ()
    metric: str = ""
    higher: bool = False


@dataclass(frozen=True)
class Measurements:
    """The rows of a file that the law is about, and the file's hash.

    Attributes:
        unequal: Rows left out because their experts have different weights, or weights that do
            not sum to 1: the law is about equal ones.
    """

    rows: tuple[Measurement, ...]
    sha256: str
    unequal: int = 0


def load_measurements(path: Path) -> Measurements:
    """Read the losses of equally weighted merges from a CSV file.

    Raises:
        MissingInputError: There is no such file.
        InputError: A column is missing or a value is wrong; the message names row and column.
    """
    return _of_equal_weights(*read_rows(path, _LOSSES), str(path))


def parse_measurements(text: str, path: str) -> Measurements:
    """What `load_measurements` would find in a file of this text.

    Args:
        path: For messages.

    Raises:
        InputError: As for `load_measurements`.
    """
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return _of_equal_weights(_parse_rows(text, path, _LOSSES), sha256, path)


def _of_equal_weights(every: tuple[Measurement, ...], sha256: str, path: str) -> Measurements:
    losses = [row for row in every if not row.metric]
    rows = tuple(row for row in losses if not row.weights)
    if not rows:
        raise InputError(f"`{path}` has no rows of equally weighted merges")
    return Measurements(rows, sha256, len(losses) - len(rows))


def read_rows(path: Path, needed: tuple[str, ...] = ("k",)) -> tuple[tuple[Measurement, ...], str]:
    """Every row of a CSV file, other metrics and weights included, and the file's SHA-256.

    Args:
        needed: Columns that must be there.

    Raises:
        MissingInputError: There is no such file.
        InputError: A column is missing or a value is wrong; the message names row and column.
    """
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise MissingInputError(f"cannot open `{path}`: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read `{path}`: {error}") from error
    return _parse_rows(text, str(path), needed), hashlib.sha256(raw).hexdigest()


def _parse_rows(text: str, path: str, needed: tuple[str, ...]) -> tuple[Measurement, ...]:
    reader = csv.DictReader(text.splitlines())
    columns = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = columns
    for name in needed:
        if name not in columns:
            raise InputError(
                f"`{path}`: column `{name}` is missing; found {', '.join(columns) or 'nothing'}",
                nearest(name, columns) or f"needed are {' and '.join(f'`{n}`' for n in needed)}",
            )
    try:
        rows = tuple(_row(record, reader.line_num) for record in reader)
    except csv.Error as error:
        raise InputError(f"`{path}`, row {reader.line_num}: {error}") from error
    except InputError as error:
        raise InputError(f"`{path}`, {error.message}", error.hint) from error
    _refuse_repetition(path, rows)
    return rows


def _row(record: dict[str, str], row: int) -> Measurement:
    def text(column: str) -> str:
        return (record.get(column) or "").strip()

    def fail(column: str, expected: str, hint: str | None = None) -> InputError:
        found = text(column) or "nothing"
        where = f"row {row}, column `{column}`"
        return InputError(f"{where}: expected {expected}, found `{found}`", hint)

    try:
        k = int(text("k"))
    except ValueError:
        k = -1
    if not 0 <= k <= LARGEST_POOL:
        raise fail("k", "a whole number, 0 or more")
    metric = "" if text("loss_nats") else text("metric")
    column = "value" if metric else "loss_nats"
    try:
        value = float(text(column))
    except ValueError:
        value = math.nan
    if metric and not abs(value) <= LARGEST_LOSS:
        raise fail("value", "a number")
    if not metric and not SMALLEST_LOSS <= value <= LARGEST_LOSS:
        raise fail("loss_nats", "a positive loss in nats")
    if metric and text("better") not in ("lower", "higher"):
        raise fail("better", "`lower` or `higher`")
    subset = tuple(name.strip() for name in text("subset").split("+") if name.strip())
    if subset and not len(subset) == len(set(subset)) == k:
        raise fail("subset", f"{k} different experts joined by `+`")
    try:
        weights = tuple(float(weight) for weight in text("weights").split("+") if weight)
    except ValueError as error:
        raise fail("weights", "numbers joined by `+`") from error
    if not all(math.isfinite(weight) for weight in weights):
        raise fail("weights", "finite numbers")
    if subset and len(weights) not in (0, k):
        raise fail("weights", f"{k} numbers joined by `+`")
    if _equal(weights):
        weights = ()
    elif subset:
        order = sorted(range(k), key=lambda i: subset[i])
        weights = tuple(weights[i] for i in order)
    pool_size = None
    if text("pool_size"):
        try:
            pool_size = int(text("pool_size"))
        except ValueError:
            pool_size = 0
        if not 1 <= pool_size <= LARGEST_POOL:
            raise fail("pool_size", f"a whole number from 1 to {LARGEST_POOL}")
        if k > pool_size:
            raise fail("k", f"at most the pool size, {pool_size}")
    loss_se = None
    if text("loss_se"):
        try:
            loss_se = float(text("loss_se"))
        except ValueError:
            loss_se = math.nan
        if not (math.isfinite(loss_se) and loss_se >= 0):
            raise fail("loss_se", "a standard error in nats")
    n_params = None
    if text("n_params"):
        try:
            n_params = parse_count(text("n_params"))
        except ValueError as error:
            raise fail("n_params", "a number of parameters", str(error)) from error
    options = text("options") or "{}"
    try:
        parsed = json.loads(options)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise fail("options", "a JSON object")
    domain = text("domain").lower() if text("domain").lower() in ALIASES else text("domain")
    return Measurement(
        row=row,
        k=k,
        loss_nats=value,
        method=text("method"),
        options=json.dumps(parsed, sort_keys=True),
        n_params=n_params,
        domain=ALIASES.get(domain, domain),
        subset=tuple(sorted(subset)),
        pool_size=pool_size,
        loss_se=loss_se,
        seed=text("seed"),
        weights=weights,
        metric=metric,
        higher=text("better") == "higher",
    )


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


def parse_shares(text: str) -> dict[str, float]:
    """`code=2,math` as a share for each name, an alias by its own name.

    Raises:
        InputError: A share is no positive number.

    >>> parse_shares("code=2,math")
    {'code': 2.0, 'math': 1.0}
    """
    shares = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        try:
            value = float(share or 1)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise InputError(f"expected a positive share in `{part}`", "write code=2,math=1")
        shares[ALIASES.get(name.strip().lower(), name.strip())] = value
    return shares
