"""Loaded models that take one merge after another: the copies of a model that measure a pool.

Where a model's tensors lie, and that they may be written to, is found once for each of them; that
was four fifths of merging into a small model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergeplan.checkpoints.head_names import heads_in
from mergeplan.merging.parameters import places_in, tie_as
from mergeplan.merging.pieces import Places
from mergeplan.merging.streaming import Sweep
from mergeplan.planning.document import Job

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class _Known:
    """A model, and where the tensors of some jobs lie in it.

    Attributes:
        outputs: Name, shape and dtype of each tensor, which decide where it goes.
        memory: Where the model's parameters were then.
    """

    model: "torch.nn.Module"
    outputs: tuple[object, ...]
    memory: tuple[int, ...]
    places: Places


class Copies:
    """Models into which merges go in place."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._sweep: Sweep | None = None
        # Models that were found not to share memory, with each other and with the sweep's inputs.
        self._apart: set[int] = set()

    def give(self, sweep: Sweep, targets: Sequence[tuple[int, "torch.nn.Module"]]) -> None:
        """Give each model the weights of its merge, in one pass, and tie or untie its head as that.

        Raises:
            InputError: As for `Sweep.merge_into`, or a tensor has no place in a model.
        """
        if sweep is not self._sweep:
            self._sweep, self._apart = sweep, set()
        found = [self._find(sweep, number, model) for number, model in targets]
        models = {id(model) for _, model in targets}
        if len(models) < len(targets) or not models <= self._apart:
            sweep.check_places([one.places for one in found])
            self._apart = models
        numbers = [number for number, _ in targets]
        sweep.fill([(n, one.places) for n, one in zip(numbers, found, strict=True)])

    def _find(self, sweep: Sweep, number: int, model: "torch.nn.Module") -> _Known:
        jobs = sweep.jobs(number)
        stores_head = bool(heads_in(name for job in jobs for name in job.stored))
        changed = tie_as(model, own_head=sweep.has_own_head(number), stores_head=stores_head)
        outputs = tuple(map(_output, jobs))
        known = self._known.get(id(model))
        memory = tuple(parameter.data_ptr() for parameter in model.parameters())
        same = known is not None and (known.outputs, known.memory) == (outputs, memory)
        if changed or known is None or not same:
            places = Places(jobs, places_in(model, sweep.shapes(number)))
            known = _Known(model, outputs, memory, places)
            self._known[id(model)] = known
            self._apart.discard(id(model))
        return known


def _output(job: Job) -> tuple[object, ...]:
    return job.tensor, job.shape, job.out_dtype, job.parts


def give_weights(sweep: Sweep, targets: Sequence[tuple[int, "torch.nn.Module"]]) -> None:
    """Give models the weights of merges, once; see `Copies.give`."""
    Copies().give(sweep, targets)
