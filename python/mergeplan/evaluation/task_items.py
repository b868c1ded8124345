"""Items of downstream tasks in place of texts: where a pool has no data, they decide."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mergeplan.errors import InputError
from mergeplan.evaluation.harness import Tasks, run_tasks
from mergeplan.evaluation.options import BY_DOCUMENT, Cut
from mergeplan.evaluation.scores import DomainScores, Scores, TaskScore
from mergeplan.evaluation.texts import Domain


@dataclass
class TaskItems:
    """The items of tasks that are all measured by one metric; a `measure.Measure`.

    Of each task its first metric counts, the others stand beside.
    """

    domains: dict[str, Domain]
    sha256: str
    metric: str
    higher: bool
    _tasks: Tasks = field(repr=False)
    cut: Cut = BY_DOCUMENT
    left_out: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    @classmethod
    def of(cls, tasks: Tasks) -> "TaskItems":
        """The items of some tasks.

        Raises:
            InputError: Their first metrics differ, or one does not say which way is better.
        """
        firsts = {
            name: next(iter(found.items()), ("", None)) for name, found in tasks.better.items()
        }
        [(task, (metric, higher)), *others] = firsts.items()
        if higher is None:
            raise InputError(f"task `{task}` does not say which way its metric is better")
        for other, first in others:
            if first != (metric, higher):
                raise InputError(
                    f"task `{task}` is measured by `{metric}`, task `{other}` by `{first[0]}`:"
                    " nothing says how to weigh them",
                    "give the pool `data`, by which merges are chosen, or run tasks of one metric",
                )
        domains = {name: _domain(count) for name, count in tasks.counts.items()}
        sha256 = hashlib.sha256(json.dumps(tasks.identity, sort_keys=True).encode()).hexdigest()
        return cls(domains, sha256, metric, bool(higher), tasks)

    @property
    def n_tokens(self) -> int:
        """Items of all tasks."""
        return sum(len(domain.lines) for domain in self.domains.values())

    def check(self, model: Any) -> None:
        """Nothing: tasks are tried on a base where they are asked for."""

    def score(self, model: Any, progress: Callable[[int, int], None] | None = None) -> Scores:
        """Run the tasks on a model that has its tokenizer as `model.tokenizer`.

        Raises:
            InputError: The harness fails, or a metric is no mean of its items.
        """
        return self.scores_of(run_tasks(self._tasks, model, model.tokenizer))

    def scores_of(self, found: Sequence[TaskScore]) -> Scores:
        """What counts of what the tasks came to.

        Raises:
            InputError: A metric is no mean of its items, or that of an item is not finite.
        """
        domains = {}
        for name, items in self.items_of(found).items():
            own = self.domains[name]
            domains[name] = DomainScores(own.lines, own.n_tokens, np.array(items))
        return Scores(domains)

    def items_of(self, found: Sequence[TaskScore]) -> dict[str, tuple[float, ...]]:
        """The items' scores by task, of the first filter where the metric has several.

        Raises:
            InputError: A metric is no mean of its items, or that of an item is not finite.
        """
        firsts = {(one.task, one.metric.partition(",")[0]): one.items for one in reversed(found)}
        items = {name: firsts.get((name, self.metric), ()) for name in self.domains}
        for name, some in items.items():
            if not some:
                raise InputError(
                    f"task `{name}`: `{self.metric}` is no mean of its items, and merges cannot be"
                    " compared item by item",
                    "give the pool `data`, by which merges are chosen",
                )
            for number, value in enumerate(some, 1):
                if not math.isfinite(value):
                    raise InputError(
                        f"task `{name}`, item {number}: expected a finite `{self.metric}`, found"
                        " none: merges are compared item by item",
                        "leave the item out of the task's data, or bound its score",
                    )
        return items


def _domain(count: int) -> Domain:
    return Domain(np.arange(1, count + 1), np.ones(count, np.int64))
