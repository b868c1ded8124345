"""What a measured merge may lose to those that were not measured."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from mergeplan.selection.settled import is_loss
from mergeplan.subset_law.spread import NINE_IN_TEN
from mergeplan.verdict.contenders import Contender, Predictions


@dataclass(frozen=True)
class Open:
    """What may be better than a measured merge.

    Attributes:
        loss: Its expected value less that of the best that may be taken.
        rivals: That were not measured, the likeliest to be the best first.
    """

    loss: float
    rivals: tuple[Contender, ...]


def open_beside(one: Contender, some: Iterable[Predictions]) -> Open | None:
    """What may be better than a merge, where it is the best of its method and base."""
    for predictions in some:
        law, sure = predictions.laws.get(predictions.name), predictions.sure
        if law is None or sure is None or not predictions.of(one.merge):
            continue
        sign = -1.0 if law.higher else 1.0
        best = min(predictions.by_size.values(), key=lambda choice: sign * choice.value)
        if not (one.measured and best.measured and best.subset == one.merge.subset):
            continue
        rivals = []
        for subset in sure.next:
            shares = {expert: 1 / len(subset) for expert in subset}
            weights = np.array([[shares.get(expert, 0.0) for expert in law.experts]])
            value = float(law.predict(weights)[0])
            around = NINE_IN_TEN * float(law.deviations(weights)[0])
            if value <= 0 and is_loss(predictions.table, predictions.name):
                continue
            merge = replace(one.merge, weights=shares)
            rivals.append(Contender(merge, value, value - around, value + around))
        return Open(sure.regret, tuple(rivals))
    return None
