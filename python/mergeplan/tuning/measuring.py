"""Merges of a run on parts of its documents, by one loaded model."""

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.calibration.setup import Setup
from mergeplan.calibration.worker import load_for
from mergeplan.gradients.meter import Meter
from mergeplan.merging.copies import Copies
from mergeplan.merging.slopes import Slopes
from mergeplan.merging.streaming import Sweep
from mergeplan.tuning.folder import Rows, rows
from mergeplan.tuning.prepared import Prepared
from mergeplan.tuning.tasks import GRADIENT, Done, Task

Array = NDArray[np.float64]


class Measuring:
    """One loaded model, the texts, and the experts, open.

    Raises:
        InputError: A model is at fault.
    """

    count = 1

    def __init__(self, prepared: Prepared, setup: Setup) -> None:
        import torch

        if setup.threads:
            torch.set_num_threads(setup.threads)
        self._recipe, self._slopes, self._setup = prepared.recipe, prepared.slopes, setup
        self._texts, self._equal = prepared.texts, prepared.equal
        self._jobs = [job.tensor for job in prepared.slopes.jobs]
        self._model: Any = load_for(prepared.recipe.base, setup)
        self._copies = Copies()
        # The weights of the merge that the model holds; `None` of another one.
        self._held: Rows | None = None

    @cached_property
    def meter(self) -> Meter:
        """Which says what gradients take.

        Raises:
            InputError: The model cannot run backward.
            SurroundingsError: Gradients do not go into the memory.
        """
        return Meter(
            self._model,
            self._texts.gradient,
            self._slopes,
            memory_limit=self._setup.memory_limit,
            sharers=self._setup.sharers,
        )

    def each(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Done]]:
        """One after the other."""
        for number, task in enumerate(tasks):
            yield number, self.do(task)

    def do(self, task: Task) -> Done:
        """Merge, and score.

        Raises:
            InputError: The merge does not fit the model, or its inputs are at fault.
        """
        begun = time.perf_counter()
        self._merge(task.merge)
        if task.part != GRADIENT:
            scores = getattr(self._texts, task.part).score(self._model)
            return Done(time.perf_counter() - begun, scores)
        assert not isinstance(task.merge, Path)
        weights = np.array(task.merge)
        found = self.meter.measure(task.domains, self._slopes_at(weights))
        losses, n = found.scores.losses(), len(weights)
        slopes, along = {}, {}
        for name in task.domains:
            each = found.slopes[name]
            by_group = self._recipe.groups.sums(self._jobs, each[:, :n]).T
            slopes[name] = rows(by_group)
            # A sum of parts has what its weights have; see `Slopes`.
            of_sum = float((weights * by_group).sum()) / self._recipe.strength
            along[name] = float(each[:, n:].sum()) if self._recipe.elects else of_sum
        return Done(
            time.perf_counter() - begun,
            losses={name: losses[name] for name in task.domains},
            slopes=slopes,
            along_lambda=along,
        )

    def _slopes_at(self, weights: Array) -> Slopes | None:
        """Where signs are elected, by the merge's own weights, else the same for all. The base has
        no signs: those of equal weights, along which the merges after it lie."""
        if not self._recipe.elects:
            return None
        config = self._recipe.config(weights if weights.any() else self._equal)
        return Slopes(config, self._setup.streaming(), with_lambda=True)

    def _merge(self, merge: Rows | Path) -> None:
        if isinstance(merge, Path):
            self._held = None
            sweep = Sweep([merge], self._setup.merging(self._model))
        elif merge == self._held:
            return
        else:
            self._held, weights = None, np.array(merge)
            sweep = Sweep([self._recipe.config(weights)], self._setup.merging(self._model))
            self._recipe.check(sweep.jobs(0), weights)
        self._copies.give(sweep, [(0, self._model)])
        self._held = None if isinstance(merge, Path) else merge
