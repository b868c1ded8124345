"""Rules that thin a delta to its density, and the factor that restores its norm."""

import numpy as np

from mergeplan.reference import philox
from mergeplan.reference.rounding import Array, Rounding, round_to

# Norms below this are left alone, as in mergekit.
SMALLEST_NORM = 1e-7


def _keep(delta: Array, chosen: np.ndarray) -> Array:
    """`delta` where `chosen`, flat indices, says so; zero elsewhere."""
    mask = np.zeros(delta.size, bool)
    mask[chosen] = True
    return np.where(mask.reshape(delta.shape), delta, 0.0)


def _descending(delta: Array) -> np.ndarray:
    """Flat indices by magnitude, the largest first, ties by index. Shape (numel,)."""
    return np.argsort(-np.abs(delta).reshape(-1), kind="stable")


def trim(delta: Array, density: float) -> Array:
    """Keep the `int(density · n)` largest magnitudes, at least one; ties by index. (TIES)"""
    if density >= 1:
        return delta
    if density <= 0 or delta.size == 0:
        return np.zeros_like(delta)
    n_kept = max(1, int(density * delta.size))
    return _keep(delta, _descending(delta)[:n_kept])


def trim_outliers(delta: Array, density: float, gamma: float) -> Array:
    """Drop the `int(γn)` largest magnitudes and keep the next `int(density · n)`. (Breadcrumbs)

    Where that is more than there is, fewer are dropped from the top. Ties by index, as above.
    """
    if density >= 1:
        return delta
    n_kept = int(density * delta.size)
    n_bottom = max(0, delta.size - n_kept - int(gamma * delta.size))
    n_top = delta.size - n_bottom - n_kept
    return _keep(delta, _descending(delta)[n_top : n_top + n_kept])


def _probability_precision(precision: str) -> str:
    """mergekit draws from probabilities in bfloat16 for bfloat16 deltas, else in float32."""
    return {"bfloat16": "bfloat16", "float64": "float64"}.get(precision, "float32")


def _limits(probabilities: object) -> Array:
    """Probabilities as limits on 32-bit words: a word below its limit keeps its element."""
    return np.round(np.asarray(probabilities, np.float64) * 2.0**32)


def _keep_below(delta: Array, limits: Array, seed: int, stream_id: int) -> Array:
    words = philox.words(seed, stream_id, delta.size).astype(np.float64)  # (numel,), exact
    return np.where(words.reshape(delta.shape) < limits, delta, 0.0)


def drop(delta: Array, density: float, seed: int, stream_id: int, precision: str) -> Array:
    """Keep each element with probability `density`. (DARE; `density` is one minus its drop rate)"""
    if density >= 1:
        return delta
    rounded = round_to(density, _probability_precision(precision))
    return _keep_below(delta, _limits(rounded), seed, stream_id)


def drop_by_rank(
    delta: Array, density: float, epsilon: float, seed: int, stream_id: int, precision: str
) -> Array:
    """Keep elements with probabilities from density − ε to density + ε, by magnitude. (DELLA)

    Ranks are taken along the second dimension, and over everything in tensors of fewer. Tied
    magnitudes share the mean of their ranks' limits, where mergekit's sort ranks them by chance.

    Raises:
        ValueError: density ± ε is not within (0, 1).
    """
    if density >= 1:
        return delta
    if density <= 0 or delta.size == 0:
        return np.zeros_like(delta)
    if density + epsilon >= 1 or density - epsilon <= 0:
        raise ValueError(f"density {density:g} ± epsilon {epsilon:g} is not within (0, 1)")
    rows = delta if delta.ndim > 1 else delta.reshape(1, -1)
    by_rank = rank_limits(rows.shape[1], density, epsilon, precision)  # (row,)
    limits = np.apply_along_axis(_limits_of_row, 1, np.abs(rows), by_rank)
    return _keep_below(delta, limits.reshape(delta.shape), seed, stream_id)


def rank_limits(length: int, density: float, epsilon: float, precision: str) -> Array:
    """Limits of the ranks of a row, from its smallest magnitude to its largest. Shape (length,).

    p(rank) = density − ε + 2ε · (rank − 1) / (length − 1), each step rounded.
    """
    r = Rounding(_probability_precision(precision))
    if length == 1:
        return _limits(r.step([density]))
    ranks = r.step(r.step(np.arange(length)) + 1)  # counted from 0, then one more: both rounded
    place = np.clip(r.step(r.step(ranks - 1) / r.step(ranks[-1] - 1)), 0, 1)
    slope = r.step(place * 2 * r.register(epsilon))
    return _limits(r.step(r.step(density - epsilon) + slope))


def _limits_of_row(magnitudes: Array, by_rank: Array) -> Array:
    """The limit of each element of a row; ties share the floor of their mean."""
    _, group, sizes = np.unique(magnitudes, return_inverse=True, return_counts=True)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    # Whole numbers, so that no sum is rounded.
    totals = np.add.reduceat(by_rank.astype(np.int64), starts)
    return (totals // sizes)[group].astype(np.float64)


def l1_scale(before: Array, after: Array, precision: str) -> float:
    """The factor that gives `after` the L1 norm of `before`. (mergekit's `rescale: true`)"""
    r = Rounding(precision)
    whole, kept = np.abs(before).sum(), np.abs(after).sum()
    if whole < SMALLEST_NORM or kept < SMALLEST_NORM:
        return 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = float(r.step(r.step(whole) / r.step(kept)))
    return ratio if np.isfinite(ratio) and ratio > 0 else float(whole / kept)
