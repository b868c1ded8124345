"""Fit the form to measured merges of one domain or metric, by restricted maximum likelihood."""

import numpy as np
from numpy.typing import NDArray

from mergeplan.errors import InputError
from mergeplan.subset_law.form import (
    HIGHEST_DEGREE,
    contrast_of,
    gram_root,
    points_of,
    products,
)
from mergeplan.subset_law.law import SubsetLaw, seen, solved
from mergeplan.subset_law.variances import fit_variances

Array = NDArray[np.float64]

_FEWEST = 4
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
    sizes = tuple(sorted({int(k) for k in (weights > 0).sum(1) if k}))
    used = np.any(weights > 0, axis=0)  # (n_experts,)
    missing = [expert for expert, is_there in zip(experts, list(used), strict=True) if not is_there]
    if missing:
        raise InputError(f"`{name}`: no merge with the expert `{missing[0]}` was measured")
    if len(values) < _FEWEST or len(sizes) < 2:
        raise InputError(
            f"`{name}`: {len(values)} merges of k = {', '.join(map(str, sizes))} are too few",
            "measure every single expert, some pairs, and all of them merged",
        )
    if sum(k > 1 for k in sizes) < _SIZES_FOR_SHRINKAGE:
        shrinkages = shrinkages[:1]
    geometry = gram_root(gram, len(experts))
    laws = []
    for shrinkage in shrinkages:
        # Where deltas do not shrink by 1/k, many experts do not lead to the base.
        kept = (weights > 0).any(1) | (shrinkage == 1)
        laws.append(
            _fit(weights[kept], values[kept], experts, geometry, shrinkage, name, higher, sizes)
        )
    return min(laws, key=lambda law: law.error)


def _fit(
    weights: Array,
    values: Array,
    experts: tuple[str, ...],
    geometry: Array,
    shrinkage: float,
    name: str,
    higher: bool,
    sizes: tuple[int, ...],
) -> SubsetLaw:
    contrast = contrast_of(weights, values)
    points = points_of(seen(weights, shrinkage), geometry, contrast)
    # Each further degree needs a further k, or nothing tells how the value changes along k.
    degree = min(HIGHEST_DEGREE, len(sizes))
    spread = float(np.std(values)) or 1.0
    powers = products(points, points, degree)
    variances = spread**2 * fit_variances(powers, (values - values.mean()) / spread)
    nothing = np.empty(0)
    law = SubsetLaw(
        name=name,
        experts=experts,
        weights=weights,
        points=points,
        values=values,
        geometry=geometry,
        contrast=contrast,
        variances=variances,
        constant=0.0,
        duals=nothing,
        inverse=nothing,
        left_out=nothing,
        sizes=sizes,
        scale=1.0,
        higher=higher,
        shrinkage=shrinkage,
    )
    return solved(law, variances, powers)
