"""`model_stock`: the average of the inputs, drawn to the base by how little their deltas agree.

See `rust/core/src/execute/group/model_stock.rs`.
"""

from collections.abc import Iterable, Iterator
from itertools import combinations

import torch
from torch import Tensor

from mergeplan.merging.torch.group.inputs import GroupInputs
from mergeplan.merging.torch.group.vectors import Vectors
from mergeplan.merging.torch.sweeps import InputSweep, Piece

# Products of norms below this are replaced by it, and divisors below it count as zero.
_SMALLEST = 1e-6


class ModelStock:
    """t · average + (1 − t) · base, t = k·c / (1 + (k − 1)·c), c the mean cosine of all pairs."""

    def __init__(self, group: GroupInputs, filter_wise: bool) -> None:
        self.inputs, self.working = group.numbers, group.working
        self._group, self._steps = group, group.steps
        shape, count = group.shape, group.count
        self._vectors = Vectors.last(shape) if filter_wise else Vectors.whole(shape)
        self.align = self._vectors.width
        self.sweeps = self._vectors.sweeps(1)
        # All deltas, an input and its base, and a term in float64; or sums and products.
        self.element_bytes = (count + 3) * group.size + 2 * 8
        # For each vector: sums over pieces, norms, and what comes after.
        each = 2 * count * (count + 1) // 2 * 8 + count * 4 + 8 * 8
        self.element_bytes += self._vectors.piece_bytes(each)
        self.fixed_bytes = self._vectors.fixed_bytes(each)

    def run(self, sweep: InputSweep) -> Iterator[tuple[int, Tensor]]:
        for pieces in self._vectors.complete(sweep):
            t = self._ratios(pieces)
            for piece in pieces:
                yield piece.start, self._draw(piece, t)

    def _ratios(self, pieces: Iterable[Piece]) -> Tensor:
        """t of every vector, rounded. float32."""
        rounded, number, count = self._group.rounded, self._steps.number, self._group.count
        found = self._vectors.sums(pieces, self._terms)
        norms = [rounded(square.sqrt_()) for square in found[:count]]
        total = torch.zeros_like(norms[0])
        pairs = list(combinations(norms, 2))
        for (a, b), products in zip(pairs, found[count:], strict=True):
            divisor = rounded(a * b).clamp_(min=number(_SMALLEST))
            total += rounded(rounded(products) / divisor).clamp_(-1.0, 1.0)
        cosine = self._steps.divide(total, float(len(pairs))).float()
        divisor = rounded(1.0 + rounded((count - 1.0) * cosine))
        t = rounded(rounded(float(count) * cosine) / divisor)
        return t.masked_fill_(divisor.abs() < number(_SMALLEST), 0.0)

    def _terms(self, piece: Piece) -> Iterator[Tensor]:
        """The squares of every delta, then the products of every pair, rounded."""
        deltas = list(self._group.deltas(piece))
        for delta in deltas:
            yield delta.double().square_()
        for a, b in combinations(deltas, 2):
            yield a * b

    def _draw(self, piece: Piece, t: Tensor) -> Tensor:
        steps, lines = self._steps, self._vectors.lines
        tensors = self._group.tensors(piece)
        total = next(tensors)
        for tensor in tensors:
            total = total + tensor
        average = steps.multiply(lines(steps.divide(total, float(self._group.count))), t)
        rest = self._group.rounded(1.0 - t)
        return steps.add(average, steps.multiply(lines(piece[0]), rest)).view(-1)
