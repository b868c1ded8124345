"""How much of a score's error is each merge's own, where a run kept every item's score."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mergeplan.evaluation.measured import SCORES, read_scores
from mergeplan.measurements.metrics import item_error
from mergeplan.measurements.rows import Measurement, MergeKey

# Merges that answered the same items, at least, for what they have in common.
_FEWEST = 2
# A value of a table, of eight digits, that is not the mean of its items is of another run.
_SAME = 1e-6


def with_item_scores(table: Path, rows: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """The rows, those of metrics with what of their error is each merge's own.

    Of two merges' errors the part that they have in common cancels in their difference. Over all
    pairs the variance of differences by item, as a share of what it were without that part, is the
    share that is each merge's own.

    Args:
        table: Where the rows were read from; the run's other files are looked for beside it.

    Returns:
        As they were, where no items' scores lie beside the table, or they are of other values.

    Raises:
        InputError: The scores are damaged.
    """
    if not any(row.metric for row in rows) or not (table.parent / SCORES).is_file():
        return tuple(rows)
    items: dict[tuple[str, str], dict[MergeKey, tuple[float, ...]]] = defaultdict(dict)
    for one in read_scores(table.parent):
        for score in one.tasks:
            if score.items:
                items[score.metric, score.task][one.merge.merge_key] = score.items
    some: dict[tuple[str, str], list[Measurement]] = defaultdict(list)
    for row in rows:
        if row.metric:
            some[row.metric, row.domain].append(row)
    shares = {key: _own_share(found, items[key]) for key, found in some.items() if key in items}
    return tuple(_with_own(row, shares.get((row.metric, row.domain))) for row in rows)


def _with_own(row: Measurement, share: float | None) -> Measurement:
    if share is None or not row.metric:
        return row
    return replace(row, own_se=item_error(row) * share**0.5)


def _own_share(
    rows: Sequence[Measurement], items: dict[MergeKey, tuple[float, ...]]
) -> float | None:
    """Share of the variance that is each merge's own; `None` where it cannot be told."""
    found = [items.get(row.merge_key, ()) for row in rows]
    n, m = len(found[0]), len(found)
    if m < _FEWEST or n < _FEWEST or any(len(one) != n for one in found):
        return None
    scores = np.array(found)  # (m, n)
    values = np.array([row.loss_nats for row in rows])
    if np.abs(scores.mean(1) - values).max() > _SAME:
        return None
    total = float(scores.var(1).sum())
    if total == 0:
        return None
    # Σ over pairs of var(x - y), over that of var x + var y.
    differences = m * total - m * m * float(scores.mean(0).var())
    # Never nothing: merges that agree on all of n items may not on the next.
    return min(max(differences / ((m - 1) * total), 1 / n), 1.0)
