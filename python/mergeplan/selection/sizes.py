"""Sizes of one pool: which smaller ones a table may lean on, and why it may not."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from mergeplan.config.transfer import AUTO, OFF
from mergeplan.display.text import format_count
from mergeplan.errors import InputError
from mergeplan.law.one_pool import names_apart
from mergeplan.selection.table import Table


def link_sizes(tables: Iterable[Table], transfer: str = AUTO) -> list[Table]:
    """The same tables, each with those of smaller sizes of its pool that it may lean on.

    Sizes are of one pool where method, options and the experts' names are the same. A size whose
    `pool_size` says that it has as many experts as a smaller one may lack some in its merges: they
    are then among its experts.

    Args:
        transfer: With `off` they are left as they are.

    Returns:
        In the same order; one that has none to lean on says why, where there is a smaller size.
    """
    every = list(tables)
    if transfer == OFF:
        return every
    linked: dict[tuple[str, str, float], Table] = {}
    for table in sorted(every, key=lambda one: one.n_params or 0.0):
        below = [one for one in linked.values() if _below(one, table)]
        table = _widened(table, below)
        alike = tuple(one for one in below if one.experts == table.experts)
        unlike = _unlike(table, below[-1]) if below and not alike else ""
        linked[_key(table)] = replace(table, smaller=alike, unlike=unlike)
    return [linked[_key(table)] for table in every]


def refuse_one_size(tables: Sequence[Table]) -> None:
    """Raise where no table has a smaller size to lean on, with what stands against it.

    Args:
        tables: As `link_sizes` gives them.

    Raises:
        InputError: There is one size only, or the sizes' experts differ.
    """
    if any(table.smaller for table in tables):
        return
    unlike = next((table.unlike for table in tables if table.unlike), "")
    if unlike:
        raise InputError(
            f"the sizes are not of one pool: {unlike}",
            "name the experts of all sizes alike, and measure every one at the smaller size",
        )
    sizes = sorted({table.n_params for table in tables if table.n_params is not None})
    if len(sizes) > 1:
        raise InputError(
            "no method was measured at two sizes with the same options",
            "measure one method at both sizes",
        )
    found = f"{format_count(sizes[0])} parameters" if sizes else "no column `n_params`"
    raise InputError(
        f"a smaller size was asked for, and there is one size only: found {found}",
        "add rows of a smaller base with a column `n_params`, or leave `--transfer required` out",
    )


def _key(table: Table) -> tuple[str, str, float]:
    return table.method, table.options, table.n_params or 0.0


def _below(one: Table, table: Table) -> bool:
    """Whether one is of the same method and options at a smaller size."""
    return _key(one)[:2] == _key(table)[:2] and (one.n_params or 0.0) < (table.n_params or 0.0)


def _widened(table: Table, below: Sequence[Table]) -> Table:
    """The table over the experts of its pool, where a smaller size names those it lacks."""
    for one in below:
        if set(table.experts) < set(one.experts) and table.pool_size == len(one.experts):
            weights = np.zeros((len(table.weights), len(one.experts)))
            weights[:, [one.experts.index(name) for name in table.experts]] = table.weights
            plain = replace(table, unlike=_unlike(table, one))
            # Slopes by an expert that no merge of the table has nobody took.
            targets = {name: replace(each, slopes=None) for name, each in table.targets.items()}
            return replace(
                table, experts=one.experts, weights=weights, targets=targets, plain=plain
            )
    return table


def _unlike(table: Table, small: Table) -> str:
    """Which names stand at one of two sizes only."""
    here, there = format_count(table.n_params or 0), format_count(small.n_params or 0)
    apart = names_apart(set(small.experts), set(table.experts), there, here)
    return f"{table.method or 'all rows'} has merges of {apart}"
