"""Merges into loaded models and scores them: no checkpoint is written."""

import copy
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mergeplan.calibration.setup import Setup, measure_of
from mergeplan.evaluation.harness import Tasks, check_tasks, run_tasks
from mergeplan.evaluation.loading import load_for_measure, load_tokenizer
from mergeplan.evaluation.measure import Measure
from mergeplan.evaluation.measured import MeasuredMerge
from mergeplan.evaluation.task_items import TaskItems
from mergeplan.evaluation.texts import Texts
from mergeplan.merging.copies import Copies
from mergeplan.merging.streaming import Sweep
from mergeplan.pool.pool import Pool
from mergeplan.pool.subsets import SubsetMerge

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

    def measure(
        self,
        merges: Sequence[SubsetMerge],
        some: Sequence[int],
        parts: Sequence[range | None] | None = None,
    ) -> Iterator[MeasuredMerge]:
        """Measure some of a round's merges, by number.

        Args:
            merges: All of the round. What the first call finds out about the experts serves the
                later ones with the same merges.
            parts: Of the texts, for each merge of the round; `None` for all documents together.

        Raises:
            InputError: A merge does not fit the model, or its inputs are at fault.
        """
        begun = time.perf_counter()
        sweep = self._sweep_of(list(merges))
        models = self._models(len(some))
        for first in range(0, len(some), len(models)):
            batch = some[first : first + len(models)]
            self._copies.give(sweep, list(zip(batch, models, strict=False)))
            merging = (time.perf_counter() - begun) / len(batch)
            for number, model in zip(batch, models, strict=False):
                begun = time.perf_counter()
                tasks = run_tasks(self._tasks, model, self._tokenizer) if self._tasks else []
                own = None if parts is None else parts[number]
                if isinstance(self.texts, TaskItems):
                    scores = self.texts.scores_of(tasks)
                elif isinstance(self.texts, Texts) and own is not None:
                    scores = self.texts.score_parts(model, own)
                else:
                    scores = self.texts.score(model)
                seconds = merging, time.perf_counter() - begun
                yield MeasuredMerge(merges[number], scores, seconds, tuple(tasks))
            begun = time.perf_counter()

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


def load_for(base: Path, setup: Setup) -> Any:
    """A base to merge into, in the dtype and on the device of a setup."""
    dtype = "float32" if setup.dtype == "auto" and setup.on_cpu() else setup.dtype
    return load_for_measure(base, setup.evaluation.scorer, dtype=dtype, device=setup.device)
