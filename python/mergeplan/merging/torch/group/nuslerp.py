"""`nuslerp`: spherical interpolation between two inputs, or between their deltas.

One angle for the tensor, for each row, or for each column; see
`rust/core/src/execute/group/nuslerp.rs`.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from mergeplan.merging.torch.arithmetic import float32
from mergeplan.merging.torch.group import sums
from mergeplan.merging.torch.group.inputs import GroupInputs
from mergeplan.merging.torch.group.vectors import Vectors
from mergeplan.merging.torch.sweeps import InputSweep, Piece

_SMALLEST_NORM = 1e-7
# Below this 1 − cos²θ counts as zero.
_COLLINEAR = 1e-16
# Device bytes for each vector: sums and what they are computed from, angle, sines, factors.
_VECTOR_BYTES = 3 * 3 * 8 + 16 * 4
_ALONG = {"tensor": Vectors.whole, "last": Vectors.last, "first": Vectors.first}


class Nuslerp:
    """(sin((1 − t)θ) · a + sin(tθ) · b) / sin θ; linear where cos²θ = 1."""

    def __init__(self, group: GroupInputs, t: float, along: str) -> None:
        self.inputs, self.working = group.numbers, group.working
        self._group, self._steps = group, group.steps
        self._rest, self._t = float32(1.0 - t), float32(t)
        self._vectors = vectors = _ALONG[along](group.shape)
        self.align = vectors.width
        passes = 1 if self.working == torch.float32 else 2
        self.sweeps = vectors.sweeps(passes)
        # Base, inputs and deltas, unit vectors or products and their sum, and float32 in between.
        own = 6 * group.size + max(3 * 4, sums.BYTES)
        self.element_bytes = own + vectors.piece_bytes(_VECTOR_BYTES)
        self.fixed_bytes = vectors.fixed_bytes(_VECTOR_BYTES)

    def run(self, sweep: InputSweep) -> Iterator[tuple[int, Tensor]]:
        for pieces in self._vectors.complete(sweep):
            factors = self._factors(self._cosines(pieces))
            for piece in pieces:
                yield piece.start, self._between(piece, factors)

    def _cosines(self, pieces: Iterable[Piece]) -> Tensor:
        """Of every vector's angle, rounded. float32."""
        rounded = self._group.rounded
        aa, bb, ab = self._vectors.sums(pieces, self._gram)
        norms = [square.sqrt_() for square in (aa, bb)]
        smallest = self._steps.number(_SMALLEST_NORM)
        if self.working == torch.float32:
            # With norms that are not rounded, parallel vectors have a cosine of one.
            a, b = (norm.clamp_(min=smallest) for norm in norms)
            return rounded(ab / a / b)
        lengths = [rounded(norm).clamp_(min=smallest) for norm in norms]

        def unit_products(piece: Piece) -> Iterator[Tensor]:
            a, b = (
                self._steps.divide(self._vectors.lines(delta), length)
                for delta, length in zip(self._group.deltas(piece), lengths, strict=True)
            )
            yield a * b

        (cosines,) = self._vectors.sums(pieces, unit_products)
        return rounded(cosines)

    def _gram(self, piece: Piece) -> Iterator[Tensor]:
        a, b = self._group.deltas(piece)
        yield a.double().square_()
        yield b.double().square_()
        yield a.double().mul_(b)

    def _factors(self, cosines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """On both inputs, and what their sum is divided by. float32."""
        rounded = self._group.rounded
        cosines = cosines.clamp(-1.0, 1.0)
        away = rounded(1.0 - rounded(cosines * cosines))
        collinear = away <= self._steps.number(_COLLINEAR)
        angles = rounded(cosines.double().acos_())

        def sines(angles: Tensor) -> Tensor:
            return rounded(angles.double().sin_())

        return (
            sines(rounded(self._rest * angles)).masked_fill_(collinear, self._rest),
            sines(rounded(self._t * angles)).masked_fill_(collinear, self._t),
            sines(angles).masked_fill_(collinear, 1.0),
        )

    def _between(self, piece: Piece, factors: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        steps = self._steps
        a, b = (
            steps.multiply(self._vectors.lines(delta), factor)
            for delta, factor in zip(self._group.deltas(piece), factors[:2], strict=True)
        )
        values = steps.divide(steps.add(a, b), factors[2])
        return self._group.add_base(piece, values.view(-1))
