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
        target_loss: In nats per token; without one, `fraction` decides.
        fraction: Share of the improvement from one expert to all of them.
        confidence: Of the interval of k.
    """

    target_loss: float | None = None
    fraction: float = 0.9
    confidence: float = CONFIDENCE


@dataclass(frozen=True)
class Decision:
    """How many experts to merge, by what was measured so far.

    Attributes:
        k: Smallest that fulfils the wish by the fitted curve; one more than the pool has where
            none does.
        low, high: The active range: the k that the wish may still turn out to need, at the
            confidence that was asked for.
    """

    k: int
    low: int
    high: int

    @property
    def reach(self) -> int:
        """How far the farthest active k lies from the one decided on."""
        return max(self.high - self.k, self.k - self.low)


def exact_k(fit: Fit, wish: CurveGoal) -> Array:
    """The k, not rounded, that each posterior draw asks for, shape (draws,); within [1, M + 1].

    Every value above M says that no merge of this pool is enough.

    Raises:
        ValueError: The fit has no draws.
    """
    draws, pool_size = fit.draws, fit.series.pool_size
    if draws is None:
        raise ValueError("a fit without draws leaves k open")
    if wish.target_loss is None:
        first, last = draws.law_at(1), draws.law_at(pool_size)
        target = first - wish.fraction * (first - last)
    else:
        target = np.full_like(draws.floor, wish.target_loss)
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = draws.tail / (target - draws.floor) - draws.offset
    enough = target > draws.floor
    # A flat curve (no tail) makes 0 / 0 of a fraction: one expert has all there is.
    exact = np.where(enough, exact, np.where(draws.law_at(1) <= target, 1.0, np.inf))
    return np.clip(exact, 1.0, pool_size + 1.0)


def decide(fit: Fit, wish: CurveGoal) -> Decision:
    """The decision of a fit; without draws, as from two k only, every k stays active."""
    law, pool_size = fit.law, fit.series.pool_size
    if wish.target_loss is None:
        k = law.reaching(wish.fraction, pool_size)
    else:
        slack = 1e-12 * abs(wish.target_loss)
        reached = (x for x in range(1, pool_size + 1) if law.predict(x) <= wish.target_loss + slack)
        k = next(reached, pool_size + 1)
    if fit.draws is None:
        return Decision(k, 1, pool_size + 1)
    whole = np.ceil(exact_k(fit, wish) - 1e-9)
    low, high = central(whole, wish.confidence)
    return Decision(k, min(k, int(low)), max(k, int(high)))
