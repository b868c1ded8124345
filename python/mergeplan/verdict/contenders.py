"""What may be taken: everything that was measured, and what `select` predicts to be better."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from mergeplan.errors import InputError
from mergeplan.law.costs import CostModel
from mergeplan.measurements.rows import MergeKey
from mergeplan.selection.active import Confidence, confidence_of
from mergeplan.selection.choices import Choice
from mergeplan.selection.fitting import fit_table
from mergeplan.selection.problem import Constraint, Problem
from mergeplan.selection.settled import settled_of
from mergeplan.selection.table import Table
from mergeplan.selection.target import ends_of
from mergeplan.subset_law.expected_rows import expected_rows
from mergeplan.subset_law.law import SubsetLaw
from mergeplan.subset_law.spread import NINE_IN_TEN
from mergeplan.verdict.known import Aim, KnownMerge, Merge


@dataclass(frozen=True)
class Contender:
    """A merge, a single expert or the base, and what it is expected to give on this text.

    Attributes:
        low, high: 90 % interval of a prediction; the value itself where it was measured.
        here: Of a metric whose items may move it, what was measured on them; `value` and interval
            are then of other items of their kind.
        apart: Standard deviation by which it is held against others then: of what is its own. The
            interval is as wide as if merges had all of their items' error in common.
        values: By domain or metric, measured or predicted.
        key: By which its documents' losses are found; `None` of a prediction.
        around: Half widths of the 90 % intervals of predicted values.
        errors: Standard errors of measured metrics, from their items.
        own: What of them is each merge's own.
    """

    merge: Merge
    value: float
    low: float
    high: float
    values: Mapping[str, float] = field(default_factory=dict)
    key: MergeKey | None = None
    around: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    own: Mapping[str, float] = field(default_factory=dict)
    here: float | None = None
    apart: float | None = None

    @property
    def on_this_text(self) -> float:
        """What was measured, or else what is predicted."""
        return self.value if self.here is None else self.here

    @property
    def measured(self) -> bool:
        return self.key is not None

    @property
    def deviation(self) -> float:
        """Standard deviation by which it is held against others."""
        if self.apart is not None:
            return self.apart
        return (self.high - self.low) / 2 / NINE_IN_TEN

    def chance_below(self, limit: float, sign: float = 1.0) -> float:
        """Chance that its value on this text is better than a limit."""
        gap = sign * (limit - self.value)
        if self.deviation == 0:
            return float(gap > 0)
        return 0.5 * math.erfc(-gap / self.deviation / math.sqrt(2))

    def gain_below(self, limit: float, sign: float = 1.0) -> float:
        """Expected part of its value that is better than a limit (expected improvement)."""
        gap, deviation = sign * (limit - self.value), self.deviation
        if deviation == 0:
            return max(gap, 0.0)
        z = gap / deviation
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        return gap * self.chance_below(limit, sign) + deviation * density


@dataclass(frozen=True)
class Bounds:
    """What a contender has to keep.

    Attributes:
        keep: Bounds on domains and metrics.
        max_experts: Most that may be merged.
        budget: Most that it may cost.
    """

    keep: tuple[Constraint, ...] = ()
    max_experts: int | None = None
    budget: float | None = None
    costs: CostModel = field(default_factory=CostModel)

    def allow(self, contender: Contender) -> bool:
        """Whether it is small and cheap enough."""
        merge = contender.merge
        if merge.k > (self.max_experts or merge.k):
            return False
        cost = self.cost(merge)
        return self.budget is None or cost is None or cost <= self.budget

    def cost(self, merge: Merge) -> float | None:
        """In the model's unit; `None` where the base's size is not known."""
        return None if merge.n_params is None else self.costs.cost(merge.n_params / 1e9, merge.k)


def measured_contenders(known: Iterable[KnownMerge], aim: Aim) -> list[Contender]:
    """Every measured merge and base that was measured on all that counts."""
    found = []
    for one in known:
        value = aim.of(one.values)
        if value is not None:
            point = Contender(one.merge, value, value, value, one.values, one.key)
            found.append(replace(point, errors=one.errors, own=one.own))
    return found


def on_items(
    known: Iterable[Contender], some: Iterable["Predictions"], aim: Aim, name: str | None = None
) -> list[Contender]:
    """What measured values of a metric are expected to be on other items of their kind.

    The best of many measured shares is the best by chance too: by the law of single subsets it is
    drawn towards what the others say of it. Where no law was fitted its own error is all there is;
    where some value has none, nothing is said of other items.

    Args:
        name: Of the law to go by; the one that the predictions' choices are by where it is `None`.
    """
    known = list(known)
    halves = [NINE_IN_TEN * aim.error_of(one.errors) for one in known] if aim.metric else []
    if not halves or any(map(math.isnan, halves)) or not any(halves):
        return known
    found: dict[MergeKey | None, tuple[float, float]] = {}
    for one in some:
        name = name or one.name
        law = one.laws.get(name) or one.table.laws.get(name)
        if law is None or not law.noisy:
            continue
        values, deviations = expected_rows(law)
        around = NINE_IN_TEN * deviations
        places = one.table.places(law.weights)
        for place, value, half in zip(places, values, around, strict=True):
            for key in one.table.merges[place]:
                found.setdefault(key, (float(value), float(half)))
    expected = []
    ends = ends_of(np.array([one.value for one in known]), aim.higher, aim.metric)
    for other, whole in zip(known, halves, strict=True):
        own = NINE_IN_TEN * aim.error_of(other.own)
        value, half = found.get(other.key, (other.value, own))
        wide = max(half, whole)
        value, low, high = np.clip((value, value - wide, value + wide), *ends).tolist()
        found_here = replace(other, value=value, low=low, high=high, here=other.value)
        expected.append(replace(found_here, apart=half / NINE_IN_TEN))
    return expected


@dataclass(frozen=True)
class Predictions:
    """What the law of single subsets says of one method on one base.

    Attributes:
        by_size: The best subset of each k, within the bounds.
        wanted: Further choices that may be taken, such as weights.
        laws: Of domains and metrics, those that were fitted already.
        name: Of the law that the choices are by.
        r2: Share of the variance of merges that were left out that is explained.
        sure: How sure the best of all sizes is.
    """

    table: Table
    by_size: Mapping[int, Choice]
    wanted: tuple[Choice, ...] = ()
    laws: Mapping[str, SubsetLaw] = field(default_factory=dict)
    r2: float = 1.0
    name: str = ""
    sure: Confidence | None = None

    def of(self, merge: Merge) -> bool:
        """Whether a merge is one of this table's."""
        table = self.table
        own = table.n_params, table.method, table.options
        return own == (merge.n_params, merge.method, merge.options)

    def contender(self, choice: Choice) -> Contender:
        """One of its choices, measured or not, by what the law says of it."""
        table = self.table
        merge = Merge(table.n_params, table.method, table.options, choice.weights)
        return Contender(merge, choice.value, choice.low, choice.high)


