"""Which dtype a run has whose `--dtype` is `auto`: see `dtype_trial`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mergeplan.calibration.curve_rounds import Round, next_round
from mergeplan.calibration.dtype_rule import Asked
from mergeplan.calibration.dtype_trial import (
    BFLOAT16,
    FLOAT32,
    LEAST_WORK,
    DtypeTrial,
    may_try,
    spread,
    work_of,
)
from mergeplan.calibration.going_on import AUTO_DTYPE
from mergeplan.calibration.limits import Budget, Spending
from mergeplan.calibration.options import CalibrateOptions, plans_of
from mergeplan.calibration.parts_wanted import parts_wanted, upto_part
from mergeplan.calibration.preflight import CheckedCalibration
from mergeplan.calibration.setup import Setup
from mergeplan.calibration.store import RunStore
from mergeplan.calibration.subset_plan import SubsetPlan, sloped_first
from mergeplan.calibration.subset_rounds import next_subset_round
from mergeplan.checkpoints.opening import open_stored
from mergeplan.evaluation.measured import MeasuredMerge
from mergeplan.evaluation.options import DTYPES
from mergeplan.evaluation.parts import N_PARTS
from mergeplan.measurements.metrics import domains_of, targets_of
from mergeplan.measurements.rows import MACRO, Measurements, target_name
from mergeplan.pool.subsets import SubsetMerge

# What scores merges of a size by a setup.
MakeExecutor = Callable[[int, Setup], Any]
_Rounds = Mapping[int, Mapping[SubsetMerge, int]]


@dataclass(frozen=True)
class DtypeOfRun:
    """What `auto` is.

    Attributes:
        options: The run's, with that dtype.
        words: It, and why.
        trial: Where both were.
        measured: Merges of the trial, kept in the run's store now.
    """

    options: CalibrateOptions
    words: str
    trial: DtypeTrial | None = None
    measured: tuple[MeasuredMerge, ...] = ()


def settle_dtype(
    checked: CheckedCalibration,
    options: CalibrateOptions,
    store: RunStore,
    make_executor: MakeExecutor,
    say: Callable[[str], object],
) -> DtypeOfRun:
    """Find out what `auto` is: as the run began, or by a trial before it measures anything."""
    identity = store.folder.identity
    settled = identity.arithmetic.get(AUTO_DTYPE)
    if settled is None and options.setup.dtype != "auto":
        return DtypeOfRun(options, f"{options.setup.dtype}: by `--dtype`")
    if settled is None and (store.all() or not may_try(options.setup)):
        return _untried(checked, options, store)
    asked = _asked(options, store)
    trial = DtypeTrial(store.folder, identity)
    if settled is None and not trial.head.dtype:
        sizes = range(len(checked.pool.sizes))
        rounds = {size: some for size in sizes if (some := _first(checked, options, size))}
        tried = {size: spread(some) for size, some in rounds.items()}
        if not tried or not all(tried.values()) or _work(checked, rounds) < LEAST_WORK:
            return _untried(checked, options, store)
        say("scoring some merges in float32, and in bfloat16, which may be faster")
        scored = partial(_scored, rounds, options.setup, make_executor)
        trial.run(tried, scored, options.budget, asked)
    if settled is None:
        settled = trial.head.dtype
        store.folder.record(AUTO_DTYPE, settled)
    options = replace(options, setup=replace(options.setup, dtype=settled))
    if trial.head.dtype != settled:
        return DtypeOfRun(options, f"{settled}: as this run began")
    words = f"{settled}: {trial.head.why}"
    if settled == BFLOAT16 and (fault := trial.compare(asked).fault):
        # A run has one dtype, and may be asked for something else than at first.
        words = f"{settled}, as this run began; by what is asked now a decision may change: {fault}"
    say(words)
    found = trial.found[settled].values()
    sloped = _sloped(checked, options) if settled == FLOAT32 else ()
    new = [one for one in found if store.get(one.merge) is None and one.merge not in sloped]
    for one in new:
        store.add(one)
    return DtypeOfRun(options, words, trial, tuple(new))


def _untried(checked: CheckedCalibration, options: CalibrateOptions, store: RunStore) -> DtypeOfRun:
    """`auto` without a trial: float32 on a CPU, and what the bases say elsewhere."""
    if options.setup.on_cpu():
        dtype, why = FLOAT32, "as `auto` is on a CPU without a trial of bfloat16"
    else:
        configs = [open_stored(str(size.base)).config for size in checked.pool.sizes]
        own = {str(one.get("dtype") or one.get("torch_dtype")) for one in configs}
        dtype, why = own.pop(), "the base's own"
        if own or dtype not in DTYPES:
            return DtypeOfRun(options, "auto: each base's own dtype")
    if store.all():
        # Of an earlier version: where it began, nobody wrote down.
        return DtypeOfRun(options, f"{dtype}: {why}")
    store.folder.record(AUTO_DTYPE, dtype)
    return DtypeOfRun(
        replace(options, setup=replace(options.setup, dtype=dtype)), f"{dtype}: {why}"
    )


def _asked(options: CalibrateOptions, store: RunStore) -> Asked:
    """All that counts together, and where several domains do, each by itself."""
    choosing, metric = options.choosing, store.metric
    aim = targets_of(choosing.domains if choosing else None, metric)
    whole = aim or target_name(metric, MACRO)
    each = [target_name(metric, name) for name in domains_of(whole, metric)]
    target = None if choosing else options.wish.target_loss
    aims = (whole, *(each if len(each) > 1 else ()))
    return Asked(aims, metric, store.folder.identity.higher, target)


def _first(
    checked: CheckedCalibration, options: CalibrateOptions, size: int
) -> dict[SubsetMerge, int]:
    """The merges of the first rounds, each up to its part of the texts."""
    if options.listed is not None:
        return {one: N_PARTS for one in options.listed if one.size == size}
    found: dict[SubsetMerge, int] = {}
    # A budget of time or tokens allows one merge, to find out what it takes.
    options = replace(options, budget=Budget(merges=options.budget.merges))
    nothing = Measurements((), "")
    for plan in plans_of(checked, options, size):
        if isinstance(plan, SubsetPlan):
            begun = next_subset_round(nothing, replace(plan, leaning=False), Spending())
        else:
            begun = next_round(nothing, plan, Spending())
        if isinstance(begun, Round):
            found |= parts_wanted(checked, begun, {}, partly=options.partly)
    return found


def _sloped(checked: CheckedCalibration, options: CalibrateOptions) -> set[SubsetMerge]:
    """Merges that are measured anew with slopes, which the trial's have not."""
    return {
        merge
        for size in range(len(checked.pool.sizes))
        for plan in plans_of(checked, options, size)
        if isinstance(plan, SubsetPlan)
        for merge in sloped_first(plan)
    }


def _work(checked: CheckedCalibration, rounds: _Rounds) -> float:
    """Multiplications and additions of scoring some merges."""
    return sum(
        2 * checked.pool.sizes[size].count_params() * work_of(checked.texts[size]) * len(some)
        for size, some in rounds.items()
    )


def _scored(
    rounds: _Rounds,
    setup: Setup,
    make_executor: MakeExecutor,
    size: int,
    dtype: str,
    merges: Sequence[SubsetMerge],
) -> Iterator[MeasuredMerge]:
    """Score merges in a dtype, each up to its part of the texts."""
    executor = make_executor(size, replace(setup, dtype=dtype))
    upto = {merge.key: upto_part(rounds[size][merge]) for merge in merges}
    parts = [None if n is None else range(n) for n in upto.values()]
    try:
        for one in executor.measure(merges, range(len(merges)), parts):
            yield replace(one, parts=upto[one.merge.key])
    finally:
        if hasattr(executor, "close"):
            executor.close()
