"""From a plan's job to what computes it on a device."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from mergeplan.torch_backend.sweeps import Sweep

Job = dict[str, Any]


class Program(Protocol):
    """A job's arithmetic.

    Attributes:
        inputs: Which of the job's inputs are read, base first.
        working: The dtype in which they come, and to which steps are rounded.
        align: A piece ends at a multiple of so many elements, or at the tensor's end.
        sweeps: How often the inputs are gone over, at the least.
        element_bytes: Device memory for each element of a piece, beside the inputs as stored.
        fixed_bytes: Device memory whatever the piece.
    """

    inputs: list[int]
    working: torch.dtype
    align: int
    sweeps: int
    element_bytes: int
    fixed_bytes: int

    def run(self, sweep: Sweep) -> Iterator[tuple[int, Tensor]]:
        """Yield start and results of each piece, in order, in float32 or the working dtype."""


# The id of the stream of an input's random mask, by the number of the input.
StreamOf = Callable[[int], int]


def program_of(job: Job, stream_of: StreamOf, seed: int) -> Program | None:
    """What computes a job; `None` where only the core can.

    Args:
        job: Of `MergePlan.data`.
    """
    from mergeplan.torch_backend.deltas import Deltas
    from mergeplan.torch_backend.linear import Linear

    merge = job["merge"]
    if merge["kind"] == "linear":
        return Linear(merge)
    if merge["kind"] == "delta":
        return Deltas(job, stream_of, seed)
    if merge["kind"] == "group":
        from mergeplan.torch_backend.group import group_program

        return group_program(job)
    return None
