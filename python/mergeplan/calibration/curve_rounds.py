"""Calibration in rounds: start small, then measure where the decision is still open.

Pure functions over measurements: whoever runs them merges and evaluates what a `Round` names, adds
the rows, and asks again. Nothing is kept in between, so a run that was stopped goes on by asking.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, comb

from mergeplan.calibration.decision import CurveGoal, Decision, decide
from mergeplan.calibration.limits import Budget, Spending, SpendingRange, affordable, most_merges
from mergeplan.calibration.value import Prospect
from mergeplan.config.labels import method_of
from mergeplan.law.curve import Fit
from mergeplan.law.fit import fit_series
from mergeplan.law.recommendation import unseen_beyond
from mergeplan.law.series import Series, series_of
from mergeplan.measurements.rows import Measurement, Measurements
from mergeplan.pool.designs import Subset, choose_subsets
from mergeplan.pool.file import BASE
from mergeplan.pool.pool import Pool
from mergeplan.pool.sampling import THREE_POINTS, check_experts, lambda_scan
from mergeplan.pool.subsets import SubsetMerge, canonical_options, subset_merge
from mergeplan.system.blas import on_one_thread

# Subsets of each k in the first round: these, or what it takes to meet every expert.
_FIRST_SUBSETS = 4
# Stop where measuring everything would leave more than this of the uncertainty of k.
_HOPELESS = 0.8


@dataclass(frozen=True)
class CurvePlan:
    """One method at one base size, and what is to be known about it.

    Attributes:
        size: Index into `Pool.sizes`.
        label: A method of the pool.
        ks: Sizes of subsets that may be measured; empty for all.
        domain: Which loss decides; by default the macro mean, or the only domain there is.
        until: Stop when no active k is farther than this from the one decided on.
        per_round: Subsets between two looks at the fit.
        seed: Of the choice of subsets, and of random masks.
    """

    pool: Pool
    size: int = 0
    label: str = "average"
    wish: CurveGoal = field(default_factory=CurveGoal)
    ks: tuple[int, ...] = ()
    domain: str | None = None
    until: int = 1
    budget: Budget = field(default_factory=Budget)
    per_round: int = 4
    scan: bool = True
    seed: int = 0

    @property
    def names(self) -> list[str]:
        return sorted(self.pool.sizes[self.size].experts)

    @property
    def possible(self) -> dict[int, int]:
        """Number of subsets by k, of those k that may be measured: both ends always may."""
        size = len(self.names)
        ks = {*self.ks, 1, size} if self.ks else range(1, size + 1)
        return {k: comb(size, k) for k in sorted(ks)}

    def merge(self, subset: Iterable[str]) -> SubsetMerge:
        return subset_merge(self.pool, self.size, self.label, subset, seed=self.seed)


@dataclass(frozen=True)
class Round:
    """Measure these next.

    Attributes:
        decision: As it stands before them; `None` in the first round.
        reason: One sentence for people.
        whole: Those to be scored on all documents where the others get their next part of them.
        sloped: Those that are measured with the slopes of their losses.
    """

    merges: tuple[SubsetMerge, ...]
    reason: str
    decision: Decision | None = None
    whole: tuple[SubsetMerge, ...] = ()
    sloped: tuple[SubsetMerge, ...] = ()


@dataclass(frozen=True)
class Stop:
    """Measure no more.

    Attributes:
        decision: The last one; `None` where the budget ended before there was any.
        open: Whether it may still change.
        notes: What else the measurements tell.
    """

    reason: str
    decision: Decision | None
    open: bool
    notes: tuple[str, ...] = ()


def first_round(plan: CurvePlan, have: Iterable[SubsetMerge] = ()) -> list[SubsetMerge]:
    """The merges to begin with, in canonical order, without those that are there.

    Base, all single experts, a few balanced subsets of 2 and 4 (of every k, where `ks` says which),
    all experts together, and those with other factors lambda.

    Raises:
        InputError: The pool has one expert, or its headers are at fault.
    """
    check_experts(plan.pool)
    have = set(have)
    names = plan.names
    wanted = {plan.merge(()), *(plan.merge((name,)) for name in names)}
    measured = _by_k(plan, have)
    few = {*THREE_POINTS, len(names)} & set(plan.possible)
    for k in plan.possible if plan.ks else few:
        count = max(_FIRST_SUBSETS, ceil(len(names) / k))
        chosen = choose_subsets("balanced", names, k, count, seed=plan.seed, have=measured[k])
        wanted |= {plan.merge(subset) for subset in chosen}
    if plan.scan:
        wanted |= set(lambda_scan(plan.pool, plan.size, plan.label, names, plan.seed))
    return sorted(wanted - have, key=lambda merge: merge.order)


@on_one_thread
def next_round(
    measured: Measurements, plan: CurvePlan, spent: Spending | None = None
) -> Round | Stop:
    """What to measure next, or why to stop.

    Args:
        measured: Rows of any methods and sizes; those of the plan are picked out.
        spent: What they took; by default as many merges as the plan has rows for, and no more.

    Raises:
        InputError: The pool is at fault, or rows that contradict each other.
    """
    rows = _own_rows(measured, plan)
    have = {_merge_of(row, plan) for row in rows}
    spent = spent or Spending(merges=len(have))
    left = affordable(plan.budget, spent)
    missing = first_round(plan, have)
    if missing:
        if left == 0:
            return Stop("the budget is spent before the first round is complete", None, True)
        # Where the budget cuts it short: the ends before the middle, other lambdas last.
        telling = sorted(missing, key=lambda merge: _rank(merge, plan))[:left]
        merges = tuple(sorted(telling, key=lambda merge: merge.order))
        return Round(merges, f"first round: {len(missing)} merges, the ends and a few between")
    series = _all_series(rows, measured, plan)
    law = fit_series(next(s for s in series if s.options == plan.merge(plan.names).options))
    decision = decide(law, plan.wish)
    said = decision_text(decision, plan)
    why = _why_stop(law, decision, plan, left)
    if why:
        still_open = decision.reach > plan.until
        return Stop(f"{said}{why}", decision, still_open, _notes(series, plan))
    count = plan.per_round if left is None else min(left, plan.per_round)
    more = Prospect(law, plan.wish, plan.possible).allocate(count)
    by_k = _by_k(plan, have)
    new: list[SubsetMerge] = []
    for k, number in sorted(more.items()):
        kept = by_k[k]
        total = len(kept) + number
        chosen = choose_subsets("balanced", plan.names, k, total, seed=plan.seed, have=kept)
        new += [plan.merge(subset) for subset in chosen if subset not in kept]
    where = ", ".join(f"{number} of k = {k}" for k, number in sorted(more.items()))
    return Round(tuple(new), f"{said}; to narrow it, measure {where}", decision)


def _rank(merge: SubsetMerge, plan: CurvePlan) -> tuple[bool, int]:
    scanned = merge != plan.merge(merge.subset)
    return scanned, -1 if merge.k == len(plan.names) else merge.k


def _why_stop(law: Fit, decision: Decision, plan: CurvePlan, left: int | None) -> str:
    """Why no more is to be measured, as the end of a sentence; empty to go on."""
    if decision.reach <= plan.until:
        return ": as near as was asked for"
    measured = {point.k: point.n_subsets for point in law.series.points}
    if all(measured.get(k, 0) >= count for k, count in plan.possible.items()):
        return "; every subset is measured"
    if Prospect(law, plan.wish, plan.possible).left_over() > _HOPELESS:
        return (
            "; what is left is how far the curve itself misses the means: measuring every subset"
            " would hardly narrow it"
        )
    return "; the budget is spent" if left == 0 else ""


def _by_k(plan: CurvePlan, have: Iterable[SubsetMerge]) -> dict[int, list[Subset]]:
    """Subsets that are measured at the plan's own options."""
    found: dict[int, list[Subset]] = {k: [] for k in plan.possible}
    for merge in have:
        if merge.k in found and merge == plan.merge(merge.subset):
            found[merge.k].append(merge.subset)
    return found


