"""Reinforced agent merging: mean where experts overlap, sum where each is alone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mergeplan.reference.rounding import Array, Rounding, stack_deltas


def ram(
    base: Array, experts: Sequence[Array], epsilon: float = 1e-5, precision: str = "float64"
) -> Array:
    """base + for each element the mean of the deltas above `epsilon`. (arXiv 2601.13572)"""
    r = Rounding(precision)
    if not experts:
        return base
    deltas, count = _significant(base, experts, epsilon, r)
    alone = np.where(count == 1, deltas, 0.0)
    shared = r.step(np.where(count > 1, deltas, 0.0) / np.maximum(count, 1))
    return r.step(base + r.over_experts(r.step(alone + shared)).reshape(base.shape))


def ramplus_tl(
    base: Array,
    experts: Sequence[Array],
    *,
    r: float = 0.1,
    alpha: float = 0.2,
    epsilon: float = 1e-5,
    precision: str = "float64",
) -> Array:
    """`ram`, with an expert's lone deltas multiplied by 1 + r · min(shared / lone, alpha).

    The counts are those of the tensor. mergekit's factor is float32, and so is all that follows.
    """
    rounding = Rounding(precision)
    if not experts:
        return base
    register = rounding.register
    deltas, count = _significant(base, experts, epsilon, rounding)  # (k, numel), (numel,)
    n_shared = ((deltas != 0) & (count > 1)).sum(axis=1, keepdims=True)  # (k, 1)
    n_alone = ((deltas != 0) & (count == 1)).sum(axis=1, keepdims=True)
    # Without lone deltas the factor has nothing to act on.
    divisor = np.maximum(np.maximum(n_alone, 1), register(epsilon))
    share = np.clip(register(register(n_shared) / register(divisor)), 0, register(alpha))
    factor = register(1 + register(register(r) * share))
    alone = register(np.where(count == 1, deltas, 0.0) * factor)
    shared = rounding.step(np.where(count > 1, deltas, 0.0) / np.maximum(count, 1))
    mixed = rounding.running_sum(register(alone + shared))
    return rounding.step(register(base + mixed.reshape(base.shape)))


def _significant(
    base: Array, experts: Sequence[Array], epsilon: float, r: Rounding
) -> tuple[Array, NDArray[np.int64]]:
    """Deltas, zero where at most `epsilon`, shape (k, numel); how many are not, shape (numel,)."""
    deltas = stack_deltas(experts, base, r)
    above = np.abs(deltas) > r.step(epsilon)
    return np.where(above, deltas, 0.0), above.sum(axis=0)
