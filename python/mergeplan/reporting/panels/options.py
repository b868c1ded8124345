"""One subset merged with several values of an option: λ scans, and densities."""

import json
from collections import defaultdict
from typing import Any

from mergeplan.config.labels import in_words
from mergeplan.display.text import format_count
from mergeplan.reporting.source import Source

_FEWEST = 3


def panel(source: Source) -> dict[str, Any] | None:
    """A line for each subset and option that was measured at three values or more.

    Returns:
        `scans`, each with its values and what was measured by target; `None` without any.
    """
    places = {one.name: number for number, one in enumerate(source.targets)}
    found: dict[tuple[Any, ...], dict[float, dict[int, float]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for row in source.rows:
        options = json.loads(row.options) if row.k else {}
        for name, value in options.items():
            if isinstance(value, int | float):
                rest = {key: other for key, other in options.items() if key != name}
                key = (row.n_params, row.method, name, json.dumps(rest), row.subset, row.k)
                found[key][float(value)][places[row.target]] = row.loss_nats
    scans = [
        {
            "label": _label(n_params, method, rest),
            "option": name,
            "subset": subset,
            "k": k,
            "points": [{"x": x, "values": values[x]} for x in sorted(values)],
        }
        for (n_params, method, name, rest, subset, k), values in found.items()
        if len(values) >= _FEWEST
    ]
    return {"scans": scans} if scans else None


def _label(n_params: float | None, method: str, rest: str) -> str:
    size = "" if n_params is None else f", {format_count(n_params)} base"
    return in_words(method, rest) + size
