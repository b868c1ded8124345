"""The mean of directions on the sphere."""

from collections.abc import Sequence

import numpy as np

from mergeplan.reference.rounding import Array, Rounding


def karcher(
    tensors: Sequence[Array],
    *,
    max_iter: int = 10,
    tol: float = 1e-5,
    precision: str = "float64",
) -> Array:
    """The Karcher mean of the directions times the mean of the lengths. (Karcher 1977)

    Each iteration moves the mean along the average of the tangents to the inputs, until the step
    is shorter than `tol`. Inputs shorter than `tol` have no direction and take no part in it.
    """
    r = Rounding(precision)
    if len(tensors) == 1:
        return tensors[0]
    shape = tensors[0].shape
    points = [np.asarray(tensor, np.float64).reshape(-1) for tensor in tensors]  # (numel,) each
    # Lengths and step sizes are float32 for tensors of any dtype.
    lengths = [_length(point, r) for point in points]
    units = [
        r.step(point / length)
        for point, length in zip(points, lengths, strict=True)
        if length > tol
    ]
    if not units:
        return np.zeros(shape)
    mean = _mean_direction(units, max_iter, tol, scalar=len(shape) == 0, r=r)
    scale = r.running_sum([r.register(r.register(1 / len(points)) * n) for n in lengths])
    return _times(scale, mean, scalar=len(shape) == 0, r=r).reshape(shape)


def _mean_direction(
    units: Sequence[Array], max_iter: int, tol: float, scalar: bool, r: Rounding
) -> Array:
    share = r.register(1 / len(units))
    mean = np.zeros_like(units[0])
    for unit in units:
        mean = r.step(mean + r.step(share * unit))
    length = _length(mean, r)
    mean = units[0] if length < tol else r.step(mean / length)
    for _ in range(max_iter):
        tangent = np.zeros_like(mean)
        for unit in units:
            cosine = np.clip(r.step(np.dot(mean, unit)), -1, 1)
            theta = r.step(np.arccos(cosine))
            if theta < tol:
                continue
            factor = r.step(share * r.step(theta / r.step(np.sin(theta))))
            away = r.step(unit - r.step(cosine * mean))
            tangent = r.step(tangent + r.step(factor * away))
        angle = _length(tangent, r)
        if angle < tol:
            break
        cosine, sine = r.register(np.cos(angle)), r.register(np.sin(angle))
        direction = r.step(tangent / angle)
        mean = r.step(
            _times(cosine, mean, scalar, r, last=False)
            + _times(sine, direction, scalar, r, last=False)
        )
        length = _length(mean, r)
        if length > tol:
            mean = r.step(mean / length)
    return mean


def _length(values: Array, r: Rounding) -> Array:
    return r.register(np.sqrt((values * values).sum()))


def _times(number: Array, values: Array, scalar: bool, r: Rounding, last: bool = True) -> Array:
    """A float32 number times a tensor: torch rounds both to the tensor's dtype.

    Not so where the tensor has no dimensions either: then the product is float32, and only the
    `last` one is rounded.
    """
    if not scalar:
        return r.step(r.step(number) * values)
    product = r.register(number * values)
    return r.step(product) if last else product
