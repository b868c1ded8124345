"""Spherical interpolation between two tensors."""

import numpy as np

from mergeplan.reference.rounding import Array, Rounding

# Beyond this cosine two directions count as one (or as opposite), and SLERP is linear.
PARALLEL = 0.9995
SMALLEST_NORM = 1e-8
# NuSLERP's own: its norms are at least this, and 1 − cos² at most that where it is linear.
SMALLEST_DIVISOR = 1e-7
PARALLEL_SQUARED_SINE = 1e-16


def slerp(base: Array, other: Array, t: float, precision: str = "float64") -> Array:
    """The point at `t` on the arc from `base` to `other`, seen as two vectors. (Shoemake 1985)

    mergekit works in float32 throughout and rounds the result alone. Its cosine is a sum over unit
    vectors, here it comes from the exact product.
    """
    r = Rounding("float64" if precision == "float64" else "float32")
    norms = [r.norm(tensor) for tensor in (base, other)]
    lengths = [norm if norm > r.step(SMALLEST_NORM) else 1.0 for norm in norms]
    cosine = np.clip(r.step((base * other).sum() / lengths[0] / lengths[1]), -1, 1)
    t_ = r.step(t)
    left = r.step(1 - t_)
    if abs(cosine) > r.step(PARALLEL):
        shares = left, t_
    else:
        theta = r.step(np.arccos(cosine))
        sine = r.step(np.sin(theta))
        shares = (
            r.step(r.step(np.sin(r.step(left * theta))) / sine),
            r.step(r.step(np.sin(r.step(t_ * theta))) / sine),
        )
    return Rounding(precision).step(r.step(shares[0] * base) + r.step(shares[1] * other))


def nuslerp(
    first: Array,
    second: Array,
    t: float,
    *,
    base: Array | None = None,
    along: str = "tensor",
    precision: str = "float64",
) -> Array:
    """SLERP of whole tensors, or of each of their rows or columns; of deltas where there is a base.

    Args:
        along: `tensor` (one vector), `last` or `first` (vectors along that dimension).
    """
    r = Rounding(precision)
    shape = first.shape
    if base is not None:
        first, second = r.step(first - base), r.step(second - base)
    vectors = [_as_vectors(tensor, along) for tensor in (first, second)]  # (..., n)
    between = _between(vectors[0], vectors[1], t, r)
    if along == "first" and len(shape) > 1:
        between = between.swapaxes(0, -1)
    between = between.reshape(shape)
    return between if base is None else r.step(base + between)


def _as_vectors(tensor: Array, along: str) -> Array:
    if along == "tensor" or tensor.ndim < 2:
        return tensor.reshape(-1)
    return tensor.swapaxes(0, -1) if along == "first" else tensor


def _between(first: Array, second: Array, t: float, r: Rounding) -> Array:
    cosine = np.clip(_cosine(first, second, r), -1, 1)  # (..., 1)
    parallel = r.step(1 - r.step(cosine * cosine)) <= r.step(PARALLEL_SQUARED_SINE)
    theta = r.step(np.arccos(np.where(parallel, 0.0, cosine)))
    sine = r.step(np.sin(theta))
    left, right = r.register(1 - t), r.register(t)
    arc = r.step(
        r.step(r.step(np.sin(r.step(left * theta))) * first)
        + r.step(r.step(np.sin(r.step(right * theta))) * second)
    )
    chord = r.step(r.step(left * first) + r.step(right * second))
    return np.where(parallel, chord, r.step(arc / sine))


def _cosine(first: Array, second: Array, r: Rounding) -> Array:
    """Of vectors along the last dimension, which stays. In 16 bit unit vectors are rounded."""
    smallest = r.step(SMALLEST_DIVISOR)
    norms = [np.maximum(r.norm(v, axis=-1), smallest) for v in (first, second)]
    if r.precision in ("float64", "float32"):
        norms = [
            np.maximum(np.sqrt((v * v).sum(-1, keepdims=True)), smallest) for v in (first, second)
        ]
        return r.step((first * second).sum(axis=-1, keepdims=True) / norms[0] / norms[1])
    units = [r.step(v / norm) for v, norm in zip((first, second), norms, strict=True)]
    return r.sum(r.step(units[0] * units[1]), axis=-1)
