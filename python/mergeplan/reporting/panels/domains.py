"""Every domain by itself: the base, the experts and the answer, with paired intervals."""

from typing import Any

from mergeplan.reporting.source import Source


def panel(source: Source) -> dict[str, Any] | None:
    """Which targets are domains of what decides; the values are in the merges themselves.

    Returns:
        Numbers of the targets; `None` where there is one only.
    """
    own = [n for n, one in enumerate(source.targets) if one.metric == source.main.metric]
    domains = [n for n in own if source.targets[n].domain != "macro"]
    if len(domains) < 2:
        return None
    return {"targets": domains, "groups": source.resampling and source.resampling.groups()}
