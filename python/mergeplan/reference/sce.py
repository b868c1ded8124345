"""Select, calculate, erase: fusion by the variance between experts."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mergeplan.reference.rounding import Array, Rounding, stack_deltas

SMALLEST_TOTAL = 1e-6


def sce(
    base: Array,
    experts: Sequence[Array],
    density: float = 1.0,
    *,
    mask: NDArray[np.bool_] | None = None,
    precision: str = "float64",
) -> Array:
    """base + Σ wᵢdᵢ / Σ wᵢ over the experts that agree with the elected sign. (Wan et al. 2024)

    1. Select: of the deltas only the elements with the largest variance between experts stay.
    2. Calculate: an expert's weight is its share of the mean squares.
    3. Erase: deltas against the sign of the sum take no part, in sum and divisor alike.

    Args:
        density: Share of the elements of non-zero variance that is selected.
        mask: A selection to use instead.
    """
    r = Rounding(precision)
    if not experts or base.size == 0:
        return base
    deltas = stack_deltas(experts, base, r)  # (k, numel)
    if mask is None and density < 1:
        mask = largest_variances(deltas, density, precision)
    if mask is not None:
        deltas = np.where(mask.reshape(-1), deltas, 0.0)
    sign = np.where(r.over_experts(deltas) >= 0, 1.0, -1.0)  # (numel,)
    weights = np.where(np.sign(deltas) == sign, _weights(deltas, r), 0.0)  # (k, numel)
    divisor = np.maximum(r.over_experts(weights), r.step(SMALLEST_TOTAL))
    mixed = r.step(r.over_experts(r.step(deltas * weights)) / divisor)
    return r.step(base + mixed.reshape(base.shape))


def largest_variances(deltas: Array, density: float, precision: str) -> NDArray[np.bool_]:
    """Where the variance over experts is among the largest; ties by index. Shape (numel,).

    As many are selected as float32 makes of the product of `density` and the number of elements
    whose variance is not zero.

    Args:
        deltas: Shape (k, numel).
    """
    mask = np.zeros(deltas.shape[1], bool)
    if density > 0:
        variance = variance_over_experts(deltas, precision)
        n_varying = np.float32(np.count_nonzero(variance))
        n_selected = int(n_varying * np.float32(min(density, 1.0)))
        mask[np.argsort(-variance, kind="stable")[:n_selected]] = True
    return mask


def variance_over_experts(deltas: Array, precision: str) -> Array:
    """Population variance by Welford's recurrence, rounded once. Shape (numel,)."""
    mean, squares = np.zeros(deltas.shape[1]), np.zeros(deltas.shape[1])
    for number, delta in enumerate(deltas, start=1):
        before = delta - mean
        mean = mean + before / number
        squares = squares + before * (delta - mean)
    return Rounding(precision).step(squares / len(deltas))


def _weights(deltas: Array, r: Rounding) -> Array:
    """Each expert's share of the mean squares; equal shares where there is next to nothing."""
    energy = r.mean(r.step(deltas * deltas), axis=1)[:, None]  # (k, 1)
    total = r.sum(energy)
    if abs(total) < SMALLEST_TOTAL:
        return r.step(np.ones_like(energy) / len(energy))
    return r.step(energy / total)
