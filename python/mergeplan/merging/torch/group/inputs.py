"""The inputs of a group, and in what dtype it works."""

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor

from mergeplan.merging.torch.arithmetic import Steps
from mergeplan.merging.torch.loading import DTYPES
from mergeplan.merging.torch.sweeps import Piece
from mergeplan.planning.document import Group, Job


class GroupInputs:
    """What a method knows of its job, beside its options.

    Args:
        numbers: Which of the job's inputs are read, base first.

    Attributes:
        shape: Of the tensor.
        count: Inputs that are read, without the base.
        size: Bytes of an element in the working dtype.
    """

    def __init__(self, job: Job, merge: Group, numbers: list[int]) -> None:
        self.numbers = numbers
        self.has_base = merge.base is not None and numbers[0] == 0 and len(numbers) > 1
        self.count = len(numbers) - self.has_base
        self.shape: Sequence[int] = job.shape
        self.length = prod(self.shape)
        self.working: torch.dtype = DTYPES[merge.dtype]
        self.size: int = self.working.itemsize
        self.steps = Steps(self.working)

    def tensors(self, piece: Piece) -> Iterator[Tensor]:
        """Every input but the base."""
        for number in range(self.count):
            yield piece[self.has_base + number]

    def deltas(self, piece: Piece) -> Iterator[Tensor]:
        """What every input differs by from the base; the inputs, where there is none."""
        if not self.has_base:
            yield from self.tensors(piece)
            return
        base = piece[0]
        for tensor in self.tensors(piece):
            yield self.steps.subtract(tensor, base)

    def add_base(self, piece: Piece, values: Tensor) -> Tensor:
        """Back from deltas to inputs."""
        return self.steps.add(values, piece[0]) if self.has_base else values

    def rounded(self, values: Tensor) -> Tensor:
        """Numbers that stay on the device, rounded as `Steps.number` does. float32."""
        return self.steps.cast(values.float()).float()
