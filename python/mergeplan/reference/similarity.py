"""What deltas have in common: inner products, signs, and what trimming leaves of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Similarity:
    """Of one tensor; matrices are (experts, experts).

    Attributes:
        gram: Inner products.
        agreeing: Elements at which both deltas have the same sign.
        nonzero: Elements at which neither is zero.
        kept: Share of the squared norm that the largest elements hold, (experts, densities).
    """

    gram: Array
    agreeing: NDArray[np.int64]
    nonzero: NDArray[np.int64]
    kept: Array


def similarity(base: Array, experts: Sequence[Array], densities: Sequence[float]) -> Similarity:
    """Compare one tensor's deltas.

    Args:
        base: Any shape, as `experts`.
        densities: Shares of elements that are kept; a part of an element counts in part.
    """
    deltas = np.stack([(expert - base).ravel() for expert in experts])  # (experts, numel)
    signs = np.sign(deltas).astype(np.int64)
    there = np.abs(signs)
    both = there @ there.T
    # Agreeing less opposite signs.
    balance = signs @ signs.T
    kept = [[_kept(delta**2, density) for density in densities] for delta in deltas]
    return Similarity(deltas @ deltas.T, (both + balance) // 2, both, np.array(kept))


def _kept(squares: Array, density: float) -> float:
    ordered = np.sort(squares)[::-1]
    whole, part = divmod(density * len(ordered), 1)
    kept = ordered[: int(whole)].sum()
    if part and int(whole) < len(ordered):
        kept += part * ordered[int(whole)]
    total = ordered.sum()
    return float(kept / total) if total > 0 else 1.0
