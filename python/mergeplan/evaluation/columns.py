"""The columns of a comparison: every model's value, and whether the best is told apart.

The best of a column is told apart where its paired difference from every other model has an
interval that does not hold 0. Each of these intervals must leave 0 out, so that many models make
the claim harder and need no correction. Errors of a few groups are themselves hardly known:
Student's t widens the interval, and below `FEWEST` groups nothing is told apart.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mergeplan.evaluation.evaluate import Evaluation
from mergeplan.evaluation.harness import paired
from mergeplan.evaluation.scores import Better, Scores, TaskScore, difference
from mergeplan.measurements.rows import MACRO

FEWEST = 5  # groups
LEVEL = 0.90


@dataclass(frozen=True)
class Value:
    """A mean, or a difference of two; `se` is NaN where it is not known."""

    value: float
    se: float


@dataclass(frozen=True)
class Column:
    """A domain, their macro mean, or a metric of a task.

    Attributes:
        better: `higher` or `lower`; empty where nothing says which.
        values: Of each model.
        best: Which model is best; `None` where nothing says which way is better, or no value is
            finite.
        differences: Of each model from the best, paired; empty without a best.
        n_groups: Groups that the errors are from, of a macro mean in the domain that has fewest;
            0 where the harness gives no items.
    """

    name: str
    metric: str
    better: Better
    values: tuple[Value, ...]
    best: int | None
    differences: tuple[Value, ...]
    n_groups: int

    def interval(self, model: int) -> tuple[float, float]:
        """Of a model's difference from the best; of NaN where the groups are too few."""
        apart = self.differences[model]
        reach = quantile(self.n_groups) * apart.se
        return apart.value - reach, apart.value + reach

    @property
    def separated(self) -> bool:
        """Whether the best is told apart from every other model."""
        if self.best is None:
            return False
        others = [n for n in range(len(self.values)) if n != self.best]
        # Of NaN neither holds.
        return all(low > 0 or high < 0 for low, high in map(self.interval, others))


def quantile(n_groups: int) -> float:
    """Standard errors from the middle of an interval to its ends; NaN for too few groups."""
    if n_groups < FEWEST:
        return math.nan
    from scipy.special import stdtrit

    return float(stdtrit(n_groups - 1, (1 + LEVEL) / 2))


def columns_of(found: Sequence[Evaluation]) -> list[Column]:
    """Of models that were scored on the same documents and tasks.

    Raises:
        InputError: They were not.
    """
    first = found[0]
    metric = first.metric or "loss_nats"
    better: Better = "higher" if first.higher else "lower"
    groups = {n: len(set(d.group_keys())) for n, d in first.scores.domains.items()}
    rows = [_values(one.scores) for one in found]
    columns = [
        _column(
            name,
            metric,
            better,
            [row[name] for row in rows],
            partial(_domain_difference, [one.scores for one in found], name),
            groups.get(name, min(groups.values())),
        )
        for name in rows[0]
    ]
    for tasks in zip(*(one.beside(one.tasks) for one in found), strict=True):
        columns.append(
            _column(
                tasks[0].task,
                tasks[0].metric,
                tasks[0].better,
                [Value(one.value, one.se) for one in tasks],
                partial(_task_difference, tasks),
                len(tasks[0].items),
            )
        )
    return columns


def _domain_difference(scores: Sequence[Scores], name: str, one: int, other: int) -> Value:
    return _values(difference(scores[one], scores[other]))[name]


def _task_difference(tasks: Sequence[TaskScore], one: int, other: int) -> Value:
    [apart] = paired([tasks[one]], [tasks[other]])
    return Value(apart.value, apart.se)


def _column(
    name: str,
    metric: str,
    better: Better,
    values: Sequence[Value],
    apart: Callable[[int, int], Value],
    n_groups: int,
) -> Column:
    sign = {"lower": 1.0, "higher": -1.0, "": math.nan}[better]
    ranks = np.array([sign * one.value for one in values])
    best = int(np.nanargmin(ranks)) if np.isfinite(ranks).any() else None
    differences = tuple(apart(n, best) for n in range(len(values))) if best is not None else ()
    return Column(name, metric, better, tuple(values), best, differences, n_groups)


def _values(scores: Scores) -> dict[str, Value]:
    rows = {**scores.estimates(), MACRO: scores.macro()}
    return {name: Value(row.loss_nats, row.se) for name, row in rows.items()}