def predictions_of(table: Table, name: str) -> Predictions:
    """The best subset of each size.

    Args:
        name: What counts, as `Table.target` takes it.

    Raises:
        InputError: Too few merges were measured on it.
    """
    law = fit_table(table, name)
    problem = Problem(law)
    by_size, draws = settled_of(table, problem)
    best = min(by_size.values(), key=lambda choice: problem.sign * choice.value)
    sure = confidence_of(draws, best)
    return Predictions(table, by_size, (), {law.name: law}, law.r2, law.name, sure)


def is_complete(table: Table) -> bool:
    """Whether every subset was measured, so that nothing is to be predicted.

    Args:
        table: Of one method and base size.

    Returns:
        False also where a subset was measured in part of the text only.
    """
    on = (np.abs(table.weights.sum(1) - 1) < 1e-6) & table.whole
    return bool(len(np.unique(table.weights[on] > 0, axis=0)) >= 2 ** len(table.experts) - 1)


def predicted_contenders(some: Iterable[Predictions]) -> list[Contender]:
    """Their choices that were not measured."""
    return [
        one.contender(choice)
        for one in some
        for choice in (*one.by_size.values(), *one.wanted)
        if not choice.measured and choice.here is None
    ]


def with_domains(one: Contender, some: Iterable[Predictions]) -> Contender:
    """A prediction with what is predicted of every domain that can be."""
    merge = one.merge
    for predictions in some:
        table = predictions.table
        if not predictions.of(merge):
            continue
        weights = np.array([[merge.weights.get(name, 0.0) for name in table.experts]])
        values, around = {}, {}
        for name in table.targets:
            try:
                law = predictions.laws.get(name) or fit_table(table, name)
            except InputError:
                continue  # a domain of which too little was measured
            values[name] = float(law.predict(weights)[0])
            around[name] = NINE_IN_TEN * float(law.deviations(weights)[0])
        return replace(one, values=values, around=around)
    return one
