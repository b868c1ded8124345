"""Calibrate a pool: from its experts to a fitted law, round by round, in a folder that goes on.

Rounds are chosen from the measurements of earlier rounds alone, and a measurement is a function of
its merge: so a run that was killed chooses the same rounds again, finds most of them measured, and
ends with the same table.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mergeplan.calibration.decision import Wish
from mergeplan.calibration.limits import Budget, Spent
from mergeplan.calibration.limits import Forecast as Forecasted
from mergeplan.calibration.preflight import Checked, check
from mergeplan.calibration.rounds import Plan, Round, Stop, next_round
from mergeplan.calibration.rounds import forecast as forecast_of
from mergeplan.calibration.store import RUN, Measured, RunStore
from mergeplan.calibration.worker import Setup, Worker
from mergeplan.measurements import Measurements
from mergeplan.names import format_count
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
        ks: Sizes of subsets that may be measured; empty for all.
        until: Stop where no k that is still possible is farther from the answer.
        budget: Most that each method may take at each size.
        scan: Whether to try other lambdas with all experts.
        seed: Of the choice of subsets, and of random masks.
        listed: Measure these merges and no others, whatever they tell; `None` to go by rounds.
        ray: `local` or the address of a Ray cluster; `None` for this process.
    """

    methods: tuple[str, ...] = ()
    wish: Wish = field(default_factory=Wish)
    ks: tuple[int, ...] = ()
    until: int = 1
    budget: Budget = field(default_factory=Budget)
    scan: bool = True
    seed: int = 0
    listed: tuple[SubsetMerge, ...] | None = None
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
    """What a calibration takes, before anything is measured.

    Attributes:
        least: With the first rounds alone.
        most: Where every subset is measured, or the budget ends.
        kept: Merges that the folder holds already, of those that are counted.
        seconds_each: Of one merge with its evaluation, from what the folder holds; else `None`.
    """

    least: Spent
    most: Spent
    kept: int
    seconds_each: float | None


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
    """What `calibrate` would take; everything is checked, and nothing is measured or written.

    Raises:
        InputError: As for `calibrate`.
    """
    checked = check(load_pool(pool_file), options.methods, options.setup)
    kept: list[Measured] = []
    if (folder / RUN).exists():
        store = RunStore(folder, checked.identity, pool_sizes(checked))
        kept = store.all()
        store.close()
    each = sum(sum(one.seconds) for one in kept) / len(kept) if kept else 0.0
    found = []
    for merge in options.listed or ():
        once = Spent(1, checked.texts[merge.size].n_tokens, each)
        found.append(Forecasted(once, once))
    for size in range(len(checked.pool.sizes) if options.listed is None else 0):
        tokens = checked.texts[size].n_tokens
        for plan in _plans(checked, options, size):
            found.append(forecast_of(plan, tokens_each=tokens, seconds_each=each))
    least, most = _sum(one.least for one in found), _sum(one.most for one in found)
    return Forecast(least, most, len(kept), each if kept else None)


def _sum(parts: Iterable[Spent]) -> Spent:
    every = list(parts)
    return Spent(
        sum(part.merges for part in every),
        sum(part.tokens for part in every),
        sum(part.seconds for part in every),
    )


def _plans(checked: Checked, options: CalibrateOptions, size: int) -> list[Plan]:
    """One for each method."""
    return [
        Plan(
            pool=checked.pool,
            size=size,
            label=label,
            wish=options.wish,
            ks=options.ks,
            until=options.until,
            budget=options.budget,
            scan=options.scan,
            seed=options.seed,
        )
        for label in checked.labels
    ]


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
        """Measure what there is to measure at a size; returns why each method stopped."""
        executor = _Lazy(lambda: self._executor(size))
        try:
            if self._options.listed is None:
                return self._by_rounds(size, store, executor)
            listed = [merge for merge in self._options.listed if merge.size == size]
            self._say(f"{self._name(size)}{len(listed)} merges are listed")
            self._measure(listed, size, store, executor)
            return []
        finally:
            executor.close()

    def _by_rounds(self, size: int, store: RunStore, executor: "_Lazy") -> list[str]:
        plans = {plan.label: plan for plan in _plans(self._checked, self._options, size)}
        seen: dict[str, dict[str, Measured]] = {label: {} for label in plans}
        reasons = []
        while plans:
            rounds: dict[str, Round] = {}
            for label, plan in list(plans.items()):
                found = self._next(plan, store, seen[label])
                told = f"{self._name(size)}{label}: {found.reason}"
                self._say(told)
                if isinstance(found, Stop):
                    for note in found.notes:
                        self._say(f"{label}: {note}")
                    reasons.append(told)
                    del plans[label]
                else:
                    rounds[label] = found
            wanted = {merge.key: merge for one in rounds.values() for merge in one.merges}
            self._measure(list(wanted.values()), size, store, executor)
            for label, one in rounds.items():
                got = [store.get(merge) for merge in one.merges]
                seen[label] |= {m.merge.key: m for m in got if m is not None}
            store.write_table()
        return reasons

    def _name(self, size: int) -> str:
        """A base's size, where there are several."""
        sizes = self._checked.pool.sizes
        return f"{format_count(sizes[size].count_params())}, " if len(sizes) > 1 else ""

    def _next(self, plan: Plan, store: RunStore, seen: dict[str, Measured]) -> Round | Stop:
        each = self._checked.texts[plan.size].n_tokens
        seconds = sum(sum(one.seconds) for one in seen.values())
        spent = Spent(len(seen), each * len(seen), seconds)
        if not seen:
            return next_round(Measurements((), ""), plan, spent)
        return next_round(store.measurements(seen.values()), plan, spent)

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
