"""Everything that may be taken, and the rule that takes one."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import pstdev

from mergeplan.law.posterior import CONFIDENCE
from mergeplan.verdict.contenders import Bounds, Contender, Predictions
from mergeplan.verdict.known import Aim
from mergeplan.verdict.parts import ToMeasure
from mergeplan.verdict.unmeasured import Open, open_beside
from mergeplan.verdict.verdict import Kind

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


@dataclass(frozen=True)
class Field:
    """The contenders, and what decides between them.

    Attributes:
        allowed: What was measured and keeps the bounds.
        known: All that was measured.
        predictions: Of each method and base.
        seconds_each: Of one merge with its evaluation.
        command: Says how some merges are measured.
    """

    aim: Aim
    question: Question
    allowed: list[Contender]
    known: list[Contender]
    predictions: Sequence[Predictions] = ()
    seconds_each: float | None = None
    command: Callable[[Sequence[Contender]], str] = lambda _: ""

    def best(self, some: Iterable[Contender]) -> Contender | None:
        """The best value; of equals the one of fewer experts."""
        return min(some, key=self._by_value, default=None)

    def pick(self, predicted: Sequence[Contender] = ()) -> Contender | None:
        """The one to take of what is measured and of some predictions.

        A base takes part where nothing is to be reached: one of another size may be better than
        every merge. To reach a target, merges that beat their own base come first.
        """
        if self.question.target is None:
            return self.best((*self.allowed, *predicted))
        some = [
            one
            for one in (*self.allowed, *predicted)
            if one.merge.k and self._beats_base(one) and self.reaches(one)
        ]
        return min(some, key=lambda one: (self._cost(one), *self._by_value(one)), default=None)

    def answer(
        self,
        best: Contender | None,
        measured: Contender | None,
        predicted: Sequence[Contender],
    ) -> tuple[Kind, Contender, ToMeasure | None]:
        """What is said, what is taken, and what is to be measured."""
        fallback = measured or self._nearest()
        if best is None or best.measured:
            return self._settled(best or fallback or min(predicted, key=self._by_value))
        if fallback is None:  # nothing that was measured keeps the bounds
            return "merge", best, None
        limit = self.question.target
        if limit is None:
            limit = fallback.value
        sign = self.aim.sign
        gain = best.gain_below(limit, sign)
        if measured is not None and self.question.target is None and gain < self._negligible():
            return self._settled(measured)
        sure = best.chance_below(limit, sign) >= self.question.confidence
        some = [best] if sure and best.merge.equal else self._telling(best, predicted, limit)
        proposal = self._proposal(some, fallback)
        if sure or not best.merge.equal:
            return "merge", best, proposal
        return "measure", fallback, proposal

    def _settled(self, chosen: Contender) -> tuple[Kind, Contender, ToMeasure | None]:
        """A measured one, unless it may lose as much as it gains, or was compared with nothing."""
        if first := self.first_merges(chosen):
            return "measure", chosen, self._proposal(first, chosen)
        if self.is_alone(chosen):
            return "measure", chosen, None
        open_ = self.open_beside(chosen)
        if open_ is None:
            return _kind(chosen), chosen, None
        some = sorted(open_.rivals, key=lambda one: -one.gain_below(chosen.value, self.aim.sign))
        return "measure", chosen, self._proposal(some[:_MOST], chosen)

    def is_alone(self, chosen: Contender) -> bool:
        """Whether a merge is all that was measured, so that it is compared with nothing."""
        return chosen.merge.k > 1 and len(self.known) == 1 and self.question.target is None

    def first_merges(self, chosen: Contender) -> list[Contender]:
        """What to begin with where of its base no merge of several experts was measured: the two
        best experts, the best half, and all of them. None where it is enough as it is."""
        n_params = chosen.merge.n_params
        own = [one for one in self.known if one.merge.n_params == n_params and one.merge.k > 1]
        if own or any(one.table.n_params == n_params for one in self.predictions):
            return []
        if self.question.target is not None and self.reaches(chosen):
            return []
        singles = sorted(self.experts_of(chosen), key=self._by_value)
        names = list(dict.fromkeys(one.merge.subset[0] for one in singles))
        found = []
        for k in sorted({2, (len(names) + 1) // 2, len(names)}):
            if 2 <= k <= len(names):
                weights = dict.fromkeys(names[:k], 1 / k)
                merge = replace(singles[0].merge, weights=weights)
                found.append(Contender(merge, math.nan, math.nan, math.nan))
        return [one for one in found if self.question.bounds.allow(one)]

    def open_beside(self, chosen: Contender) -> Open | None:
        """What may be better than a measured merge, where that loses more than the merge gains.

        It gains over its base and the best single expert, whichever is better.
        """
        others = [one for one in (self.base_of(chosen), *self.experts_of(chosen)) if one]
        if not chosen.merge.k or chosen in others or self.question.target is not None:
            return None
        found = open_beside(chosen, self.predictions)
        if found is None or not others:
            return None
        gain = min(self.aim.sign * (one.value - chosen.value) for one in others)
        rivals = tuple(one for one in found.rivals if self.question.bounds.allow(one))
        if not rivals or found.loss <= max(gain, self._negligible()):
            return None
        return replace(found, rivals=rivals)

    def _proposal(self, some: Sequence[Contender], over: Contender) -> ToMeasure | None:
        """To measure some merges, the first of which may be better than the best that is known."""
        if not some:
            return None
        target, sign = self.question.target, self.aim.sign
        limit = over.value if target is None else target
        gain = chance = None
        if not math.isnan(some[0].value):
            gain, chance = some[0].gain_below(limit, sign), some[0].chance_below(limit, sign)
        seconds = None if self.seconds_each is None else self.seconds_each * len(some)
        return ToMeasure(tuple(some), over, gain, chance, seconds, self.command(some), target)

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

    def paying_elsewhere(self, chosen: Contender) -> Contender | None:
        """The best measured merge of another size that beats its own base and single experts."""
        return self.best(
            one
            for one in self.allowed
            if one.merge.k
            and not one.merge.is_expert
            and one.merge.n_params != chosen.merge.n_params
            and self.base_of(one) is not None
            and self._beats(one, [self.base_of(one), *self.experts_of(one)])
        )

    def experts_of(self, one: Contender) -> list[Contender]:
        """The single experts of its base, at whatever strength."""
        n_params = one.merge.n_params
        return [o for o in self.known if o.merge.k == 1 and o.merge.n_params == n_params]

    def _beats(self, one: Contender, others: Iterable[Contender | None]) -> bool:
        rivals = [other for other in others if other is not None and other is not one]
        return all(self.aim.sign * (other.value - one.value) > 0 for other in rivals)

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
