"""Weighted sums of whole tensors, and single tensors."""

from collections.abc import Sequence

import numpy as np

from mergeplan.reference.rounding import Array, Rounding


def linear(
    tensors: Sequence[Array],
    weights: Sequence[float],
    *,
    normalize: bool = True,
    precision: str = "float64",
) -> Array:
    """Σ wᵢxᵢ, divided by Σ wᵢ if `normalize`. (mergekit's `linear`: float32 sums, one rounding)"""
    r = Rounding(precision)
    factors = r.register(weights)  # (k,)
    total = np.zeros_like(np.asarray(tensors[0], np.float64))
    for tensor, factor in zip(tensors, factors, strict=True):
        total = r.register(total + factor * tensor)  # one rounding: a fused multiply-add
    if normalize:
        total = r.register(total / r.running_sum(factors))
    return r.step(total)


def passthrough(tensor: Array, scale: float | None = None, precision: str = "float64") -> Array:
    """The tensor itself, or a multiple of it."""
    r = Rounding(precision)
    return r.step(tensor if scale is None else tensor * r.register(scale))
