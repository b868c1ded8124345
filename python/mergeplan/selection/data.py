"""A selection as data for `--json`."""

from dataclasses import asdict
from typing import Any

from mergeplan.selection.active import Confidence
from mergeplan.selection.choices import Choice
from mergeplan.selection.front import FrontPoint
from mergeplan.selection.score_link import score_links
from mergeplan.selection.selection import Selection


def selection_data(selections: tuple[Selection, ...], front: list[FrontPoint]) -> dict[str, Any]:
    """The selections, the best first, and the front between domains where it was asked for."""
    return {
        "selections": [_selection(selection) for selection in selections],
        "front": [{"subset": point.subset, "values": point.values} for point in front],
    }


def _selection(selection: Selection) -> dict[str, Any]:
    law, table = selection.law, selection.table
    return {
        "method": table.method,
        "options": table.options,
        "n_params": table.n_params,
        "target": law.name,
        "n_merges": int((law.weights > 0).any(1).sum()),
        "k_measured": law.sizes,
        "r2_left_out": law.r2,
        "error_left_out": law.error,
        "transfer": asdict(law.transfer) if law.transfer else None,
        "by_geometry": law.by_geometry,
        "base": selection.base,
        "best": _choice(selection.best),
        "by_size": {k: _choice(choice) for k, choice in selection.by_size.items()},
        "weighted": _choice(selection.weighted),
        "free": _choice(selection.free),
        "confidence": _confidence(selection.confidence),
        "experts": [asdict(expert) for expert in selection.experts],
        "synergy": {"experts": law.experts, "matrix": selection.synergy.tolist()},
        "drop": selection.drop,
        "sizes": [asdict(size) for size in selection.sizes],
        "implied_law": asdict(selection.implied) if selection.implied else None,
        "fitted_law": asdict(selection.fitted) if selection.fitted else None,
        "score_links": [asdict(link) for link in score_links(table)],
        "warnings": selection.warnings,
    }


def _choice(choice: Choice | None) -> dict[str, Any] | None:
    return None if choice is None else {**asdict(choice), "subset": choice.subset}


def _confidence(sure: Confidence | None) -> dict[str, Any] | None:
    """The two questions apart."""
    if sure is None:
        return None
    return {
        "on_this_text": {
            "chance": None if sure.no_chance else sure.chance,
            "regret": None if sure.items else sure.regret,
        },
        "on_texts_of_this_kind": {
            "chance": sure.chance_on_texts,
            "regret": sure.regret if sure.items else None,
            "unknown": sure.unknown or None,
            "rivals": sure.rivals,
            "groups_needed": sure.groups_needed,
            "unpaired": sure.unpaired,
        },
        "next": sure.next,
    }
