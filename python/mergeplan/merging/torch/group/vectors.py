"""Sums over each vector of a tensor: over all of it, its rows, or its columns.

They stay on the device, in float64, and broadcast against a piece's `lines`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor

from mergeplan.merging.torch.sweeps import InputSweep, Piece


@dataclass(frozen=True)
class Vectors:
    """How a tensor is made of vectors.

    Attributes:
        width: Elements of a line, of which a piece holds whole ones. Every line is a row; or has
            one element of each column. The whole tensor needs no lines.
    """

    kind: Literal["whole", "rows", "columns"]
    width: int

    @classmethod
    def whole(cls, shape: Sequence[int]) -> "Vectors":
        return cls("whole", 1)

    @classmethod
    def last(cls, shape: Sequence[int]) -> "Vectors":
        """Along the last dimension."""
        return cls.whole(shape) if prod(shape[:-1]) == 1 else cls("rows", shape[-1])

    @classmethod
    def first(cls, shape: Sequence[int]) -> "Vectors":
        """Along the first dimension."""
        return cls.whole(shape) if len(shape) < 2 else cls("columns", prod(shape[1:]))

    def complete(self, sweep: InputSweep) -> Iterator[Iterable[Piece]]:
        """Pieces that together hold all of their vectors, to go over more than once."""
        if self.kind != "rows":
            yield sweep
            return
        for piece in sweep:
            yield [piece]

    def lines(self, values: Tensor) -> Tensor:
        """Of a piece. Shape (lines, width), or (1, numel) for the whole tensor."""
        return values.view(1, -1) if self.kind == "whole" else values.view(-1, self.width)

    def sums(
        self, pieces: Iterable[Piece], terms: Callable[[Piece], Iterator[Tensor]]
    ) -> list[Tensor]:
        """Sums over every vector. float64, shape (lines, 1) or (1, width) or (1, 1).

        Args:
            pieces: Some that are complete.
            terms: Gives the terms of each sum, one for every element.
        """
        dimension = 0 if self.kind == "columns" else 1
        totals: list[Tensor] = []
        for piece in pieces:
            found = [
                self.lines(values).sum(dimension, keepdim=True, dtype=torch.float64)
                for values in terms(piece)
            ]
            totals = [a + b for a, b in zip(totals, found, strict=True)] if totals else found
        return totals

    def sweeps(self, passes: int) -> int:
        """Over the tensor, for statistics of so many passes and a result."""
        return 1 if self.kind == "rows" else passes + 1

    def piece_bytes(self, each: int) -> int:
        """Bytes for each element of a piece that `each` for every vector comes to."""
        return -(-each // self.width) if self.kind == "rows" else 0

    def fixed_bytes(self, each: int) -> int:
        """Bytes that `each` for every vector comes to, whatever the piece."""
        return {"whole": each, "rows": 0, "columns": each * self.width}[self.kind]
