"""The end of a calibration: the verdict on what was measured, and what it asks for."""

import json
from collections.abc import Callable, Sequence

from mergeplan.calibration.options import CalibrateOptions
from mergeplan.calibration.store import RunStore
from mergeplan.config.transfer import AUTO
from mergeplan.evaluation.measured import MeasuredMerge
from mergeplan.evaluation.resampling import Resampling
from mergeplan.measurements.metrics import rows_of_known_items, targets_of
from mergeplan.measurements.rows import Measurement
from mergeplan.pool.file import BASE
from mergeplan.pool.pool import Pool
from mergeplan.pool.subsets import SubsetMerge, canonical_options, subset_merge
from mergeplan.system.blas import on_one_thread
from mergeplan.verdict.answer import predictions
from mergeplan.verdict.contenders import Contender
from mergeplan.verdict.decide import decide
from mergeplan.verdict.field import Question
from mergeplan.verdict.verdict import Verdict

Command = Callable[[Sequence[Contender]], str]


@on_one_thread
def verdict_on(
    measured: Sequence[MeasuredMerge],
    store: RunStore,
    options: CalibrateOptions,
    command: Command = lambda _: "",
    smaller: Sequence[Measurement] = (),
) -> Verdict | None:
    """What some of a run's merges come to.

    Args:
        measured: The merges with their scores.
        store: The run's, of which they are.
        options: What the run is for.
        command: Says how some merges are measured.
        smaller: Rows of smaller sizes to lean on, of which nothing else is said.

    Returns:
        The verdict; `None` before any merge was measured.
    """
    rows = rows_of_known_items(store.measurements(measured).rows)
    if not any(row.k for row in rows):
        return None
    choosing = options.choosing
    aim = targets_of(choosing.domains if choosing else None, store.metric)
    target = None if choosing else options.wish.target_loss
    resampling = Resampling.of(measured, store.metric)
    own = {row.n_params for row in rows}
    transfer = choosing.transfer if choosing else AUTO
    fits = predictions([*smaller, *rows], aim, store.grams, transfer)
    return decide(
        rows,
        [one for one in fits.found if one.table.n_params in own],
        Question(aim, target, confidence=options.wish.confidence),
        unfitted=fits.unfitted,
        resampling=resampling,
        seconds_each=resampling.seconds_each,
        command=command,
    )


@on_one_thread
def still_to_measure(
    verdict: Verdict | None, pool: Pool, size: int, labels: Sequence[str], seed: int
) -> list[SubsetMerge]:
    """The merges that a verdict asks for, of those that this run can measure."""
    if verdict is None or verdict.to_measure is None:
        return []
    found = []
    for one in verdict.to_measure.merges:
        merge = one.merge
        if merge.method in labels and merge.equal:
            asked = subset_merge(pool, size, merge.method, merge.subset, seed=seed)
            if asked.options == merge.options:
                found.append(asked)
    return found


def as_subset(contender: Contender, measured: Sequence[MeasuredMerge]) -> SubsetMerge | None:
    """The merge of a run that a contender is; `None` where the run has none such."""
    if contender.key is not None:
        return next((o.merge for o in measured if o.merge.merge_key == contender.key), None)
    merge = contender.merge
    alike = next((o.merge for o in measured if o.merge.n_params == merge.n_params), None)
    if alike is None or not merge.equal or merge.n_params is None:
        return None
    seeds = {o.merge.seed for o in measured if o.merge.method == merge.method}
    return SubsetMerge(
        alike.size,
        merge.n_params,
        merge.method if merge.k else BASE,
        canonical_options(json.loads(merge.options)),
        merge.subset,
        max(seeds, default=0),
    )
