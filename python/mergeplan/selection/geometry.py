"""How the experts lie to each other, beside what was measured of their merges."""

from collections.abc import Iterable, Sequence, Set
from dataclasses import replace
from pathlib import Path

from mergeplan.display.text import listed
from mergeplan.errors import InputError
from mergeplan.evaluation.measured import RUN
from mergeplan.measurements.rows import Measurement
from mergeplan.pool.geometry.file import Gram, gram_for, load_grams
from mergeplan.selection.table import Table

# A table, and the same with its matrix, by the identity of the former.
WithGrams = dict[int, tuple[Table, Table]]

# In a run's folder.
GEOMETRY = "geometry.json"
_HINT = (
    "delete it: `calibrate --for select` compares the experts anew; or do without, by `select"
    " --no-geometry`"
)


def geometry_beside(table_file: Path) -> Path | None:
    """The geometry that a run left beside its table; none beside a bare table.

    Args:
        table_file: The table's CSV.

    Returns:
        The file's path, where the folder is a run's and has one.
    """
    path = table_file.parent / GEOMETRY
    return path if (table_file.parent / RUN).is_file() and path.is_file() else None


def grams_beside(table_file: Path, rows: Iterable[Measurement]) -> tuple[Gram, ...]:
    """Its Gram matrices.

    Args:
        table_file: The table's CSV.
        rows: Of the table.

    Returns:
        One for each base size; none beside a bare table.

    Raises:
        InputError: The file is damaged, or of another pool than the rows.
    """
    path = geometry_beside(table_file)
    return () if path is None else grams_of_pool(path, {row.pool_hash for row in rows} - {""})


def grams_of_pool(path: Path, pool_hashes: Set[str]) -> tuple[Gram, ...]:
    """Gram matrices of a run's own geometry.

    Args:
        path: The run's `geometry.json`.
        pool_hashes: Of what was measured; empty where that is not known.

    Returns:
        One for each base size.

    Raises:
        InputError: The file is damaged, or is not known to be of the pool that was measured.
    """
    grams = load_grams(path, _HINT)
    found = grams[0].pool_hash
    if pool_hashes and found not in pool_hashes:
        what = f"has `pool_hash` `{found}`" if found else "has no `pool_hash`"
        raise InputError(
            f"`{path}` {what}, and what was measured is of pool {listed(sorted(pool_hashes))}",
            f"{_HINT}; if it is of this pool all the same, name it in `select --geometry`",
        )
    return grams


def is_geometry(path: Path) -> bool:
    """Whether a file is a geometry, of whatever pool.

    Args:
        path: A file.

    Returns:
        Whether it can be read as one.
    """
    try:
        return bool(load_grams(path))
    except InputError:
        return False


def with_grams(
    tables: Iterable[Table],
    grams: Sequence[Gram],
    *,
    asked: bool = False,
    done: WithGrams | None = None,
) -> list[Table]:
    """Tables with the matrix of their experts and base, where there is one, and so their smaller
    sizes.

    Args:
        grams: Of any bases and experts.
        asked: Whether a table that has none is an error.
        done: What was made of tables before, and is added to: a size that several others lean on
            stays one table, with the laws that were fitted to it.

    Returns:
        The same tables in the same order; without a matrix where none is of their experts.

    Raises:
        InputError: No matrix is of a table's experts, and it was asked for.
    """
    if not grams:
        return list(tables)
    done = {} if done is None else done
    found = []
    for table in tables:
        try:
            gram = gram_for(grams, table.n_params, table.experts)
        except InputError:
            if asked:
                raise
            gram = None
        if id(table) not in done:
            smaller = tuple(with_grams(table.smaller, grams, done=done))
            done[id(table)] = table, replace(table, gram=gram, smaller=smaller)
        found.append(done[id(table)][1])
    return found
