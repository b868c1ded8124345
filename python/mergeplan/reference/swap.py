"""Methods that choose, element by element, between a base and one other model."""

import numpy as np
from numpy.typing import NDArray

from mergeplan.reference.rounding import Array, Rounding

SMALLEST_DIFFERENCE = 1e-6
SMALLEST_PROBABILITY = 1e-8


def nearswap(base: Array, other: Array, t: float, precision: str = "float64") -> Array:
    """base + w · (other − base), w = min(t / |other − base|, 1): full steps up to `t`, no more."""
    r = Rounding(precision)
    distance = np.maximum(np.abs(r.step(base - other)), r.step(SMALLEST_DIFFERENCE))
    with np.errstate(over="ignore"):
        inverse = r.step(1 / distance)  # infinite in float16 where the distance is smallest
    weight = np.clip(r.step(inverse * r.register(t)), 0, 1) if t > 0 else np.zeros_like(base)
    return r.step(r.step(weight * other) + r.step(r.step(1 - weight) * base))


def arcee_fusion(
    base: Array,
    other: Array,
    *,
    mask: NDArray[np.bool_] | None = None,
    precision: str = "float64",
) -> Array:
    """The other model where it matters most, the base elsewhere.

    mergekit adds in float32, for tensors of any dtype.

    Args:
        mask: What matters, instead of `important`.
    """
    r = Rounding(precision)
    if mask is None:
        mask = important(base, other, precision)
    return r.step(r.register(base + np.where(mask, r.step(other - base), 0.0)))


def important(base: Array, other: Array, precision: str = "float64") -> NDArray[np.bool_]:
    """Where |other − base| times the row's divergence is an upper outlier of the tensor.

    The divergence is that of the softmax of the row (last dimension); an outlier lies at or above
    median + 1.5 · (third − first quartile). mergekit samples the quartiles of tensors of more than
    a million elements; here they are those of all elements.
    """
    if base.size == 0:
        return np.zeros(base.shape, bool)
    scores = importance(base, other, precision)
    return scores >= threshold(scores, precision)


def importance(base: Array, other: Array, precision: str = "float64") -> Array:
    """|other − base| · KL(softmax(other) ‖ softmax(base)) of the row. Shape (...)."""
    r = Rounding(precision)
    smallest = r.step(SMALLEST_PROBABILITY)
    rows, base_rows = np.atleast_1d(other), np.atleast_1d(base)  # (..., n)
    p, q = (r.step(_softmax(values, r) + smallest) for values in (rows, base_rows))
    divergence = r.sum(r.step(p * r.step(np.log(r.step(p / q)))), axis=-1)  # (..., 1)
    return r.step(np.abs(r.step(rows - base_rows)) * divergence).reshape(base.shape)


def _softmax(rows: Array, r: Rounding) -> Array:
    """Along the last dimension; torch rounds the result alone."""
    powers = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return r.step(powers / powers.sum(axis=-1, keepdims=True))


def threshold(scores: Array, precision: str = "float64") -> Array:
    """median + 1.5 · (third − first quartile): elements of the sorted scores, not between them."""
    r = Rounding(precision)
    ordered = np.sort(scores.reshape(-1))
    places = [int(np.float32(q) * np.float32(scores.size - 1)) for q in (0.25, 0.5, 0.75)]
    low, middle, high = ordered[places]
    return r.step(middle + r.step(1.5 * r.step(high - low)))
