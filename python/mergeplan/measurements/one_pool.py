"""Rows of two pools in one table: no law is of both."""

from collections import defaultdict
from collections.abc import Iterable

from mergeplan.display.text import format_count, listed
from mergeplan.errors import InputError
from mergeplan.measurements.rows import Measurement

_HINT = "keep each pool in a table of its own"


def refuse_two_hashes(path: str, rows: Iterable[Measurement]) -> None:
    """Raise where rows of one base size are of different models, as `calibrate` recorded them.

    Args:
        path: Where they were read, for the message.
        rows: Of all sizes; those without a `pool_hash` are passed over.

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
    """Raise where experts fall into groups that were merged among themselves alone.

    Few subsets of one pool may have no expert in common as well, but then not every two experts of
    a group were merged together.

    Args:
        rows: Of one method and base size. Nothing is raised where all are of one `pool_hash`.

    Raises:
        InputError: They are of two pools; the message names a row of each.
    """
    rows = list(rows)
    if rows and rows[0].pool_hash and len({row.pool_hash for row in rows}) == 1:
        return
    merges = {row.subset: row for row in rows if len(row.subset) > 1}
    groups = _apart(merges)
    if len(groups) > 1:
        met: dict[str, set[str]] = defaultdict(set)
        for subset in merges:
            for name in subset:
                met[name].update(subset)
        groups = [group for group in groups if all(met[name] == group[1] for name in group[1])]
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
    """Groups of experts that were merged among themselves alone, more than once.

    Returns:
        The first row of each, and its experts.
    """
    groups: list[tuple[Measurement, set[str], int]] = []
    for subset, row in merges.items():
        names, count = set(subset), 1
        for group in [group for group in groups if group[1] & names]:
            groups.remove(group)
            row = min(row, group[0], key=lambda one: one.row)
            names, count = names | group[1], count + group[2]
        groups.append((row, names, count))
    return [(row, n) for row, n, count in groups if count > 1]
