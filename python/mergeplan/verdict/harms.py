"""Which domains become worse than the base's, or than that domain's own expert's."""

import math
from collections.abc import Sequence

from mergeplan.config.labels import in_words
from mergeplan.evaluation.resampling import Resampling
from mergeplan.subset_law.spread import NINE_IN_TEN
from mergeplan.verdict.contenders import Contender
from mergeplan.verdict.known import Aim
from mergeplan.verdict.parts import Gain, Harm


def gains_of(
    chosen: Contender, others: Sequence[Contender], aim: Aim, resampling: Resampling | None
) -> tuple[Gain, ...]:
    """By how much what is taken is better than each of some others."""
    found = []
    for other in others:
        if other is chosen:
            continue
        value = aim.sign * (other.on_this_text - chosen.on_this_text)
        low, high, chance = _on_other_texts(chosen, other, aim, resampling)
        items = bool(aim.metric)
        apart = unpaired(aim, resampling) and not aim.paired
        found.append(Gain(other.merge.name(), value, low, high, chance, items, apart))
    return tuple(found)


def unpaired(aim: Aim, resampling: Resampling | None) -> bool:
    """Whether what counts is a metric of whose items no scores are known."""
    return bool(aim.metric) and (resampling is None or not resampling.knows(aim.shares))


def _on_other_texts(
    chosen: Contender, other: Contender, aim: Aim, resampling: Resampling | None
) -> tuple[float, float, float | None] | tuple[None, None, None]:
    """Interval of the gain and its chance, paired by documents.

    Of metrics by what of their items' error is each merge's own.
    """
    if unpaired(aim, resampling):
        deviation = math.hypot(chosen.deviation, other.deviation)
        if deviation == 0:
            return None, None, None
        gain, around = aim.sign * (other.value - chosen.value), NINE_IN_TEN * deviation
        return gain - around, gain + around, 0.5 * math.erfc(-gain / deviation / math.sqrt(2))
    if resampling is None or not resampling.enough(aim.shares):
        return None, None, None
    if chosen.key is None or other.key is None:
        return None, None, None
    moved = resampling.deviations([chosen.key, other.key], aim.shares)  # (draws, 2)
    draws = aim.sign * (other.value - chosen.value + moved[:, 1] - moved[:, 0])
    if not (draws == draws).all():
        return None, None, None
    draws.sort()
    last = len(draws) - 1
    return (
        float(draws[round(0.05 * last)]),
        float(draws[round(0.95 * last)]),
        float((draws > 0).mean()),
    )


def harms_of(
    chosen: Contender,
    base: Contender | None,
    singles: Sequence[Contender],
    higher: dict[str, bool],
    resampling: Resampling | None,
) -> tuple[Harm, ...]:
    """Every domain that becomes worse, the most harmed first; the base's before the experts'.

    Args:
        singles: Measured single experts; a domain's own is the one of its name, as it is where it
            was measured so, else by the same merge as `chosen`.
        higher: Whether more is better, for each domain and metric.
    """
    found = []
    for domain in sorted(set(chosen.values) & set(higher)):
        own = _own(domain, singles)
        for than, rival in (("the base", base), (_own_name(own), own)):
            if rival is None or rival is chosen or domain not in rival.values:
                continue
            sign = -1.0 if higher[domain] else 1.0
            worse = sign * (chosen.values[domain] - rival.values[domain])
            if worse > 0:
                low, high = _interval(chosen, rival, domain, worse, resampling)
                found.append(Harm(domain, than, worse, low, high))
    return tuple(sorted(found, key=lambda harm: (harm.than != "the base", -harm.value)))


def _own_name(own: Contender | None) -> str:
    """The domain's own expert, and at which strength it was measured where it is not as it is."""
    if own is None or own.merge.is_expert:
        return "the domain's own expert"
    return f"the domain's own expert by {in_words(own.merge.method, own.merge.options)}"


def _own(domain: str, singles: Sequence[Contender]) -> Contender | None:
    name = domain.rpartition(":")[2]  # of a metric's domain
    own = [one for one in singles if one.merge.subset in ((domain,), (name,))]
    own = [one for one in own if domain in one.values]
    # As it is, and else at the full strength that comes nearest.
    return min(own, key=lambda one: (not one.merge.is_expert, one.merge.options), default=None)


def _interval(
    chosen: Contender,
    rival: Contender,
    domain: str,
    worse: float,
    resampling: Resampling | None,
) -> tuple[float, float] | tuple[None, None]:
    if not chosen.measured:
        around = chosen.around.get(domain)
        return (None, None) if around is None else (worse - around, worse + around)
    if resampling is None or chosen.key is None or rival.key is None:
        return None, None
    shares = {domain: 1.0}
    if domain not in resampling.groups() or not resampling.enough(shares):
        return None, None
    se = resampling.difference(chosen.key, rival.key, shares).se
    if se != se:
        return None, None
    return worse - NINE_IN_TEN * se, worse + NINE_IN_TEN * se
