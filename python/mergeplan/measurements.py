"""`measurements.csv`: read it, check it, and reduce it to mean losses by k."""

import csv
import hashlib
import json
import math
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from mergeplan.errors import InputError, MissingInputError, nearest

MACRO = "macro"
_ALIASES = {"overall": MACRO}
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_SMALLEST_COUNT = 10_000


@dataclass(frozen=True)
class Measurement:
    """One row: a mean token cross-entropy of one merge on one domain.

    Attributes:
        row: Line in the file, for messages.
        k: Experts merged; 0 is the base.
        n_params: Parameters of the base, or `None` where the file does not say.
        subset: Names of the experts; empty where the file does not say.
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


@dataclass(frozen=True)
class Measurements:
    """All rows of a file, and its hash."""

    rows: tuple[Measurement, ...]
    sha256: str


@dataclass(frozen=True)
class Point:
    """Mean loss, in nats, over the measured subsets of one size.

    Attributes:
        best_subset, best_loss: The lowest of them, where the file names subsets.
    """

    k: int
    loss: float
    n_subsets: int
    best_subset: tuple[str, ...] = ()
    best_loss: float | None = None


@dataclass(frozen=True)
class Series:
    """The curve of one method at one base size on one domain; `points` has one entry for each k."""

    method: str
    options: str
    n_params: float | None
    domain: str
    pool_size: int
    points: tuple[Point, ...]
    base_loss: float | None
    best_single: tuple[str, float] | None
    warnings: tuple[str, ...] = ()


def load_measurements(path: Path) -> Measurements:
    """Read a CSV file.

    Raises:
        MissingInputError: There is no such file.
        InputError: A column is missing or a value is wrong; the message names row and column.
    """
    try:
        raw = path.read_bytes()
        lines = raw.decode("utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise MissingInputError(f"cannot open `{path}`: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read `{path}`: {error}") from error
    reader = csv.DictReader(lines)
    columns = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = columns
    for needed in ("k", "loss_nats"):
        if needed not in columns:
            raise InputError(
                f"`{path}`: column `{needed}` is missing; found {', '.join(columns) or 'nothing'}",
                nearest(needed, columns) or "needed are `k` and `loss_nats`",
            )
    try:
        rows = tuple(_row(record, reader.line_num) for record in reader)
    except InputError as error:
        raise InputError(f"`{path}`, {error.message}", error.hint) from error
    if not rows:
        raise InputError(f"`{path}` has no rows")
    return Measurements(rows, hashlib.sha256(raw).hexdigest())


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
    if k < 0:
        raise fail("k", "a whole number, 0 or more")
    try:
        loss = float(text("loss_nats"))
    except ValueError:
        loss = math.nan
    if not (math.isfinite(loss) and loss > 0):
        raise fail("loss_nats", "a positive loss in nats")
    subset = tuple(name for name in text("subset").split("+") if name)
    if subset and len(set(subset)) != k:
        raise fail("subset", f"{k} different experts joined by `+`")
    pool_size = None
    if text("pool_size"):
        if not text("pool_size").isdigit():
            raise fail("pool_size", "a whole number")
        pool_size = int(text("pool_size"))
        if k > pool_size:
            raise fail("k", f"at most the pool size, {pool_size}")
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
    domain = text("domain").lower() if text("domain").lower() in _ALIASES else text("domain")
    return Measurement(
        row=row,
        k=k,
        loss_nats=loss,
        method=text("method"),
        options=json.dumps(parsed, sort_keys=True),
        n_params=n_params,
        domain=_ALIASES.get(domain, domain),
        subset=tuple(sorted(subset)),
        pool_size=pool_size,
    )


def parse_count(text: str) -> float:
    """A number of parameters: a plain count of 10,000 or more, or a number with a unit.

    Raises:
        ValueError: Not a number, or a small one without a unit, which could mean anything.

    >>> parse_count("0.5B"), parse_count("80592")
    (500000000.0, 80592.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmbt]?)", text.strip().lower())
    if not match:
        raise ValueError("write a count such as 494032768, or 0.5B")
    count = float(match[1]) * _UNITS[match[2]]
    if not match[2] and count < _SMALLEST_COUNT:
        raise ValueError(f"a number below {_SMALLEST_COUNT} needs a unit: {text}B or {text}k?")
    return count


