"""How the parts of a verdict read."""

from collections.abc import Sequence

from mergeplan.display.text import chance_text, format_count
from mergeplan.verdict.contenders import Contender
from mergeplan.verdict.parts import Gain, Harm, ToMeasure


def value_text(one: Contender) -> str:
    """What it gives, and how that is known.

    Of a prediction the interval is of what this text would give.
    """
    if one.measured and one.here is None:
        return f"{one.value:.4f} measured on this text"
    # As many digits as show that a prediction has a width.
    digits = 4 if one.high - one.low >= 0.001 else 6
    interval = f"90 % interval {one.low:.{digits}f} to {one.high:.{digits}f}"
    if one.here is not None:
        expected = f"{one.value:.{digits}f} expected on items of this kind, {interval}"
        return f"{one.here:.4f} measured on this text; {expected}"
    return f"{one.value:.{digits}f} predicted on this text, {interval}"


def base_size(one: Contender) -> str:
    """Of which base, for a sentence."""
    n_params = one.merge.n_params
    return "" if n_params is None else f" at {format_count(n_params)}"


def gain_text(gain: Gain) -> str:
    """By how much it is better, on both questions."""
    verb = "better" if gain.value >= 0 else "worse"
    said = f"{abs(gain.value):.4f} {verb} than {gain.over} on this text"
    if gain.low is None or gain.high is None or gain.chance is None:
        return said
    kind = "items" if gain.items else "texts"
    return (
        f"{said}; on {kind} of this kind {gain.low:+.4f} to {gain.high:+.4f} (90 %), better with a"
        f" chance of {chance_text(gain.chance)}"
    )


def harms_text(harms: Sequence[Harm], *, predicted: bool) -> list[str]:
    """A line for those worse than the base's, and one for each kind of expert of their own.

    Those whose interval reaches 0 stand in a line of their own: they may be no worse.
    """
    lines = []
    which = "predicted, on this text" if predicted else "on texts of this kind"
    for than in dict.fromkeys(harm.than for harm in harms):
        both: dict[str, list[Harm]] = {"worse": [], "perhaps worse": []}
        for harm in harms:
            if harm.than == than:
                both["perhaps worse" if (harm.low or 0.0) < 0 else "worse"].append(harm)
        for word, some in both.items():
            interval = f" (90 % {which})" if any(harm.low is not None for harm in some) else ""
            if some:
                lines.append(f"{word} than {than}{interval}: {', '.join(map(_harm, some))}")
    return lines


def _harm(harm: Harm) -> str:
    said = f"{harm.domain} by {harm.value:.4f}"
    if harm.low is None or harm.high is None:
        return said
    return f"{said} ({harm.low:+.4f} to {harm.high:+.4f})"


def to_measure_text(some: ToMeasure, chosen: Contender) -> list[str]:
    """What to measure, what it takes, and what it may gain."""
    first, n = some.merges[0], len(some.merges)
    takes = f"{n} merge{'s' if n > 1 else ''}"
    if some.seconds is not None:
        takes += f", about {_time(some.seconds)}"
    if some.chance is None or some.gain is None:
        lines = [f"to measure ({takes}): {_names(some.merges)}"]
        return [*lines, f"  {some.command}"] if some.command else lines
    chance = f"with a chance of {chance_text(some.chance)} on this text"
    better = f"better than {some.over.merge.name()} {chance}, expected gain {some.gain:.4f}"
    if some.target is not None:
        fewer = f", with {first.merge.k} experts instead of {some.over.merge.k}"
        better = f"it reaches {some.target:g} {chance}"
        better += fewer if first.merge.k < some.over.merge.k else ""
    if first is chosen or first.merge == chosen.merge:
        lines = [f"to be sure, measure it ({takes}): {better}"]
    else:
        lines = [
            f"to measure ({takes}): {_names(some.merges)}",
            f"  {first.merge.name()}: {value_text(first)}; {better}",
        ]
    return [*lines, f"  {some.command}"] if some.command else lines


def _names(merges: Sequence[Contender]) -> str:
    """Their names; how they are merged is said once where it is the same."""
    if len({(one.merge.method, one.merge.options) for one in merges}) > 1:
        return "; ".join(one.merge.name() for one in merges)
    *others, last = merges
    return "; ".join(["+".join(one.merge.subset) for one in others] + [last.merge.name()])


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
