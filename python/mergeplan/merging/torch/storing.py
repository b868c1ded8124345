"""Finished pieces, from a device to where they belong.

While the device copies one piece into pinned memory, a thread waits for the one before, and hashes
and writes it; the worker goes on to what is next.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from mergeplan.merging.torch.host import HostMemory
from mergeplan.merging.torch.loading import Moment, power_of_two
from mergeplan.merging.torch.sweeps import NotFiniteError

if TYPE_CHECKING:
    from mergeplan._native import OutputFiles

# The core writes, hashes and journals blocks of so many elements.
BLOCK = 1 << 16


class Store(Protocol):
    """Takes one tensor after the other, each in pieces, in order."""

    def begin(self, output: int, job: int, length: int) -> None: ...
    def put(self, start: int, values: Tensor, finite: Tensor) -> None:
        """Take a piece.

        Args:
            values: In the output's dtype. Shape (numel,).
            finite: Whether all that went in and came out is. Shape ().

        Raises:
            NotFiniteError: Of this piece or an earlier one; nothing of it is written.
        """

    def finish(self) -> None:
        """The tensor is complete.

        Raises:
            NotFiniteError: As for `put`.
        """

    def close(self) -> None:
        """No more tensors come."""


class _Buffer:
    """What a part is copied to, and who is at it: the device first, then the thread that writes."""

    def __init__(self, host: HostMemory, n_bytes: int) -> None:
        self.bytes = host.empty(n_bytes)
        self.flag = host.empty(1, torch.bool)
        self.copied = Moment(host.device)
        self.written: Future[None] | None = None

    def wait(self) -> None:
        """Until it is written; raises what went wrong then."""
        written, self.written = self.written, None
        if written is not None:
            written.result()


@dataclass
class _Tensor:
    """What is being written.

    Attributes:
        failed: Part of it was not: what follows would miss the beginning of its first block.
    """

    place: tuple[int, int]
    length: int
    failed: bool = False


@dataclass(frozen=True)
class _Part:
    """Elements of a tensor, in a buffer."""

    tensor: _Tensor
    start: int
    count: int
    itemsize: int


class FileStore:
    """Into a merge's files.

    Args:
        n_bytes: Host memory of both buffers.
    """

    def __init__(self, files: "OutputFiles", host: HostMemory, n_bytes: int) -> None:
        self._files = files
        self._n_bytes = power_of_two(n_bytes // 2)
        self._buffers = [_Buffer(host, self._n_bytes) for _ in range(2)]
        self._turn = 0
        self._thread = ThreadPoolExecutor(1, "mergeplan-write")

    def begin(self, output: int, job: int, length: int) -> None:
        for buffer in self._buffers:  # of a tensor that was given up
            with suppress(NotFiniteError):
                buffer.wait()
        self._tensor = _Tensor((output, job), length)

    def put(self, start: int, values: Tensor, finite: Tensor) -> None:
        # A part comes behind what its first block has of the one before.
        most = self._n_bytes // values.itemsize - BLOCK
        for first in range(0, values.numel(), most):
            self._put(start + first, values[first : first + most], finite)

    def _put(self, start: int, values: Tensor, finite: Tensor) -> None:
        self._turn ^= 1
        buffer, other = self._buffers[self._turn], self._buffers[self._turn ^ 1]
        buffer.wait()
        first, size = start % BLOCK * values.itemsize, values.numel() * values.itemsize
        # On the worker's own stream, to which its memory goes back: less comes down than goes up,
        # and that has a stream of its own.
        buffer.bytes[first : first + size].copy_(values.view(torch.uint8), non_blocking=True)
        buffer.flag.copy_(finite.view(1), non_blocking=True)
        buffer.copied.note()
        part = _Part(self._tensor, start, values.numel(), values.itemsize)
        buffer.written = self._thread.submit(self._write, part, buffer, other)

    def finish(self) -> None:
        for turn in (self._turn ^ 1, self._turn):
            self._buffers[turn].wait()

    def close(self) -> None:
        self._thread.shutdown()

    def _write(self, part: _Part, buffer: _Buffer, other: _Buffer) -> None:
        """Write the blocks that a part completes; the rest goes before the next one."""
        tensor, failed = part.tensor, part.tensor.failed
        tensor.failed = True
        buffer.copied.wait()
        if failed or not bool(buffer.flag):
            raise NotFiniteError
        first, end = part.start // BLOCK * BLOCK, part.start + part.count
        whole = end if end == tensor.length else end // BLOCK * BLOCK
        n_bytes = (whole - first) * part.itemsize
        if n_bytes:
            self._files.write(*tensor.place, first, buffer.bytes[:n_bytes].numpy())
        rest = (end - whole) * part.itemsize
        # Where the device does not write meanwhile: what is next begins behind it.
        other.bytes[:rest].copy_(buffer.bytes[n_bytes : n_bytes + rest])
        tensor.failed = False


class ModelStore:
    """Into the memory of loaded models.

    Args:
        places: For each output and job the tensor that takes it, on any device.
    """

    def __init__(self, places: Mapping[tuple[int, int], Tensor]) -> None:
        self._places = places

    def begin(self, output: int, job: int, length: int) -> None:
        self._place = place = self._places[output, job]
        self._whole = place
        if not place.is_contiguous():
            self._whole = torch.empty_like(place, memory_format=torch.contiguous_format)
        self._finite: list[Tensor] = []

    def put(self, start: int, values: Tensor, finite: Tensor) -> None:
        # A model that was made for inference takes changes in that mode alone.
        with torch.inference_mode(self._whole.is_inference()):
            self._whole.view(-1)[start : start + values.numel()].copy_(values)
        self._finite.append(finite)

    def finish(self) -> None:
        if self._whole is not self._place:
            with torch.inference_mode(self._place.is_inference()):
                self._place.copy_(self._whole)
        # The answer comes once everything is written.
        if self._finite and not bool(torch.stack(self._finite).all()):
            raise NotFiniteError

    def close(self) -> None:
        pass
