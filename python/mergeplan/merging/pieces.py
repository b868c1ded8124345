"""Memory for jobs whose tensor goes to several places: a mixture's experts, merged as one."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

from mergeplan.checkpoints.dtypes import torch_dtype
from mergeplan.errors import InputError
from mergeplan.merging.targets import check_target
from mergeplan.planning.document import Job

if TYPE_CHECKING:
    import torch


class Places:
    """Where the tensors of some jobs go.

    Where the parts of one lie one behind the other in memory, as in a model that packs them, that
    is its place; else it gets a buffer.

    Args:
        into: The place of each stored tensor; one that is left out is merged and dropped.

    Attributes:
        of_jobs: The place of each job's whole tensor, by its name.
        given: The places, as they were given.

    Raises:
        InputError: A place is none that a merge can be written to, or has another shape.
    """

    def __init__(self, jobs: Sequence[Job], into: Mapping[str, "torch.Tensor"]) -> None:
        self.given = into
        self.of_jobs: dict[str, torch.Tensor] = {}
        self._buffered: list[tuple[Job, Mapping[str, torch.Tensor]]] = []
        for job in jobs:
            own = {name: into[name] for name in job.stored if name in into}
            for name, place in own.items():
                check_target(name, place, job.out_dtype)
                _check_shape(name, job.stored[name], place)
            if not own:
                continue
            if job.parts is None:
                self.of_jobs[job.tensor] = own[job.tensor]
                continue
            whole = _joined(job, own)
            if whole is None:
                whole = empty(job)
                self._buffered.append((job, own))
            self.of_jobs[job.tensor] = whole

    def hand_out(self) -> None:
        """Copy what went into buffers to its places."""
        for job, own in self._buffered:
            parts = pieces(job, self.of_jobs[job.tensor])
            for name, place in own.items():
                place.detach().copy_(parts[name])


def empty(job: Job) -> "torch.Tensor":
    """Memory for a job's whole tensor."""
    import torch

    return torch.empty(job.shape, dtype=torch_dtype(job.out_dtype))


def pieces(job: Job, whole: "torch.Tensor") -> dict[str, "torch.Tensor"]:
    """Views of a job's tensor, by the names that the output has for them."""
    if job.parts is None:
        return {job.tensor: whole}
    flat = whole.reshape(-1)
    found = {}
    begin = 0
    for part in job.parts:
        length = prod(part.shape)
        found[part.tensor] = flat[begin : begin + length].view(part.shape)
        begin += length
    return found


def _joined(job: Job, own: Mapping[str, "torch.Tensor"]) -> "torch.Tensor | None":
    """One view of the parts' memory, if they lie in it one behind the other."""
    if len(own) < len(job.stored):
        return None
    places = [own[name].detach() for name in job.stored]
    first = places[0]
    address = first.data_ptr()
    for place in places:
        if place.data_ptr() != address or not place.is_contiguous() or place.dtype != first.dtype:
            return None
        address += place.numel() * place.element_size()
    if first.untyped_storage().data_ptr() != places[-1].untyped_storage().data_ptr():
        return None
    strides = [prod(job.shape[axis + 1 :]) for axis in range(len(job.shape))]
    return first.as_strided(job.shape, strides)


def _check_shape(name: str, expected: tuple[int, ...], place: "torch.Tensor") -> None:
    if tuple(place.shape) != expected:
        raise InputError(
            f"tensor `{name}`: expected shape {list(expected)}, found {list(place.shape)}"
        )
