"""Spherical interpolation between any number of tensors."""

from collections.abc import Sequence

import numpy as np

from mergeplan.reference.rounding import Array, Rounding, stack_deltas


def multislerp(
    tensors: Sequence[Array],
    weights: Sequence[float],
    *,
    base: Array | None = None,
    normalize: bool = True,
    eps: float = 1e-8,
    precision: str = "float64",
) -> Array:
    """A weighted mean of directions, times the weighted mean of lengths; of deltas with a base.

    The directions are projected to the plane that touches the sphere at their weighted mean,
    averaged there and carried back. A single tensor is returned as it is, with a base too.

    Raises:
        ValueError: The directions of more than two tensors cancel.
    """
    r = Rounding(precision)
    if len(tensors) == 1:
        return tensors[0]
    shape = tensors[0].shape
    factors = r.step(r.register(weights))[:, None]  # (k, 1)
    if normalize:
        factors = r.step(factors / r.over_experts(factors))
    points = stack_deltas(tensors, base, r)  # (k, numel)
    norms = r.norm(points, axis=1)  # (k, 1)
    units = _divide(points, r.step(norms + r.step(eps)), r)
    mean = r.over_experts(r.step(units * factors))  # (numel,)
    length = r.norm(mean)
    if length == 0 or length < r.step(eps):
        if len(tensors) > 2 and points.any():
            raise ValueError("the weighted directions cancel: there is no mean direction")
        result = r.over_experts(r.step(points * factors))
    else:
        result = _on_the_sphere(units, r.step(mean / length), factors, eps, r)
        result = r.step(result * r.over_experts(r.step(norms * factors)))
    result = result.reshape(shape)
    return result if base is None else r.step(result + base)


def _on_the_sphere(units: Array, mean: Array, factors: Array, eps: float, r: Rounding) -> Array:
    """The mean direction moved by the weighted tangents. Shape (numel,)."""
    cosines = r.sum(r.step(units * mean), axis=1)  # (k, 1)
    tangents = r.step(units - r.step(cosines * mean))  # (k, numel)
    tangent = r.over_experts(r.step(tangents * factors))  # (numel,)
    angle = r.step(r.norm(tangent) + r.step(eps))
    along = r.step(mean * r.step(np.cos(angle)))
    share = _divide(r.step(np.sin(angle)), angle, r)
    return r.step(along + r.step(tangent * share))


def _divide(values: Array, divisors: Array, r: Rounding) -> Array:
    """Quotients, and zero where the divisor is zero: `eps` is zero in float16."""
    return r.step(np.where(divisors == 0, 0.0, values / np.where(divisors == 0, 1.0, divisors)))
