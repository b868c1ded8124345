"""What a calibration takes, before anything is measured."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mergeplan.calibration.automatic_slopes import SlopesForecast, what_slopes_take
from mergeplan.calibration.curve_rounds import curve_forecast
from mergeplan.calibration.going_on import go_on
from mergeplan.calibration.identity import RunIdentity
from mergeplan.calibration.limits import Spending
from mergeplan.calibration.limits import SpendingRange as Part
from mergeplan.calibration.options import CalibrateOptions, also_merges, plans_of, settle
from mergeplan.calibration.preflight import CheckedCalibration
from mergeplan.calibration.run_folder import recorded_in
from mergeplan.calibration.sizes import in_order, not_alike
from mergeplan.calibration.subset_begin import subset_forecast
from mergeplan.calibration.subset_plan import SubsetPlan
from mergeplan.evaluation.measured import WITH_SLOPES, MeasuredMerge, read_scores
from mergeplan.selection.geometry import GEOMETRY


@dataclass(frozen=True)
class SizeForecast:
    """What one base of several takes; `leaning` where it leans on a smaller one, and `not_alike`
    where it would, and which experts stand against it."""

    n_params: float
    least: Spending
    most: Spending
    leaning: bool
    not_alike: str = ""


@dataclass(frozen=True)
class CalibrationForecast:
    """What a calibration takes, before anything is measured.

    Attributes:
        least: With the first rounds alone.
        most: Where every subset is measured, or the budget ends.
        kept: Merges that the folder holds already, of those that are counted.
        seconds_each: Of one merge with its evaluation, from what the folder holds; else `None`.
        sizes: Least and most of each base, in the order in which they are measured.
        compared_bytes: Of the weights that are read to compare the experts; 0 where they are not.
        slopes: Of each base, where all merges are measured with slopes by this process.
    """

    least: Spending
    most: Spending
    kept: int
    seconds_each: float | None
    sizes: tuple[SizeForecast, ...] = ()
    compared_bytes: int = 0
    slopes: tuple[SlopesForecast, ...] = ()


def forecast_calibration(
    pool_file: Path, folder: Path, options: CalibrateOptions
) -> CalibrationForecast:
    """What `calibrate` would take; everything is checked, and nothing is measured or written.

    Args:
        pool_file: A `POOL.yml`.
        folder: Of the run, which need not be there; what was measured in it is not measured again.
        options: As for `calibrate`.

    Returns:
        The least and the most, in all and of each base.

    Raises:
        InputError: As for `calibrate`.
    """
    options, checked = settle(pool_file, folder, options)
    before = recorded_in(folder)
    kept = read_scores(folder) if before is not None else []
    if before is not None and kept:
        go_on(folder, before, checked.identity)
    mean = sum(sum(one.seconds) for one in kept) / len(kept) if kept else 0.0
    found, sizes = [], []
    for size in in_order(checked.pool, leaning=options.leaning):
        own, leaning = _at(checked, options, size, _seconds(kept, checked, size))
        found += own
        least, most = _sum(one.least for one in own), _sum(one.most for one in own)
        n_params = checked.pool.sizes[size].count_params()
        why = not_alike(checked.pool, size) if options.leaning else ""
        if options.listed is None:
            sizes.append(SizeForecast(n_params, least, most, leaning, why))
    least, most = _sum(one.least for one in found), _sum(one.most for one in found)
    compared = options.choosing is not None and not (folder / GEOMETRY).is_file()
    return CalibrationForecast(
        least,
        most,
        len(kept),
        mean if kept else None,
        tuple(sizes),
        compared_bytes=_weight_bytes(checked.identity) if compared else 0,
        slopes=forecast_slopes(checked, options),
    )


def forecast_slopes(
    checked: CheckedCalibration, options: CalibrateOptions
) -> tuple[SlopesForecast, ...]:
    """What slopes take, where all merges are to have them.

    Raises:
        InputError: A model cannot run backward.
        SurroundingsError: Gradients do not go into the memory.
    """
    if not options.gradients or options.ray is not None:
        return ()
    sizes = range(len(checked.pool.sizes))
    return tuple(what_slopes_take(checked, options.setup, n, checked.labels[0]) for n in sizes)


def most_of(checked: CheckedCalibration, options: CalibrateOptions) -> Spending:
    """The most merges and tokens that a calibration takes, whatever was measured already.

    Raises:
        InputError: As for the first round.
    """
    sizes = range(len(checked.pool.sizes))
    return _sum(part.most for size in sizes for part in _at(checked, options, size)[0])


def _at(
    checked: CheckedCalibration, options: CalibrateOptions, size: int, seconds_each: float = 0.0
) -> tuple[list[Part], bool]:
    """What a size takes by each method and by what is named, and whether it leans on another."""
    tokens = checked.texts[size].n_tokens
    found, leaning = [], False
    for plan in plans_of(checked, options, size) if options.listed is None else ():
        if isinstance(plan, SubsetPlan):
            leaning = plan.leaning
            found.append(subset_forecast(plan, tokens_each=tokens, seconds_each=seconds_each))
        else:
            found.append(curve_forecast(plan, tokens_each=tokens, seconds_each=seconds_each))
    tokens *= WITH_SLOPES if options.gradients else 1
    # Every method's merges are counted with the base, which is measured once.
    again = -max(len(found) - 1, 0)
    base = Spending(again, again * tokens, again * seconds_each)
    named = sum(merge.size == size for merge in options.listed or ())
    named += len(also_merges(checked, options, size))
    once = Spending(named, named * tokens, named * seconds_each)
    return [*found, Part(base, base), Part(once, once)], leaning


def _weight_bytes(identity: RunIdentity) -> int:
    """Of all models; settings, which have no header, are read besides."""
    return sum(file.stat[0] for file in identity.files() if file.header)


def _seconds(kept: Sequence[MeasuredMerge], checked: CheckedCalibration, size: int) -> float:
    """Of one merge at a base: of its own mean, or by the parameters of those that were measured."""
    own = [one for one in kept if one.merge.size == size]
    seconds = sum(sum(one.seconds) for one in own or kept)
    counts = [one.count_params() for one in checked.pool.sizes]
    work = sum(counts[one.merge.size] for one in own or kept)
    return seconds / work * counts[size] if work else 0.0


def _sum(parts: Iterable[Spending]) -> Spending:
    every = list(parts)
    return Spending(
        sum(part.merges for part in every),
        sum(part.tokens for part in every),
        sum(part.seconds for part in every),
    )
