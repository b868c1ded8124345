"""The smallest subset that reaches a loss, where single subsets can be predicted."""

from dataclasses import dataclass
from pathlib import Path

from mergeplan.errors import InputError
from mergeplan.selection.choices import Choice
from mergeplan.selection.select import select
from mergeplan.selection.selection import Wish


@dataclass(frozen=True)
class Smallest:
    """A subset, and the method and base that it is for."""

    method: str
    n_params: float | None
    choice: Choice


def smallest_subset(source: Path, target_loss: float, domain: str | None) -> Smallest | None:
    """The fewest experts that are predicted to reach a loss, by any method and on any base.

    Args:
        source: A CSV of measurements.
        target_loss: In nats per token.
        domain: `None` for the macro mean.

    Returns:
        `None` where nothing reaches it, or too few subsets were measured to tell.
    """
    try:
        selections = select(source, wish=Wish(domain, max_loss=target_loss))
    except InputError:
        return None
    found = [
        Smallest(one.table.method, one.table.n_params, one.best)
        for one in selections
        if one.best is not None and not one.law.higher
    ]
    return min(found, key=lambda one: (one.choice.k, one.choice.value), default=None)
