"""How the answer came: merges in the order they were measured, and what was known after each."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from mergeplan.errors import InputError
from mergeplan.evaluation.measured import MeasuredMerge
from mergeplan.measurements.rows import Measurement, MergeKey
from mergeplan.reporting.source import Source
from mergeplan.selection.geometry import grams_beside
from mergeplan.verdict.answer import predictions

# Prefixes of a run that are fitted anew.
_LOOKS = 6


def panel(source: Source) -> dict[str, Any] | None:
    """Merges in their order with tokens and seconds, summed up, and the best that was known.

    Returns:
        `steps`, and `looks`: what was predicted of the best subset after so many merges, with its
        interval and its chance to be the best. `None` of a table alone, which does not tell its
        order.
    """
    if not source.measured:
        return None
    firsts = list({one.merge.key: one for one in source.measured}.values())
    return {"steps": _steps(source), "looks": [] if source.brief else _looks(source, firsts)}


def _steps(source: Source) -> list[dict[str, Any]]:
    sign = -1.0 if source.main.higher else 1.0
    seen: dict[str, int] = {}
    fresh = []
    for one in source.measured:
        tokens = sum(int(each.n_tokens.sum()) for each in one.scores.domains.values())
        fresh.append(max(tokens - seen.get(one.merge.key, 0), 0))
        seen[one.merge.key] = tokens
    best: float | None = None
    lines = []
    for one, tokens, seconds in zip(
        source.measured,
        accumulate(fresh),
        accumulate(sum(one.seconds) for one in source.measured),
        strict=True,
    ):
        value = one.scores.macro().loss_nats
        if one.merge.k and (best is None or sign * value < sign * best):
            best = value
        lines.append(
            {
                "name": "+".join(one.merge.subset) or "the base",
                "method": one.merge.method,
                "k": one.merge.k,
                "value": value,
                "best": best,
                "tokens": tokens,
                "seconds": seconds,
            }
        )
    return lines


def _looks(source: Source, measured: Sequence[MeasuredMerge]) -> list[dict[str, Any]]:
    """What the law of single subsets said when fewer merges were measured."""
    rows: dict[MergeKey, list[Measurement]] = {}
    for row in source.rows:
        rows.setdefault(row.merge_key, []).append(row)
    counts = sorted({max(3, round(len(measured) * n / _LOOKS)) for n in range(1, _LOOKS + 1)})
    sign = -1.0 if source.main.higher else 1.0
    found = []
    for count in counts:
        some = [row for one in measured[:count] for row in rows.get(one.merge.merge_key, ())]
        try:
            grams = grams_beside(source.table, some)
            fits = predictions(some, source.main.name, grams).found
        except InputError:
            continue
        best = [(choice, one.sure) for one in fits for choice in one.by_size.values()]
        if not best:
            continue
        choice, sure = min(best, key=lambda pair: sign * pair[0].value)
        found.append(
            {
                "merges": count,
                "name": "+".join(choice.subset),
                "value": choice.value,
                "low": choice.low,
                "high": choice.high,
                "chance": None if sure is None or sure.no_chance else sure.chance,
            }
        )
    return found
