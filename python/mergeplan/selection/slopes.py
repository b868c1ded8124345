"""Slopes of measured losses along the experts' weights: from a run's file to rows, and from rows to
what the law is fitted to."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergeplan.config.labels import elects
from mergeplan.display.text import listed
from mergeplan.errors import InputError
from mergeplan.evaluation.measured import RUN
from mergeplan.measurements.rows import MACRO, Measurement, MergeKey
from mergeplan.measurements.slopes import GRADIENTS, read_slopes

Array = NDArray[np.float64]
_Point = tuple[float, ...]


def rows_with_slopes(table_file: Path, rows: tuple[Measurement, ...]) -> tuple[Measurement, ...]:
    """Rows with the slopes that a run left beside its table; a bare table's as they are.

    A row of the mean over domains has the mean of theirs.

    Raises:
        InputError: The file is damaged, or of another pool or text than the rows.
    """
    path = table_file.parent / GRADIENTS
    if not ((table_file.parent / RUN).is_file() and path.is_file()):
        return rows
    slopes = read_slopes(path)
    for name in ("pool_hash", "data_hash"):
        known = {getattr(row, name) for row in rows} - {""}
        others = {getattr(one, name) for one in slopes} - known
        if known and others:
            raise InputError(
                f"`{path}`: expected `{name}` {listed(sorted(known))}, as the table beside it has,"
                f" found {listed(sorted(others))}",
                "delete it, or take the table that was written with it",
            )
    found: dict[MergeKey, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for one in slopes:
        found[one.merge_key][one.domain][one.expert] = one.slope_nats
    return tuple(
        replace(row, slopes=slopes_for(row.domain, found[row.merge_key]))
        if not row.metric and row.merge_key in found
        else row
        for row in rows
    )


def slopes_for(
    domain: str, known: Mapping[str, Mapping[str, float]]
) -> tuple[tuple[str, float], ...]:
    """What a merge's row of a domain has, as `Measurement.slopes`.

    Args:
        domain: One of them, or the mean.
        known: By domain and expert.
    """
    if domain != MACRO:
        return tuple(known.get(domain, {}).items())
    each = list(known.values())
    return tuple((name, sum(one[name] for one in each) / len(each)) for name in each[0])


class SlopesOfRows:
    """Slopes at the points of a table, gathered row by row.

    Args:
        experts: The table's, in its order.
        method, options: The table's. Of methods that elect signs nothing is gathered: their merges
            are no sums of parts.
        strength: Factor on the mean of the deltas, for methods that merge by nothing else; `None`
            for others, which get nothing of the base.
    """

    def __init__(
        self, experts: Sequence[str], method: str, options: str, strength: float | None
    ) -> None:
        self._experts, self._strength = experts, strength
        self._elects = elects(method, json.loads(options))
        self._found: dict[tuple[_Point, str], list[Array]] = defaultdict(list)

    def add(self, row: Measurement, point: _Point, name: str, factor: float) -> None:
        """Take a row's, if it has some along every expert.

        Args:
            point: Its weights in the table.
            name: Of its target.
            factor: By how much its weights are more in the table than in the row, for merges of
                another lambda.
        """
        known = dict(row.slopes)
        if row.k == 0:  # along the deltas themselves, which are there lambda times
            if not self._strength:
                return
            factor = 1 / self._strength
        if not self._elects and set(self._experts) <= known.keys():
            slopes = np.array([known[expert] for expert in self._experts])
            self._found[point, name].append(slopes / factor)

    def add_mean(self, point: _Point, names: Iterable[str]) -> None:
        """The mean over domains, where all have slopes."""
        each = [self._found.get((point, name)) for name in names]
        if all(each):
            means = [np.mean(one, axis=0) for one in each if one]
            self._found[point, MACRO] = [np.mean(means, axis=0)]

    def of(self, points: Sequence[_Point], name: str) -> Array | None:
        """Of a target, shape (n_points, n_experts); NaN for points without, `None` for none."""
        if not any((point, name) in self._found for point in points):
            return None
        nothing = [np.full(len(self._experts), np.nan)]
        return np.array(
            [np.mean(self._found.get((point, name), nothing), axis=0) for point in points]
        )
