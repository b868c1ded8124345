"""Going over a tensor's inputs, piece by piece, as often as a method needs.

The first pieces stay on the device, as many as there is room for, and later sweeps, and other
merges of the same tensor, find them there. The rest comes from the files again.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mergeplan.merging.torch.arithmetic import all_finite
from mergeplan.merging.torch.loading import Input, PieceLoader, stored_bytes


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


class Pieces:
    """The inputs of one tensor, for all merges of it.

    Args:
        length: Elements of the tensor.
        piece: Elements of a piece.
        keep_bytes: Device memory that pieces may stay in.
    """

    def __init__(self, loader: PieceLoader, length: int, piece: int, keep_bytes: int) -> None:
        self._loader = loader
        self.length, self._piece = length, piece
        self._room = keep_bytes
        self._kept: dict[tuple[tuple[int, int], int], Tensor] = {}
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
        wanted = {one.identity: one for one in inputs}
        missing = [one for key, one in wanted.items() if (key, start) not in self._kept]
        found = {
            one.identity: tensor
            for one, tensor in zip(missing, self._loader.load(missing, start, count), strict=True)
        }
        if self.reserve(stored_bytes(missing, count)):
            self._kept |= {(key, start): tensor for key, tensor in found.items()}
        return [
            found[one.identity] if one.identity in found else self._kept[one.identity, start]
            for one in inputs
        ]

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
            del piece
        self._checked = True

    def reserve(self, n_bytes: int) -> bool:
        """Whether a program may keep so many bytes of its own from piece to piece."""
        return self._pieces.reserve(n_bytes)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Start and number of elements of each piece."""
        return self._pieces.ranges()

    def numbers(self, values: Tensor) -> list[float]:
        """What a sweep has found out, on the host.

        Raises:
            NotFiniteError: The inputs are not finite, so that it says nothing.
        """
        if not bool(self.finite):
            raise NotFiniteError
        found: list[float] = values.double().tolist()
        return found
