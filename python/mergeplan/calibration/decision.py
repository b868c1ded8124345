"""What a fit decides, and which other decisions are still open."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergeplan.law.curve import Fit
from mergeplan.law.posterior import CONFIDENCE, central

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CurveGoal:
    """What k is to be found for.

    Attributes:
        target_loss: In nats per token, or a value of the metric; without one, `fraction` decides.
        fraction: Share of the improvement from one expert to the best k: all, but for an upturn.
        confidence: Of the interval of k.
    """

    target_loss: float | None = None
    fraction: float = 0.9
    confidence: float = CONFIDENCE


@dataclass(frozen=True)
class Decision:
    """How many experts to merge, by what was measured so far.

    Attributes:
        k: Smallest whose expected mean fulfils the wish; one more than the pool has where none
            does.
        low, high: The active range: the k that the wish may still turn out to need on this text, at
            the confidence that was asked for.
        seen: Largest k of which a subset was measured; `None` for all.
    """

    k: int
    low: int
    high: int
    seen: int | None = None

    @property
    def reach(self) -> int:
        """How far the farthest active k lies from the one decided on."""
        return max(self.high - self.k, self.k - self.low)


def exact_k(fit: Fit, wish: CurveGoal) -> Array:
    """The k, not rounded, that each draw of the pool's means asks for, shape (draws,); within
    [1, M + 1].

    Every value above M says that no merge of this pool is enough.

    Raises:
        ValueError: The fit has no draws.
    """
    draws, pool_size = fit.draws, fit.series.pool_size
    if draws is None:
        raise ValueError("a fit without draws leaves k open")
    target: Array | float
    if wish.target_loss is None:
        first, last = draws.at(1), draws.at(fit.best_k)
        target = first - wish.fraction * (first - last)
    else:
        target = fit.series.scale.turned(wish.target_loss)
    return np.minimum(draws.crossing(target), pool_size + 1.0)


def decide(fit: Fit, wish: CurveGoal) -> Decision:
    """The decision of a fit; without draws, as from two k only, every k stays active."""
    pool_size = fit.series.pool_size
    if wish.target_loss is None:
        k = fit.reaching(wish.fraction)
    else:
        # Before more is measured for what no merge can be.
        fit.series.scale.check(wish.target_loss)
        k = fit.first(wish.target_loss) or pool_size + 1
    points = fit.series.points
    if len(points) == pool_size and all(point.complete for point in points):
        return Decision(k, k, k, fit.largest_measured)
    if fit.draws is None:
        return Decision(k, 1, pool_size + 1, fit.largest_measured)
    whole = np.ceil(exact_k(fit, wish) - 1e-9)
    low, high = central(whole, wish.confidence)
    return Decision(k, min(k, int(low)), max(k, int(high)), fit.largest_measured)
