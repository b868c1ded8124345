"""Pieces of a tensor's inputs, from the files to a device.

A worker reads into pinned buffers, in turn, while the device still copies from those before. Copies
are queued on the worker's stream, before what computes from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mergeplan._native import InputReader

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Of a worker: some are read into while the device copies from others.
_BUFFERS = 4


@dataclass(frozen=True)
class Input:
    """A tensor that a job reads.

    Attributes:
        merge, job, number: Where the plans name it: its place among a job's inputs, base first.
        identity: What tells it from all other tensors that are open.
    """

    merge: int
    job: int
    number: int
    identity: tuple[int, int]
    dtype: torch.dtype


def inputs_of(reader: "InputReader", merge: int, job: int) -> list[Input]:
    """The floating-point inputs of a job, base first."""
    return [
        Input(merge, job, number, (place, offset), DTYPES[dtype])
        for number, (place, offset, dtype) in enumerate(reader.inputs(merge, job))
    ]


def stored_bytes(inputs: Sequence[Input], count: int) -> int:
    """Bytes of `count` elements of some inputs."""
    each: int = sum(one.dtype.itemsize for one in inputs)
    return count * each


def power_of_two(n_bytes: int) -> int:
    """The largest that fits: torch rounds up what it pins, and would take twice as much."""
    return 1 << (n_bytes.bit_length() - 1)


class Staging:
    """Buffers of host memory, pinned where the device is a GPU, to be used in turn."""

    def __init__(self, n_bytes: int, device: torch.device) -> None:
        pinned = device.type == "cuda"
        self.part_bytes = power_of_two(n_bytes // _BUFFERS)
        self._buffers = [
            torch.empty(self.part_bytes, dtype=torch.uint8, pin_memory=pinned)
            for _ in range(_BUFFERS)
        ]
        self._events = [Moment(device) for _ in range(_BUFFERS)]
        self._turn = 0

    def next(self) -> tuple[Tensor, "Moment"]:
        """A buffer that the device is done with, and the moment to note when it is again."""
        self._turn = (self._turn + 1) % _BUFFERS
        self._events[self._turn].wait()
        return self._buffers[self._turn], self._events[self._turn]


class Moment:
    """A point in what a stream has been told to do, for the host to wait for."""

    def __init__(self, device: torch.device) -> None:
        # Waiting threads sleep: others read and write meanwhile.
        self._event = torch.cuda.Event(blocking=True) if device.type == "cuda" else None
        self._noted = False

    def note(self) -> None:
        """Now, on the current stream."""
        if self._event is not None:
            self._event.record()
            self._noted = True

    def wait(self) -> None:
        if self._event is not None and self._noted:
            self._event.synchronize()


class PieceLoader:
    """One worker's way from the files to its device."""

    def __init__(self, reader: "InputReader", device: torch.device, staging: Staging) -> None:
        self.reader, self.device = reader, device
        self._staging = staging

    def load(self, inputs: Sequence[Input], start: int, count: int) -> list[Tensor]:
        """Elements of some inputs in their own dtypes, on the device. Shape (count,) each."""
        return [self._load(one, start, count) for one in inputs]

    def _load(self, one: Input, start: int, count: int) -> Tensor:
        there = torch.empty(count, dtype=one.dtype, device=self.device)
        part = self._staging.part_bytes // one.dtype.itemsize
        for first in range(0, count, part):
            some = there[first : first + part].view(torch.uint8)
            buffer, copied = self._staging.next()
            into = buffer[: some.numel()]
            self.reader.read(one.merge, one.job, one.number, start + first, into.numpy())
            some.copy_(into, non_blocking=True)
            copied.note()
        return there

    def release(self, inputs: Sequence[Input]) -> None:
        """The files' pages that hold some inputs need not stay in memory."""
        for merge, job in {(one.merge, one.job) for one in inputs}:
            self.reader.release(merge, job)
