"""Backward passes whose gradients go past the experts as soon as they are there, and are dropped.

An *aim* is a loss whose slopes are wanted, a weighted sum over documents: most often one domain's
mean. Its gradient is a sum over batches; what of it is held meanwhile is float32, one copy of the
parameters for each aim that is held at a time. In the last batch of the last of these each
parameter's gradient is whole when torch's hook is called: it meets the experts and is dropped.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from mergeplan.gradients.pieces import Piece, pieces_of, vector_of
from mergeplan.merging.slopes import Slopes

Array = NDArray[np.float64]
# One batch of a loss: its forward pass, which gives a scalar to call `backward` of.
Step = Callable[[], torch.Tensor]

# Bytes of gradients that wait for others: to call the core for every small tensor takes longer.
_TOGETHER = 32 << 20


@dataclass
class _Held:
    """Gradients of one aim by parameter, summed over batches."""

    sums: dict[torch.nn.Parameter, torch.Tensor] = field(default_factory=dict)

    def add(self, parameter: torch.nn.Parameter, gradient: torch.Tensor) -> None:
        known = self.sums.get(parameter)
        if known is None:
            wide = torch.float64 if gradient.dtype == torch.float64 else torch.float32
            self.sums[parameter] = gradient.detach().to(wide)
        else:
            known += gradient


class Backward:
    """Slopes of losses of one loaded model along the weights of its experts.

    Args:
        model: In whose memory the merge is; its parameters stay as they are.
        slopes: The experts.

    Raises:
        InputError: The experts' tensors do not fit the model.
    """

    def __init__(self, model: torch.nn.Module, slopes: Slopes) -> None:
        self._model, self._slopes = model, slopes
        self._pieces = pieces_of(model, slopes.jobs)
        self._jobs_of: dict[torch.nn.Parameter, list[int]] = {}
        for job, pieces in enumerate(self._pieces):
            for parameter in {piece.parameter for piece in pieces}:
                self._jobs_of.setdefault(parameter, []).append(job)
        self.n_reads = 0

    def run(
        self,
        aims: Mapping[str, Sequence[Step]],
        *,
        at_once: int,
        each_batch: bool = False,
        slopes: Slopes | None = None,
    ) -> dict[str, Array]:
        """Slopes of each aim.

        Args:
            aims: The batches of each, in order.
            at_once: Aims whose gradients are held together; the experts are read once for each
                group of so many.
            each_batch: Hold none: the experts are read once for each batch.
            slopes: Of these experts at other weights, where that is another thing.

        Returns:
            By aim, shape (n_jobs, n_slopes), in the order of `Slopes.jobs`.

        Raises:
            InputError: Inputs changed or hold values that are not finite.
        """
        names = list(aims)
        slopes = slopes or self._slopes
        shape = len(slopes.jobs), slopes.n_slopes
        found = {name: np.zeros(shape) for name in names}
        with self._watching() as watch:
            for first in range(0, len(names), at_once):
                group = names[first : first + at_once]
                held = [_Held() for _ in group]
                for place, name in enumerate(group):
                    for number, step in enumerate(aims[name]):
                        last = place == len(group) - 1 and number == len(aims[name]) - 1
                        watch.adding = held[place]
                        past = [found[one] for one in group]
                        watch.passing = (
                            self._passing(slopes, held, past) if last or each_batch else None
                        )
                        step().backward()
                        if watch.passing is not None:
                            watch.passing.finish()
                            self.n_reads += 1
        return found

    def _passing(self, slopes: Slopes, held: Sequence[_Held], found: Sequence[Array]) -> "_Passing":
        return _Passing(slopes, self._pieces, self._jobs_of, held, found)

    @contextmanager
    def _watching(self) -> Iterator["_Watch"]:
        """Hooks on all parameters that experts change; the others need no gradient meanwhile."""
        wanted = {id(parameter) for parameter in self._jobs_of}
        before = [(one, one.requires_grad, one.grad) for one in self._model.parameters()]
        watch = _Watch()
        handles = []
        try:
            for parameter, _, _ in before:
                parameter.grad = None
                parameter.requires_grad_(id(parameter) in wanted)
                if id(parameter) in wanted:
                    handles.append(parameter.register_post_accumulate_grad_hook(watch.take))
            yield watch
        finally:
            for handle in handles:
                handle.remove()
            for parameter, required, gradient in before:
                parameter.requires_grad_(required)
                parameter.grad = gradient


class _Watch:
    """What happens to a parameter's gradient when a batch's backward pass has it."""

    def __init__(self) -> None:
        self.adding = _Held()
        self.passing: _Passing | None = None

    def take(self, parameter: torch.Tensor) -> None:
        assert isinstance(parameter, torch.nn.Parameter)
        gradient, parameter.grad = parameter.grad, None
        if gradient is None:
            return
        self.adding.add(parameter, gradient)
        if self.passing is not None:
            self.passing.ready(parameter)


class _Passing:
    """Gradients on their way past the experts."""

    def __init__(
        self,
        slopes: Slopes,
        pieces: Sequence[tuple[Piece, ...]],
        jobs_of: Mapping[torch.nn.Parameter, Sequence[int]],
        held: Sequence[_Held],
        found: Sequence[Array],
    ) -> None:
        self._slopes, self._pieces, self._jobs_of = slopes, pieces, jobs_of
        self._held, self._found = held, found
        # Parameters of each job whose gradient is not there yet.
        self._missing = [{piece.parameter for piece in one} for one in pieces]
        self._waiting: list[int] = []
        self._passed: set[int] = set()
        self._n_bytes = 0

    def ready(self, parameter: torch.nn.Parameter) -> None:
        """The gradient of a parameter is whole."""
        for job in self._jobs_of[parameter]:
            self._missing[job].discard(parameter)
            if not self._missing[job]:
                self._waiting.append(job)
                self._n_bytes += 4 * self._slopes.jobs[job].n_elements
        if self._n_bytes >= _TOGETHER:
            self._pass()

    def finish(self) -> None:
        """Those that the last batch did not reach, such as experts to which no token went, too."""
        self._waiting += [job for job, missing in enumerate(self._missing) if missing]
        self._pass()

    def _pass(self) -> None:
        jobs, self._waiting, self._n_bytes = self._waiting, [], 0
        reached = [
            job
            for job in jobs
            if any(p.parameter in held.sums for held in self._held for p in self._pieces[job])
        ]
        names = {job: self._slopes.jobs[job].tensor for job in reached}
        if names:
            vectors = {name: self._vectors(job) for job, name in names.items()}
            products = self._slopes.products(vectors)
            for job, name in names.items():
                for found, slopes in zip(self._found, products[name], strict=True):
                    found[job] += slopes
        self._passed.update(jobs)
        for parameter in {piece.parameter for job in jobs for piece in self._pieces[job]}:
            if self._passed.issuperset(self._jobs_of[parameter]):
                for held in self._held:
                    held.sums.pop(parameter, None)

    def _vectors(self, job: int) -> list[torch.Tensor]:
        return [vector_of(self._pieces[job], partial(_there, held)) for held in self._held]


def _there(held: _Held, parameter: torch.nn.Parameter) -> torch.Tensor:
    found = held.sums.get(parameter)
    return torch.zeros_like(parameter, dtype=torch.float32) if found is None else found
