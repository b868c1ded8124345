"""Rounds for the best subset: measure what may still be the best until one of them is.

Pure functions over measurements, like `curve_rounds`: nothing is kept in between, so a run that was
stopped goes on by asking again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mergeplan.calibration.curve_rounds import Round, Stop
from mergeplan.calibration.limits import Spending, affordable
from mergeplan.calibration.race import Race, race
from mergeplan.calibration.subset_begin import begin
from mergeplan.calibration.subset_plan import SubsetPlan, below, first_subset_round, own_rows
from mergeplan.display.text import chance_text, counted, format_count
from mergeplan.evaluation.measured import MeasuredMerge
from mergeplan.evaluation.partial import completed, covariance
from mergeplan.evaluation.resampling import Resampling
from mergeplan.measurements.rows import (
    MACRO,
    Measurement,
    Measurements,
    MergeKey,
    domain_name,
    parse_shares,
)
from mergeplan.pool.geometry.file import Gram
from mergeplan.pool.subsets import SubsetMerge
from mergeplan.selection.active import Confidence
from mergeplan.selection.choices import Choice, best_by_size
from mergeplan.selection.draws import settle
from mergeplan.selection.fitting import Fits, fit_each, fit_table
from mergeplan.selection.problem import Problem
from mergeplan.selection.select import how_sure
from mergeplan.selection.selection import not_told_apart
from mergeplan.selection.sizes import link_sizes
from mergeplan.selection.table import JointNoise, Table, tables_of
from mergeplan.subset_law.law import SubsetLaw
from mergeplan.system.blas import on_one_thread

Array = NDArray[np.float64]

_EVERY = "every expert, all, and some between"
# Rivals on other texts that are scored further before the end, until a test tells them apart: of
# twelve seeds on the 850 k pool one more names the best, for 2.5 % more tokens; two do no better.
_CLOSEST = 1


@on_one_thread
def next_subset_round(
    measured: Measurements,
    plan: SubsetPlan,
    spent: Spending | None = None,
    resampling: Resampling | None = None,
    grams: Sequence[Gram] = (),
    scored: Sequence[MeasuredMerge] = (),
) -> Round | Stop:
    """What to measure next, or why to stop.

    Args:
        measured: Rows of any methods and sizes; those of the plan are picked out.
        spent: What they took; by default as many merges as the plan has rows for, and no more.
        resampling: Documents' scores of the merges. Where they are known, the chance that counts is
            that on texts of this kind, and where only other texts would help it stops with a word.
        grams: How the experts lie to each other, where that is known.
        scored: What the rows are of, where the plan is to score them on parts of the text.

    Raises:
        InputError: The pool is at fault, or the measurements lack what is to decide.
    """
    found = _next_round(measured, plan, spent, resampling, grams, scored)
    if plan.partly and isinstance(found, Stop) and _left(plan, spent, scored) != 0:
        # The verdict sets its merge against the best single expert.
        alone = _race(plan, scored, [plan.merge((name,)) for name in plan.names])
        if alone.best in alone.open:
            some = (alone.best,)
            said = f"{found.reason}; score the best single expert on all documents"
            return Round(some, said, whole=some)
    return found


def _next_round(
    measured: Measurements,
    plan: SubsetPlan,
    spent: Spending | None,
    resampling: Resampling | None,
    grams: Sequence[Gram],
    scored: Sequence[MeasuredMerge],
) -> Round | Stop:
    rows = own_rows(measured, plan)
    have = {(row.subset, row.options if row.k else "{}") for row in rows}
    left = affordable(plan.budget, spent or Spending(merges=len(have)))
    first = first_subset_round(plan)
    kinds = "of all sizes, to lean on the smaller base" if plan.leaning else _EVERY
    if missing := [merge for merge in first if (merge.subset, merge.options) not in have]:
        return begin(
            plan, missing, left, f"first round: {counted(len(missing), 'merges')}, {kinds}"
        )
    fits = _laws(rows, plan, grams, scored)
    if plan.leaning and all(law.smaller is None for law, _ in fits.found):
        first = first_subset_round(replace(plan, leaning=False))
        if missing := [merge for merge in first if (merge.subset, merge.options) not in have]:
            said = f"too little carries over from the smaller base: {len(missing)} more, {_EVERY}"
            return begin(plan, missing, left, said)
    if not fits.found and left == 0:
        said = f"the budget is spent, and no subset can be predicted: {fits.faults[0].message}"
        return Stop(said, None, True)
    if not fits.found:
        raise fits.faults[0]
    law, table = fits.found[0]
    worse = _race(plan, scored).worse if plan.partly else ()
    best, sure, spread = _choice(law, table, plan, resampling, plan.per_round + len(worse))
    said = _describe(best, sure) + _leaning(law)
    notes: tuple[str, ...] = ()
    if plan.free_sum and not plan.linear:
        notes = ("merges at less strength do not follow the form here: none was measured",)
    if sure.unknown and resampling is not None:
        notes = (*notes, f"no chance on texts of this kind is told: {sure.unknown}")
    holds = sure.on_texts(plan.confidence)
    certain = holds or sure.on_this_text(plan.confidence, spread)
    out = {merge.subset for merge in worse}
    whole = {row.subset for row in rows if row.text_se is None}
    # More documents of a merge are no further merge.
    begun = {row.subset for row in rows if row.text_se is not None}
    more = _left(plan, spent, scored) if begun else 0
    rivals = [s for s in sure.rivals[:_CLOSEST] if (more if s in begun else left) != 0]
    close = [subset for subset in rivals if subset not in whole | out]
    if certain and best.measured and plan.partly and close:
        merges = tuple(plan.merge(subset) for subset in close)
        return Round(merges, f"{said}; to tell the closest apart, score {len(merges)} further")
    if certain and best.measured:
        if holds or sure.chance_on_texts is None:
            return Stop(f"{said}: as sure as was asked for", None, False, notes)
        rest = f"what is left is the texts': {not_told_apart(sure)}" if sure.rivals else ""
        return Stop(f"{said}; no merge makes it surer{f', {rest}' * bool(rest)}", None, True, notes)
    if left == 0 and more == 0:
        return Stop(f"{said}; the budget is spent", None, not certain, notes)
    if certain and (left != 0 or best.subset in begun):
        merge = plan.merge(best.subset)
        return Round((merge,), f"{said}; measure it", whole=(merge,))
    subsets = [subset for subset in sure.next[: _likely(sure, plan)] if subset not in out]
    new = [subset for subset in subsets if subset not in begun][:left]
    subsets = [s for s in subsets if s in new or (s in begun and more != 0)][: plan.per_round]
    if not subsets and left == 0:
        return Stop(f"{said}; the budget is spent", None, not certain, notes)
    if not subsets:
        return Stop(f"{said}; every subset that may be the best is measured", None, False, notes)
    merges = tuple(plan.merge(subset) for subset in subsets)
    return Round(merges, f"{said}; to be surer, measure {len(merges)}")


def _likely(sure: Confidence, plan: SubsetPlan) -> int:
    """How many subsets come into question: more documents of a merge that is hardly the best tell
    nothing, while a further merge tells of others too."""
    return max(sure.n_likely, 2) if plan.partly else len(sure.next)


def _race(
    plan: SubsetPlan, scored: Sequence[MeasuredMerge], some: Sequence[SubsetMerge] | None = None
) -> Race:
    """Of some merges, or of all of the plan's own."""
    own = plan.merge(plan.names).options
    if some is None:
        every = (one.merge for one in scored)
        some = [merge for merge in every if (merge.method, merge.options) == (plan.label, own)]
    shares = _by_domain(parse_shares(plan.domains or MACRO), scored[0])
    return race(scored, some, shares, 1 - plan.confidence)


