"""Calibrate a pool: from its experts to a fitted law, round by round, in a folder that goes on.

Rounds are chosen from the measurements of earlier rounds alone, and a measurement is a function of
its merge: so a run that was killed chooses the same rounds again, finds most of them measured, and
ends with the same table.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mergeplan.calibration.course import Course, Goal, Round
from mergeplan.calibration.preflight import Checked, check
from mergeplan.calibration.store import Measured, RunStore
from mergeplan.calibration.worker import Setup, Worker
from mergeplan.pool import load_pool
from mergeplan.subsets import SubsetMerge

Say = Callable[[str], None]
# Tokens scored, and all that are planned so far.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CalibrateOptions:
    """What to calibrate, how far, and where.

    Attributes:
        methods: Labels of the pool; none for all of them.
        ray: `local` or the address of a Ray cluster; `None` for this process.
    """

    methods: tuple[str, ...] = ()
    goal: Goal = field(default_factory=Goal)
    setup: Setup = field(default_factory=Setup)
    ray: str | None = None


@dataclass(frozen=True)
class Calibration:
    """What a run came to.

    Attributes:
        table: `measurements.csv`.
        n_measured: Merges that were measured now; `n_kept` were there already.
        reasons: Why each course stopped.
        seconds: Of this run; `merging` and `evaluating` are those of all its merges.
        warnings: Texts that could not be scored, losses that are not finite.
    """

    folder: Path
    table: Path
    n_measured: int
    n_kept: int
    reasons: tuple[str, ...]
    seconds: float
    merging: float
    evaluating: float
    warnings: tuple[str, ...]


class Executor(Protocol):
    """Measures merges of one size, in any order."""

    def measure(self, merges: Sequence[SubsetMerge], some: Sequence[int]) -> Iterator[Measured]: ...


@dataclass(frozen=True)
class Forecast:
    """What a calibration begins with, before anything is measured.

    Attributes:
        n_merges: Of the first rounds.
        most_merges: That it can come to.
        n_tokens: That the first rounds score.
    """

    n_merges: int
    most_merges: int
    n_tokens: int
    n_kept: int


def calibrate(
    pool_file: Path,
    folder: Path,
    options: CalibrateOptions | None = None,
    *,
    say: Say = lambda _: None,
    progress: Progress | None = None,
) -> Calibration:
    """Measure subsets of a pool until its law answers the question, or goes on where it stopped.

    Args:
        folder: The run; see `store`. Created, or continued.
        say: Told what each round measures and why.
        progress: Called with tokens scored and tokens planned.

    Raises:
        InputError: The pool is at fault, or differs from the one that the folder holds.
        SurroundingsError: The folder cannot be written to, or another run works there.
    """
    begun = time.perf_counter()
    options = options or CalibrateOptions()
    checked = check(load_pool(pool_file), options.methods, options.setup)
    run = _Run(checked, options, say, progress)
    store = RunStore(folder, checked.identity, pool_sizes(checked))
    try:
        reasons = [
            reason for size in range(len(checked.pool.sizes)) for reason in run.of(size, store)
        ]
        table = store.write_table()
        measured = store.all()
    finally:
        store.close()
    new = run.measured
    faults = [f"{one.merge.key}: {fault}" for one in measured for fault in one.scores.faults()]
    return Calibration(
        folder=folder,
        table=table,
        n_measured=len(new),
        n_kept=len(measured) - len(new),
        reasons=tuple(reasons),
        seconds=time.perf_counter() - begun,
        merging=sum(one.seconds[0] for one in new),
        evaluating=sum(one.seconds[1] for one in new),
        warnings=(*checked.warnings, *faults),
    )


def forecast(pool_file: Path, folder: Path, options: CalibrateOptions) -> Forecast:
    """What `calibrate` would begin with; everything is checked, and nothing is measured or written.

    Raises:
        InputError: As for `calibrate`.
    """
    checked = check(load_pool(pool_file), options.methods, options.setup)
    merges: dict[str, SubsetMerge] = {}
    most = 0
    for size in range(len(checked.pool.sizes)):
        for label in checked.labels:
            course = Course(checked.pool, size, label, options.goal)
            most += course.most_merges
            first = course.next([])
            if isinstance(first, Round):
                merges |= {merge.key: merge for merge in first.merges}
    tokens = sum(checked.texts[merge.size].n_tokens for merge in merges.values())
    return Forecast(len(merges), most, tokens, n_kept=0)


def pool_sizes(checked: Checked) -> tuple[int, ...]:
    """Experts of each size."""
    return tuple(len(size.experts) for size in checked.pool.sizes)


class _Run:
    """The rounds of all courses, one size after the other."""

    def __init__(
        self, checked: Checked, options: CalibrateOptions, say: Say, progress: Progress | None
    ) -> None:
        self._checked, self._options, self._say = checked, options, say
        self._progress = progress
        self._done = self._planned = 0
        self.measured: list[Measured] = []
        self._ray: Any = None
        if options.ray is not None:
            from mergeplan.calibration.cluster import check_paths
            from mergeplan.cluster import connect

            self._ray = connect(options.ray)
            check_paths(self._ray, checked.pool)

    def of(self, size: int, store: RunStore) -> list[str]:
        """Run every course of a size to its end; returns why each stopped."""
        courses = [
            Course(self._checked.pool, size, label, self._options.goal)
            for label in self._checked.labels
        ]
        executor = _Lazy(lambda: self._executor(size))
        seen: list[list[Measured]] = [[] for _ in courses]
        reasons = []
        try:
            active = list(range(len(courses)))
            while active:
                rounds = {number: courses[number].next(seen[number]) for number in active}
                active = [n for n, found in rounds.items() if isinstance(found, Round)]
                for found in rounds.values():
                    self._say(found.reason)
                    if not isinstance(found, Round):
                        reasons.append(found.reason)
                wanted: dict[str, SubsetMerge] = {}
                for number in active:
                    found = rounds[number]
                    if isinstance(found, Round):
                        wanted |= {merge.key: merge for merge in found.merges}
                self._measure(list(wanted.values()), size, store, executor)
                for number in active:
                    found = rounds[number]
                    if isinstance(found, Round):
                        seen[number] += [
                            one for merge in found.merges if (one := store.get(merge)) is not None
                        ]
                store.write_table()
        finally:
            executor.close()
        return reasons

    def _measure(
        self, merges: list[SubsetMerge], size: int, store: RunStore, executor: "_Lazy"
    ) -> None:
        some = [number for number, merge in enumerate(merges) if store.get(merge) is None]
        each = self._checked.texts[size].n_tokens
        self._planned += each * len(some)
        if not some:
            return
        for measured in executor.get().measure(merges, some):
            store.add(measured)
            self.measured.append(measured)
            self._done += each
            if self._progress:
                self._progress(self._done, self._planned)

    def _executor(self, size: int) -> Any:
        pool, setup = self._checked.pool, self._options.setup
        if self._ray is None:
            return Worker(pool, size, setup, self._checked.texts[size])
        from mergeplan.calibration.cluster import ClusterExecutor

        return ClusterExecutor(self._ray, pool, size, setup)


class _Lazy:
    """An executor that is made when the first merge needs it: not where all are measured."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: Any = None

    def get(self) -> Executor:
        if self._made is None:
            self._made = self._make()
        executor: Executor = self._made
        return executor

    def close(self) -> None:
        if self._made is not None and hasattr(self._made, "close"):
            self._made.close()
