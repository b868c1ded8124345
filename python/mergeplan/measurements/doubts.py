"""Rows whose base size looks like a slip, or whose texts differ: they count, with a word."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from mergeplan.display.text import format_count
from mergeplan.measurements.metrics import NO_SHARE, may_be_share
from mergeplan.measurements.rows import PARTLY, Measurement

# Two bases of one family are hardly ever nearer to each other.
_NEAR = 0.05
# One in so many values outside 0 to 1, of a metric of which no row says that it is of items.
_FEW_OUTSIDE = 10


def doubtful_sizes(rows: Sequence[Measurement]) -> list[str]:
    """What may be wrong with the base sizes that rows name.

    Args:
        rows: Of a whole table.

    Returns:
        A word on rows without `n_params` beside others with one, and on sizes that are nearly the
        same and have not each a base of their own.
    """
    found = []
    counts = Counter(row.n_params for row in rows)
    nameless = [row.row for row in rows if row.n_params is None]
    if nameless and len(counts) > 1:
        found.append(
            f"{len(nameless)} of {len(rows)} rows have no `n_params`, the first is row"
            f" {nameless[0]}: they count as a base of their own; give all rows their `n_params`"
        )
    with_base = {row.n_params for row in rows if row.k == 0}
    sizes = sorted(size for size in counts if size is not None)
    for small, large in pairwise(sizes):
        if large / small > 1 + _NEAR or {small, large} <= with_base:
            continue
        odd = min((large, small), key=lambda size: (size in with_base, counts[size]))
        first = next(row.row for row in rows if row.n_params == odd)
        found.append(
            f"column `n_params` has {small:.10g} and {large:.10g}, nearly the same"
            f" ({format_count(odd)} first in row {first}): they count as two bases; if they are"
            " one, give it one number"
        )
    return found


def doubtful_shares(rows: Sequence[Measurement]) -> list[str]:
    """A word on each metric most of whose values are shares of 0 to 1, and some are none.

    Where no row says that it is of items, one in ten is enough to say that the metric is no share.

    Args:
        rows: Of a whole table.
    """
    found = []
    for metric in dict.fromkeys(row.metric for row in rows if row.metric):
        own = [row for row in rows if row.metric == metric]
        items = [row for row in own if may_be_share(row)]
        if not items and (NO_SHARE.search(metric) or not own[0].higher):
            continue
        most = len(items) / 2 if items else len(own) / _FEW_OUTSIDE
        own = items or own
        outside = [row for row in own if not 0 <= row.loss_nats <= 1]
        if 0 < len(outside) < most:
            found.append(
                f"row {outside[0].row}, column `value`: `{metric}` of {outside[0].loss_nats:g},"
                f" where {len(own) - len(outside)} of {len(own)} are shares from 0 to 1"
            )
    return found


def doubtful_texts(rows: Sequence[Measurement]) -> list[str]:
    """A word where losses of one base size and domain are of different texts, by `data_hash`.

    Args:
        rows: Of a whole table.
    """
    first: dict[tuple[object, ...], Measurement] = {}
    found = []
    for row in rows:
        what_of = row.n_params, row.metric, row.domain
        one = first.setdefault(what_of, row) if row.data_hash else row
        if (ours := _text(one)) != (theirs := _text(row)):
            found.append((one, ours, row, theirs))
    if not found:
        return []
    one, ours, row, theirs = found[0]
    also = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return [
        f"column `data_hash`: row {row.row}{also} was measured on another text, `{theirs}`, than"
        f" row {one.row}, `{ours}`: differences between them are the texts' too; measure them in"
        " one run"
    ]


def _text(row: Measurement) -> str:
    """The hash of the whole text."""
    return row.data_hash.split(PARTLY)[0]
