"""The loop: weights, their losses and slopes, and the next weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mergeplan.evaluation.scores import Scores
from mergeplan.tuning.aim import Aim
from mergeplan.tuning.curvature import chain, spread, start, updated
from mergeplan.tuning.folder import Point, scores_of
from mergeplan.tuning.points import Ask, Points
from mergeplan.tuning.recipe import rounded
from mergeplan.tuning.step import Model, Region, best_step

Array = NDArray[np.float64]

# Of the penalty towards equal weights, in units of the loss's own curvature.
PENALTIES = (0.03, 0.1, 0.3, 1.0)
# A step is worth trusting further, or less far, by what it gained of what was promised.
_GOOD, _POOR = 0.7, 0.25
_LONGER, _SHORTER = 2.0, 0.35
# Points in a row, that gain where slopes were taken and not where steps are accepted.
_PATIENCE = 3
TOLD, FITTED, SPENT, STUCK = (
    "the next step would gain less than the texts can tell",
    "steps no longer gained on the documents that accept them",
    "the budget is spent",
    "no step is left within the bounds",
)


@dataclass(frozen=True)
class Seen:
    """A measured point, as the loop needs it."""

    weights: Array  # (n_experts, n_groups)
    losses: dict[str, float]
    slopes: dict[str, Array]  # (n,) each
    accepting: Scores

    @classmethod
    def of(cls, point: Point) -> "Seen":
        losses = {name: float(loss) for name, loss in (point.losses or {}).items()}
        slopes = {name: np.array(one).ravel() for name, one in (point.slopes or {}).items()}
        return cls(np.array(point.weights), losses, slopes, scores_of(point.accepting))

    def slope(self, aim: Aim) -> Array:
        """Of the mean that counts, shape (n,)."""
        return np.asarray(sum(share * self.slopes[name] for name, share in aim.shares.items()))


@dataclass
class Found:
    """What a search came to.

    Attributes:
        weights: Those that are best where steps are accepted.
        penalty: By which they were found; 0 for none.
        stopped: Why.
        seen: Every point with slopes, in order: the base, equal weights, then steps.
        accepted: The value of each on the accepting documents, and of those of penalties behind.
        bend: The last curvature, shape (n, n).
        steps: What each step promised, and what it gained, where slopes were taken.
        promised: What the next step would gain; 0 where there is none.
        tried: By each penalty what it leads to: its strength, weights, and scores.
    """

    weights: Array
    penalty: float
    stopped: str
    seen: list[Seen]
    accepted: list[float]
    bend: Array
    centre: Seen
    told: float
    scores: Scores = field(repr=False)
    steps: list[tuple[float, float]] = field(default_factory=list)
    promised: float = 0.0
    tried: list[tuple[float, Array, Scores]] = field(default_factory=list, repr=False)


def search(
    points: Points,
    aim: Aim,
    region: Region,
    begin: Array,
    grams: Array,
    budget: int,
    say: Callable[[str], object] = lambda _: None,
) -> Found:
    """Tune weights.

    Args:
        begin: Where to begin, shape (n_experts, n_groups).
        grams: As for `curvature.start`.
        budget: Most points with slopes.
    """
    points.measure([Ask(np.zeros_like(begin)), Ask(begin)])
    base = Seen.of(points.at(np.zeros_like(begin)))
    first = Seen.of(points.at(begin))
    seen, centre, stopped = [base, first], first, SPENT
    radius = min(max(2 / len(begin), 0.1), 0.5)
    change = (first.slope(aim) - base.slope(aim)).reshape(begin.shape)
    initial = start(grams, first.weights, change)
    told, bend, worse = 0.0, initial, 0
    steps: list[tuple[float, float]] = []
    while True:
        pairs = chain([one.weights for one in seen], [one.slope(aim) for one in seen])
        bend = updated(initial, pairs)
        model = _model(aim, centre, bend, np.zeros_like(bend))
        step = best_step(model, region, radius)
        nothing = np.zeros_like(step)
        promised = model.merit(nothing) - model.merit(step)
        told = _told(aim, seen, bend, step)
        if promised <= told:
            stopped, promised = TOLD, 0.0
            break
        if len(seen) >= budget:
            break
        weights = rounded(centre.weights + step.reshape(begin.shape))
        if any(np.array_equal(weights, one.weights) for one in seen):
            stopped, promised = STUCK, 0.0
            break
        point = Seen.of(points.at(weights))
        before = min(_accepted(aim, one) for one in seen)
        seen.append(point)
        gained = aim.merit(centre.losses) - aim.merit(point.losses)
        steps.append((promised, gained))
        say(
            f"point {len(seen)}: {aim.said(point.losses)} where slopes are taken,"
            f" {aim.said(point.accepting.losses())} where steps are accepted;"
            f" gained {gained:.4f} of {promised:.4f} that slopes promised"
        )
        if gained > _GOOD * promised and np.abs(step).max() > 0.99 * radius:
            radius *= _LONGER
        elif gained < _POOR * promised:
            radius = _SHORTER * float(np.abs(step).max())
        worse = 0 if _accepted(aim, point) < before else worse + 1
        if gained > 0:
            centre = point
        if worse >= _PATIENCE:
            stopped, promised = FITTED, 0.0
            break
    found = _with_penalty(points, aim, region, seen, centre, bend, stopped, told)
    found.steps, found.promised = steps, promised
    return found


def _with_penalty(
    points: Points,
    aim: Aim,
    region: Region,
    seen: list[Seen],
    centre: Seen,
    bend: Array,
    stopped: str,
    told: float,
) -> Found:
    """The best of all points and of what penalties lead to, where steps are accepted."""
    inside = [one for one in seen[1:] if _inside(region, one.weights)]
    best = min(inside, key=lambda one: _accepted(aim, one))
    found = Found(
        best.weights, 0.0, stopped, seen, [_accepted(aim, one) for one in seen], bend, centre,
        told, best.accepting,
    )  # fmt: skip
    led = {}
    for strength in PENALTIES:
        model = _model(aim, centre, bend, strength * spread(bend))
        step = best_step(model, region, region.high - region.low)
        led[strength] = rounded(centre.weights + step.reshape(centre.weights.shape))
    points.measure([Ask(weights, slopes=False) for weights in led.values()])
    for strength, weights in led.items():
        scores = scores_of(points.at(weights, slopes=False).accepting)
        found.tried.append((strength, weights, scores))
        value = _merit(aim, scores)
        if value < min(found.accepted[1:]):
            found.weights, found.penalty, found.scores = weights, strength, scores
        found.accepted.append(value)
    return found


def _model(aim: Aim, at: Seen, bend: Array, penalty: Array) -> Model:
    return Model(aim, at.weights, at.losses, at.slopes, bend, penalty)


def _merit(aim: Aim, scores: Scores) -> float:
    """Infinite where a loss is not finite."""
    found = aim.merit(scores.losses())
    return found if math.isfinite(found) else math.inf


def _accepted(aim: Aim, one: Seen) -> float:
    return _merit(aim, one.accepting)


def _inside(region: Region, weights: Array) -> bool:
    inside = (weights >= region.low - 1e-9).all() and (weights <= region.high + 1e-9).all()
    sums = region.total is None or np.allclose(weights.sum(0), region.total, atol=1e-3)
    return bool(inside and sums)


def _told(aim: Aim, seen: list[Seen], bend: Array, step: Array) -> float:
    """What a step may gain by chance: the paired error of the last one, by how much each bends the
    loss, which is how unlike documents answer to it too."""
    before, last = seen[-2:]
    went = (last.weights - before.weights).ravel()
    error = aim.gain(before.accepting, last.accepting).se
    bent, bends = float(went @ bend @ went), float(step @ bend @ step)
    if not math.isfinite(error) or bent <= 0 or bends <= 0:
        return 0.0
    return error * math.sqrt(bends / bent)
