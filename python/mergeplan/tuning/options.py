"""What a user may ask of `tune`."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from mergeplan.calibration.setup import Setup
from mergeplan.errors import InputError
from mergeplan.selection.problem import Constraint
from mergeplan.tuning.groups import BY, EXPERT
from mergeplan.tuning.step import Region

# Points with slopes, of which base and equal weights are two. On tiny models three do.
BUDGET = 20
BOUNDS = (-1.0, 2.0)


@dataclass(frozen=True)
class TuneOptions:
    """How weights are tuned.

    Attributes:
        by: Which tensors of an expert share a weight; one of `groups.BY`.
        method: A label of the pool; `None` for its first that elects no signs.
        domains: What counts, as `code=2,math`; `None` for the mean of all.
        worst: Whether the worst of those domains counts instead.
        keep: Upper bounds on the losses of domains.
        total: What the weights of each group sum to; `None` for any sum.
        bounds: Least and largest weight; `None` for `BOUNDS`, from 0 where signs are elected.
        budget: Most points with slopes.
        beside: YAMLs of other merges of these models, to be held against on the reporting half.
        ray: `local` or the address of a Ray cluster; `None` for this process.
        n_params: Of the size to tune, where the pool has several.
        setup: How merges are measured.
    """

    by: str = EXPERT
    method: str | None = None
    domains: str | None = None
    worst: bool = False
    keep: tuple[Constraint, ...] = ()
    total: float | None = None
    bounds: tuple[float, float] | None = None
    budget: int = BUDGET
    beside: tuple[Path, ...] = ()
    ray: str | None = None
    n_params: float | None = None
    setup: Setup = field(default_factory=Setup)

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            InputError: A value is none of those that there are, or they exclude each other.
        """
        if self.by not in BY:
            raise InputError(f"`by`: expected {'; '.join(BY)}, found `{self.by}`")
        low, high = self.bounds or BOUNDS
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"`bounds`: expected two numbers in order, found {low:g} and {high:g}")
        if self.budget < 3:
            raise InputError(
                f"`budget`: expected 3 points or more, found {self.budget}",
                "the base, equal weights and a step are three",
            )
        if self.setup.evaluation.scorer is not None:
            raise InputError("a scorer of your own has no gradient", "leave `--scorer` out")

    def region(self, n_experts: int, *, elects: bool = False) -> Region:
        """Where weights may lie.

        Args:
            elects: Whether experts elect signs. Of one whose weight falls below 0 other elements
                take part: at 0 the loss has a bend.

        Raises:
            InputError: No weights within the bounds have the sum.
        """
        low, high = self.bounds or (0.0 if elects else BOUNDS[0], BOUNDS[1])
        if self.total is not None and not low * n_experts <= self.total <= high * n_experts:
            raise InputError(
                f"no {n_experts} weights from {low:g} to {high:g} sum to {self.total:g}"
            )
        return Region(low, high, self.total)
