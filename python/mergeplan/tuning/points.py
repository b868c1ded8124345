"""Points of a run: measured where they are not known, kept, and known again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergeplan.evaluation.scores import Scores
from mergeplan.tuning.folder import Point, Rows, TuneFolder, rows
from mergeplan.tuning.recipe import rounded
from mergeplan.tuning.split import TuneTexts
from mergeplan.tuning.tasks import ACCEPTING, GRADIENT, REPORTING, Done, Executor, Task

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ask:
    """A point that is wanted.

    Attributes:
        weights: Shape (n_experts, n_groups).
        slopes: Whether they are wanted, beside the losses where steps are accepted.
        reported: The losses on the reporting half are wanted, and nothing else.
    """

    weights: Array
    slopes: bool = True
    reported: bool = False

    @property
    def rows(self) -> Rows:
        return rows(rounded(self.weights))


class Points:
    """The points of a run.

    Args:
        executor: What measures them.
        folder: Which has them, and keeps them.
    """

    def __init__(self, executor: Executor, texts: TuneTexts, folder: TuneFolder) -> None:
        self._executor, self._texts, self._folder = executor, texts, folder
        self._domains = tuple(texts.gradient.domains)
        counts = {n: int(one.n_tokens.sum()) for n, one in texts.gradient.domains.items()}
        self._shares = shared_out(counts, executor.count)

    def at(self, weights: Array, *, slopes: bool = True) -> Point:
        """A point by the documents that are tuned on; one that was measured is not again."""
        return self._one(Ask(weights, slopes=slopes))

    def report(self, weights: Array) -> Point:
        """A point by the documents that had no part in tuning."""
        return self._one(Ask(weights, reported=True))

    def _one(self, ask: Ask) -> Point:
        if (known := self._known(ask)) is None:
            self.measure([ask])
            known = self._known(ask)
        assert known is not None
        return known

    def measure(self, asks: Sequence[Ask], beside: Sequence[Path] = ()) -> dict[Path, Scores]:
        """Measure what is not known of some points, side by side, and keep each once it is whole.

        Args:
            beside: Other merges, whose losses on the reporting half are not kept.

        Returns:
            Those of `beside`.

        Raises:
            InputError: A merge does not fit the model, or inputs are at fault or have changed.
            SurroundingsError: The disk is full, or a cluster is lost.
        """
        missing = {(a.rows, a.slopes, a.reported): a for a in asks if self._known(a) is None}
        tasks: list[Task] = []
        owners: list[tuple[Ask | Path, int]] = []  # and how many tasks it has
        for ask in missing.values():
            own = self._tasks(ask)
            tasks += own
            owners += [(ask, len(own))] * len(own)
        tasks += [Task(path, REPORTING) for path in beside]
        owners += [(path, 1) for path in beside]
        found: dict[int, list[tuple[Task, Done]]] = {}
        others = {}
        for number, done in self._executor.each(tasks):
            owner, n_tasks = owners[number]
            if isinstance(owner, Path):
                assert done.scores is not None
                others[owner] = done.scores
                continue
            parts = found.setdefault(id(owner), [])
            parts.append((tasks[number], done))
            if len(parts) == n_tasks:
                self._folder.add(self._whole(owner, parts))
        return others

    def _tasks(self, ask: Ask) -> list[Task]:
        if ask.reported:
            return [Task(ask.rows, REPORTING)]
        some = [Task(ask.rows, ACCEPTING)]
        if not ask.slopes:
            return some
        return [*(Task(ask.rows, GRADIENT, names) for names in self._shares), *some]

    def _whole(self, ask: Ask, parts: Sequence[tuple[Task, Done]]) -> Point:
        """In an order that does not tell who was done first."""
        by_part = {task.part: done for task, done in parts}
        seconds = sum(done.seconds for _, done in parts)
        scores = by_part[REPORTING if ask.reported else ACCEPTING].scores
        assert scores is not None
        if ask.reported:
            n_tokens = self._texts.reporting.n_tokens
            return Point(ask.rows, reported=scores.to_data(), seconds=seconds, tokens=n_tokens)
        accepting, n_tokens = scores.to_data(), self._texts.accepting.n_tokens
        if not ask.slopes:
            return Point(ask.rows, accepting, seconds=seconds, tokens=n_tokens)
        losses: dict[str, float] = {}
        slopes: dict[str, Rows] = {}
        along: dict[str, float] = {}
        for _, done in parts:
            losses |= done.losses or {}
            slopes |= done.slopes or {}
            along |= done.along_lambda or {}
        return Point(
            ask.rows,
            accepting,
            {name: losses[name] for name in self._domains},
            {name: slopes[name] for name in self._domains},
            along_lambda={name: along[name] for name in self._domains},
            seconds=seconds,
            tokens=self._texts.point_tokens,
        )

    def _known(self, ask: Ask) -> Point | None:
        same, domains = ask.rows, self._texts.reporting.domains.keys()
        for one in self._folder.points:
            parts = (one.accepting, one.slopes, one.reported)
            there = one.reported if ask.reported else one.slopes or not ask.slopes
            if (
                one.weights == same
                and there
                and (ask.reported or one.accepting)
                and all(part is None or part.keys() == domains for part in parts)
            ):
                return one
        return None


def shared_out(tokens: dict[str, int], count: int) -> list[tuple[str, ...]]:
    """Domains in so many shares of about as many tokens; fewer where there are fewer.

    >>> shared_out({"a": 5, "b": 1, "c": 4, "d": 2}, 2)
    [('a', 'b'), ('c', 'd')]
    """
    shares: list[list[str]] = [[] for _ in range(min(count, len(tokens)))]
    sums = [0] * len(shares)
    for name in sorted(tokens, key=lambda name: -tokens[name]):
        least = sums.index(min(sums))
        shares[least].append(name)
        sums[least] += tokens[name]
    return [tuple(sorted(one, key=list(tokens).index)) for one in shares]
