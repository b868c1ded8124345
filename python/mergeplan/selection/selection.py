"""What `select` found for a method and base size, and how it reads."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.config.labels import in_words
from mergeplan.config.transfer import LEAST_SHARE
from mergeplan.display.summary import Summarized
from mergeplan.display.table import align_columns
from mergeplan.display.text import chance_text, format_count
from mergeplan.law.formulas import HyperbolicLaw
from mergeplan.law.posterior import CONFIDENCE
from mergeplan.selection.active import Confidence
from mergeplan.selection.choices import Choice
from mergeplan.selection.insight import Expert, Size, synergy
from mergeplan.selection.problem import Constraint
from mergeplan.selection.score_link import score_links
from mergeplan.selection.table import Table
from mergeplan.subset_law.law import SubsetLaw
from mergeplan.system.ranges import LARGEST_POOL, check_number

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes:
        domains: A domain or metric, or several with shares; `None` for the macro mean.
        keep: Bounds that have to hold.
        max_loss: Take the smallest subset that is at least as good as this.
        max_experts: Most that may be merged.
    """

    domains: str | None = None
    keep: tuple[Constraint, ...] = ()
    max_loss: float | None = None
    max_experts: int | None = None

    def __post_init__(self) -> None:
        """Raises `InputError` for a number out of its range."""
        if self.max_loss is not None:
            check_number(self.max_loss, "max_loss", -1e12, 1e12)
        if self.max_experts is not None:
            check_number(self.max_experts, "max_experts", 1, LARGEST_POOL, whole=True)


@dataclass(frozen=True, eq=False, repr=False)
class Selection(Summarized):
    """What one method at one base size can give.

    Attributes:
        best: The subset to take, `None` where none keeps the bounds.
        by_size: The best subset of each k.
        weighted: The best weights that sum to 1; `None` where the method's weighted merges are
            not known to follow the form.
        free: The best weights of any measured sum; `None` where no such points were measured.
        base: Value of the base, where it was measured.
        laws: Of every domain and metric that could be fitted.
        implied: The law of means that follows from single subsets.
        fitted: The law of the measured means themselves, to compare.
    """

    table: Table
    law: SubsetLaw
    laws: dict[str, SubsetLaw]
    wish: Wish
    best: Choice | None
    by_size: dict[int, Choice]
    weighted: Choice | None
    free: Choice | None
    base: float | None
    confidence: Confidence | None
    experts: tuple[Expert, ...]
    drop: tuple[str, ...]
    sizes: tuple[Size, ...]
    implied: HyperbolicLaw | None
    fitted: HyperbolicLaw | None
    warnings: tuple[str, ...]

    @property
    def settled(self) -> bool:
        """Whether the best subset is measured and sure, so that no merge makes it surer."""
        if self.best is None or self.confidence is None:
            return False
        measured = self.best.measured or self.best.here is not None
        spread = float(np.std(self.law.values))
        sure = self.confidence
        return measured and (sure.on_texts(CONFIDENCE) or sure.on_this_text(CONFIDENCE, spread))

    @property
    def synergy(self) -> Array:
        """See `insight.synergy`."""
        return synergy(self.law)

    def summary(self) -> str:
        """The choice, how sure it is, and what its experts do."""
        return Selections([self]).summary()

    def records(self) -> list[dict[str, Any]]:
        """A row for the best subset of each k."""
        table = self.table
        return [
            {
                "method": table.method,
                "options": table.options,
                "n_params": table.n_params,
                "k": k,
                "subset": "+".join(choice.subset),
                "value": choice.value,
                "low": choice.low,
                "high": choice.high,
                "measured": choice.measured,
            }
            for k, choice in self.by_size.items()
        ]