def _left(plan: SubsetPlan, spent: Spending | None, scored: Sequence[MeasuredMerge]) -> int | None:
    """How many merges may be scored on more documents; `None` without a limit."""
    return affordable(replace(plan.budget, merges=None), spent or Spending(len(scored)))


def _laws(
    rows: Sequence[Measurement],
    plan: SubsetPlan,
    grams: Sequence[Gram],
    scored: Sequence[MeasuredMerge],
) -> Fits[tuple[SubsetLaw, Table]]:
    """The law of what was measured by the plan's method at its size, or why there is none."""
    whole = plan.merge(plan.names)
    mine = [replace(row, n_params=whole.n_params) for row in rows]
    joint = _joint_noise(scored) if plan.partly else None
    own = (
        replace(table, joint=joint)
        for table in link_sizes(tables_of([*below(plan), *mine], plan.label))
        if (table.options, table.n_params) == (whole.options, whole.n_params)
    )
    return fit_each(
        own,
        lambda table: (fit_table(table, plan.domains or table.default_target()), table),
        grams,
    )


def _joint_noise(scored: Sequence[MeasuredMerge]) -> JointNoise:
    """What merges that were scored on the same documents have in common."""
    every = {one.measured.merge.merge_key: one for one in completed(scored)}

    def joint(keys: Sequence[MergeKey], shares: Mapping[str, float]) -> Array:
        some = [every[key] for key in keys]
        return covariance(some, _by_domain(shares, some[0].measured))

    return joint


def _by_domain(shares: Mapping[str, float], like: MeasuredMerge) -> dict[str, float]:
    """Shares of the domains as scores name them, which sum to 1; those of the mean are alike."""
    domains = like.scores.domains
    total = sum(shares.values())
    found = {
        name: (shares.get(domain_name(name), 0.0) + shares.get(MACRO, 0.0) / len(domains)) / total
        for name in domains
    }
    return {name: share for name, share in found.items() if share}


def _leaning(law: SubsetLaw) -> str:
    said = law.transfer
    if said is None or not said.used:
        return ""
    base = format_count(said.n_params)
    return f"; {said.share:.0%} carries over from the {base} base, left-out error {said.error:.4f}"


def _choice(
    law: SubsetLaw, table: Table, plan: SubsetPlan, resampling: Resampling | None, count: int
) -> tuple[Choice, Confidence, float]:
    """The best subset by the law, how sure that is, and the spread of the measured losses."""
    problem = Problem(law)
    by_size, draws = settle(problem, best_by_size(problem))
    best = min(by_size.values(), key=lambda choice: problem.sign * choice.value)
    sure = how_sure(table, draws, best, resampling, count)
    return best, sure, float(np.std(law.values))


def _describe(best: Choice, sure: Confidence) -> str:
    how = "measured" if best.measured else "predicted"
    said = f"{'+'.join(best.subset)} has {best.value:.4f} {how}"
    if sure.no_chance:
        return f"{said}, the best on this text"
    said += (
        f", on this text the best with a chance of {chance_text(sure.chance or 0.0)}, and loses"
        f" {sure.regret:.2g} in expectation"
    )
    if sure.chance_on_texts is None:
        return said
    there = chance_text(sure.chance_on_texts)
    return f"{said}; on texts of this kind the best with a chance of {there}"
