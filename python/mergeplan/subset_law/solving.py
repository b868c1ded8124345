"""What a law's variances are estimated from, and the law that they make."""

from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mergeplan.subset_law.left_out import LeftOut, leave_each_out
from mergeplan.subset_law.prior import Prior
from mergeplan.subset_law.rows import Rows
from mergeplan.subset_law.spread import scale_by, spread_scale

Array = NDArray[np.float64]

# Expected logarithms of the variances of `rows.own_parts`, as shares of the values' own.
_EXPECTED_OWN = (-6.0, -9.0)


class Law(Protocol):
    """What of a `SubsetLaw` is looked at here."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def weights(self) -> Array: ...
    @property
    def values(self) -> Array: ...
    @property
    def variances(self) -> Array: ...
    @property
    def noise(self) -> Array | None: ...
    @property
    def rows(self) -> Rows: ...
    @property
    def observed(self) -> Array: ...
    @property
    def prior(self) -> Prior: ...


L = TypeVar("L", bound=Law)


class Standard(NamedTuple):
    """Rows in the values' own spread, with what is known of them; see `variances.Likelihood`."""

    spread: float
    products: Array
    values: Array
    expected: tuple[float, ...]
    noise: Array | None
    ones: Array


def standard(law: Law) -> Standard:
    """The rows of a law.

    Args:
        law: Of which no variance needs to be known.

    Returns:
        Values less their mean, and slopes, by the values' standard deviation.
    """
    spread, ones = float(np.std(law.values)) or 1.0, law.rows.ones
    return Standard(
        spread,
        law.prior.parts(law.rows),
        (law.observed - law.values.mean() * ones) / spread,
        (*[0.0] * (len(law.variances) - 1 - law.prior.n_own), *_EXPECTED_OWN[: law.prior.n_own]),
        None if law.noise is None else law.noise / spread**2,
        ones,
    )


def solved(law: L, variances: Array, powers: Array) -> L:
    """The law of the same rows at given variances.

    Args:
        law: Of these rows.
        variances: Of the prior's parts, and of the misfit last.
        powers: Covariances of unit variance for each part, shape (parts, n_rows, n_rows).

    Returns:
        With its constant, its duals, and what it predicts of each merge that is left out.
    """
    covariance = np.tensordot(variances[:-1], powers, 1)
    if law.noise is not None:
        covariance = covariance + law.noise
    inverse = np.linalg.inv(covariance + variances[-1] * np.eye(len(law.observed)))
    found = leave_each_out(inverse, law.observed, law.rows.places)
    solution = replace(
        law,
        variances=variances,
        constant=found.constant,
        duals=found.duals,
        inverse=inverse,
        left_out=law.values - found.errors,
    )
    return replace(solution, **_scales(solution, found))


def _scales(law: Law, found: LeftOut) -> dict[str, float]:
    """Factors on deviations, by the points left out one by one.

    With slopes, what is left open of a merge is mostly what all have in common: few coefficients of
    the form. A merge then tells of the scale by the share of its variance that is its own. Between
    the base and a sum of 1 the form is held by slopes at both ends alone, and by how much it bends
    away in between the base tells, which is left out with its slopes.
    """
    k = (law.weights > 0).sum(1)
    merged = k > 1
    if not law.prior.sloped:
        return {"scale": spread_scale(np.abs(found.ratios)[merged]), "below": 1.0}
    own = law.prior.misfits(law.weights) / found.variances
    scale = scale_by(found.ratios[merged] ** 2, np.minimum(own[merged], 1.0))
    base = k == 0
    below = scale_by(found.away[base] ** 2, found.sizes[base])
    return {"scale": scale, "below": max(below / scale, 1.0)}


def by_values(law: L) -> L:
    """The law of the values alone, by the same variances.

    Args:
        law: With slopes or without.

    Returns:
        Without slopes.
    """
    if not law.prior.n_own:
        return law
    n = len(law.values)
    kept = np.delete(law.variances, np.arange(-1 - law.prior.n_own, -1))
    noise = None if law.noise is None else law.noise[:n, :n]
    alone = replace(law, slopes=None, variances=kept, noise=noise)
    return solved(alone, kept, alone.prior.parts(alone.rows))
