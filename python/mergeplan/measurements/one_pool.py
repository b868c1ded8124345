"""Rows of two pools in one table: no law is of both."""

from collections.abc import Iterable

from mergeplan.display.text import format_count, listed
from mergeplan.errors import InputError
from mergeplan.measurements.rows import Measurement

# Merges of two experts and more that make a group of experts a pool of its own, and no odd design.
_FEWEST = 2
_HINT = "keep each pool in a table of its own"


def refuse_two_hashes(path: str, rows: Iterable[Measurement]) -> None:
    """Raise where rows of one base size are of different models, as `calibrate` recorded them.

    Raises:
        InputError: They are; the message names the file, and a row of each pool.
    """
    first: dict[float | None, Measurement] = {}
    for row in rows:
        if not row.pool_hash:
            continue
        one = first.setdefault(row.n_params, row)
        if one.pool_hash != row.pool_hash:
            raise InputError(
                f"`{path}`: two pools in one table{_at(row.n_params)}: column `pool_hash` is"
                f" `{one.pool_hash}` in row {one.row} and `{row.pool_hash}` in row {row.row}",
                _HINT,
            )


def refuse_two_pools(rows: Iterable[Measurement], n_params: float | None) -> None:
    """Raise where of some experts none was merged with any of the others.

    Args:
        rows: Of one method and base size.

    Raises:
        InputError: They are of two pools; the message names a row of each.
    """
    groups = _apart({row.subset: row for row in rows if len(row.subset) > 1})
    if len(groups) > 1:
        (one, mine), (other, theirs) = groups[:2]
        raise InputError(
            f"two pools in one table{_at(n_params)}: no merge of {listed(sorted(mine))} (row"
            f" {one.row}) has an expert of {listed(sorted(theirs))} (row {other.row})",
            f"{_HINT}, or measure all of them merged",
        )


def _at(n_params: float | None) -> str:
    return "" if n_params is None else f" at {format_count(n_params)} parameters"


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
