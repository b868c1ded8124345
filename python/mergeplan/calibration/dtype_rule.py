"""Whether a run may score in bfloat16: some merges in both dtypes decide the same.

Only differences of merges decide, so what bfloat16 adds to all of them alike is harmless. It may be
taken where

1. each pair of the merges compares the same in both dtypes (better, worse, or not told apart by
   90 %, paired by document or group), and the best of them is the same; and
2. the shift, bfloat16 less float32, hardly varies from merge to merge. Of n merges its standard
   deviation is at most s * sqrt((n - 1) / q), where q is the 5 % quantile of chi-square with n - 1
   degrees of freedom (2.1 s for seven merges). By that bound the error of a difference may be a
   third of the pairs' median standard error (which then becomes 5 % greater), and the error of a
   value a tenth of the standard deviation of the merges' values without the base (1 % of their
   variance). Where a target is to be reached, what all shifts have in common counts as well; and
3. it is a fifth faster or more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mergeplan.evaluation.measured import MeasuredMerge
from mergeplan.evaluation.resampling import Resampling
from mergeplan.evaluation.scores import Estimate, Scores, mean_estimate
from mergeplan.measurements.metrics import domains_of
from mergeplan.measurements.rows import MACRO, parse_shares
from mergeplan.subset_law.spread import NINE_IN_TEN

Array = NDArray[np.float64]

_OF_ERROR, _OF_SPREAD = 1 / 3, 1 / 10
# Less is not worth what a trial takes.
LEAST_SPEEDUP = 1.2
_WORDS = {-1: "better", 0: "not told apart", 1: "worse"}


@dataclass(frozen=True)
class Asked:
    """What decides between merges.

    Attributes:
        aims: As `Resampling` names them, such as `code=2,math`.
        metric: Empty for losses in nats.
        higher: Whether more is better.
        target: To be reached; then a shift that all merges have in common counts too.
    """

    aims: tuple[str, ...]
    metric: str = ""
    higher: bool = False
    target: float | None = None


@dataclass(frozen=True)
class Compared:
    """Merges in both dtypes.

    Attributes:
        change: The largest change of a difference of two merges.
        fault: Why bfloat16 may not be taken; empty where it may.
    """

    change: float
    fault: str = ""


def compare(
    wide: Sequence[MeasuredMerge],
    narrow: Sequence[MeasuredMerge],
    aim: str,
    asked: Asked,
) -> Compared:
    """Hold the same merges of one base in both dtypes against each other.

    Args:
        wide, narrow: In float32 and in bfloat16, in the same order.
        aim: One of those that are asked for.
    """
    metric, sign = asked.metric, -1.0 if asked.higher else 1.0
    first, second = (
        np.array([_value(one.scores, aim, metric) for one in some]) for some in (wide, narrow)
    )
    shifts = second - first  # (merges,)
    finite = np.isfinite(shifts)
    if not finite.all():
        return Compared(math.nan, f"{_name(wide[int(np.argmin(finite))])} has no finite value")
    change = float(np.ptp(shifts))
    shares = parse_shares(aim)
    both = Resampling.of(wide, metric), Resampling.of(narrow, metric)
    errors = []
    for one, other in combinations(wide, 2):
        keys = one.merge.merge_key, other.merge.merge_key
        in_wide, in_narrow = (some.difference(*keys, shares) for some in both)
        errors.append(in_wide.se)
        was, is_now = (_verdict(found, sign) for found in (in_wide, in_narrow))
        if was != is_now:
            said = f"{_name(one)} and {_name(other)} are {_WORDS[0]} in one dtype alone"
            if 0 not in (was, is_now):
                said = f"{_name(one)} is {_WORDS[was]} than {_name(other)}, or {_WORDS[is_now]}"
            return Compared(change, said)
    # Of merges that were scored in part only differences compare, on all documents.
    base = wide[0].merge.merge_key
    paired = [
        np.array([some.difference(one.merge.merge_key, base, shares).loss_nats for one in wide])
        for some in both
    ]
    best = [int(np.argmin(sign * values)) for values in paired]
    if best[0] != best[1]:
        return Compared(change, f"the best is {_name(wide[best[0]])}, or {_name(wide[best[1]])}")
    if asked.target is not None:
        across = np.flatnonzero((first > asked.target) != (second > asked.target))
        if len(across):
            return Compared(
                change, f"{_name(wide[across[0]])} reaches the target in one dtype alone"
            )
    bound = _bound(shifts - (shifts.mean() if asked.target is None else 0.0))
    merged = np.array([one.merge.k > 0 for one in wide])
    limits = {
        "the values' spread": _OF_SPREAD * float(np.std(paired[0][merged], ddof=1)),
        "the paired errors": _OF_ERROR / math.sqrt(2) * float(np.median(errors)),
    }
    for what, limit in limits.items():
        if bound > limit:  # an error that is not known is NaN, and no limit
            why = f"the shift varies by up to {bound:.2g}, more than {limit:.2g} by {what}"
            return Compared(change, why)
    return Compared(change)


def speedup(wide: Sequence[MeasuredMerge], narrow: Sequence[MeasuredMerge]) -> float:
    """How many times faster the second merges were scored than the same of the first."""
    before = {one.merge.key: one.seconds[1] for one in wide}
    took = sum(one.seconds[1] for one in narrow)
    return sum(before[one.merge.key] for one in narrow) / max(took, 1e-9)


def _value(scores: Scores, aim: str, metric: str) -> float:
    shares = domains_of(aim, metric)
    means = scores.estimates() | {MACRO: scores.macro()}
    return mean_estimate(means, shares).loss_nats


def _verdict(difference: Estimate, sign: float) -> int:
    """1 where the first is worse, -1 where it is better, 0 where that cannot be told."""
    error = NINE_IN_TEN * difference.se if math.isfinite(difference.se) else 0.0
    value = sign * difference.loss_nats
    return int(value > error) - int(value < -error)


def _bound(deviations: Array) -> float:
    """What their standard deviation is at most, with 95 % confidence."""
    from scipy.special import chdtri

    freedom = len(deviations) - 1
    return math.sqrt(float(deviations @ deviations) / float(chdtri(freedom, 0.95)))


def _name(one: MeasuredMerge) -> str:
    return f"`{'+'.join(one.merge.subset)}`" if one.merge.subset else "the base"
