"""How far to go from the base to the mean of the experts, by the angle between them."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from mergeplan.reference.rounding import Array, Rounding

SMALLEST_DIVISOR = 1e-6


def model_stock(
    base: Array, experts: Sequence[Array], *, filter_wise: bool = False, precision: str = "float64"
) -> Array:
    """base + t · (mean − base), t = k·cos / (1 + (k − 1)·cos). (Jang et al. 2024)

    cos is the mean cosine between the deltas, of whole tensors or, `filter_wise`, of each of the
    vectors along the last dimension. Where the divisor vanishes the base stays.
    """
    r = Rounding(precision)
    origin, points = _vectors(base, experts, filter_wise)
    t = step_length(origin, points, precision)
    total = points[0]
    for point in points[1:]:
        total = r.step(total + point)
    mean = r.step(total / len(points))
    return r.step(r.step(t * mean) + r.step(r.step(1 - t) * origin)).reshape(base.shape)


def step_length(base: Array, experts: Sequence[Array], precision: str = "float64") -> Array:
    """t of each vector along the last dimension. Shape (..., 1)."""
    r = Rounding(precision)
    deltas = [r.step(expert - base) for expert in experts]  # (..., n) each
    norms = [r.norm(delta, axis=-1) for delta in deltas]  # (..., 1)
    cosines = []
    for i, j in combinations(range(len(experts)), 2):
        product = np.maximum(r.step(norms[i] * norms[j]), r.step(SMALLEST_DIVISOR))
        dot = r.sum(r.step(deltas[i] * deltas[j]), axis=-1)
        cosines.append(np.clip(r.step(dot / product), -1, 1))
    cosine = r.step(r.register(r.running_sum(cosines) / len(cosines)))
    k = len(experts)
    divisor = r.step(1 + r.step((k - 1) * cosine))
    singular = np.abs(divisor) < r.step(SMALLEST_DIVISOR)
    ratio = r.step(r.step(k * cosine) / np.where(singular, 1.0, divisor))
    return np.where(singular, 0.0, ratio)


def _vectors(base: Array, experts: Sequence[Array], filter_wise: bool) -> tuple[Array, list[Array]]:
    """Each filter, or the whole tensor, as a vector along the last dimension."""
    shape = base.shape if filter_wise and base.ndim > 0 else (-1,)
    return base.reshape(shape), [expert.reshape(shape) for expert in experts]
