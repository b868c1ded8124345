"""One answer of all that is known, and how sure it is."""

from dataclasses import dataclass
from typing import Any, Literal

from mergeplan.display.summary import Summarized
from mergeplan.verdict.contenders import Contender
from mergeplan.verdict.parts import Gain, Harm, ToMeasure
from mergeplan.verdict.words import (
    base_size,
    gain_text,
    harms_text,
    to_measure_text,
    value_text,
)

Kind = Literal["base", "expert", "merge", "measure", "k", "nothing"]


@dataclass(frozen=True, repr=False)
class Verdict(Summarized):
    """What to do: take the base, a single expert, or a merge; or measure more.

    Attributes:
        kind: `base`, `expert`, `merge`, `measure`; `k` where only a number of experts can be
            told; `nothing` where the bounds leave out all that is known.
        aim: The domain or metric that decides, or `code=2,math`.
        target: That was to be reached; `None` for the best there is.
        chosen: What to take; while more is to be measured, the best that is known; `None` of a
            number alone.
        k, pool_size: Of a number alone.
        expected: Mean value of a number alone, on this text.
        where: Of a number alone, the base's size in words; empty where it is not known.
        base: Where it was measured.
        expert: The best single expert, where one was measured.
        best_merge: The best merge of two experts or more, or of one at another strength, also
            where merging does not pay.
        reached: Whether the target is reached; true without one.
        metric: What the values are of; empty for losses in nats.
        lambda_to_try: Where merging does not pay.
        within: Bounds that leave out some of what was measured, in words.
        few_documents: Whether they are too few to say anything of other texts.
        notes: What limits the answer, in sentences.
    """

    kind: Kind
    aim: str
    higher: bool
    target: float | None
    chosen: Contender | None
    base: Contender | None
    expert: Contender | None
    best_merge: Contender | None
    reached: bool
    gains: tuple[Gain, ...] = ()
    harms: tuple[Harm, ...] = ()
    to_measure: ToMeasure | None = None
    lambda_to_try: float | None = None
    k: int | None = None
    pool_size: int | None = None
    expected: float | None = None
    method: str = ""
    where: str = ""
    within: str = ""
    few_documents: bool = False
    metric: str = ""
    notes: tuple[str, ...] = ()

    @property
    def merge(self) -> Contender | None:
        """What there is to be merged by this answer; `None` where merging does not pay."""
        if self.chosen is None or not self.reached:
            return None
        if self.kind in ("base", "expert") or self.chosen.merge.is_expert:
            return None
        return self.chosen if self.chosen.merge.k else None

    @property
    def fails(self) -> bool:
        """Whether nothing beats the base, or nothing reaches the target; exit code 4."""
        nothing = self.chosen is not None and self.base is not None and not self.chosen.merge.k
        return self.kind == "base" or nothing or not self.reached

    def summary(self) -> str:
        """The answer, what it gains, whom it harms, and what it rests on."""
        lines = [self.headline()]
        if self.chosen is not None and self.kind != "k":
            lines.append(f"  {self.chosen.merge.name()}: {value_text(self.chosen)}")
        lines += [f"  {gain_text(gain)}" for gain in self.gains]
        predicted = self.chosen is not None and not self.chosen.measured
        lines += [f"  {line}" for line in harms_text(self.harms, predicted=predicted)]
        if self.to_measure is not None and self.chosen is not None:
            lines += [f"  {line}" for line in to_measure_text(self.to_measure, self.chosen)]
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)

    def records(self) -> list[dict[str, Any]]:
        """A row for what is chosen, the base, the best single expert, and the best merge."""
        roles = ("chosen", "base", "expert", "best_merge")
        some = [(role, one) for role in roles if (one := getattr(self, role)) is not None]
        return [
            {
                "role": role,
                "subset": "+".join(one.merge.subset),
                "k": one.merge.k,
                "method": one.merge.method,
                "options": one.merge.options,
                "n_params": one.merge.n_params,
                "value": one.value,
                "low": one.low,
                "high": one.high,
                "measured": one.measured,
            }
            for role, one in some
        ]

    def headline(self) -> str:
        """The answer in one sentence."""
        where = "the text" if self.aim == "loss" else f"`{self.aim}`"
        wish = "" if self.target is None else f", to reach {self.target:g}"
        return f"verdict for {where}{wish}: {self._answer()}"

    def failure(self) -> str:
        """What nothing does, where `fails`."""
        if self.kind == "nothing":
            return f"nothing is{self.within}"
        if self.reached and self.target is not None:
            return f"the base reaches {self.target:g} by itself: nothing is to be merged"
        if self.reached:
            return f"nothing{self.within} beats the base"
        return f"nothing{self.within} reaches {'' if self.metric else 'a loss of '}{self.target:g}"

    def _answer(self) -> str:
        chosen = self.chosen
        if self.kind == "nothing":
            return self.failure()
        if self.kind == "k" and self.reached:
            expected = (
                "" if self.expected is None else f", {self.expected:.4f} expected on this text"
            )
            named, sign = "", -1.0 if self.higher else 1.0
            if chosen is not None and self.expected is not None:
                better = sign * chosen.value < sign * self.expected
                named = f"; the best of the merges that it names, {_of(chosen)}" if better else ""
            return f"merge {self.k} of {self.pool_size} experts{self._by()}{expected}{named}"
        if self.kind == "k":
            extreme = "highest" if self.higher else "lowest"
            best = (
                f"the {extreme} expected is {self.expected:.4f}, with {self.k} experts{self._by()}"
            )
            return f"{self.failure()}; {best}"
        assert chosen is not None
        if not self.reached:
            near = f"the nearest is {chosen.merge.name()} with {chosen.on_this_text:.4f}"
            return f"{self.failure()}; {near}"
        if self.kind == "measure":
            return (
                f"measure more; the best that is known is {chosen.merge.name()}{base_size(chosen)}"
            )
        if self.kind == "merge":
            alone = "no merge of several experts is better"
            if self.target is not None:
                alone = "one expert is enough"
            why = f"; {alone}" if chosen.merge.k == 1 else ""
            return f"merge {chosen.merge.name()}{base_size(chosen)}{why}"
        if self.target is not None and self.kind == "base":
            return (
                f"merging does not pay, keep the base{base_size(chosen)}: it reaches the target by"
                " itself, and no merge that does is better than its base"
            )
        if self.within and self.kind == "base":
            return f"{self.failure()}; keep the base, or loosen the bound"
        other = ""
        if self.best_merge is not None:
            alike = self.best_merge.merge.n_params == chosen.merge.n_params
            where = "" if alike else base_size(self.best_merge)
            other = f" (the best merge, {_of(self.best_merge)}{where})"
        tried = ""
        if self.lambda_to_try is not None:
            linear = self.best_merge is not None and self.best_merge.merge.method == "average"
            by = "task_arithmetic with a lambda of" if linear else "a smaller lambda, such as"
            tried = f"; try {by} {self.lambda_to_try:g}"
        if self.kind == "base":
            where = base_size(chosen)
            return (
                f"merging does not pay, keep the base{where}: no merge is better than it"
                f"{other}{tried}"
            )
        if self.target is not None:
            return f"take {chosen.merge.name()}, which is enough{base_size(chosen)}"
        taken = f"{chosen.merge.name()}{base_size(chosen)}"
        return f"merging does not pay, take {taken}: no merge is better{other}{tried}"

    def _by(self) -> str:
        return f" by {self.method}{self.where}" if self.method else self.where


def _of(one: Contender) -> str:
    return f"{one.merge.name()}, has {one.on_this_text:.4f}"