class Selections(Summarized, tuple[Selection, ...]):
    """What each measured method and base size can give, the best first.

    Attributes:
        unfitted: A word on each base size beside a smaller one that nothing could be fitted to.
    """

    unfitted: tuple[str, ...]

    def __new__(cls, some: Iterable[Selection], unfitted: tuple[str, ...] = ()) -> "Selections":
        """Some selections, in their order."""
        found = super().__new__(cls, some)
        found.unfitted = unfitted
        return found

    def __getitem__(self, place: Any) -> Any:
        """One selection; a slice of them stays one of this kind."""
        found = super().__getitem__(place)
        return Selections(found, self.unfitted) if isinstance(place, slice) else found

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of what could not be fitted, and of the best selection."""
        first: Selection = self[0]
        return self.unfitted + first.warnings

    def records(self) -> list[dict[str, Any]]:
        """Those of each selection, the best first."""
        return [record for selection in self for record in selection.records()]

    def summary(self) -> str:
        """The best selection, and the others in a line each."""
        first, *others = self
        lines = _head(first)
        if first.by_size:
            lines += ["", *_sizes(first)]
        if first.weighted is not None or first.free is not None:
            lines += ["", *_weights(first)]
        if first.experts:
            lines += ["", *_experts(first)]
            lines += _pairs(first)
        lines += ["", *_link(first)]
        if links := score_links(first.table):
            lines += ["", "does the loss speak for the score?"]
            said = "\n".join(link.summary() for link in links if link.main)
            lines += [f"  {line}" for line in said.splitlines()]
        if others:
            lines += ["", "other methods and sizes"]
            for other in others:
                best = "nothing keeps the bounds" if other.best is None else _short(other.best)
                lines.append(f"  {name_of_table(other.table)}: {best}")
        if first.confidence is not None and first.confidence.next and not first.settled:
            names = "; ".join("+".join(subset) for subset in first.confidence.next[:3])
            lines += ["", f"to be surer of that subset, measure: {names}"]
        return "\n".join(lines)


def worse_weights(selection: Selection, choice: Choice) -> str:
    """Why some weights are not to be taken; empty where they are predicted to be better than the
    best subset."""
    best, sign = selection.best, -1.0 if selection.law.higher else 1.0
    if best is None or choice.equal or sign * choice.value < sign * best.value:
        return ""
    how = "" if best.measured or best.here is not None else "predicted "
    return (
        f"these weights are predicted to have {choice.value:.4f}, no better than the best subset:"
        f" {'+'.join(best.subset)} has {how}{best.value:.4f}; `--weights equal` takes it"
    )


def name_of_table(table: Table) -> str:
    """Method, options and base size."""
    size = "" if table.n_params is None else f" at {format_count(table.n_params)}"
    return in_words(table.method, table.options) + size


def _head(selection: Selection) -> list[str]:
    law, best = selection.law, selection.best
    pool = len(law.experts)
    n_merges = int((law.weights > 0).any(1).sum())
    fit = (
        f"  {n_merges} merges of k = {', '.join(map(str, law.sizes))}; left out one by one,"
        f" predictions explain {max(law.r2, 0):.1%} of the variance, error {law.error:.4f}"
        f"{', by how the experts lie to each other' if law.by_geometry else ''}"
        f"{_transfer(law)}"
    )
    by = name_of_table(selection.table)
    if best is None:
        return [f"by {by} no subset keeps the bounds on `{law.name}`", fit]
    has = f"the best subset for `{law.name}` has {best.k} of {pool} experts"
    lines = [f"by {by} {has}: {', '.join(best.subset)}"]
    lines.append(f"  {_value(best, law)}")
    if selection.confidence is not None:
        lines += sure_lines(selection.confidence)
    if best.gap:
        lines.append(f"  at most {best.gap:.4f} above the lowest that the form allows at this k")
    if selection.base is not None:
        lines.append(f"  base: {selection.base:.4f}")
    return [*lines, fit]


def _transfer(law: SubsetLaw) -> str:
    """What a smaller size tells, and whether it is used."""
    said = law.transfer
    if said is None:
        return ""
    base = format_count(said.n_params)
    carries = f"{said.share:.0%} of what merges of this size leave open carries over"
    if not said.used:
        least = f"{LEAST_SHARE:.0%} is the least by which it would lean"
        return f"\n  from the {base} base nothing is taken: {carries}, and {least}"
    despite = ""
    if said.error > said.error_alone:
        despite = " (of few merges it is less sure than the share, which decides)"
    return (
        f"\n  leans on the {base} base: {carries}, error {said.error:.4f} with it and"
        f" {said.error_alone:.4f} without{despite}; a difference of 1 there is"
        f" {said.factor:.2f} here"
    )


def _value(choice: Choice, law: SubsetLaw) -> str:
    if choice.measured:
        return f"{choice.value:.4f}, measured on this text"
    digits = 4 if choice.high - choice.low >= 0.001 else 6
    where = "items of this kind" if law.noisy else "this text"
    said = f"90 % interval on {where} {choice.low:.{digits}f} to {choice.high:.{digits}f}"
    if choice.here is not None:
        return (
            f"{choice.here:.4f} measured on this text; {choice.value:.{digits}f} expected, {said}"
        )
    return f"{choice.value:.{digits}f} predicted, {said}"


def sure_lines(sure: Confidence) -> list[str]:
    """The chance on this text, and on texts of this kind or why there is none.

    Returns:
        Lines, indented.
    """
    lines = []
    if sure.chance is not None and not sure.no_chance:
        lines.append(
            "  on this text the best of all that are allowed with a chance of"
            f" {chance_text(sure.chance)}; else it loses {sure.regret:.2g} in expectation"
        )
    if sure.chance_on_texts is None:
        return [*lines, f"  no chance on texts of this kind is told: {sure.unknown}"]
    if sure.items:
        how = ", as if no two merges had an item in common" if sure.unpaired else ""
        lines.append(
            "  on items of this kind the best of all that are allowed with a chance of"
            f" {chance_text(sure.chance_on_texts)}{how}; else it loses {sure.regret:.2g} in"
            " expectation"
        )
    else:
        lines.append(
            f"  on texts of this kind with a chance of {chance_text(sure.chance_on_texts)}"
        )
    if sure.rivals:
        lines.append(f"  {not_told_apart(sure)}")
    return lines


def not_told_apart(sure: Confidence) -> str:
    """What else may be the best on texts of this kind, and what would tell."""
    said = f"it may be {' or '.join('+'.join(subset) for subset in sure.rivals)} there"
    if sure.groups_needed is None:
        return said
    return f"{said}; about {sure.groups_needed} groups of documents a domain part the first from it"


def _short(choice: Choice) -> str:
    here = " measured" if choice.measured else ""
    return f"{choice.value:.4f}{here}, {'+'.join(choice.subset)}"


def _sizes(selection: Selection) -> list[str]:
    rows = [["k", "best ", "mean", "worst", "best subset"]]
    for size in selection.sizes:
        choice = selection.by_size.get(size.k)
        if choice is None:
            continue
        worst = size.lowest if selection.law.higher else size.highest
        mark = "'" if choice.here is not None else " " if choice.measured else "*"
        means = (f"{choice.value:.4f}{mark}", f"{size.mean:.4f}", f"{worst:.4f}")
        rows.append([str(size.k), *means, "+".join(choice.subset)])
    lines = [*align_columns(rows, left=0, words=1), "  * predicted"]
    if any(choice.here is not None for choice in selection.by_size.values()):
        lines.append("  ' measured, and expected on items of this kind")
    return lines


def _weights(selection: Selection) -> list[str]:
    lines = []
    named = (("that sum to 1", selection.weighted), ("of any sum", selection.free))
    for words, choice in named:
        if choice is None:
            continue
        shares = ", ".join(f"{name} {share:.3f}" for name, share in choice.weights.items())
        lines += [f"best weights {words}: {_value(choice, selection.law)}", f"  {shares}"]
    return lines


def _experts(selection: Selection) -> list[str]:
    inside = selection.best.subset if selection.best is not None else ()
    lines = ["expert           alone    on average  here       helps most"]
    for expert in selection.experts:
        mark = "+" if expert.name in inside else " "
        helped = ""
        if len(expert.helps) > 1:
            signs = {n: -1.0 if law.higher else 1.0 for n, law in selection.laws.items()}
            most = min(expert.helps, key=lambda name: signs[name] * expert.helps[name])
            helped = f"{most} {expert.helps[most]:+.4f}"
        lines.append(
            f"{mark} {expert.name:14.14} {expert.alone:.4f}{' ' if expert.measured else '*'}  "
            f"{expert.average:+.4f}    "
            f" {expert.here:+.4f}    {helped}"
        )
    if not all(expert.measured for expert in selection.experts):
        lines.append("  * predicted, not measured alone")
    if selection.drop:
        lines.append(f"  to drop, worse in the average merge and here: {', '.join(selection.drop)}")
    return lines


def _pairs(selection: Selection) -> list[str]:
    """The pair that gains most over its two experts alone, and the one that gains least."""
    names = selection.law.experts
    if len(names) < 3:
        return []
    matrix = selection.synergy
    pairs = [(matrix[i, j], i, j) for i in range(len(names)) for j in range(i)]
    pairs.sort(reverse=selection.law.higher)
    said = [f"{names[j]}+{names[i]} {value:+.4f}" for value, i, j in (pairs[0], pairs[-1])]
    return [f"  pairs against their experts alone: from {said[0]} to {said[1]}"]


def _link(selection: Selection) -> list[str]:
    """The law of means that follows from the law of single subsets, and that of the measured."""
    if selection.implied is None:
        return []
    deviation = selection.sizes[0].deviation
    lines = [f"law of the means; single experts deviate by {deviation:.4f}"]
    named = (("implied", selection.implied), ("from measured means", selection.fitted))
    for words, law in named:
        if law is not None:
            lines.append(
                f"  {words}: floor {law.floor:.4f}, tail {law.tail:.4f}, offset {law.offset:.3g}"
            )
    return lines
