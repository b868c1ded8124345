"""Where one subset was merged with several factors lambda."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from mergeplan.measurements.rows import MACRO, Measurement

# Fewer lambdas show no lowest one between others.
FEWEST_LAMBDAS = 3


@dataclass(frozen=True)
class Scan:
    """Losses, or values of a metric, of one subset by lambda.

    Attributes:
        options: All but lambda, as JSON.
        losses: By lambda, in its order.
    """

    method: str
    options: str
    n_params: float | None
    k: int
    subset: tuple[str, ...]
    higher: bool
    losses: dict[float, float]

    @property
    def best(self) -> float:
        """The lambda whose merge is the best."""
        sign = -1.0 if self.higher else 1.0
        return min(self.losses, key=lambda strength: sign * self.losses[strength])


def scans_of(rows: Iterable[Measurement], domain: str = MACRO) -> list[Scan]:
    """Every subset that was measured with three lambdas or more.

    Args:
        rows: Of a table, all of losses or of one metric.
        domain: Whose values.

    Returns:
        In the order of the table.
    """
    found: dict[tuple[str, str, float | None, int, tuple[str, ...], bool], dict[float, float]] = {}
    for row in rows:
        options = json.loads(row.options)
        strength = options.pop("lambda", None)
        if row.domain != domain or row.k == 0 or not isinstance(strength, int | float):
            continue
        rest = json.dumps(options, sort_keys=True)
        what = (row.method, rest, row.n_params, row.k, row.subset, row.higher)
        found.setdefault(what, {})[float(strength)] = row.loss_nats
    return [
        Scan(*what, dict(sorted(losses.items())))
        for what, losses in found.items()
        if len(losses) >= FEWEST_LAMBDAS
    ]
