"""Finished pieces, from a device to where they belong.

While the device still copies one piece into pinned memory, the one before is hashed and written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

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


@dataclass(frozen=True)
class _Pending:
    buffer: Tensor
    flag: Tensor
    copied: Moment
    start: int
    count: int
    itemsize: int


class FileStore:
    """Into a merge's files.

    Args:
        n_bytes: Host memory of both buffers.
    """

    def __init__(self, files: "OutputFiles", device: torch.device, n_bytes: int) -> None:
        pinned = device.type == "cuda"
        self._files = files
        self._n_bytes = power_of_two(n_bytes // 2)
        self._buffers = [
            torch.empty(self._n_bytes, dtype=torch.uint8, pin_memory=pinned) for _ in range(2)
        ]
        self._flags = [torch.empty((), dtype=torch.bool, pin_memory=pinned) for _ in range(2)]
        self._copied = [Moment(device) for _ in range(2)]
        self._turn = 0
        self._pending: _Pending | None = None

    def begin(self, output: int, job: int, length: int) -> None:
        self._place, self._length = (output, job), length
        self._pending = None

    def put(self, start: int, values: Tensor, finite: Tensor) -> None:
        # A part comes behind what its first block has of the one before.
        most = self._n_bytes // values.itemsize - BLOCK
        for first in range(0, values.numel(), most):
            self._put(start + first, values[first : first + most], finite)

    def _put(self, start: int, values: Tensor, finite: Tensor) -> None:
        self._turn ^= 1
        buffer, flag = self._buffers[self._turn], self._flags[self._turn]
        first, size = start % BLOCK * values.itemsize, values.numel() * values.itemsize
        buffer[first : first + size].copy_(values.view(torch.uint8), non_blocking=True)
        flag.copy_(finite, non_blocking=True)
        copied = self._copied[self._turn]
        copied.note()
        self._flush()
        self._pending = _Pending(buffer, flag, copied, start, values.numel(), values.itemsize)

    def finish(self) -> None:
        self._flush()

    def _flush(self) -> None:
        """Write the blocks that the last piece completes; the rest goes before the next one."""
        last, self._pending = self._pending, None
        if last is None:
            return
        last.copied.wait()
        if not bool(last.flag):
            raise NotFiniteError
        first, end = last.start // BLOCK * BLOCK, last.start + last.count
        whole = end if end == self._length else end // BLOCK * BLOCK
        n_bytes = (whole - first) * last.itemsize
        if n_bytes:
            self._files.write(*self._place, first, last.buffer[:n_bytes].numpy())
        rest = (end - whole) * last.itemsize
        other = self._buffers[0 if last.buffer is self._buffers[1] else 1]
        other[:rest].copy_(last.buffer[n_bytes : n_bytes + rest])


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
