"""Pieces of a tensor's inputs, from the files to a device.

A thread reads into pinned buffers, in turn, while the device still copies from those before, on a
stream of their own: while a worker computes one piece, the next one comes.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mergeplan.merging.torch.host import HostMemory

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
    """Buffers of host memory, to be used in turn."""

    def __init__(self, n_bytes: int, host: HostMemory) -> None:
        self.part_bytes = power_of_two(n_bytes // _BUFFERS)
        self._buffers = [host.empty(self.part_bytes) for _ in range(_BUFFERS)]
        self._events = [Moment(host.device) for _ in range(_BUFFERS)]
        self._turn = 0

    def next(self) -> tuple[Tensor, "Moment"]:
        """A buffer that the device is done with, and the moment to note when it is again."""
        self._turn = (self._turn + 1) % _BUFFERS
        self._events[self._turn].wait()
        return self._buffers[self._turn], self._events[self._turn]


class Moment:
    """A point in what a stream has been told to do, to wait for."""

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
        """The host waits."""
        if self._event is not None and self._noted:
            self._event.synchronize()

    def hold(self) -> None:
        """The current stream waits, and the host does not."""
        if self._event is not None and self._noted:
            self._event.wait()


class Coming:
    """A piece on its way."""

    def __init__(self, tensors: list[Tensor], queued: "Future[Moment]") -> None:
        self._tensors, self._queued = tensors, queued

    def get(self) -> list[Tensor]:
        """Its tensors, for the current stream."""
        self._queued.result().hold()
        return self._tensors

    def drop(self) -> None:
        """It is not wanted: the current stream may have its memory."""
        with suppress(Exception):
            self.get()


class PieceLoader:
    """One worker's way from the files to its device.

    Args:
        n_bytes: Host memory of all buffers.
        stream: What copies are queued on; `None` on a CPU.
    """

    def __init__(
        self,
        reader: "InputReader",
        host: HostMemory,
        n_bytes: int,
        stream: "torch.cuda.Stream | None" = None,
    ) -> None:
        self.device = host.device
        self._reader, self._stream = reader, stream
        self._staging = Staging(n_bytes, host)
        self._thread = ThreadPoolExecutor(1, "mergeplan-read")

    def start(self, inputs: Sequence[Input], start: int, count: int) -> Coming:
        """Begin to load elements of some inputs in their own dtypes. Shape (count,) each."""
        # From the worker's stream, where they are used and freed: what this stream has been told to
        # do by now may still use their memory, and copying waits for it.
        there = [torch.empty(count, dtype=one.dtype, device=self.device) for one in inputs]
        free = Moment(self.device)
        free.note()
        return Coming(there, self._thread.submit(self._fill, there, list(inputs), start, free))

    def close(self) -> None:
        """End its thread."""
        self._thread.shutdown()

    def _fill(self, there: list[Tensor], inputs: list[Input], start: int, free: Moment) -> Moment:
        with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            free.hold()
            try:
                for tensor, one in zip(there, inputs, strict=True):
                    self._load(tensor, one, start)
            except BaseException:
                # Nobody will know when the copies are done that are queued already.
                if self._stream is not None:
                    with suppress(RuntimeError):
                        self._stream.synchronize()
                raise
            queued = Moment(self.device)
            queued.note()
        return queued

    def _load(self, there: Tensor, one: Input, start: int) -> None:
        part = self._staging.part_bytes // one.dtype.itemsize
        for first in range(0, len(there), part):
            some = there[first : first + part].view(torch.uint8)
            buffer, copied = self._staging.next()
            into = buffer[: some.numel()]
            self._reader.read(one.merge, one.job, one.number, start + first, into.numpy())
            some.copy_(into, non_blocking=True)
            copied.note()

    def release(self, inputs: Sequence[Input]) -> None:
        """The files' pages that hold some inputs need not stay in memory."""
        for merge, job in {(one.merge, one.job) for one in inputs}:
            self._reader.release(merge, job)
