"""What could be left out of a tuned merge, and what each expert does: both after the search."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergeplan.tuning.folder import scores_of
from mergeplan.tuning.points import Points
from mergeplan.tuning.prepared import Prepared
from mergeplan.tuning.search import Found, Seen

Array = NDArray[np.float64]

# Of the experts, and of the groups, that cost the least by the curvature.
_TRIED = 3


@dataclass(frozen=True)
class LeftOut:
    """Something whose weights were set to 0.

    Attributes:
        what: `expert` or `group`.
        cost: What the aim lost by it on the documents that accept steps, and its paired error.
    """

    what: str
    name: str
    cost: float
    se: float

    @property
    def free(self) -> bool:
        """Whether the texts cannot tell that anything is lost."""
        return self.cost <= self.se


# Its kind, its name, and the weights without it.
Without = tuple[str, str, Array]


def without(prepared: Prepared, found: Found) -> list[Without]:
    """What costs the least to leave out, by the curvature."""
    bend = found.bend
    slope = found.centre.slope(prepared.aim)
    at = found.weights - found.centre.weights

    def cost(weights: Array) -> float:
        """By the curvature, as against the tuned weights."""
        step = (weights - found.centre.weights).ravel()
        here = at.ravel()
        after = float(slope @ step + 0.5 * step @ bend @ step)
        return after - float(slope @ here + 0.5 * here @ bend @ here)

    tried: list[Without] = []
    for what, names, axis in (
        ("expert", prepared.experts, 0),
        ("group", prepared.recipe.groups.names, 1),
    ):
        if axis == 1 and len(names) == 1:
            continue
        all_without = {
            name: _without(found.weights, place, axis) for place, name in enumerate(names)
        }
        changed = {n: w for n, w in all_without.items() if not np.array_equal(w, found.weights)}
        cheapest = sorted(changed, key=lambda name: cost(changed[name]))[:_TRIED]
        tried += [(what, name, changed[name]) for name in cheapest]
    return tried


def left_out(
    points: Points, prepared: Prepared, found: Found, tried: Sequence[Without]
) -> tuple[LeftOut, ...]:
    """What each costs, measured; nothing is tuned again around it."""
    costs = []
    for what, name, weights in tried:
        scores = scores_of(points.at(weights, slopes=False).accepting)
        lost = prepared.aim.gain(scores, found.scores)
        costs.append(LeftOut(what, name, lost.loss_nats, lost.se))
    return tuple(costs)


def _without(weights: Array, place: int, axis: int) -> Array:
    found = weights.copy()
    found[(slice(None),) * axis + (place,)] = 0.0
    return found


def effects(points: Points, prepared: Prepared, found: Found) -> dict[str, Array]:
    """What each weight does to each domain's loss, shape (n_experts, n_groups): the mean of its
    slopes at the base and at the tuned weights, times the weight. They sum to what the merge does,
    to third order."""
    tuned = Seen.of(points.at(found.weights))
    base = found.seen[0]
    return {
        name: found.weights * (base.slopes[name] + slopes).reshape(found.weights.shape) / 2
        for name, slopes in tuned.slopes.items()
    }
