"""What any ticks and weights are predicted to give, and the best subset of each size."""

import json
from typing import Any

from mergeplan.display.text import counted
from mergeplan.reporting.recipes import recipes
from mergeplan.reporting.reduced import reduced
from mergeplan.reporting.source import Source, group_of
from mergeplan.selection.choices import Choice
from mergeplan.selection.selection import Selection, Selections


def panel(source: Source) -> dict[str, Any] | None:
    """Laws by `group:target`, and what `select` chooses of each group.

    Returns:
        `laws` as `reduced` gives them; `fits` with how well each predicts what is left out;
        `choices` by group: best subset of each k, weights, confidence.
    """
    if not isinstance(source.selections, Selections):
        return {"missing": source.selections.message}
    groups, names = source.groups, [target.name for target in source.targets]
    laws: dict[str, Any] = {}
    fits: dict[str, Any] = {}
    choices, left_out, spent = {}, 0, 0
    some = [(one, groups.index(group_of(one.table))) for one in source.selections]
    for number, name in enumerate(names):
        for selection, group in some:
            law = selection.law if name == selection.law.name else selection.laws.get(name)
            if law is None:
                continue
            fits[f"{group}:{number}"] = {"r2": law.r2, "error": law.error}
            found = reduced(law) if spent < source.room else None
            size = len(json.dumps(found))
            if found is None or spent + size > source.room:
                left_out += 1
                continue
            spent += size
            laws[f"{group}:{number}"] = found
    for selection, group in some:
        choices[group] = _choices(selection)
    notes = (
        [
            f"left out: {counted(left_out, 'laws')} of single subsets, too large or lost in"
            " rounding; ask `mergeplan select` for other ticks and weights"
        ]
        if left_out
        else []
    )
    return {
        "laws": laws,
        "fits": fits,
        "choices": choices,
        "pool": recipes(source),
        "left_out_notes": notes,
    }


def _choices(selection: Selection) -> dict[str, Any]:
    sure = selection.confidence
    return {
        "best": _choice(selection.best),
        "by_size": [_choice(one) for _, one in sorted(selection.by_size.items())],
        "weighted": _choice(selection.weighted),
        "free": _choice(selection.free),
        "largest_sum": selection.table.largest_sum,
        "weights_follow": selection.table.weighted,
        "sizes": [
            {"k": one.k, "mean": one.mean, "lowest": one.lowest, "highest": one.highest}
            for one in selection.sizes
        ],
        "chance": None if sure is None or sure.no_chance else sure.chance,
        "chance_on_texts": None if sure is None else sure.chance_on_texts,
        "warnings": selection.warnings,
    }


def _choice(choice: Choice | None) -> dict[str, Any] | None:
    if choice is None:
        return None
    return {
        "weights": choice.weights,
        "value": choice.value,
        "low": choice.low,
        "high": choice.high,
        "measured": choice.measured,
        "equal": choice.equal,
    }
