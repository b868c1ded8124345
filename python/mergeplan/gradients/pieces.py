"""Where the tensors of a merge lie in the gradients of a loaded model's parameters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mergeplan.merging.parameters import places_in
from mergeplan.planning.document import Job


@dataclass(frozen=True)
class Piece:
    """A tensor of a checkpoint as a part of a parameter; steps and offset count elements."""

    parameter: torch.nn.Parameter
    shape: tuple[int, ...]
    steps: tuple[int, ...]
    offset: int

    def of(self, gradient: torch.Tensor) -> torch.Tensor:
        """The same part of the parameter's gradient, flat."""
        steps = self.parameter.stride()
        if gradient.stride() != steps:
            there = torch.empty_strided(gradient.shape, steps, dtype=gradient.dtype)
            gradient = there.to(gradient.device).copy_(gradient)
        first = gradient.storage_offset() + self.offset
        return gradient.as_strided(self.shape, self.steps, first).reshape(-1)


def pieces_of(model: torch.nn.Module, jobs: Sequence[Job]) -> list[tuple[Piece, ...]]:
    """For each job the parts of parameters that its tensor fills, in its order.

    None for a buffer, and for a tensor that the model ties to another one: what a gradient has
    there is counted at the other.

    Raises:
        InputError: As for `places_in`.
    """
    shapes = {name: shape for job in jobs for name, shape in job.stored.items()}
    places = places_in(model, shapes)
    owners = {parameter.untyped_storage().data_ptr(): parameter for parameter in model.parameters()}

    def piece(name: str) -> Piece | None:
        place = places.get(name)
        owner = None if place is None else owners.get(place.untyped_storage().data_ptr())
        if place is None or owner is None:
            return None
        offset = place.storage_offset() - owner.storage_offset()
        return Piece(owner, tuple(place.shape), place.stride(), offset)

    found = [[piece(name) for name in job.stored] for job in jobs]
    return [tuple(one for one in some if one is not None) for some in found]


def vector_of(
    pieces: Sequence[Piece], gradient: Callable[[torch.nn.Parameter], torch.Tensor]
) -> torch.Tensor:
    """A job's tensor in the gradients of its parameters, flat, on the CPU."""
    parts = [piece.of(gradient(piece.parameter)) for piece in pieces]
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    return whole.cpu().contiguous()
