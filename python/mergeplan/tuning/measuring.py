"""Points of a run: merged into a loaded model, scored, and their slopes taken."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.calibration.setup import Setup
from mergeplan.calibration.worker import load_for
from mergeplan.evaluation.measured import WITH_SLOPES
from mergeplan.evaluation.scores import Scores
from mergeplan.gradients.meter import Meter
from mergeplan.merging.copies import Copies
from mergeplan.merging.slopes import Slopes
from mergeplan.merging.streaming import Sweep
from mergeplan.tuning.folder import Point, TuneFolder, rows
from mergeplan.tuning.recipe import Recipe, rounded
from mergeplan.tuning.split import TuneTexts

Array = NDArray[np.float64]


class Measuring:
    """One loaded model, the texts, and the experts, open.

    Attributes:
        meter: Which says what gradients take.
        folder: Where points are kept; `None` for nowhere.

    Raises:
        InputError: A model is at fault, or cannot run backward.
        SurroundingsError: Gradients do not go into the memory.
    """

    def __init__(
        self,
        recipe: Recipe,
        slopes: Slopes,
        texts: TuneTexts,
        setup: Setup,
    ) -> None:
        import torch

        if setup.threads:
            torch.set_num_threads(setup.threads)
        self._recipe, self._texts, self._setup = recipe, texts, setup
        self.folder: TuneFolder | None = None
        self._jobs = [job.tensor for job in slopes.jobs]
        self._model: Any = load_for(recipe.base, setup)
        self.meter = Meter(self._model, texts.gradient, slopes, memory_limit=setup.memory_limit)
        self._copies = Copies()

    @property
    def point_tokens(self) -> int:
        """Forward passes of a point with its slopes, in tokens; a backward pass counts two."""
        return WITH_SLOPES * self._texts.gradient.n_tokens + self._texts.accepting.n_tokens

    def at(self, weights: Array, *, slopes: bool = True) -> Point:
        """A point by the documents that are tuned on; one that was measured is not again.

        Args:
            weights: Shape (n_experts, n_groups).
            slopes: Whether they are wanted too.
        """
        known = self._known(weights, lambda p: p.accepting and (p.slopes or not slopes))
        if known is not None:
            return known
        begun = time.perf_counter()
        self._merge(weights)
        accepting = self._texts.accepting.score(self._model)
        point = Point(rows(weights), accepting.to_data(), tokens=self._texts.accepting.n_tokens)
        if slopes:
            found = self.meter.measure()
            losses = {n: one.loss_nats for n, one in found.scores.estimates().items()}
            by_group = {
                name: rows(self._recipe.groups.sums(self._jobs, one).T)
                for name, one in found.slopes.items()
            }
            point = replace(point, losses=losses, slopes=by_group, tokens=self.point_tokens)
        return self._kept(replace(point, seconds=time.perf_counter() - begun))

    def report(self, weights: Array) -> Point:
        """A point by the documents that had no part in tuning."""
        known = self._known(weights, lambda p: p.reported)
        if known is not None:
            return known
        begun = time.perf_counter()
        self._merge(weights)
        scores = self._texts.reporting.score(self._model)
        point = Point(
            rows(weights), reported=scores.to_data(), tokens=self._texts.reporting.n_tokens
        )
        return self._kept(replace(point, seconds=time.perf_counter() - begun))

    def opened(self, config: Path) -> Sweep:
        """Another merge, to be given to `others`.

        Raises:
            MissingInputError, InputError: The config or a model is at fault.
        """
        return Sweep([config], self._setup.merging(self._model))

    def others(self, merge: Sweep) -> Scores:
        """Its losses on the documents that had no part in tuning; they are not kept."""
        self._copies.give(merge, [(0, self._model)])
        return self._texts.reporting.score(self._model)

    def _known(self, weights: Array, wanted: Any) -> Point | None:
        same = rows(rounded(weights))
        points = self.folder.points if self.folder is not None else []
        domains = self._texts.reporting.domains.keys()
        for one in points:
            parts = (one.accepting, one.slopes, one.reported)
            if (
                one.weights == same
                and wanted(one)
                and all(part is None or part.keys() == domains for part in parts)
            ):
                return one
        return None

    def _kept(self, point: Point) -> Point:
        point = replace(point, weights=rows(rounded(np.array(point.weights))))
        if self.folder is not None:
            self.folder.add(point)
        return point

    def _merge(self, weights: Array) -> None:
        sweep = Sweep([self._recipe.config(weights)], self._setup.merging(self._model))
        self._recipe.check(sweep.jobs(0), weights)
        self._copies.give(sweep, [(0, self._model)])
