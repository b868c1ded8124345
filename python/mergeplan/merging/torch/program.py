"""What a method is on a device: a program over a sweep of its inputs."""

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from mergeplan.merging.torch.sweeps import InputSweep


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

    def run(self, sweep: InputSweep) -> Iterator[tuple[int, Tensor]]:
        """Yield start and results of each piece, in order, in float32 or the working dtype."""


# The id of the stream of an input's random mask, by the number of the input.
StreamOf = Callable[[int], int]
