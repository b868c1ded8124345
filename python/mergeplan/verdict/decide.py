"""Weigh everything that was measured, and everything that is predicted, against the base."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import pstdev

from mergeplan.errors import InputError
from mergeplan.evaluation.resampling import Resampling
from mergeplan.law.posterior import CONFIDENCE
from mergeplan.measurements.rows import Measurement
from mergeplan.selection.problem import Constraint
from mergeplan.verdict.contenders import (
    Bounds,
    Contender,
    Predictions,
    measured_contenders,
    on_items,
    predicted_contenders,
    with_domains,
)
from mergeplan.verdict.harms import gains_of, harms_of
from mergeplan.verdict.known import Aim, aim_of, known_merges
from mergeplan.verdict.lambdas import lambda_to_try
from mergeplan.verdict.notes import (
    on_base_and_texts,
    on_experts,
    on_lacking,
    on_predictions,
    within,
)
from mergeplan.verdict.parts import ToMeasure
from mergeplan.verdict.verdict import Kind, Verdict

# Most merges that are named to be measured.
_MOST = 5
# An expected gain below this share of the spread of the measured values is none.
_NEGLIGIBLE = 0.005


@dataclass(frozen=True)
class Question:
    """What is asked of the measurements.

    Attributes:
        aim: A domain or metric, or `code=2,math`; `None` for the macro mean.
        target: To be reached, with the least that does; `None` for the best there is.
        confidence: From which on a prediction is taken for true.
    """

    aim: str | None = None
    target: float | None = None
    bounds: Bounds = field(default_factory=Bounds)
    confidence: float = CONFIDENCE


def decide(
    rows: Sequence[Measurement],
    predictions: Sequence[Predictions] = (),
    question: Question | None = None,
    *,
    unfitted: Sequence[str] = (),
    resampling: Resampling | None = None,
    seconds_each: float | None = None,
    command: Callable[[Sequence[Contender]], str] = lambda _: "",
) -> Verdict:
    """The verdict on some measurements that name their experts.

    Without a target the lowest loss (or best metric) is taken: of the base, of all measured merges,
    and of those that the law of single subsets predicts. With one, the cheapest that reaches it and
    beats the base. A prediction is taken where it is better than what is known with the confidence
    that is asked for; else it is to be measured, and the best that is known stands meanwhile. Of
    unequal weights, which no calibration measures, the expected value decides.

    Args:
        predictions: Of the law of single subsets, for each method and base; none where it cannot
            predict.
        unfitted: A word on each base size beside a smaller one that it could not be fitted to.
        resampling: Of the documents' losses, for what holds on texts of this kind.
        seconds_each: Of one merge with its evaluation.
        command: Says how some merges are measured.

    Raises:
        InputError: What counts was not measured.
    """
    question = question or Question()
    aim = aim_of(rows, question.aim)
    every = known_merges(rows)
    known = on_items(measured_contenders(every, aim), predictions, aim)
    predicted = [one for one in predicted_contenders(predictions) if question.bounds.allow(one)]
    kept = [(one, aim_of(rows, one.name)) for one in question.bounds.keep]
    # Predictions were chosen within the bounds on values.
    allowed = [one for one in known if question.bounds.allow(one) and _keeps(one, kept)]
    if not known and not predicted:
        raise InputError(f"no merge was measured on all that `{aim.name}` is of")
    if not allowed and not predicted:
        return replace(_nothing(aim, question), notes=tuple(unfitted))
    field_ = _Field(aim, question, allowed, known)
    best, measured = field_.pick(predicted), field_.pick()
    kind, chosen, proposal = field_.answer(best, measured, predicted, seconds_each, command)
    if not chosen.measured:
        chosen = with_domains(chosen, predictions)
    reached = question.target is None or field_.reaches(chosen)
    base = field_.base_of(chosen)
    n_params = chosen.merge.n_params
    singles = [one for one in known if one.merge.k == 1 and one.merge.n_params == n_params]
    expert = field_.best(singles)
    higher = {row.target: row.higher for row in rows if _is_part(row, aim)}
    others = [one for one in (base, expert) if one is not None]
    return Verdict(
        kind=kind,
        aim=aim.name,
        higher=aim.higher,
        target=question.target,
        chosen=chosen,
        base=base,
        expert=expert,
        best_merge=field_.best(
            one for one in (*field_.allowed, *predicted) if one.merge.k and not one.merge.is_expert
        ),
        reached=reached,
        gains=gains_of(chosen, others, aim, resampling) if chosen.merge.k else (),
        harms=harms_of(chosen, base, singles, higher, resampling) if chosen.merge.k else (),
        to_measure=proposal,
        lambda_to_try=_lambda(kind, known, base, aim),
        within=within(question.bounds) if len(field_.allowed) < len(known) else "",
        few_documents=resampling is not None and not resampling.enough(aim.shares),
        notes=(
            *on_base_and_texts(chosen, base, base in allowed, aim, resampling),
            *on_lacking(every, aim),
            *on_experts(singles, chosen, _n_experts(rows, n_params)),
            *on_predictions(chosen, predictions),
            *unfitted,
        ),
    )


@dataclass(frozen=True)
class _Field:
    """The contenders, and what decides between them."""

    aim: Aim
    question: Question
    allowed: list[Contender]
    known: list[Contender]

    def best(self, some: Iterable[Contender]) -> Contender | None:
        """The best value; of equals the one of fewer experts."""
        return min(some, key=self._by_value, default=None)

    def pick(self, predicted: Sequence[Contender] = ()) -> Contender | None:
        """The one to take of what is measured and of some predictions, the base left out."""
        some = [
            one
            for one in (*self.allowed, *predicted)
            if one.merge.k and self._beats_base(one) and self.reaches(one)
        ]
        if self.question.target is None:
            return self.best(some)
        return min(some, key=lambda one: (self._cost(one), *self._by_value(one)), default=None)

    def answer(
        self,
        best: Contender | None,
        measured: Contender | None,
        predicted: Sequence[Contender],
        seconds_each: float | None,
        command: Callable[[Sequence[Contender]], str],
    ) -> tuple[Kind, Contender, ToMeasure | None]:
        """What is said, what is taken, and what is to be measured."""
        fallback = measured or self._nearest()
        if best is None or best.measured:
            chosen = best or fallback or min(predicted, key=self._by_value)
            return _kind(chosen), chosen, None
        if fallback is None:  # nothing that was measured keeps the bounds
            return "merge", best, None
        limit = self.question.target
        if limit is None:
            limit = fallback.value
        sign = self.aim.sign
        gain = best.gain_below(limit, sign)
        if measured is not None and self.question.target is None and gain < self._negligible():
            return _kind(measured), measured, None
        sure = best.chance_below(limit, sign) >= self.question.confidence
        some = [best] if sure and best.merge.equal else self._telling(best, predicted, limit)
        proposal = None
        if some:
            gain, chance = some[0].gain_below(limit, sign), some[0].chance_below(limit, sign)
            seconds = None if seconds_each is None else seconds_each * len(some)
            target = self.question.target
            proposal = ToMeasure(
                tuple(some), fallback, gain, chance, seconds, command(some), target
            )
        if sure or not best.merge.equal:
            return "merge", best, proposal
        return "measure", fallback, proposal

    def _telling(
        self, best: Contender, predicted: Sequence[Contender], limit: float
    ) -> list[Contender]:
        """What may be better than the best that is known, the likeliest first.

        Unequal weights, which no calibration measures, are not asked for.
        """
        sign = self.aim.sign
        some = [one for one in predicted if sign * one.low < sign * limit or one is best]
        some.sort(key=lambda one: (one is not best, -one.gain_below(limit, sign)))
        return _distinct(one for one in some if one.merge.equal)[:_MOST]

    def base_of(self, one: Contender) -> Contender | None:
        """The base that it is merged on, where that was measured."""
        bases = [other for other in self.known if not other.merge.k]
        same = [other for other in bases if other.merge.n_params == one.merge.n_params]
        return self.best(same)

    def reaches(self, one: Contender) -> bool:
        target, sign = self.question.target, self.aim.sign
        return target is None or sign * one.value <= sign * target + 1e-12 * abs(target)

    def _beats_base(self, one: Contender) -> bool:
        base = self.base_of(one)
        # A base that breaks the bounds is nothing to stay with.
        return base not in self.allowed or self.aim.sign * (base.value - one.value) > 0

    def _nearest(self) -> Contender | None:
        """What stands where nothing beats the base, or nothing reaches the target."""
        return self.best(self.allowed)

    def _negligible(self) -> float:
        values = [one.value for one in self.known if one.merge.k > 1]
        return _NEGLIGIBLE * pstdev(values) if len(values) > 1 else 0.0

    def _by_value(self, one: Contender) -> tuple[float, int, tuple[str, ...], str, str]:
        merge = one.merge
        return self.aim.sign * one.value, merge.k, merge.subset, merge.method, merge.options

    def _cost(self, one: Contender) -> float:
        cost = self.question.bounds.cost(one.merge)
        return float(one.merge.k) if cost is None else cost


def _kind(chosen: Contender) -> Kind:
    if not chosen.merge.k:
        return "base"
    return "expert" if chosen.merge.is_expert else "merge"


def _distinct(some: Iterable[Contender]) -> list[Contender]:
    """Each merge once."""
    found: dict[object, Contender] = {}
    for one in some:
        merge = one.merge
        found.setdefault((merge.n_params, merge.method, merge.options, merge.subset), one)
    return list(found.values())


def _n_experts(rows: Iterable[Measurement], n_params: float | None) -> int:
    """Of a base: as many as rows say, or name."""
    own = [row for row in rows if row.n_params == n_params]
    names = {name for row in own for name in row.subset}
    return max([len(names), *(row.pool_size for row in own if row.pool_size)])


def _is_part(row: Measurement, aim: Aim) -> bool:
    """Whether a row is of a domain, and not of a mean of them; of metrics, of one that counts."""
    name = row.target
    if row.metric or aim.metric:
        return name in aim.shares
    return name != "macro"


def _keeps(one: Contender, kept: Iterable[tuple[Constraint, Aim]]) -> bool:
    """Whether all bounds hold on what was measured."""
    for constraint, aim in kept:
        value = aim.of(one.values)
        if value is None:
            return False
        if value > constraint.limit if constraint.below else value < constraint.limit:
            return False
    return True


def _nothing(aim: Aim, question: Question) -> Verdict:
    """The verdict where the bounds leave out all that is known."""
    return Verdict(
        kind="nothing",
        aim=aim.name,
        higher=aim.higher,
        target=question.target,
        chosen=None,
        base=None,
        expert=None,
        best_merge=None,
        reached=False,
        within=within(question.bounds),
    )


def _lambda(
    kind: Kind, known: Sequence[Contender], base: Contender | None, aim: Aim
) -> float | None:
    if kind not in ("base", "expert"):
        return None
    return lambda_to_try(known, None if base is None else base.value, aim.sign)
