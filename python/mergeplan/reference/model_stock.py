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
    shape = base.shape
    vectors = (*shape[:-1], -1) if filter_wise and base.size else (-1,)
    origin = base.reshape(vectors)  # (..., n)
    points = [expert.reshape(vectors) for expert in experts]
    deltas = [r.step(point - origin) for point in points]
    norms = [r.norm(delta, axis=-1) for delta in deltas]  # (..., 1)
    cosines = []
    for i, j in combinations(range(len(experts)), 2):
        product = np.maximum(r.step(norms[i] * norms[j]), r.step(SMALLEST_DIVISOR))
        dot = r.sum(r.step(deltas[i] * deltas[j]), axis=-1)
        cosines.append(np.clip(r.step(dot / product), -1, 1))
    cosine = r.mean(np.stack(cosines), axis=0)  # (..., 1)

    k = len(experts)
    divisor = r.step(1 + r.step((k - 1) * cosine))
    singular = np.abs(divisor) < r.step(SMALLEST_DIVISOR)
    ratio = r.step(r.step(k * cosine) / np.where(singular, 1.0, divisor))
    t = np.where(singular, 0.0, ratio)
    total = points[0]
    for point in points[1:]:
        total = r.step(total + point)
    mean = r.step(total / k)
    return r.step(r.step(t * mean) + r.step(r.step(1 - t) * origin)).reshape(shape)
