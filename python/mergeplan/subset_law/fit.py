"""Fit the form to measured merges of one domain or metric, by restricted maximum likelihood."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mergeplan.errors import InputError
from mergeplan.subset_law.form import (
    HIGHEST_DEGREE,
    contrast_of,
    gram_root,
    points_of,
)
from mergeplan.subset_law.law import SubsetLaw, seen, solved
from mergeplan.subset_law.variances import fit_variances

Array = NDArray[np.float64]

FEWEST = 4
# Different k above one from which on the shrinkage is chosen: with fewer, merges that are left out
# have neighbours of their own k, and tell nothing about others.
_SIZES_FOR_SHRINKAGE = 2


def fit_subset_law(
    weights: Array,
    values: Array,
    experts: tuple[str, ...],
    *,
    name: str = "loss",
    higher: bool = False,
    gram: Array | None = None,
    shrinkages: tuple[float, ...] = (1.0,),
) -> SubsetLaw:
    """Fit one domain or metric.

    Args:
        weights: Shape (n, n_experts), the order of `experts`; zero for the base.
        values: Shape (n,); NaN for merges that were not measured on it.
        gram: Inner products of the experts' deltas; see `form.gram_root`.
        shrinkages: Powers of k to choose from, by the error of merges that are left out; the first
            of them where only one k above one was measured.

    Raises:
        InputError: Too few merges, an expert in none of them, or only one k.
    """
    there = np.isfinite(values)
    weights, values = weights[there], values[there]
    refuse_too_few(weights, experts, name)
    return fit_few(
        weights, values, experts, name=name, higher=higher, gram=gram, shrinkages=shrinkages
    )


def refuse_too_few(weights: Array, experts: Sequence[str], name: str) -> None:
    """Whether these merges tell of every expert, and of how the value changes with k.

    Raises:
        InputError: They do not.
    """
    sizes = sizes_in(weights)
    used = np.any(weights > 0, axis=0)  # (n_experts,)
    missing = [expert for expert, is_there in zip(experts, list(used), strict=True) if not is_there]
    if missing:
        raise InputError(f"`{name}`: no merge with the expert `{missing[0]}` was measured")
    if len(weights) < FEWEST or len(sizes) < 2:
        raise InputError(
            f"`{name}`: {len(weights)} merges of k = {', '.join(map(str, sizes))} are too few",
            "measure every single expert, some pairs, and all of them merged",
        )


def sizes_in(weights: Array) -> tuple[int, ...]:
    """The different k of some merges, without the base."""
    return tuple(sorted({int(k) for k in (weights > 0).sum(1) if k}))


def fit_few(
    weights: Array,
    values: Array,
    experts: tuple[str, ...],
    *,
    name: str,
    higher: bool,
    gram: Array | None,
    shrinkages: tuple[float, ...],
    smaller: SubsetLaw | None = None,
) -> SubsetLaw:
    """Fit whatever there is: what an expert does that no merge has is the prior's.

    Args:
        values: Finite.
        smaller: A law of a smaller size to lean on.
    """
    sizes = sizes_in(weights)
    if sum(k > 1 for k in sizes) < _SIZES_FOR_SHRINKAGE:
        shrinkages = shrinkages[:1]
    geometry = gram_root(gram, len(experts))
    laws = []
    for shrinkage in shrinkages:
        # Where deltas do not shrink by 1/k, many experts do not lead to the base.
        kept = (weights > 0).any(1) | (shrinkage == 1)
        law = _unfitted(weights[kept], values[kept], experts, geometry, shrinkage, smaller)
        laws.append(_fitted(replace(law, name=name, higher=higher, sizes=sizes)))
    return min(laws, key=lambda law: law.error)


def _unfitted(
    weights: Array,
    values: Array,
    experts: tuple[str, ...],
    geometry: Array,
    shrinkage: float,
    smaller: SubsetLaw | None,
) -> SubsetLaw:
    contrast = contrast_of(weights, values)
    # Each further degree needs a further k, or nothing tells how the value changes along k.
    degree = min(HIGHEST_DEGREE, len(sizes_in(weights)))
    nothing = np.empty(0)
    return SubsetLaw(
        name="",
        experts=experts,
        weights=weights,
        points=points_of(seen(weights, shrinkage), geometry, contrast),
        values=values,
        geometry=geometry,
        contrast=contrast,
        variances=np.ones(degree + (smaller is not None) + 1),
        constant=0.0,
        duals=nothing,
        inverse=nothing,
        left_out=nothing,
        sizes=(),
        scale=1.0,
        shrinkage=shrinkage,
        smaller=smaller,
    )


def _fitted(law: SubsetLaw) -> SubsetLaw:
    spread = float(np.std(law.values)) or 1.0
    powers = law.fitted_powers
    standard = (law.values - law.values.mean()) / spread
    return solved(law, spread**2 * fit_variances(powers, standard), powers)
