"""Going over a tensor's inputs, piece by piece, as often as a method needs.

The first pieces stay on the device, as many as there is room for, and later sweeps, and other
merges of the same tensor, find them there. The rest comes from the files again; of what is missing,
the next piece is on its way while one is used.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mergeplan.merging.torch.arithmetic import all_finite
from mergeplan.merging.torch.host import Note
from mergeplan.merging.torch.loading import Coming, Input, PieceLoader, stored_bytes


class LeaveToCoreError(Exception):
    """The core knows what to do with this tensor, and what to say."""


class NotFiniteError(LeaveToCoreError):
    """An input or a result holds NaN or infinity."""


class Piece:
    """A run of a tensor's elements: `piece[i]` is that of input `i`, in the working dtype.

    Each is converted when it is asked for, so that no more of them are there than are used.

    Attributes:
        start: Number of the first element.
    """

    def __init__(self, start: int, stored: list[Tensor], working: torch.dtype) -> None:
        self.start = start
        self._stored, self._working = stored, working

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, number: int) -> Tensor:
        """Shape (numel,)."""
        return self._stored[number].to(self._working)

    def clear(self) -> None:
        """It will not be used any more: its place is for the next one."""
        self._stored = []


@dataclass(frozen=True)
class _Ahead:
    """What was asked for before it is needed."""

    start: int
    inputs: frozenset[tuple[int, int]]
    coming: Coming


class Pieces:
    """The inputs of one tensor, for all merges of it.

    Args:
        length: Elements of the tensor.
        piece: Elements of a piece.
        keep_bytes: Device memory that pieces may stay in.
        note: Takes what programs have to say.
    """

    def __init__(
        self, loader: PieceLoader, length: int, piece: int, keep_bytes: int, note: Note
    ) -> None:
        self._loader, self.note = loader, note
        self.length, self._piece = length, piece
        self._room = keep_bytes
        self._kept: dict[tuple[tuple[int, int], int], Tensor] = {}
        self._ahead: _Ahead | None = None
        self.device = loader.device

    def sweep(self, inputs: Sequence[Input], working: torch.dtype) -> "InputSweep":
        """Some of the inputs, in the dtype that a merge works in."""
        return InputSweep(self, inputs, working)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Start and number of elements of each piece."""
        for start in range(0, self.length, self._piece):
            yield start, min(self._piece, self.length - start)

    def get(self, inputs: Sequence[Input], start: int, count: int) -> list[Tensor]:
        """Elements of some inputs, in their own dtypes."""
        missing = self._missing(inputs, start)
        found = self._load(missing, start, count) if missing else {}
        if missing and self.reserve(stored_bytes(missing, count)):
            self._kept |= {(key, start): tensor for key, tensor in found.items()}
        self._look_ahead(inputs, start + count)
        return [
            found[one.identity] if one.identity in found else self._kept[one.identity, start]
            for one in inputs
        ]

    def close(self) -> None:
        """Whatever is still coming is not wanted."""
        if self._ahead is not None:
            self._ahead.coming.drop()
            self._ahead = None

    def _missing(self, inputs: Sequence[Input], start: int) -> list[Input]:
        """Those, each once, that are not on the device."""
        wanted = {one.identity: one for one in inputs}
        return [one for key, one in wanted.items() if (key, start) not in self._kept]

    def _load(
        self, missing: Sequence[Input], start: int, count: int
    ) -> dict[tuple[int, int], Tensor]:
        keys = [one.identity for one in missing]
        if self._ahead is None or (self._ahead.start, self._ahead.inputs) != (
            start,
            frozenset(keys),
        ):
            self.close()
            coming = self._loader.start(missing, start, count)
        else:
            coming, self._ahead = self._ahead.coming, None
        return dict(zip(keys, coming.get(), strict=True))

    def _look_ahead(self, inputs: Sequence[Input], start: int) -> None:
        """Ask for the next piece from `start` on that something is missing of."""
        if self._ahead is not None:
            return
        for first in range(start, self.length, self._piece):
            if missing := self._missing(inputs, first):
                count = min(self._piece, self.length - first)
                coming = self._loader.start(missing, first, count)
                keys = frozenset(one.identity for one in missing)
                self._ahead = _Ahead(first, keys, coming)
                return

    def reserve(self, n_bytes: int) -> bool:
        """Take bytes off those that may stay; the first that have no room end it for all others.

        Sweeps begin at the front: what comes later would be read again all the same.
        """
        fits = n_bytes <= self._room
        self._room = self._room - n_bytes if fits else 0
        return fits


class InputSweep:
    """What a method goes over: iterate it as often as needed.

    Attributes:
        length: Elements of the tensor.
        device: Where its pieces are.
    """

    def __init__(self, pieces: Pieces, inputs: Sequence[Input], working: torch.dtype) -> None:
        self._pieces, self._inputs, self._working = pieces, inputs, working
        self.length = pieces.length
        self.device = pieces.device
        self.finite = torch.ones((), dtype=torch.bool, device=self.device)
        self._checked = False

    def __iter__(self) -> Iterator[Piece]:
        for start, count in self._pieces.ranges():
            piece = Piece(start, self._pieces.get(self._inputs, start, count), self._working)
            if not self._checked:
                for number in range(len(piece)):
                    self.finite &= all_finite(piece[number])
            yield piece
            piece.clear()
        self._checked = True

    def reserve(self, n_bytes: int) -> bool:
        """Whether a program may keep so many bytes of its own from piece to piece."""
        return self._pieces.reserve(n_bytes)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Start and number of elements of each piece."""
        return self._pieces.ranges()

    def note(self, text: str) -> None:
        """A program has something to say to whoever asked for the merge."""
        self._pieces.note(text)

    def numbers(self, values: Tensor) -> list[float]:
        """What a sweep has found out, on the host.

        Raises:
            NotFiniteError: The inputs are not finite, so that it says nothing.
        """
        # One transfer, for which the host waits.
        both = torch.cat([self.finite.double().view(1), values.double().flatten()])
        numbers: list[float] = both.tolist()
        if not numbers[0]:
            raise NotFiniteError
        return numbers[1:]
