"""How measured values would come out on other texts of this kind, and why nothing may be known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergeplan.evaluation.resampling import LEAST_GROUPS, Resampling
from mergeplan.measurements.rows import parse_shares
from mergeplan.selection.table import Table
from mergeplan.subset_law.law import SubsetLaw

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Texts:
    """Values of a law's rows on texts drawn anew, less those on this one.

    Attributes:
        deviations: Shape (draws, n_rows).
        n_groups: Groups of documents in the domain that has fewest of them.
    """

    deviations: Array
    n_groups: int


@dataclass(frozen=True)
class Unknown:
    """Why no chance on texts of this kind is told; with `no_chance` none is told at all."""

    reason: str
    no_chance: bool = False


def texts_of(
    table: Table, law: SubsetLaw, resampling: Resampling | None, draws: int
) -> Texts | Unknown:
    """What the documents' scores say of the rows that a law was fitted to.

    Args:
        resampling: Of the run that the table is of; `None` for a bare table.
    """
    shares = parse_shares(law.name)
    known = resampling is not None and resampling.knows(shares)
    target = table.target(law.name)
    if target.metric and not known:
        some = np.isfinite(target.values)
        lacking = 0 if target.errors is None else int(np.isnan(target.errors[some]).sum())
        of = f" in {lacking} of {int(some.sum())} values" if lacking else ""
        return Unknown(
            f"nothing says how far its items may move `{law.name}`{of}: give `value_se` or"
            " `n_items`",
            no_chance=True,
        )
    if resampling is None:
        return Unknown("no document's scores are known")
    groups = resampling.groups()
    if not resampling.enough(shares):
        fewest = min(groups, key=lambda name: groups[name], default="")
        return Unknown(
            f"`{fewest}` has {groups.get(fewest, 0)} groups of documents, and {LEAST_GROUPS} are"
            " the fewest that tell one"
        )
    at = table.places(law.weights)
    keys = list(dict.fromkeys(key for place in at for key in table.merges[place]))
    found = resampling.deviations(keys, shares, draws=draws)
    lacking = int(np.isnan(found).any(0).sum())
    if lacking:
        return Unknown(f"{lacking} of {len(keys)} merges have no scores by document")
    column = {key: number for number, key in enumerate(keys)}
    rows = [found[:, [column[key] for key in table.merges[place]]].mean(1) for place in at]
    counted = [n for name, n in groups.items() if name in shares] or list(groups.values())
    return Texts(np.stack(rows, axis=1), min(counted))
