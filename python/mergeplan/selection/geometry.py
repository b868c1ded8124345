"""How the experts lie to each other, beside what was measured of their merges."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mergeplan.errors import InputError
from mergeplan.evaluation.measured import RUN
from mergeplan.pool.geometry.file import Gram, gram_for, load_grams
from mergeplan.selection.table import Table

# In a run's folder.
GEOMETRY = "geometry.json"


def grams_beside(table_file: Path) -> tuple[Gram, ...]:
    """Gram matrices that a run left beside its table; none beside a bare table.

    Raises:
        InputError: The run's file is damaged.
    """
    path = table_file.parent / GEOMETRY
    if not (table_file.parent / RUN).is_file() or not path.is_file():
        return ()
    return load_grams(path)


def with_grams(
    tables: Iterable[Table], grams: Sequence[Gram], *, asked: bool = False
) -> list[Table]:
    """Tables with the matrix of their experts and base, where there is one, and so their smaller
    sizes.

    Args:
        asked: Whether a table that has none is an error.

    Raises:
        InputError: No matrix is of a table's experts, and it was asked for.
    """
    found = []
    for table in tables:
        try:
            gram = gram_for(grams, table.n_params, table.experts) if grams else None
        except InputError:
            if asked:
                raise
            gram = None
        smaller = tuple(with_grams(table.smaller, grams))
        found.append(replace(table, gram=gram, smaller=smaller))
    return found
