"""The rounds of a run: ask what to measure, measure it, ask again, until nothing is asked for."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from mergeplan.calibration.automatic_slopes import WHERE_THEY_PAY, why_not_here
from mergeplan.calibration.closing import still_to_measure, verdict_on
from mergeplan.calibration.curve_rounds import CurvePlan, Round, Stop, next_round
from mergeplan.calibration.dtype_of_run import settle_dtype
from mergeplan.calibration.dtype_trial import DtypeTrial
from mergeplan.calibration.forecast import most_of
from mergeplan.calibration.going_on import AUTO_DTYPE, GRADIENTS
from mergeplan.calibration.held_back import HeldBack, Measure, held_back
from mergeplan.calibration.limits import Budget, Spending, affordable
from mergeplan.calibration.options import (
    CalibrateOptions,
    also_merges,
    plans_of,
)
from mergeplan.calibration.parts_wanted import parts_wanted, reached, upto_part
from mergeplan.calibration.preflight import CheckedCalibration
from mergeplan.calibration.run_folder import RunFolder
from mergeplan.calibration.setup import Setup, hash_texts
from mergeplan.calibration.sizes import smaller_sizes
from mergeplan.calibration.store import RunStore
from mergeplan.calibration.subset_plan import SubsetPlan
from mergeplan.calibration.subset_rounds import next_subset_round
from mergeplan.calibration.worker import Worker
from mergeplan.config.labels import method_of
from mergeplan.config.seed import seed_of
from mergeplan.display.text import counted, format_count
from mergeplan.evaluation.measured import MeasuredMerge
from mergeplan.evaluation.parts import N_PARTS
from mergeplan.evaluation.resampling import Resampling
from mergeplan.measurements.metrics import rows_of_known_items
from mergeplan.measurements.rows import Measurement, Measurements
from mergeplan.pool.file import BASE
from mergeplan.pool.subsets import SubsetMerge
from mergeplan.selection.table import LINEAR
from mergeplan.system.progress import Progress
from mergeplan.verdict.verdict import Verdict

Say = Callable[[str], None]
# Told what is measured, also of earlier, and what a run takes at most.
EachMerge = Callable[[Spending, Spending], object]
# A round of no more merges is spelt out.
_FEW = 8
# Rounds in which the verdict's own merges are measured: then it stands on what is known.
_CLOSING_ROUNDS = 4


class Executor(Protocol):
    """Measures merges of one size, in any order."""

    def measure(
        self,
        merges: Sequence[SubsetMerge],
        some: Sequence[int],
        parts: Sequence[range | None] | None = None,
        slopes: Collection[int] = (),
    ) -> Iterator[MeasuredMerge]: ...


class Run:
    """The rounds of all methods, one size after the other."""

    def __init__(
        self,
        checked: CheckedCalibration,
        options: CalibrateOptions,
        say: Say,
        progress: Progress | None,
        each_round: Callable[[RunFolder], object] = lambda _: None,
        each_merge: EachMerge | None = None,
    ) -> None:
        self._checked, self._options, self._say = checked, options, say
        self._each_round = each_round
        self._progress, self._each_merge = progress, each_merge
        self._most: Spending | None = None
        # Of each merge that was asked for, how many tokens it was scored on.
        self._scored: dict[str, int] = {}
        self._noted: set[str] = set()
        self.measured: list[MeasuredMerge] = []
        # What the rounds had measured at each size: a larger one may lean on it.
        self._rows: dict[int, tuple[Measurement, ...]] = {}
        self._trial: DtypeTrial | None = None
        self._ray: Any = None
        if options.ray is not None:
            from mergeplan.calibration.crew import check_paths
            from mergeplan.system.ray import connect

            self._ray = connect(options.ray)
            check_paths(self._ray, checked.pool)

    def settle_dtype(self, store: RunStore) -> str:
        """Find out what `--dtype auto` is; in words."""
        gpus = self._ray is not None and self._ray.cluster_resources().get("GPU", 0)
        settled = AUTO_DTYPE in store.folder.identity.arithmetic
        if gpus and self._options.setup.dtype == "auto" and not settled:
            return "auto: float32 on CPUs, the base's own on GPUs"
        found = settle_dtype(self._checked, self._options, store, self._executor, self._say)
        self._options, self._trial = found.options, found.trial
        self.measured += found.measured
        return found.words

    def settle_slopes(self, store: RunStore) -> None:
        """Find out whether a few merges have slopes, where nothing was said of them."""
        options, why = self._options, self._checked.by_values
        if options.gradients is None and GRADIENTS not in store.folder.identity.arithmetic:
            why = why_not_here(self._checked, options.setup, leaning=options.leaning)
            if why:
                self._options = replace(options, gradients=False)
            else:
                store.folder.record(GRADIENTS, WHERE_THEY_PAY)
        if why:
            self._say(f"without slopes: {why}")

    def _budget(self, size: int) -> Budget:
        """Of each method, without what trying another dtype took."""
        budget = self._options.budget
        return budget if self._trial is None else budget.less(self._trial.spent(size))

    def of(self, size: int, store: RunStore) -> list[str]:
        """Measure what there is to measure at a size; returns why each method stopped."""
        executor = _Lazy(lambda: self._executor(size))
        try:
            if self._options.listed is None:
                return self._to_the_end(size, store, executor)
            listed = [merge for merge in self._options.listed if merge.size == size]
            listed += also_merges(self._checked, self._options, size)
            self._say(f"{self._name(size)}{len(listed)} merges are listed")
            self._measure(dict.fromkeys(listed, N_PARTS), size, store, executor)
            return []
        finally:
            executor.close()

    def _to_the_end(self, size: int, store: RunStore, executor: "_Lazy") -> list[str]:
        """By rounds, what was named beside them, and what the verdict then asks for.

        The verdict here looks only at what this question had measured, as the rounds do: a run
        that was killed asks for the same again.
        """
        reasons, seen = self._by_rounds(size, store, executor)
        smaller = self._smaller(size)
        self._rows[size] = rows_of_known_items(store.measurements(seen.values()).rows)

        def measure(wanted: list[SubsetMerge]) -> None:
            # What the verdict sets its merge against is scored on everything.
            self._measure(dict.fromkeys(wanted, N_PARTS), size, store, executor)
            seen.update({merge.key: m for merge in wanted if (m := store.get(merge)) is not None})

        measure(also_merges(self._checked, self._options, size))
        seed, _ = seed_of(self._checked.pool.random_seed, self._options.seed, "the pool")
        for _ in range(0 if self._options.ks else _CLOSING_ROUNDS):
            verdict = verdict_on(list(seen.values()), store, self._options, smaller=smaller)
            labels = self._checked.labels
            asked = still_to_measure(verdict, self._checked.pool, size, labels, seed)
            wanted = [one for one in asked if getattr(seen.get(one.key), "parts", 0) is not None]
            wanted = wanted[: self._left(list(seen.values()), wanted)]
            if not wanted:
                break
            names = ", ".join("+".join(merge.subset) for merge in wanted)
            if any(store.at(merge, None) is None for merge in wanted):
                self._say(f"{self._name(size)}the verdict asks for {names}")
            measure(wanted)
        return reasons

    def _left(self, own: Sequence[MeasuredMerge], wanted: Sequence[SubsetMerge]) -> int | None:
        """How many more merges of their method the budget allows; `None` without a limit."""
        if not wanted:
            return None
        some = [one for one in own if one.merge.method in (wanted[0].method, BASE)]
        return affordable(self._budget(wanted[0].size), _spent(some))

    def held_back(
        self, verdict: Verdict, measured: Sequence[MeasuredMerge], store: RunStore
    ) -> HeldBack | None:
        """The verdict's merge on the other half, where one half was measured."""
        half = self._options.setup.evaluation.half
        if half == "all":
            return None
        other = "check" if half == "selection" else "selection"
        evaluation = replace(self._options.setup.evaluation, half=other)
        setup = replace(self._options.setup, evaluation=evaluation, tasks=())
        pool = self._checked.pool
        texts = {size: hash_texts(pool, size, evaluation) for size in range(len(pool.sizes))}

        def measure(size: int) -> Measure:
            def scored(merges: Sequence[SubsetMerge]) -> list[MeasuredMerge]:
                self._say(f"{counted(len(merges), 'merges')} on the {other} half")
                executor = self._executor(size, setup)
                try:
                    return list(executor.measure(merges, range(len(merges))))
                finally:
                    if hasattr(executor, "close"):
                        executor.close()

            return scored

        return held_back(verdict, measured, store.folder, texts, measure)

    def _by_rounds(
        self, size: int, store: RunStore, executor: "_Lazy"
    ) -> tuple[list[str], dict[str, MeasuredMerge]]:
        """Why each method stopped, and what the rounds had measured."""
        options = replace(self._options, budget=self._budget(size))
        made = plans_of(self._checked, options, size, self._smaller(size))
        plans = {plan.label: plan for plan in made}
        seen: dict[str, dict[str, MeasuredMerge]] = {label: {} for label in plans}
        reasons = []
        while plans:
            wanted: dict[str, dict[SubsetMerge, int]] = {}
            sloped: set[SubsetMerge] = set()
            for label, plan in list(plans.items()):
                found = self._next(plan, store, seen[label])
                told = f"{self._name(size)}{label}: {found.reason}{_names(found)}"
                if isinstance(found, Stop):
                    self._say(told)
                    for note in found.notes:
                        if (said := f"{label}: {note}") not in self._noted:
                            self._noted.add(said)
                            self._say(said)
                    reasons.append(told)
                    del plans[label]
                else:
                    sloped |= set(found.sloped)
                    wanted[label] = parts_wanted(
                        self._checked, found, seen[label], partly=self._options.partly
                    )
                    # Of a round that an earlier run has measured nothing is said again.
                    if any(n > reached(store.get(one)) for one, n in wanted[label].items()):
                        self._say(told)
            merged = {merge: n for some in wanted.values() for merge, n in some.items()}
            self._measure(merged, size, store, executor, sloped)
            for label, some in wanted.items():
                got = [one for merge, n in some.items() if (one := store.at(merge, upto_part(n)))]
                seen[label] |= {m.merge.key: m for m in got}
                lost = [m for m in got if not math.isfinite(m.scores.macro().loss_nats)]
                if lost:
                    # The table has no row for it: the next round would ask for it again.
                    fault = (lost[0].scores.faults() or ["its mean is not finite"])[0]
                    reasons.append(f"{label}: `{lost[0].merge.key}`: {fault}")
                    self._say(reasons[-1])
                    del plans[label]
            store.write_table()
            self._each_round(store.folder)
        return reasons, {key: one for found in seen.values() for key, one in found.items()}

    def _smaller(self, size: int) -> list[Measurement]:
        """Rows of smaller sizes to lean on, where the best subset is asked for."""
        if not self._options.leaning:
            return []
        below = smaller_sizes(self._checked.pool, size)
        return [row for one in below for row in self._rows[one]]

    def _name(self, size: int) -> str:
        """A base's size, where there are several."""
        sizes = self._checked.pool.sizes
        return f"{format_count(sizes[size].count_params())}, " if len(sizes) > 1 else ""

    def _next(
        self, plan: CurvePlan | SubsetPlan, store: RunStore, seen: dict[str, MeasuredMerge]
    ) -> Round | Stop:
        spent = _spent(seen.values())
        measured = store.measurements(seen.values()) if seen else Measurements((), "")
        if isinstance(plan, SubsetPlan):
            resampling = Resampling.of(seen.values(), store.metric) if seen else None
            measured = replace(measured, rows=rows_of_known_items(measured.rows))
            some = tuple(seen.values())
            return next_subset_round(measured, plan, spent, resampling, store.grams, some)
        return next_round(measured, plan, spent)

    def _measure(
        self,
        wanted: Mapping[SubsetMerge, int],
        size: int,
        store: RunStore,
        executor: "_Lazy",
        sloped: Collection[SubsetMerge] = (),
    ) -> None:
        """Measure what is missing, each up to its part of the texts, and some with slopes."""
        merges = list(wanted)
        parts = [range(reached(store.get(merge)), wanted[merge]) for merge in merges]
        some = [number for number, own in enumerate(parts) if own]
        for merge in merges:
            self._count(store.get(merge))
        if not some:
            return
        at_once = not self._options.partly
        given = [None if at_once and own.start == 0 else own for own in parts]
        upto = {merge.key: upto_part(n) for merge, n in wanted.items()}
        every = [n for n in some if self._options.gradients and self._slopes(merges[n])]
        slopes = every or [n for n in some if merges[n] in sloped]
        for measured in executor.get().measure(merges, some, given, slopes):
            store.add(replace(measured, parts=upto[measured.merge.key]))
            self.measured.append(measured)
            self._count(store.get(measured.merge))
            self._tell()

    def _slopes(self, merge: SubsetMerge) -> bool:
        """Whether a merge is measured with slopes: the base where its deltas' own say something."""
        methods = self._checked.pool.methods
        return bool(merge.k) or any(
            method_of(label, methods[label])[0].name in LINEAR for label in self._checked.labels
        )

    def _count(self, measured: MeasuredMerge | None) -> None:
        if measured is not None:
            self._scored[measured.merge.key] = measured.n_tokens

    def _tell(self) -> None:
        """How far the run is: of what it takes at most, so that it never goes backwards."""
        if self._progress is None and self._each_merge is None:
            return
        self._most = self._most or most_of(self._checked, self._options)
        merges, tokens = len(self._scored), sum(self._scored.values())
        most = Spending(max(self._most.merges, merges), max(self._most.tokens, tokens))
        if self._progress:
            self._progress(tokens, int(most.tokens))
        if self._each_merge:
            self._each_merge(Spending(merges, tokens), most)

    def _executor(self, size: int, other: Setup | None = None) -> Any:
        """What measures merges of a size, as the options say or by another setup."""
        pool, setup = self._checked.pool, other or self._options.setup
        if self._ray is None:
            if setup.evaluation != self._options.setup.evaluation:
                return Worker(pool, size, setup)
            return Worker(pool, size, setup, self._checked.texts[size], self._checked.tasks)
        from mergeplan.calibration.cluster_executor import ClusterExecutor

        return ClusterExecutor(self._ray, pool, size, setup)


def _names(found: Round | Stop) -> str:
    """The subsets of a round, where they are few."""
    if isinstance(found, Stop) or len(found.merges) > _FEW:
        return ""
    return ": " + ", ".join("+".join(merge.subset) or "the base" for merge in found.merges)


def _spent(some: Collection[MeasuredMerge]) -> Spending:
    """Of what was measured so far."""
    tokens = sum(one.n_tokens for one in some)
    return Spending(len(some), tokens, sum(sum(one.seconds) for one in some))


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
