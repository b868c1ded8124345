"""Whether merges are measured with slopes where nothing was said of them.

A merge with slopes takes `WITH_SLOPES` forward passes and says one number more for each expert. By
the passes until the best subset is sure, on complete sweeps (docs/evidence/select.md), what pays is
a few of them, `subset_plan.sloped_first`, and values of everything else.
"""

from dataclasses import dataclass, replace

from mergeplan.calibration.going_on import GRADIENTS
from mergeplan.calibration.identity import RunIdentity
from mergeplan.calibration.preflight import CheckedCalibration
from mergeplan.calibration.setup import Setup
from mergeplan.calibration.sizes import smaller_sizes
from mergeplan.calibration.worker import load_for, meter_of
from mergeplan.config.labels import elects, has_slopes
from mergeplan.errors import InputError, MergeplanError
from mergeplan.evaluation.texts import Texts
from mergeplan.pool.pool import Pool
from mergeplan.pool.subsets import subset_merge

# With fewer, values take no more passes: 16 of five experts, and 19 with slopes; of six 25 and 20.
LEAST_EXPERTS = 6
# What `run.json` says of a run to which nothing was said; of one that was asked, true.
WHERE_THEY_PAY = "where they pay"


@dataclass(frozen=True)
class SlopesForecast:
    """What the slopes of each merge take at a size.

    Attributes:
        n_params: Of its base.
        reads: How often base and experts are read.
        read_bytes: What those reads go over.
        memory_bytes: Beside the model, at most.
    """

    n_params: float
    reads: int
    read_bytes: int
    memory_bytes: int


def slopes_pay(pool: Pool, size: int, label: str, *, leaning: bool) -> bool:
    """Whether some merges of a method at a size are measured with slopes, if that can be done.

    Args:
        leaning: Whether larger sizes may lean on smaller ones: one that does begins with few merges
            already.
    """
    leans = leaning and bool(smaller_sizes(pool, size))
    enough = len(pool.sizes[size].experts) >= LEAST_EXPERTS
    return enough and not leans and exact_slopes(pool, label)


def exact_slopes(pool: Pool, label: str) -> bool:
    """Whether slopes of a method are worth their passes: an approximation is not."""
    options = pool.methods[label]
    return has_slopes(label, options) and not elects(label, options)


def settle_slopes(
    checked: CheckedCalibration,
    wanted: bool | None,
    before: RunIdentity | None,
    *,
    partly: bool,
    cluster: bool,
) -> tuple[bool | None, CheckedCalibration]:
    """Whether merges have slopes, as far as it can be told before a search for the best subset.

    Args:
        wanted: What the user said.
        before: What a run that goes on has recorded: it goes on as it began, unless told otherwise.
        partly: Whether merges are scored on parts of the documents.
        cluster: Whether they are on a Ray cluster.

    Returns:
        As it was said, or `None` where a few may have them; with what to record.

    Raises:
        InputError: All are to have them, and a method has none, or approximate ones.
    """
    recorded = None if before is None else before.arithmetic.get(GRADIENTS, False)
    if wanted is None and recorded is None:
        why = _why_not(checked, partly=partly, cluster=cluster)
        return (False, replace(checked, by_values=why)) if why else (None, checked)
    if wanted is None and not recorded:
        return False, replace(checked, by_values="so this run began")
    if wanted is None:
        wanted = None if recorded == WHERE_THEY_PAY else True
    if wanted is False:
        return False, checked
    if wanted:
        _refuse_without_slopes(checked)
    return wanted, checked.where(GRADIENTS, wanted or WHERE_THEY_PAY)


def _refuse_without_slopes(checked: CheckedCalibration) -> None:
    methods = checked.pool.methods
    known = [one for one in methods if exact_slopes(checked.pool, one)]
    hint = (f"take `--method {known[0]}`, or " if known else "") + "leave out `--gradients`"
    for label in checked.labels:
        if not has_slopes(label, methods[label]):
            raise InputError(f"`{label}` is a method of your own: it has no slopes", hint)
        if elects(label, methods[label]):
            raise InputError(
                f"merges by `{label}` elect signs: slopes along their weights are approximate, and"
                " three merges by their values tell more of the others than one with slopes",
                hint,
            )


def _why_not(checked: CheckedCalibration, *, partly: bool, cluster: bool) -> str:
    pool = checked.pool
    if partly:
        return "they are of the losses on all documents"
    if not all(isinstance(texts, Texts) for texts in checked.texts):
        return "they are of losses on texts"
    if not any(exact_slopes(pool, label) for label in checked.labels):
        return "of methods that elect signs, and of your own, none are taken"
    if max(len(size.experts) for size in pool.sizes) < LEAST_EXPERTS:
        return f"of fewer than {LEAST_EXPERTS} experts they save nothing"
    if cluster:
        return "what memory the cluster's nodes have for them is not known"
    return ""


def why_not_here(checked: CheckedCalibration, setup: Setup, *, leaning: bool) -> str:
    """What stands against slopes by models and memory, which are tried; empty where nothing does.

    Args:
        setup: With the dtype that `auto` is.
        leaning: As for `slopes_pay`.
    """
    pool = checked.pool
    if setup.dtype != "float32":
        return f"what they save was measured in float32, and this is {setup.dtype}"
    for size in range(len(pool.sizes)):
        labels = [one for one in checked.labels if slopes_pay(pool, size, one, leaning=leaning)]
        for label in labels[:1]:
            try:
                what_slopes_take(checked, setup, size, label)
            except MergeplanError as error:
                return error.message
    return ""


def what_slopes_take(
    checked: CheckedCalibration, setup: Setup, size: int, label: str
) -> SlopesForecast:
    """What a method's slopes take at a size, whose base is loaded and runs backward once.

    Raises:
        InputError, SurroundingsError: As for `meter_of`.
    """
    own = checked.pool.sizes[size]
    every = subset_merge(checked.pool, size, label, own.experts)
    meter = meter_of(checked.pool, every, load_for(own.base, setup), checked.texts[size], setup)
    held = meter.holding
    return SlopesForecast(own.count_params(), held.n_reads, held.read_bytes, held.memory_bytes)
