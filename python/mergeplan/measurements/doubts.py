"""Rows whose base size looks like a slip: they would count as another base without a word."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from mergeplan.display.text import format_count
from mergeplan.measurements.rows import Measurement

# Two bases of one family are hardly ever nearer to each other.
_NEAR = 0.05


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
