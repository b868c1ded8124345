"""The first round for the best subset, and what the rounds take."""

from collections.abc import Sequence
from dataclasses import replace

from mergeplan.calibration.curve_rounds import Round, Stop
from mergeplan.calibration.limits import Spending, SpendingRange, most_merges
from mergeplan.calibration.subset_plan import SubsetPlan, first_subset_round, sloped_first
from mergeplan.evaluation.measured import WITH_SLOPES
from mergeplan.evaluation.parts import SHARES
from mergeplan.pool.subsets import SubsetMerge

# Subsets of middle sizes that are scored on everything where the others are set against them.
_ANCHORS = 2


def subset_forecast(
    plan: SubsetPlan, *, tokens_each: float = 0.0, seconds_each: float = 0.0
) -> SpendingRange:
    """What the calibration takes, before anything is measured.

    Args:
        tokens_each, seconds_each: Of one merge, with its evaluation; tokens without slopes.

    Raises:
        InputError: As for the first round.
    """
    first = first_subset_round(plan)
    own = plan.merge(plan.names).options
    weaker = sum(merge.options != own for merge in first if merge.k)
    every = 1 + plan.n_subsets + weaker
    tokens_each *= WITH_SLOPES if plan.gradients else 1
    most = most_merges(plan.budget, every, Spending(1, tokens_each, seconds_each))
    n_sloped = len(sloped_first(plan))

    def taken(merges: int) -> Spending:
        passes = merges + (WITH_SLOPES - 1) * min(n_sloped, merges)
        return Spending(merges, passes * tokens_each, merges * seconds_each)

    least = taken(min(len(first), most))
    if plan.partly and most == every:  # no budget takes some away
        n_whole = len(_round(plan, first, "").whole)
        share = (n_whole + SHARES[0] * (len(first) - n_whole)) / len(first)
        least = replace(least, tokens=share * least.tokens, seconds=share * least.seconds)
    return SpendingRange(least, taken(most))


def begin(
    plan: SubsetPlan, missing: Sequence[SubsetMerge], left: int | None, reason: str
) -> Round | Stop:
    """What is missing of a first round, as far as the budget goes.

    Args:
        left: How many merges it allows; `None` without a limit.
        reason: What is measured, for people.
    """
    if left == 0:
        return Stop("the budget is spent before the first round is complete", None, True)
    return _round(plan, missing[:left], reason)


def _round(plan: SubsetPlan, missing: Sequence[SubsetMerge], reason: str) -> Round:
    """Merges of a first round, with those that are scored on everything at once."""
    merges = tuple(sorted(missing, key=lambda merge: merge.order))
    if sloped := tuple(merge for merge in sloped_first(plan) if merge in merges):
        return Round(merges, f"{reason}; {len(sloped)} with slopes", sloped=sloped)
    if not plan.partly:
        return Round(merges, reason)
    own = plan.merge(plan.names).options
    some = [merge for merge in missing if 1 < merge.k < len(plan.names)]
    anchors = {merge.key for merge in some[:_ANCHORS]}
    whole = tuple(
        merge
        for merge in merges
        if merge.k in (0, len(plan.names)) or merge.options != own or merge.key in anchors
    )
    said = f"{reason}; {len(whole)} on all documents, the others on an eighth"
    return Round(merges, said, whole=whole)
