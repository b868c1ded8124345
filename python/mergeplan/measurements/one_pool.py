"""Rows of two pools in one table: no law is of both."""

from collections.abc import Iterable

from mergeplan.display.text import format_count, listed
from mergeplan.errors import InputError
from mergeplan.measurements.rows import Measurement

# Merges of two experts and more that make a group of experts a pool of its own, and no odd design.
_FEWEST = 2


def refuse_two_pools(rows: Iterable[Measurement], n_params: float | None) -> None:
    """Raise where merges of one method and base are of different models.

    By what `calibrate` recorded of the models, or else by experts of whom none was merged with any
    of the others.

    Raises:
        InputError: They are of two pools; the message names a row of each.
    """
    rows = [row for row in rows if row.k]
    where = "" if n_params is None else f" at {format_count(n_params)} parameters"
    first: dict[str, Measurement] = {}
    for row in rows:
        if row.pool_hash:
            first.setdefault(row.pool_hash, row)
    if len(first) > 1:
        one, other = list(first.values())[:2]
        raise InputError(
            f"two pools in one table{where}: column `pool_hash` is `{one.pool_hash}` in row"
            f" {one.row} and `{other.pool_hash}` in row {other.row}",
            "keep each pool in a table of its own",
        )
    groups = _apart({row.subset: row for row in rows if len(row.subset) > 1})
    if len(groups) > 1:
        (one, mine), (other, theirs) = groups[:2]
        raise InputError(
            f"two pools in one table{where}: no merge of {listed(sorted(mine))} (row {one.row}) has"
            f" an expert of {listed(sorted(theirs))} (row {other.row})",
            "keep each pool in a table of its own, or measure all of them merged",
        )


def _apart(
    merges: dict[tuple[str, ...], Measurement],
) -> list[tuple[Measurement, set[str]]]:
    """Groups of experts that were merged among themselves alone, each with its first row."""
    groups: list[tuple[Measurement, set[str], int]] = []
    for subset, row in merges.items():
        names, count = set(subset), 1
        for group in [group for group in groups if group[1] & names]:
            groups.remove(group)
            row = min(row, group[0], key=lambda one: one.row)
            names, count = names | group[1], count + group[2]
        groups.append((row, names, count))
    return [(row, names) for row, names, count in groups if count >= _FEWEST]
