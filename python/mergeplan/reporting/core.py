"""What all panels share: experts, targets, groups of merges, and every measured merge."""

import math
from collections.abc import Mapping
from typing import Any

from mergeplan.config.labels import in_words
from mergeplan.display.text import format_count
from mergeplan.measurements.rows import MACRO, Measurement, MergeKey
from mergeplan.reporting.parts import predict_parts
from mergeplan.reporting.source import Group, Source, Target, group_of
from mergeplan.subset_law.spread import NINE_IN_TEN

# Beyond so many differences from the base their intervals are left out.
MOST_PAIRED = 20_000


def group_label(group: Group, *, sizes: bool) -> str:
    """A group for people; with its base's size where there are several."""
    n_params, method, options = group
    base = f", {format_count(n_params)} base" if sizes and n_params is not None else ""
    return in_words(method, options) + base


def core_data(source: Source) -> dict[str, Any]:
    """Experts, targets, groups, and all measured merges with their values by target.

    Returns:
        `merges` holds for each its group (`g`, -1 for a base), size (`n`), experts by number (`x`),
        weights where they are not equal (`w`), seed, and by target: values (`v`), differences from
        the base (`d`), and half widths of their 90 % intervals (`e`), paired by document, where
        there are five groups or more; and `p` as `predict_parts` adds it.
    """
    groups, targets = source.groups, source.targets
    place = {target.name: number for number, target in enumerate(targets)}
    experts = {name: number for number, name in enumerate(source.experts)}
    found: dict[MergeKey, dict[str, Any]] = {}
    rows: dict[MergeKey, Measurement] = {}
    for row in source.rows:
        one = found.setdefault(row.merge_key, _merge(row, groups, experts, len(targets)))
        one["v"][place[row.target]] = row.loss_nats
        rows[row.merge_key] = row
    for one in found.values():
        _fill_macro(one, source)
    notes = _differences(source, found, rows)
    predict_parts(source, found)
    sizes = len({group[0] for group in groups}) > 1
    return {
        "experts": source.experts,
        "targets": [
            {
                "name": one.name,
                "label": _target_label(one),
                "metric": one.metric,
                "higher": one.higher,
                "unit": "" if one.metric else "nats",
            }
            for one in targets
        ],
        "groups": [
            {
                "method": group[1],
                "n_params": group[0],
                "label": group_label(group, sizes=sizes),
                "pool_size": _pool_size(source, group),
            }
            for group in groups
        ],
        "merges": list(found.values()),
        "left_out_notes": notes,
    }


def _target_label(target: Target) -> str:
    """
    >>> _target_label(Target("macro", "macro", "", False))
    'mean of all domains'
    >>> _target_label(Target("acc:code", "code", "acc", True))
    'acc: code'
    """
    domain = "mean of all domains" if target.domain == MACRO else target.domain
    return ": ".join(filter(None, (target.metric, domain))) or target.name


def _merge(
    row: Measurement, groups: list[Group], experts: Mapping[str, int], n_targets: int
) -> dict[str, Any]:
    one: dict[str, Any] = {
        "g": groups.index(group_of(row)) if row.k else -1,
        "n": row.n_params,
        "k": row.k,
        "x": sorted(experts[name] for name in row.subset),
        "v": [None] * n_targets,
    }
    if row.weights:
        one["w"] = list(row.weights)
    if row.seed not in ("", "0"):
        one["seed"] = row.seed
    return one


def _fill_macro(one: dict[str, Any], source: Source) -> None:
    """The mean of the domains, where the table does not have it itself."""
    main = source.main
    domains = [n for n, target in enumerate(source.targets) if n and target.metric == main.metric]
    values = [one["v"][n] for n in domains]
    is_mean = main.domain == "macro" and one["v"][0] is None
    if is_mean and values and None not in values:
        one["v"][0] = math.fsum(values) / len(values)


def _differences(
    source: Source, found: Mapping[MergeKey, dict[str, Any]], rows: Mapping[MergeKey, Measurement]
) -> list[str]:
    """Adds each merge's difference from its base, paired by document where scores are known."""
    bases = {key[0]: key for key in found if not rows[key].k}
    resampling, targets = source.resampling, source.targets
    known = [
        number
        for number, target in enumerate(targets)
        if resampling is not None
        and resampling.knows({target.name: 1.0})
        and resampling.enough({target.name: 1.0})
    ]
    paired = len(found) * len(known) <= MOST_PAIRED
    for key, one in found.items():
        base = bases.get(key[0])
        if base is None or not one["k"]:
            continue
        one["d"] = [
            None if mine is None or theirs is None else mine - theirs
            for mine, theirs in zip(one["v"], found[base]["v"], strict=True)
        ]
        if resampling is None or not known or not paired:
            continue
        one["e"] = [None] * len(targets)
        for number in known:
            se = resampling.difference(key, base, {targets[number].name: 1.0}).se
            one["e"][number] = NINE_IN_TEN * se if math.isfinite(se) else None
    if known and not paired:
        return [f"intervals of {len(found):,} differences from the base are left out"]
    return []


def _pool_size(source: Source, group: Group) -> int:
    rows = [row for row in source.rows if row.k and group_of(row) == group]
    told = max((row.pool_size or 0 for row in rows), default=0)
    names = {name for row in rows for name in row.subset}
    return max(told, len(names), max(row.k for row in rows))
