"""What is checked before a calibration measures anything."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mergeplan.calibration.going_on import (
    DTYPE,
    HALF,
    LORA_EXACT,
    MAX_TOKENS,
    SEED,
    WINDOWS,
)
from mergeplan.calibration.identity import RunIdentity, models_of
from mergeplan.calibration.setup import Setup, measure_of
from mergeplan.calibration.worker import load_for
from mergeplan.config.config import parse_config
from mergeplan.config.labels import method_of
from mergeplan.config.write import to_yaml
from mergeplan.errors import InputError
from mergeplan.evaluation.halves import UNGROUPED
from mergeplan.evaluation.harness import Tasks, check_tasks, try_tasks
from mergeplan.evaluation.loading import load_tokenizer
from mergeplan.evaluation.measure import Measure
from mergeplan.evaluation.options import BY_DOCUMENT
from mergeplan.evaluation.own_documents import OwnDocuments
from mergeplan.evaluation.task_items import TaskItems
from mergeplan.merging.options import DEFAULT_SHARD_BYTES
from mergeplan.planning.options import PlanOptions
from mergeplan.planning.planner import build_plan
from mergeplan.pool.bases import check_bases
from mergeplan.pool.pool import Pool
from mergeplan.pool.sampling import check_ks
from mergeplan.pool.subsets import subset_merge
from mergeplan.pool.vocabularies import check_vocabularies


@dataclass(frozen=True)
class CheckedCalibration:
    """A calibration that can begin.

    Attributes:
        texts: Encoded texts of each size.
        tasks: Loaded with their data; `None` where none are asked for.
        warnings: Documents that cannot be scored, halves that are not independent, vocabularies
            that differ, adapters whose own base is not here, files that are read unasked or passed
            over.
        by_values: Why merges are measured without slopes where nothing was said of them; empty
            where some are measured with them, or where it was said.
    """

    pool: Pool
    labels: tuple[str, ...]
    texts: tuple[Measure, ...]
    identity: RunIdentity
    tasks: Tasks | None
    warnings: tuple[str, ...]
    by_values: str = ""

    def where(self, name: str, value: object) -> "CheckedCalibration":
        """The same with one more option that decides what a loss is."""
        arithmetic = {**self.identity.arithmetic, name: value}
        return replace(self, identity=replace(self.identity, arithmetic=arithmetic))


def check_calibration(
    pool: Pool,
    labels: tuple[str, ...],
    setup: Setup,
    ks: tuple[int, ...] = (),
    tried: Collection[int] = (),
) -> CheckedCalibration:
    """Open every header and encode every text, and lower the merge of all experts.

    Args:
        labels: Methods of the pool to calibrate; none for all.
        ks: Sizes of subsets that are asked for.
        tried: Sizes on whose base the scorer and the tasks have run already.

    Raises:
        InputError: A method or a k is not in the pool, a pool has one expert or no texts, models do
            not fit each other, or a text is at fault.
    """
    labels = labels or tuple(pool.methods)
    allow = setup.allow_vocabulary_mismatch
    if not (pool.data or setup.evaluation.scorer or setup.tasks):
        raise InputError(
            "the pool has no `data`: there is nothing to measure losses on",
            "list each domain's held-out texts under `data`, or measure by `--tasks` or `--scorer`",
        )
    bases = check_bases(pool)
    vocabularies = check_vocabularies(pool, allow=allow)
    files: dict[str, None] = {}
    for number, size in enumerate(pool.sizes):
        if len(size.experts) < 2:
            raise InputError(
                f"`sizes[{number}].experts`: expected two experts or more, found one",
                "with one expert there is nothing to merge",
            )
        check_ks(ks, len(size.experts))
        for label in labels:
            merge = subset_merge(pool, number, label, size.experts)
            config = parse_config(to_yaml(merge.config(pool)))
            options = PlanOptions(allow_vocabulary_mismatch=allow)
            plan = build_plan(config, seed=0, max_shard_bytes=DEFAULT_SHARD_BYTES, options=options)
            files |= dict.fromkeys(text for one in plan.checkpoints for text in one.warnings)
    tasks = check_tasks(setup.tasks) if setup.tasks else None
    texts = tuple(measure_of(pool, size, setup, tasks) for size in range(len(pool.sizes)))
    if setup.evaluation.scorer is not None or tasks is not None:
        for number, measure in enumerate(texts):
            if number not in tried:
                _try_on_base(pool.sizes[number].base, measure, tasks, setup)
    evaluation = setup.evaluation
    identity = RunIdentity(
        models=models_of(pool),
        texts={f"the text of size {n + 1}": one.sha256[:16] for n, one in enumerate(texts)},
        arithmetic={
            DTYPE: setup.dtype,
            MAX_TOKENS: evaluation.max_tokens,
            SEED: evaluation.seed,
            HALF: evaluation.half,
            WINDOWS: [evaluation.max_length, evaluation.stride],
            # Only where it is set: earlier runs do not name it.
            **({LORA_EXACT: True} if setup.lora_exact else {}),
            **({"`--scorer`": evaluation.scorer.sha256} if evaluation.scorer else {}),
            **(tasks.identity if tasks else {}),
            **_own_methods(pool, labels),
        },
        halves=texts[0].cut,
        metric=texts[0].metric,
        higher=texts[0].higher,
    )
    left_out = dict.fromkeys(fault for one in texts for fault in one.left_out)
    by_text = not isinstance(texts[0], TaskItems)
    ungrouped = [UNGROUPED] if identity.halves == BY_DOCUMENT and by_text else []
    warnings = (*bases, *vocabularies, *files, *left_out, *texts[0].faults, *ungrouped)
    return CheckedCalibration(pool, labels, texts, identity, tasks, warnings)


def _own_methods(pool: Pool, labels: Sequence[str]) -> dict[str, str]:
    """The code of the methods that are the user's own."""
    methods = [method_of(label, pool.methods[label])[0] for label in labels]
    return {f"method `{one.name}`": one.code.sha256 for one in methods if one.code is not None}


def _try_on_base(base: Path, measure: Measure, tasks: Tasks | None, setup: Setup) -> None:
    """A scorer on all documents, and tasks on a few of each, before the run begins."""
    model = load_for(base, setup)
    measure.check(model)
    if isinstance(measure, OwnDocuments):
        measure.check_whole(model)
    found = try_tasks(tasks, model, load_tokenizer(base)) if tasks is not None else []
    if isinstance(measure, TaskItems):
        measure.items_of(found)
