"""How the answer came: merges in the order they were measured."""

from itertools import accumulate
from typing import Any

from mergeplan.reporting.source import Source


def panel(source: Source) -> dict[str, Any] | None:
    """Merges in their order with tokens and seconds, summed up, and the best that was known.

    Returns:
        `None` of a table alone, which does not tell its order.
    """
    if not source.measured:
        return None
    sign = -1.0 if source.main.higher else 1.0
    seen: dict[str, int] = {}
    steps = []
    for one in source.measured:
        tokens = sum(int(each.n_tokens.sum()) for each in one.scores.domains.values())
        fresh = tokens - seen.get(one.merge.key, 0)
        seen[one.merge.key] = tokens
        steps.append((one, max(fresh, 0)))
    best: float | None = None
    lines = []
    for (one, _), tokens, seconds in zip(
        steps,
        accumulate(fresh for _, fresh in steps),
        accumulate(sum(one.seconds) for one, _ in steps),
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
    return {"steps": lines}
