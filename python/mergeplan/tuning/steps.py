"""How a search went: each point, what it came to, and the passes until then."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge

from mergeplan.evaluation.scores import Scores
from mergeplan.subset_law.spread import NINE_IN_TEN
from mergeplan.system.ranges import Magnitude, Number
from mergeplan.tuning.aim import Aim
from mergeplan.tuning.folder import Point, rows
from mergeplan.tuning.search import Found

BASE, EQUAL, STEP, PENALTY = "the base", "equal weights", "step", "penalty"


@dataclass(frozen=True)
class Step:
    """A point of a search.

    Attributes:
        name: For people.
        kind: `point` with slopes, or `penalty` of one that a penalty leads to.
        fitted: Its value on the documents that give slopes; `None` where it was not scored there.
        accepting: On those that accept steps; `None` where it is not finite.
        gain: By how much it is better there than equal weights, with its paired 90 % interval.
        promised: What slopes promised of a step that led here; `None` of what none led to.
        gained: What it gained of that, on the documents that give slopes.
        tokens: Forward passes through so many until then, its own included; a backward pass counts
            two.
        chosen: Whether these are the tuned weights.
    """

    name: str
    kind: str
    fitted: Number | None
    accepting: Number | None
    gain: Number | None
    low: Number | None
    high: Number | None
    promised: Number | None
    gained: Number | None
    tokens: Annotated[int, Ge(0)]
    seconds: Magnitude
    chosen: bool


def steps_of(found: Found, aim: Aim, points: Sequence[Point]) -> tuple[Step, ...]:
    """The base, equal weights, each step, and what each penalty came to.

    Args:
        points: As the run's folder keeps them.
    """
    equal = found.seen[1].accepting
    names = [BASE, EQUAL, *(f"{STEP} {n}" for n in range(1, len(found.seen) - 1))]
    none = (None, None)
    kept: list[tuple[float | None, float | None]] = [none, none, *found.steps]
    taken = [
        (name, "point", one.weights, aim.value(one.losses), one.accepting, promise)
        for name, one, promise in zip(names, found.seen, kept, strict=True)
    ]
    tried = [
        (f"{PENALTY} {strength:g}", PENALTY, weights, None, scores, none)
        for strength, weights, scores in found.tried
    ]
    steps: list[Step] = []
    spent: list[Point] = []
    tokens, seconds, chosen = 0, 0.0, False
    for name, kind, weights, fitted, scores, promise in (*taken, *tried):
        own = _point(points, rows(weights), slopes=kind != PENALTY)
        if own is not None and own not in spent:  # a penalty may lead to a point that is known
            spent.append(own)
            tokens, seconds = tokens + own.tokens, seconds + own.seconds
        is_it = not chosen and np.array_equal(weights, found.weights)
        chosen = chosen or is_it
        against, (promised, gained) = _against(aim, scores, equal), promise
        steps.append(Step(name, kind, fitted, *against, promised, gained, tokens, seconds, is_it))
    return tuple(steps)


def _against(
    aim: Aim, scores: Scores, equal: Scores
) -> tuple[float | None, float | None, float | None, float | None]:
    """Its value, and its gain over equal weights with the interval."""
    value = aim.value(scores.losses())
    gain = aim.gain(equal, scores)
    margin = NINE_IN_TEN * gain.se
    low, high = gain.loss_nats - margin, gain.loss_nats + margin
    return _known(value), _known(gain.loss_nats), _known(low), _known(high)


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _point(points: Sequence[Point], weights: object, *, slopes: bool) -> Point | None:
    """The first such point of a run."""
    wanted = (one for one in points if one.weights == weights and one.accepting)
    return next((one for one in wanted if bool(one.slopes) == slopes), None)
