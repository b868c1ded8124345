"""Merges into loaded models and scores them: no checkpoint is written."""

import copy
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergeplan.calibration.setup import Setup, measure_of
from mergeplan.errors import InputError
from mergeplan.evaluation.harness import Tasks, check_tasks, run_tasks
from mergeplan.evaluation.loading import load_for_measure, load_tokenizer
from mergeplan.evaluation.measure import Measure
from mergeplan.evaluation.measured import MeasuredMerge, MergeSlopes
from mergeplan.evaluation.scores import Scores
from mergeplan.evaluation.task_items import TaskItems
from mergeplan.evaluation.texts import Texts
from mergeplan.merging.copies import Copies
from mergeplan.merging.slopes import Slopes
from mergeplan.merging.streaming import Sweep
from mergeplan.pool.pool import Pool
from mergeplan.pool.subsets import SubsetMerge

if TYPE_CHECKING:
    from mergeplan.gradients.meter import Meter

# Copies of a small model take no more than this, so that one pass over the experts serves many
# subsets; a model that is larger is there once.
REPLICA_BYTES = 256 << 20
MOST_REPLICAS = 64


class Worker:
    """One base size: a model, the texts, and the experts' files, all open.

    Args:
        size: Index into `Pool.sizes`.
        texts, tasks: Those of the setup, where they are prepared already.

    Raises:
        InputError: A model or a text is at fault.
    """

    def __init__(
        self,
        pool: Pool,
        size: int,
        setup: Setup,
        texts: Measure | None = None,
        tasks: Tasks | None = None,
    ) -> None:
        import torch

        self._pool, self._setup = pool, setup
        self._experts = tuple(sorted(pool.sizes[size].experts))
        if setup.threads:
            torch.set_num_threads(setup.threads)
        self._tasks = tasks or (check_tasks(setup.tasks) if setup.tasks else None)
        self.texts = texts or measure_of(pool, size, setup, self._tasks)
        self._tokenizer = load_tokenizer(pool.sizes[size].base) if self._tasks else None
        self._model = load_for(pool.sizes[size].base, setup)
        self._replicas = [self._model]
        self._copies = Copies()
        self._merges: list[SubsetMerge] = []
        self._sweep: Sweep | None = None
        self._meter: Meter | None = None
        self._metered = ""

    def measure(
        self,
        merges: Sequence[SubsetMerge],
        some: Sequence[int],
        parts: Sequence[range | None] | None = None,
        slopes: Collection[int] = (),
    ) -> Iterator[MeasuredMerge]:
        """Measure some of a round's merges, by number.

        Args:
            merges: All of the round. What the first call finds out about the experts serves the
                later ones with the same merges.
            parts: Of the texts, for each merge of the round; `None` for all documents together.
            slopes: Numbers of those that are measured with their losses' slopes, on all documents.

        Raises:
            InputError: A merge does not fit the model, or its inputs are at fault.
        """
        begun = time.perf_counter()
        if slopes:  # whatever stands against them is told before anything is measured
            self._meter_for(merges[min(slopes)])
        sweep = self._sweep_of(list(merges))
        for batch in self._batches(some, slopes):
            models = self._models(len(batch))
            self._copies.give(sweep, list(zip(batch, models, strict=False)))
            merging = (time.perf_counter() - begun) / len(batch)
            for number, model in zip(batch, models, strict=False):
                begun = time.perf_counter()
                tasks = run_tasks(self._tasks, model, self._tokenizer) if self._tasks else []
                own = None if parts is None else parts[number]
                found = None
                if number in slopes:
                    scores, found = self._with_slopes(merges[number])
                elif isinstance(self.texts, TaskItems):
                    scores = self.texts.scores_of(tasks)
                elif isinstance(self.texts, Texts) and own is not None:
                    scores = self.texts.score_parts(model, own)
                else:
                    scores = self.texts.score(model)
                seconds = merging, time.perf_counter() - begun
                yield MeasuredMerge(merges[number], scores, seconds, tuple(tasks), slopes=found)
            begun = time.perf_counter()

    def _batches(self, some: Sequence[int], slopes: Collection[int]) -> Iterator[Sequence[int]]:
        """Merges that are there together, those with slopes last. One model runs backward: what it
        takes beside its weights is more than they are."""
        values = [number for number in some if number not in slopes]
        step = len(self._models(len(values)))
        yield from (values[first : first + step] for first in range(0, len(values), step))
        yield from ([number] for number in some if number in slopes)

    def _with_slopes(self, merge: SubsetMerge) -> tuple[Scores, MergeSlopes]:
        """What the model holds, scored with the slopes of its losses."""
        measured = self._meter_for(merge).measure()
        whole = {name: tuple(found.tolist()) for name, found in measured.whole().items()}
        return measured.scores, MergeSlopes(self._experts, whole)

    def _meter_for(self, merge: SubsetMerge) -> "Meter":
        """Along the pool's experts, by the method of a merge; of the base along their deltas."""
        method = merge.method if merge.k else "average"
        every = replace(merge, method=method, subset=self._experts)
        if self._meter is None or self._metered != every.key:
            self._meter = meter_of(self._pool, every, self._model, self.texts, self._setup)
            self._metered = every.key
        return self._meter

    def _sweep_of(self, merges: list[SubsetMerge]) -> Sweep:
        if self._sweep is None or merges != self._merges:
            self._sweep = Sweep(
                [merge.config(self._pool) for merge in merges],
                self._setup.merging(self._model),
                seeds=[merge.seed for merge in merges],
            )
            self._merges = merges
        return self._sweep

    def _models(self, wanted: int) -> list[Any]:
        """The model, and as many copies of it as are wanted and small enough."""
        n_bytes = sum(p.numel() * p.element_size() for p in self._model.parameters())
        most = min(MOST_REPLICAS, REPLICA_BYTES // max(n_bytes, 1))
        while len(self._replicas) < min(wanted, most):
            self._replicas.append(copy.deepcopy(self._model))
        return self._replicas


def meter_of(pool: Pool, every: SubsetMerge, model: Any, texts: Measure, setup: Setup) -> "Meter":
    """What measures a loaded model with its losses' slopes along a pool's experts.

    Args:
        every: A merge of all of them, by the method whose merges will be measured.

    Raises:
        InputError: There are no losses to move, or the method has no slope.
        SurroundingsError: Gradients do not go into the memory.
    """
    from mergeplan.gradients.meter import Meter

    if not isinstance(texts, Texts):
        raise InputError(
            "gradients are of losses on texts, not of tasks or of a scorer's measure",
            "leave out `--gradients`",
        )
    slopes = Slopes(every.config(pool), setup.streaming(), seed=every.seed)
    return Meter(model, texts, slopes, memory_limit=setup.memory_limit, sharers=setup.sharers)


def load_for(base: Path, setup: Setup) -> Any:
    """A base to merge into, in the dtype and on the device of a setup."""
    dtype = "float32" if setup.dtype == "auto" and setup.on_cpu() else setup.dtype
    return load_for_measure(base, setup.evaluation.scorer, dtype=dtype, device=setup.device)
