"""Whether to believe it: predictions of what was left out, residuals, tails, other documents."""

from dataclasses import asdict
from typing import Any

import numpy as np

from mergeplan.calibration.run_folder import HELD_BACK
from mergeplan.errors import InputError
from mergeplan.evaluation.measured import parse_scores
from mergeplan.evaluation.resampling import Resampling
from mergeplan.measurements.rows import MergeKey
from mergeplan.reporting.source import Source, group_of
from mergeplan.selection.score_link import score_links
from mergeplan.selection.selection import Selections
from mergeplan.subset_law.spread import NINE_IN_TEN
from mergeplan.system.reading import SCORES as KIND
from mergeplan.system.reading import read_bytes

# Merges that are held against each other over documents drawn again, and draws.
_RIVALS, _DRAWS = 12, 2000


def panel(source: Source) -> dict[str, Any] | None:
    """Left-out predictions by group, tails of the curve, who wins on other documents, `--check`,
    and whether the loss speaks for a score.

    Returns:
        `None` where none of them is known.
    """
    found = {
        "left_out": _left_out(source),
        "tails": _tails(source),
        "winners": _winners(source),
        "held_back": _held_back(source),
        "links": _links(source),
    }
    return found if any(found.values()) else None


def _left_out(source: Source) -> dict[int, Any]:
    if not isinstance(source.selections, Selections):
        return {}
    groups = source.groups
    found = {}
    for one in source.selections:
        law, table = one.law, one.table
        found[groups.index(group_of(table))] = {
            "k": (law.weights > 0).sum(1).tolist(),
            "measured": law.values.tolist(),
            "predicted": law.left_out.tolist(),
            "x": [
                [source.experts.index(law.experts[place]) for place in np.flatnonzero(row)]
                for row in law.weights
            ],
            "r2": law.r2,
            "error": law.error,
        }
    return found


def _links(source: Source) -> dict[int, Any]:
    """Whether the loss speaks for a score, where merges have both."""
    if not isinstance(source.selections, Selections):
        return {}
    groups = source.groups
    found = {}
    for one in source.selections:
        table = one.table
        if links := score_links(table):
            group = groups.index(group_of(table))
            found[group] = [asdict(link) for link in links]
    return found


def _tails(source: Source) -> list[dict[str, Any]]:
    fits = source.curves[source.main.name]
    if isinstance(fits, InputError):
        return []
    groups = source.groups
    return [
        {
            "group": groups.index(group),
            "tails": [{"name": one.name, "error": one.left_out} for one in fit.tails],
        }
        for fit in fits.fits
        if fit.tails and (group := group_of(fit.series)) in groups
    ]


def _winners(source: Source) -> dict[str, Any] | None:
    """How often each of the best measured merges is the best over documents drawn again."""
    resampling, main = source.resampling, source.main
    shares = {main.name: 1.0}
    if resampling is None or not resampling.knows(shares):
        return None
    sign = -1.0 if main.higher else 1.0
    values = {
        row.merge_key: row.loss_nats
        for row in source.rows
        if row.target == main.name and row.k and row.merge_key in resampling.columns
    }
    best = sorted(values, key=lambda key: sign * values[key])[:_RIVALS]
    if len(best) < 2 or not resampling.enough(shares):
        return None
    return _shares_of_wins(resampling, best, values, shares, sign)


def _shares_of_wins(
    resampling: Resampling,
    best: list[MergeKey],
    values: dict[MergeKey, float],
    shares: dict[str, float],
    sign: float,
) -> dict[str, Any] | None:
    drawn = resampling.deviations(best, shares, draws=_DRAWS)
    if not np.isfinite(drawn).all():
        return None
    costs = sign * (drawn + np.array([values[key] for key in best]))
    wins = np.bincount(costs.argmin(1), minlength=len(best)) / len(costs)
    return {
        "draws": _DRAWS,
        "merges": [
            {
                "name": "+".join(key[3]),
                "method": key[1],
                "value": values[key],
                "share": float(share),
            }
            for key, share in zip(best, wins, strict=True)
        ],
    }


def _held_back(source: Source) -> list[dict[str, Any]]:
    """What was scored on the other half of the documents."""
    path = None if source.folder is None else source.folder / HELD_BACK
    if path is None or not path.is_file():
        return []
    # Its first line says of which texts it is.
    _, _, lines = read_bytes(path, KIND).partition(b"\n")
    found = list(parse_scores(lines, path)[0].values())
    base = next((one for one in found if not one.merge.k), None)
    resampling = Resampling.of(found, source.main.metric)
    shares = {source.main.name: 1.0}
    held = []
    for one in found:
        own: dict[str, Any] = {
            "name": "+".join(one.merge.subset) or "the base",
            "method": one.merge.method,
            "k": one.merge.k,
            "value": one.scores.macro().loss_nats,
        }
        if base is not None and one is not base:
            apart = resampling.difference(one.merge.merge_key, base.merge.merge_key, shares)
            own |= {"difference": apart.loss_nats, "error": NINE_IN_TEN * apart.se}
        held.append(own)
    return held