def curve_forecast(
    plan: CurvePlan, *, tokens_each: float = 0.0, seconds_each: float = 0.0
) -> SpendingRange:
    """What the calibration takes, before anything is measured.

    Args:
        tokens_each, seconds_each: Of one merge, with its evaluation.

    Raises:
        InputError: As for the first round.
    """
    first = first_round(plan)
    scanned = sum(merge.k > 0 and merge != plan.merge(merge.subset) for merge in first)
    every = 1 + sum(plan.possible.values()) + scanned
    most = most_merges(plan.budget, every, Spending(1, tokens_each, seconds_each))
    least = min(len(first), most)

    def taken(merges: int) -> Spending:
        return Spending(merges, merges * tokens_each, merges * seconds_each)

    return SpendingRange(taken(least), taken(most))


def decision_text(decision: Decision, plan: CurvePlan) -> str:
    """The decision in words.

    >>> decision_text(Decision(5, 4, 7), CurvePlan(Pool((), {}, {})))
    'k = 5, and with 90 % confidence on this text 4 to 7'
    """
    size = len(plan.names) if plan.pool.sizes else decision.high
    last = f"more than the {size} there are" if decision.high > size else f"{decision.high}"
    sure = f"with {plan.wish.confidence:.0%} confidence on this text".replace("%", " %")
    seen = size if decision.seen is None else decision.seen
    unseen = unseen_beyond(min(decision.high, size), seen)
    if decision.low == decision.high:
        return f"k = {last}, {sure}{unseen}"
    k = "none of this pool" if decision.k > size else f"{decision.k}"
    return f"k = {k}, and {sure} {decision.low} to {last}{unseen}"


