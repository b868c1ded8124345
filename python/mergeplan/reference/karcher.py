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
    share = 1 / len(points)
    mean = _mean_direction(units, r.register(share / sum(share for _ in units)), max_iter, tol, r)
    scale = r.running_sum([r.register(r.register(share) * length) for length in lengths])
    return r.step(r.step(scale) * mean).reshape(shape)


def _mean_direction(
    units: Sequence[Array], share: Array, max_iter: int, tol: float, r: Rounding
) -> Array:
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
            if theta == 0 or theta < tol:
                continue
            factor = r.step(share * r.step(theta / r.step(np.sin(theta))))
            away = r.step(unit - r.step(cosine * mean))
            tangent = r.step(tangent + r.step(factor * away))
        angle = _length(tangent, r)
        if angle == 0 or angle < tol:
            break
        # torch rounds numbers of no dimensions to the dtype of the tensor that they multiply.
        cosine, sine = r.step(np.cos(angle)), r.step(np.sin(angle))
        direction = r.step(tangent / angle)
        mean = r.step(r.step(cosine * mean) + r.step(sine * direction))
        length = _length(mean, r)
        if length > tol:
            mean = r.step(mean / length)
    return mean


def _length(values: Array, r: Rounding) -> Array:
    return r.register(np.sqrt((values * values).sum()))