def series_of(
    data: Measurements, *, domain: str | None, method: str | None, pool_size: int | None
) -> list[Series]:
    """The curves in a file, one for each method, options and base size.

    Args:
        domain: Which domain; by default the macro mean, or the only domain there is.
        method: Only the rows with this label.
        pool_size: Overrides what the file says.

    Raises:
        InputError: No row is left, or the domain is not there.
    """
    groups: dict[tuple[str, str, float | None], list[Measurement]] = defaultdict(list)
    for row in data.rows:
        if method is None or row.method == method:
            groups[row.method, row.options, row.n_params].append(row)
    if not groups:
        known = sorted({row.method for row in data.rows})
        hint = nearest(method or "", known) or f"methods: {', '.join(known)}"
        raise InputError(f"no rows of method `{method}`", hint)
    found = []
    for (label, options, n_params), rows in groups.items():
        name, losses = _by_merge(rows, domain)
        size, warnings = _pool_size(rows, pool_size)
        points = _points(losses)
        if points and points[-1].k > size:
            raise InputError(
                f"method `{label}`: k = {points[-1].k} is measured, but the pool size is {size}",
                "give the number of experts as `--pool-size`",
            )
        singles = [
            (subset[0], loss)
            for (k, subset), values in losses.items()
            if k == 1 and subset
            for loss in values
        ]
        base = [loss for (k, _), values in losses.items() if k == 0 for loss in values]
        found.append(
            Series(
                method=label,
                options=options,
                n_params=n_params,
                domain=name,
                pool_size=size,
                points=tuple(points),
                base_loss=sum(base) / len(base) if base else None,
                best_single=min(singles, key=lambda item: item[1]) if singles else None,
                warnings=tuple(warnings),
            )
        )
    return found


Merge = tuple[int, tuple[str, ...]]


def _by_merge(rows: list[Measurement], domain: str | None) -> tuple[str, dict[Merge, list[float]]]:
    """Losses of one domain by merge: k and subset, which is empty where the file names none."""
    names = {row.domain for row in rows}
    domains = sorted(names - {MACRO})
    if domain is not None:
        domain = _ALIASES.get(domain, domain)
    elif MACRO in names or len(domains) > 1:
        domain = MACRO
    else:
        domain = domains[0]
    losses: dict[Merge, list[float]] = defaultdict(list)
    if domain in names:
        for row in rows:
            if row.domain == domain:
                losses[row.k, row.subset].append(row.loss_nats)
        return domain, losses
    if domain != MACRO:
        hint = nearest(domain, sorted(names)) or f"domains: {', '.join(sorted(names))}"
        raise InputError(f"no rows of domain `{domain}`", hint)
    # The macro mean is formed where every domain is present, and never from another mean.
    cells: dict[Merge, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        cells[row.k, row.subset][row.domain].append(row.loss_nats)
    for merge, by_domain in cells.items():
        if len(by_domain) == len(domains):
            means = [sum(values) / len(values) for values in by_domain.values()]
            losses[merge].append(sum(means) / len(means))
    if not losses:
        raise InputError("no merge was measured on every domain", "choose one with `--domain`")
    return domain, losses


def _pool_size(rows: list[Measurement], given: int | None) -> tuple[int, list[str]]:
    if given is not None:
        return given, []
    stated = {row.pool_size for row in rows if row.pool_size is not None}
    if len(stated) > 1:
        raise InputError(f"column `pool_size` has several values: {sorted(stated)}")
    if stated:
        return stated.pop(), []
    names = {name for row in rows for name in row.subset}
    if names:
        return len(names), []
    largest = max(row.k for row in rows)
    return largest, [f"pool size taken to be the largest k, {largest}; say `--pool-size` if not"]


def _points(losses: dict[Merge, list[float]]) -> list[Point]:
    points = []
    for k in sorted({k for k, _ in losses if k > 0}):
        here = {subset: values for (size, subset), values in losses.items() if size == k}
        values = [value for group in here.values() for value in group]
        best: tuple[str, ...] = ()
        best_loss = None
        named = {subset: sum(group) / len(group) for subset, group in here.items() if subset}
        if named:
            best, best_loss = min(named.items(), key=lambda item: (item[1], item[0]))
        points.append(Point(k, sum(values) / len(values), len(values), best, best_loss))
    return points