def _own_rows(measured: Measurements, plan: CurvePlan) -> list[Measurement]:
    """The base's rows, and the method's at any lambda; each with its options in canonical form."""
    n_params = plan.pool.sizes[plan.size].count_params()
    names = set(plan.names)
    whole = plan.merge(names)
    own = dict(whole.settings)
    own.pop("lambda", None)
    found = []
    for row in measured.rows:
        if row.n_params not in (None, n_params) or not set(row.subset) <= names:
            continue
        if row.k == 0:
            found.append(replace(row, method=BASE, options="{}"))
        elif row.method == plan.label and row.subset:
            options = json.loads(row.options)
            canonical = canonical_options(options)
            options.pop("lambda", None)
            if options == own and row.seed in ("", str(whole.seed)):
                found.append(replace(row, options=canonical))
    return found


def _merge_of(row: Measurement, plan: CurvePlan) -> SubsetMerge:
    merge = plan.merge(row.subset)
    return replace(merge, options=row.options) if row.k else merge


def _all_series(
    rows: Sequence[Measurement], measured: Measurements, plan: CurvePlan
) -> list[Series]:
    data = Measurements(tuple(rows), measured.sha256)
    return series_of(data, domain=plan.domain, method=plan.label, pool_size=len(plan.names))


def _notes(every: Sequence[Series], plan: CurvePlan) -> tuple[str, ...]:
    """Whether another lambda did better with all experts."""
    size = len(plan.names)
    losses = {s.options: p.loss for s in every for p in s.points if p.k == size}
    own = plan.merge(plan.names).options
    sign, word = (every[0].scale.sign, every[0].scale.best) if every else (1.0, "")
    best = min(losses, key=lambda options: sign * losses[options], default=own)
    if own not in losses or sign * losses[best] >= sign * losses[own]:
        return ()
    # Without one in the row it is the method's default.
    factor = method_of(plan.label, json.loads(best))[1]["lambda"]
    return (
        f"all {size} experts with lambda {factor:g} have {losses[best]:.4f},"
        f" {'more' if word == 'highest' else 'less'} than the {losses[own]:.4f} of the pool's own:"
        " consider it",
    )
