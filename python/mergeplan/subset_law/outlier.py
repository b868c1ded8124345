"""Rows that no law of the others comes near: measured, and left out of the fit."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mergeplan.errors import InputError
from mergeplan.subset_law.law import SubsetLaw

Array = NDArray[np.float64]

# Where the left-out merges are explained as well as this, no such row is looked for.
_WELL = 0.8
# It is so many times as far from the median as the next nearer one, and of such there are so many.
_APART, _MOST = 3.0, 3
# Without them the error of left-out merges falls to this share, and each is this many standard
# deviations from what the others predict. Of 120 simulated pools, a half with harmful experts, and
# the trained ones of tests/data no row was.
_SHARE, _FAR = 0.2, 10.0


def without_outliers(fit: Callable[[Array], SubsetLaw], values: Array) -> SubsetLaw:
    """A law of all rows, or of all but a few that spoil it.

    Args:
        fit: Of values, NaN where a merge is not to be fitted.
        values: Shape (n_rows,).

    Returns:
        The law; rows that it leaves out are in `aside`.

    Raises:
        InputError: There are too few rows.
    """
    law = fit(values)
    if law.r2 >= _WELL or law.noise is not None:
        return law
    away = np.abs(law.values - np.median(law.values))
    order = np.argsort(-away, kind="stable")
    for count in range(1, min(_MOST, len(order) - 1) + 1):
        far = order[:count]
        if away[far[-1]] <= _APART * away[order[count]]:
            continue
        try:
            rest = fit(np.where(np.isin(values, law.values[far]), np.nan, values))
        except InputError:  # an expert has no other row
            continue
        weights, gone = law.weights[far], law.values[far]
        gaps = np.abs(rest.predict(weights) - gone)
        better = rest.r2 >= _WELL and rest.error <= _SHARE * law.error
        if better and (gaps > _FAR * rest.deviations(weights)).all():
            rows = zip(weights.tolist(), gone.tolist(), strict=True)
            return replace(rest, aside=tuple((tuple(row), value) for row, value in rows))
    return law


def aside_text(law: SubsetLaw) -> list[str]:
    """A word on each row that a law leaves out."""
    found = []
    for weights, value in law.aside:
        named = [name for name, share in zip(law.experts, weights, strict=True) if share]
        expected = float(law.predict(np.array([weights]))[0])
        found.append(
            f"`{law.name}` of {'+'.join(named) or 'the base'} is {value:.4f}, where all the others"
            f" say about {expected:.4f}: check that row; nothing is predicted from it"
        )
    return found
