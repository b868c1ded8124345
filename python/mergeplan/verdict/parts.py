"""Parts of a verdict: what is gained, whom it harms, what is to be measured."""

from dataclasses import dataclass

from mergeplan.verdict.contenders import Contender


@dataclass(frozen=True)
class Gain:
    """By how much what is taken is better than something else.

    Attributes:
        over: `the base`, or the best single expert's name.
        value: On this text; better is positive.
        low, high: 90 % interval on texts of this kind, paired by documents; `None` where the
            texts' documents are not known, or too few. Of a metric on items of its kind.
        chance: That it is better on texts, or items, of this kind; `None` likewise.
        items: Whether these are of a metric's items.
        unpaired: Whether they are told as if no two merges had one in common.
    """

    over: str
    value: float
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    items: bool = False
    unpaired: bool = False


@dataclass(frozen=True)
class Harm:
    """A domain that becomes worse.

    Attributes:
        than: `the base`, or the domain's own expert, at the strength it was measured at.
        value: How much worse, on this text.
        low, high: 90 % interval on texts of this kind, paired by documents; of a prediction, on
            this text; else `None`.
    """

    domain: str
    than: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ToMeasure:
    """What to measure before anything is decided.

    Attributes:
        merges: The likeliest to be better than what is known, first; with a value of NaN where
            nothing is known of any merge.
        over: The best that is known.
        gain: What the first is expected to gain over the best that is known, where it is better.
        chance: That it is better, or reaches the target; gain and chance are `None` where nothing
            is known of it.
        target: That is to be reached; `None` where it is the best that is known.
        seconds: For all of them, by what measured merges took; `None` where that is not known.
        command: That measures them.
    """

    merges: tuple[Contender, ...]
    over: Contender
    gain: float | None
    chance: float | None
    seconds: float | None
    command: str
    target: float | None = None
