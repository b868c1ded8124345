"""Averages of a run's checkpoints, as what they imitate: a decay of the learning rate, an EMA.

What runs gives each checkpoint a weight; here no weight is made, but for `mean` and `weighted`,
which are nothing else. A decay that follows checkpoint 0 shrinks the updates after it:
θ = θ₀ + Σᵢ wᵢ (θᵢ − θᵢ₋₁), i = 1 … k (WSM, arXiv 2507.17634).
"""

from collections.abc import Callable, Sequence

import numpy as np

from mergeplan.reference.rounding import Array

# By how much the update i of k is shrunk.
DECAYS: dict[str, Callable[[int, int], float]] = {
    "linear": lambda i, k: 1 - i / (k + 1),
    "cosine": lambda i, k: float(0.5 * (1 + np.cos(np.pi * i / (k + 1)))),
    "1-sqrt": lambda i, k: float(1 - np.sqrt(i / (k + 1))),
}


def decayed(checkpoints: Sequence[Array], kind: str) -> Array:
    """The first checkpoint, and the updates after it as a decay would have shrunk them."""
    k = len(checkpoints) - 1
    total = np.asarray(checkpoints[0], np.float64)
    for i in range(1, k + 1):
        update = np.asarray(checkpoints[i], np.float64) - checkpoints[i - 1]
        total = total + DECAYS[kind](i, k) * update
    return total


def mean(checkpoints: Sequence[Array]) -> Array:
    """LAWA's, and PMA's simple one (arXiv 2505.12082): every checkpoint counts alike."""
    return _total(checkpoints, [1] * len(checkpoints)) / len(checkpoints)


def weighted(checkpoints: Sequence[Array]) -> Array:
    """PMA's by position: the first counts once, the second twice."""
    times = range(1, len(checkpoints) + 1)
    return _total(checkpoints, times) / sum(times)


def _total(checkpoints: Sequence[Array], times: Sequence[int]) -> Array:
    total = np.zeros_like(np.asarray(checkpoints[0], np.float64))
    for checkpoint, count in zip(checkpoints, times, strict=True):
        total = total + count * np.asarray(checkpoint, np.float64)
    return total


def ema(checkpoints: Sequence[Array], decay: float) -> Array:
    """What was kept of an average that began at zero, without its bias towards it (as Adam's)."""
    kept, share = np.zeros_like(np.asarray(checkpoints[0], np.float64)), 0.0
    for checkpoint in checkpoints:
        kept = decay * kept + (1 - decay) * np.asarray(checkpoint, np.float64)
        share = decay * share + (1 - decay)
    return kept / share
