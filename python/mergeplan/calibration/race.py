"""Which partly scored merges are told apart from the best: they need no more documents.

The best so far is set against every other merge by their difference on the documents that both were
scored on (`evaluation.partial`). A merge is out where the difference exceeds its standard error by
a quantile of Student's t; the error is no smaller than what merges that were scored on everything
say of the documents that were not (`missed`). That looks are repeated is paid for beforehand: the
error that is allowed is spent in equal parts over the looks that there are before the whole text
(Pocock, 1977, has a less strict bound for equal looks; this is Bonferroni's), and over the merges,
any of which may wrongly seem to be better than the best. On the whole text a difference is exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mergeplan.evaluation.measured import MeasuredMerge
from mergeplan.evaluation.partial import Completed, completed, difference
from mergeplan.evaluation.parts import N_PARTS
from mergeplan.pool.subsets import SubsetMerge


@dataclass(frozen=True)
class Race:
    """How some merges stand.

    Attributes:
        best: The lowest so far; `None` without any merge.
        worse: Those that are told apart from it.
        open: The others that were not scored on everything, the best among them.
    """

    best: SubsetMerge | None
    worse: tuple[SubsetMerge, ...]
    open: tuple[SubsetMerge, ...]


def race(
    measured: Sequence[MeasuredMerge],
    some: Sequence[SubsetMerge],
    shares: Mapping[str, float],
    error: float,
) -> Race:
    """Which of some merges are worse than the best of them.

    Args:
        measured: Merges of one base size, others too: what was scored on everything helps.
        shares: Of each domain, which sum to 1.
        error: The chance that over all looks the best of them is thrown out.
    """
    keys = {merge.key for merge in some}
    every = completed(measured)
    runners = [one for one in every if one.measured.merge.key in keys]
    if not runners:
        return Race(None, (), ())
    best = min(runners, key=lambda one: _value(one, shares))
    each = error / (N_PARTS - 1) / max(len(runners) - 1, 1)
    whole = [one for one in every if one.whole]
    others = [one for one in runners if one is not best]
    worse = [one for one in others if _worse(one, best, shares, each, whole)]
    rest = [one for one in runners if not one.whole and all(one is not other for other in worse)]
    return Race(best.measured.merge, *(tuple(o.measured.merge for o in x) for x in (worse, rest)))


def _value(one: Completed, shares: Mapping[str, float]) -> float:
    means = one.measured.scores.estimates()
    return sum(share * means[name].loss_nats for name, share in shares.items())


def _worse(
    one: Completed,
    best: Completed,
    shares: Mapping[str, float],
    error: float,
    whole: Sequence[Completed],
) -> bool:
    from scipy.special import stdtrit

    value, se, freedom = difference(one, best, shares, whole)
    if se == 0:
        return value > 0
    return bool(value > stdtrit(freedom, 1 - error) * se)
