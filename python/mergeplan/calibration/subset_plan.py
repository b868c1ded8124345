"""What is asked of one method at one base size, and the merges to begin with."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, inf

import numpy as np

from mergeplan.calibration.limits import Budget
from mergeplan.config.labels import method_of
from mergeplan.law.posterior import CONFIDENCE
from mergeplan.measurements.rows import Measurement, Measurements
from mergeplan.pool.designs import Subset, choose_subsets
from mergeplan.pool.pool import Pool
from mergeplan.pool.sampling import check_experts
from mergeplan.pool.subsets import SubsetMerge, canonical_options, subset_merge
from mergeplan.selection.active import first_subsets, with_singles
from mergeplan.selection.table import LINEAR, tables_of

# Strengths at which a free sum is measured beside 1, and subsets of middle sizes at the first of
# them. All experts at half strength, one merge, took the error of the best weights of any sum from
# 0.0035 to 0.0004 on the 270 k-parameter pool with 60 subsets; with 30 it takes the others too.
_HALF, _QUARTER = 0.5, 0.25
_MIDDLE_HALVES = 5
# Of so many single experts one is measured where a smaller size has them all: three of nine, with
# six other subsets and all together, left errors of 5 % of the variance, the nine alone 8 %.
_OF_SINGLES = 3
# Subsets of a first round beyond two for each expert, at most: 30 for nine of them.
_BESIDE_TWICE = 12
# Subsets between single experts and all together in a first round whose merges have slopes, and of
# half of the experts, one for so many of these, in one where no others have: see `sloped_first`.
_BETWEEN_WITH_SLOPES = 10
_EXPERTS_EACH = 3


@dataclass(frozen=True)
class SubsetPlan:
    """One method at one base size, of whose subsets the best is to be named.

    Attributes:
        size: Index into `Pool.sizes`.
        label: A method of the pool.
        domains: What decides: a domain, or `code=2,math`; `None` for the macro mean.
        confidence: Chance that the chosen subset is the best with which to stop.
        free_sum: Whether to measure at half strength too: each single expert, all together, and
            some between; and all at a quarter. Only by the methods whose merges at other strengths
            follow the form.
        per_round: Subsets between two looks at the fit.
        seed: Of the choice of subsets, and of random masks.
        partly: Whether merges are scored on few documents first, and on more where they may be the
            best; see `race`.
        gradients: Whether merges are measured with the slopes of their losses; `None` for those of
            `sloped_first` alone.
        leaning: Whether a smaller size has the same experts, and this one is to lean on it.
        smaller: What was measured there.
    """

    pool: Pool
    size: int = 0
    label: str = "average"
    domains: str | None = None
    confidence: float = CONFIDENCE
    free_sum: bool = False
    budget: Budget = field(default_factory=Budget)
    per_round: int = 5
    seed: int = 0
    partly: bool = False
    gradients: bool | None = False
    leaning: bool = False
    smaller: tuple[Measurement, ...] = ()

    @property
    def names(self) -> list[str]:
        return sorted(self.pool.sizes[self.size].experts)

    @property
    def n_subsets(self) -> int:
        """Of all that there are, without the base."""
        return (1 << len(self.names)) - 1

    @property
    def linear(self) -> bool:
        return method_of(self.label, self.pool.methods[self.label])[0].name in LINEAR

    def merge(self, subset: Iterable[str]) -> SubsetMerge:
        return subset_merge(self.pool, self.size, self.label, subset, seed=self.seed)

    def weaker(self, subset: Iterable[str], strength: float) -> SubsetMerge:
        """Less of a subset: base + mean delta · lambda · strength.

        An average has no lambda; task arithmetic is the same line through the base.
        """
        merge = self.merge(subset)
        method, settings = method_of(self.label, merge.settings)
        weakened = {**merge.settings, "lambda": strength * settings.get("lambda", 1.0)}
        if method.name == "linear":
            weakened["method"] = "task_arithmetic"
        return replace(merge, options=canonical_options(weakened))


def first_subset_round(plan: SubsetPlan) -> list[SubsetMerge]:
    """The merges to begin with, the most telling first.

    The base, all experts together, every single one (these at less strength too, where the sum is
    to be free), and subsets of sizes between: two thirds as many subsets as the quadratic form has
    coefficients, but no more than 2M + 12 of a large pool, where the experts' geometry stands for
    what was not measured, or as many as the budget has merges for.

    Where the size leans on a smaller one, as many as it has experts and one more, of these: the
    base, all together, a third of the single ones, and subsets of middle sizes.

    Raises:
        InputError: The pool has one expert, or its headers are at fault.
    """
    check_experts(plan.pool)
    names = plan.names
    n = len(names)
    count = max(min(ceil(n * (n + 1) / 3), 2 * n + _BESIDE_TWICE), with_singles(n))
    if plan.gradients:
        count = max(min(count, n + 1 + _BETWEEN_WITH_SLOPES), with_singles(n))
    few = n + 1 + ceil(n / _EXPERTS_EACH)
    if plan.gradients is None:
        count = few
    if plan.budget.merges is not None:
        # What is cut off a larger design is none: it would leave single experts alone.
        count = min(count, max(plan.budget.merges - 1, 1))
    subsets = first_subsets(names, count, seed=plan.seed)
    if plan.gradients is None and count == few:
        half = choose_subsets("balanced", names, n // 2, few - n - 1, seed=plan.seed)
        subsets = [tuple(names), *((name,) for name in names), *half]
    ends = sorted((s for s in subsets if len(s) in (1, len(names))), key=len, reverse=True)
    # In turn over the sizes, so that a budget which cuts the round leaves some of each.
    place: dict[int, int] = {}
    between = []
    for subset in (s for s in subsets if s not in ends):
        place[len(subset)] = place.get(len(subset), 0) + 1
        between.append((place[len(subset)], subset))
    middle = [subset for _, subset in sorted(between)]
    if plan.leaning:
        ends = [ends[0], *_spread(plan, ends[1:])]
        middle = middle[: len(names) + 1 - len(ends)]
    merges = [plan.merge(subset) for subset in ((), *ends)]
    if plan.leaning and plan.free_sum and plan.linear:
        merges += [plan.weaker(names, strength) for strength in (_HALF, _QUARTER)]
    elif plan.free_sum and plan.linear:
        some = middle[: min(_MIDDLE_HALVES, len(middle) // 2)]
        merges += [plan.weaker(subset, _HALF) for subset in (*ends, *some)]
        merges.append(plan.weaker(names, _QUARTER))
    return merges + [plan.merge(subset) for subset in middle]


def sloped_first(plan: SubsetPlan) -> list[SubsetMerge]:
    """The merges of a first round that have slopes where only those have that save others.

    All experts together, and one subset of half of them for each three: these show all pairs, as
    ten more values would. Single experts lie far from what is to be chosen, and of the merges of
    later rounds only their values count. On pools of six to nine experts, and of 18, no other
    division of that kind found the best subset in fewer forward passes: docs/evidence/select.md.
    """
    if plan.gradients is not None:
        return []
    own = plan.merge(plan.names).options
    several = [one for one in first_subset_round(plan) if one.k > 1 and one.options == own]
    return several[: 1 + ceil(len(plan.names) / _EXPERTS_EACH)]


def _spread(plan: SubsetPlan, singles: Sequence[Subset]) -> list[Subset]:
    """A third of the single experts, from the best to the worst at the smaller size."""
    losses = _alone(plan)
    order = sorted(singles, key=lambda subset: (losses.get(subset[0], inf), subset))
    count = ceil(len(order) / _OF_SINGLES)
    last = len(order) - 1
    return [order[round(i * last / max(count - 1, 1))] for i in range(count)]


def _alone(plan: SubsetPlan) -> dict[str, float]:
    """What decides of each expert alone at the next smaller size, by the plan's own method; less is
    better."""
    rows = below(plan)
    if not any(row.subset for row in rows):
        return {}
    options = plan.merge(plan.names).options
    tables = [table for table in tables_of(rows, plan.label) if table.options == options]
    if not tables:
        return {}
    table = max(tables, key=lambda one: one.n_params or 0.0)
    target = table.target(plan.domains or table.default_target())
    values = -target.values if target.higher else target.values
    found = {}
    for weights, value in zip(table.weights, values, strict=True):
        if weights.max() == weights.sum() == 1 and np.isfinite(value):
            found[table.experts[int(weights.argmax())]] = float(value)
    return found


def below(plan: SubsetPlan) -> list[Measurement]:
    """Rows of smaller sizes by the plan's method, with canonical options."""
    return [
        replace(row, options=canonical_options(json.loads(row.options)))
        for row in plan.smaller
        if row.k == 0 or row.method == plan.label
    ]


def own_rows(measured: Measurements, plan: SubsetPlan) -> list[Measurement]:
    """The base's rows, and the method's at its own strength and weaker, with canonical options."""
    names = set(plan.names)
    whole = plan.merge(names)
    options = {whole.options}
    if plan.free_sum and plan.linear:
        options |= {plan.weaker(names, strength).options for strength in (_HALF, _QUARTER)}
    found = []
    for row in measured.rows:
        if row.n_params not in (None, whole.n_params) or not set(row.subset) <= names:
            continue
        canonical = canonical_options(json.loads(row.options))
        own = row.method == plan.label and canonical in options and row.subset
        if row.k == 0 or (own and row.seed in ("", str(whole.seed))):
            found.append(replace(row, options=canonical))
    return found
