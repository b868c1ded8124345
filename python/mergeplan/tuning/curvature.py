"""How a loss bends along weights: a quasi-Newton matrix that begins from the experts' geometry.

    bend = blockdiag(c_g · <v_ig, v_jg>), c_g fitted to the first two gradients
    for each later pair of points, s = step, y = change of the gradient:
        bend += y y' / s'y - (bend s)(bend s)' / s' bend s          (BFGS)

1. Deltas of two groups, and what unlike experts do in one, bend a loss by what gradients show, not
   by their length alone; but a group of long deltas bends it more than one of short ones, and
   experts that lie alike bend it together. Without that start the matrix needs a pair for every
   direction.
2. y is damped (Powell, 1978) where a step met less curvature than a share of what was expected, so
   that the matrix stays positive.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_DAMPED = 0.2  # of the expected curvature, below which a pair counts less
_LEAST_GROUP = 0.1  # of the common scale, that a group has at least
# Of the mean curvature, that every direction has at the start. Without it weights of what hardly
# counts wander to the bounds (2.0 for a final norm); at a tenth 0.0006 of a gain of 0.020 are lost
# (nine experts of 850k parameters by layer and kind), at this a ten-thousandth.
_RIDGE = 0.01


def start(grams: Array, step: Array, change: Array) -> Array:
    """The matrix of the first pair.

    Args:
        grams: Inner products of the experts' deltas by group, (n_groups, n_experts, n_experts).
        step, change: Between two points, of weights and of the gradient, (n_experts, n_groups).

    Returns:
        Shape (n, n), of weights in the order of `step.ravel()`.
    """
    n_experts, n_groups = step.shape
    unknown = (grams == 0).all(axis=(1, 2))
    if unknown.any():
        # What was not compared bends like the mean of the others.
        mean = np.trace(grams, axis1=1, axis2=2).sum() / max(n_experts * (~unknown).sum(), 1)
        grams = np.where(unknown[:, None, None], (mean or 1.0) * np.eye(n_experts), grams)
    lengths = np.einsum("ig,gij,jg->g", step, grams, step)
    met = (step * change).sum(0)
    whole = met.sum() / max(lengths.sum(), 1e-300)
    if whole <= 0:
        # No valley between the two: as steep as the gradient says.
        whole = np.abs(step * change).sum() / max(lengths.sum(), 1e-300)
    scales = np.divide(met, lengths, out=np.full(n_groups, whole), where=lengths > 0)
    scales = np.maximum(scales, _LEAST_GROUP * whole)
    bend = np.zeros((n_experts, n_groups, n_experts, n_groups))
    for group, scale in enumerate(scales):
        bend[:, group, :, group] = scale * grams[group]
    n = n_experts * n_groups
    whole_bend = bend.reshape(n, n)
    return np.asarray(whole_bend + _RIDGE * max(np.trace(whole_bend) / n, 1e-12) * np.eye(n))


def updated(bend: Array, pairs: Iterable[tuple[Array, Array]]) -> Array:
    """After further pairs of step and change, each shape (n,)."""
    for step, change in pairs:
        along = bend @ step
        expected = float(step @ along)
        if expected <= 0:
            continue
        met = float(step @ change)
        if met < _DAMPED * expected:
            part = (1 - _DAMPED) * expected / (expected - met)
            change = part * change + (1 - part) * along
            met = float(step @ change)
        bend = bend + np.outer(change, change) / met - np.outer(along, along) / expected
    return bend


def spread(bend: Array) -> Array:
    """The penalty on weights that differ: squares of their distances from their own mean, each as
    much as it bends the loss; shape (n, n), equal weights of any sum cost nothing."""
    heights = np.diag(bend)
    return np.asarray(np.diag(heights) - np.outer(heights, heights) / heights.sum())


def chain(points: Sequence[Array], gradients: Sequence[Array]) -> Iterable[tuple[Array, Array]]:
    """The pair that each point makes with the nearest one before it; flat."""
    for last in range(1, len(points)):
        distances = [float(np.linalg.norm(points[last] - one)) for one in points[:last]]
        near = int(np.argmin(distances))
        if distances[near]:
            step, change = points[last] - points[near], gradients[last] - gradients[near]
            yield step.ravel(), change.ravel()
