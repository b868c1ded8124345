"""The values of one domain or metric, and of a mean of several."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """The values of one domain or metric.

    Attributes:
        values: Shape (n_rows,); NaN where a merge was not measured on it.
        higher: Whether higher is better.
        metric: Empty for losses.
        errors: Standard errors of a metric's values, from its items, shape (n_rows,); NaN, or
            `None` for all, where the file does not say.
        own: What of them is each merge's own; all of it, where no item's scores tell.
        paired: Whether they do.
        text_errors: Standard errors of losses on this text, shape (n_rows,); 0 where all of it was
            scored, and `None` where it was for all.
        slopes: Of values by the weight of each expert, shape (n_rows, n_experts), as
            `fit_subset_law` has them; rows of NaN where a merge has none, `None` where none has.
    """

    name: str
    values: Array
    higher: bool = False
    metric: str = ""
    errors: Array | None = None
    own: Array | None = None
    paired: bool = False
    text_errors: Array | None = None
    slopes: Array | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """What none of its values is beyond."""
        return ends_of(self.values[np.isfinite(self.values)], self.higher, self.metric)

    @property
    def noise(self) -> Array | None:
        """Variance of what of each value is the merge's own, and else on other items; `None` but of
        metrics of which every measured value has an error."""
        there = np.isfinite(self.values)
        if not self.metric or self.own is None or not np.isfinite(self.own[there]).all():
            return None
        return np.where(there, np.nan_to_num(self.own), 0.0) ** 2


def ends_of(values: Array, higher: bool, metric: str) -> tuple[float, float]:
    """What no value is beyond: 0 and 1 of what may be a share, as far as the values tell, of which
    more is better; 0 of what is never negative.

    >>> ends_of(np.array([0.2, 0.9]), True, "acc"), ends_of(np.array([-1.0, 0.5]), True, "reward")
    ((0.0, 1.0), (-inf, inf))
    """
    if metric and ((values < 0).any() or (higher and (values > 1).any())):
        return -np.inf, np.inf
    return 0.0, 1.0 if metric and higher else np.inf


def mean_of(name: str, targets: Sequence[Target], shares: Sequence[float]) -> Target:
    """The weighted mean of some targets of one kind, whose texts or items are others in each.

    Args:
        name: Of the mean.
        shares: Of any sum.
    """
    parts = [share / sum(shares) for share in shares]
    first = targets[0]
    return Target(
        name,
        np.sum([part * one.values for part, one in zip(parts, targets, strict=True)], axis=0),
        first.higher,
        first.metric,
        _errors_of_mean(parts, [target.errors for target in targets]),
        _errors_of_mean(parts, [target.own for target in targets]),
        all(target.paired for target in targets),
        _errors_of_mean(parts, _known(targets)),
        _slopes_of_mean(parts, [target.slopes for target in targets]),
    )


def _errors_of_mean(parts: Sequence[float], errors: Sequence[Array | None]) -> Array | None:
    """Of a weighted mean of values whose items are others in each; `None` where one has none."""
    squares = [
        (part * one) ** 2 for part, one in zip(parts, errors, strict=True) if one is not None
    ]
    return np.sqrt(np.sum(squares, axis=0)) if len(squares) == len(parts) else None


def _slopes_of_mean(parts: Sequence[float], slopes: Sequence[Array | None]) -> Array | None:
    """Of a weighted mean, NaN for a merge of which one of the values has none."""
    known = [part * one for part, one in zip(parts, slopes, strict=True) if one is not None]
    return np.asarray(np.sum(known, axis=0)) if len(known) == len(parts) else None


def _known(targets: Sequence[Target]) -> list[Array | None]:
    """Errors on this text: 0 where all of a domain was scored, `None` where it was of every one."""
    if all(target.text_errors is None for target in targets):
        return [None for _ in targets]
    return [
        np.zeros(len(target.values)) if target.text_errors is None else target.text_errors
        for target in targets
    ]
