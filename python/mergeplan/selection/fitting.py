"""Which tables the law of single subsets is fitted to, beside smaller sizes or alone."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mergeplan.errors import InputError
from mergeplan.pool.geometry.file import Gram
from mergeplan.selection.geometry import WithGrams, with_grams
from mergeplan.selection.selection import name_of_table
from mergeplan.selection.table import Table
from mergeplan.subset_law.law import SubsetLaw
from mergeplan.subset_law.outlier import without_outliers
from mergeplan.subset_law.transfer import fit_with_smaller

T = TypeVar("T")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Fits(Generic[T]):
    """What was fitted, and why nothing was to the other tables.

    Attributes:
        unfitted: A word on each of those that have a smaller size.
    """

    found: tuple[T, ...]
    faults: tuple[InputError, ...]
    unfitted: tuple[str, ...]


def fit_each(
    tables: Iterable[Table],
    fit: Callable[[Table], T],
    grams: Sequence[Gram] = (),
    *,
    asked: bool = False,
    required: bool = False,
) -> Fits[T]:
    """Fit every table that can be.

    One that lacks experts of its pool is fitted to its own alone where a smaller size does not make
    up for them.

    Args:
        tables: As `sizes.link_sizes` gives them.
        fit: Raises `InputError` for a table that has too little.
        grams: How the experts lie to each other.
        asked: Whether a table whose experts are not among them cannot be fitted.
        required: Whether one with a smaller size has to be fitted, and to lean on it.

    Returns:
        What was fitted, in the order of the tables, and why the others were not.

    Raises:
        InputError: It is required, and one cannot be.
    """
    found, faults, unfitted = [], [], []
    done: WithGrams = {}
    for table in tables:
        faulty: list[InputError] = []
        for one in (table, table.plain):
            if one is None or (faulty and required):
                continue
            try:
                found.append(fit(*with_grams([one], grams, asked=asked, done=done)))
                break
            except InputError as error:
                faulty.append(error)
        else:
            # The last is of what the table itself has.
            faults.append(faulty[-1])
            if table.smaller or table.unlike:
                why = f"{name_of_table(table)} cannot be fitted: {faulty[-1].message}"
                if required:
                    raise InputError(f"a smaller size was asked for, and {why}", faulty[-1].hint)
                unfitted.append("; ".join(filter(None, (why, faulty[-1].hint))))
    return Fits(tuple(found), tuple(faults), tuple(unfitted))


def why_alone(table: Table, law: SubsetLaw) -> str:
    """Why nothing can be taken from a smaller size.

    Args:
        table: As `sizes.link_sizes` gives it.
        law: That was fitted to it.

    Returns:
        For people; empty where something can be taken, or where there is no smaller size.
    """
    if not table.smaller or law.transfer is not None:
        return table.unlike
    try:
        fit_table(table.smaller[-1], law.name)
    except InputError as error:
        return f"{name_of_table(table.smaller[-1])} cannot be fitted: {error.message}"
    return ""


def fit_table(table: Table, name: str) -> SubsetLaw:
    """Fit one domain or metric, or a weighted mean of some, to a table once.

    Args:
        table: Of one method and base size, with the smaller ones that it may lean on.
        name: As `Table.target` takes it.

    Returns:
        The law, which `Table.laws` keeps.

    Raises:
        InputError: There is none of that name, or too few merges were measured on it.
    """
    if name in table.laws:
        return table.laws[name]
    target = table.target(name)
    smaller, noise = dict(_smaller_laws(table, name)), table.noise_of(name)

    def of(values: Array) -> SubsetLaw:
        return fit_with_smaller(
            table.weights,
            values,
            table.experts,
            smaller,
            name=name,
            higher=target.higher,
            gram=table.gram,
            shrinkages=table.shrinkages,
            noise=noise,
            slopes=target.slopes,
        )

    law = without_outliers(of, target.values)
    table.laws[name] = replace(law, partly=target.text_errors is not None)
    return table.laws[name]


def _smaller_laws(table: Table, name: str) -> Iterator[tuple[float, SubsetLaw]]:
    for one in table.smaller:
        try:
            yield one.n_params or 0.0, fit_table(one, name)
        except InputError:
            # A domain of which too little was measured there.
            continue
