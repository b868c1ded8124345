"""`multislerp`: the weighted barycentre of several points on a sphere, by one step in the tangent
space at their normalised mean.

```text
uᵢ  = xᵢ / |xᵢ|                          xᵢ the inputs, or their deltas
m   = Σ wᵢuᵢ / |Σ wᵢuᵢ|
v   = Σ wᵢ(uᵢ − ⟨uᵢ, m⟩m)
out = (cos|v| · m + sin|v| / |v| · v) · Σ wᵢ|xᵢ|
```
Each of |xᵢ|, |Σ wᵢuᵢ|, ⟨uᵢ, m⟩ and |v| takes a sweep; what lies between is computed again. See
`rust/core/src/execute/group/multislerp.rs`.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from mergeplan.merging.torch.arithmetic import float32
from mergeplan.merging.torch.group import sums
from mergeplan.merging.torch.group.inputs import GroupInputs
from mergeplan.merging.torch.sweeps import InputSweep, LeaveToCoreError, Piece


class Multislerp:
    """Through the mean direction, and one step towards the barycentre."""

    align = 1
    # But where the directions cancel.
    sweeps = 5
    fixed_bytes = 0

    def __init__(
        self, group: GroupInputs, weights: Sequence[float], normalize: bool, eps: float
    ) -> None:
        self.inputs, self.working = group.numbers, group.working
        self._group, self._steps = group, group.steps
        self._weights, self._normalize = weights, normalize
        self._eps = float32(eps)
        # Unit vectors, base and input, mean and tangent; then sums and steps in float32, or wider.
        self.element_bytes = (group.count + 6) * group.size + max(3 * 4, sums.BYTES)

    def run(self, sweep: InputSweep) -> Iterator[tuple[int, Tensor]]:
        steps = self._steps
        state = _State(self._group, self._rounded_weights())
        norms = [steps.number(math.sqrt(n)) for n in sums.totals(sweep, self._squares)]
        state.lengths = [steps.number(norm + steps.number(self._eps)) for norm in norms]
        (square,) = sums.totals(sweep, state.mean_square)
        state.mean_norm = steps.number(math.sqrt(square))
        if state.mean_norm <= self._eps:
            # Inputs that are all zero, as copies of the base are, have no direction to lose.
            if len(norms) != 2 and any(norms):
                raise LeaveToCoreError
            for piece in sweep:
                mixed = state.mix(self._group.deltas(piece), piece[0])
                yield piece.start, self._group.add_base(piece, mixed)
            return
        state.dots = [steps.number(dot) for dot in sums.totals(sweep, state.products)]
        (square,) = sums.totals(sweep, state.tangent_square)
        factors = self._factors(norms, state.weights, steps.number(math.sqrt(square)))
        for piece in sweep:
            mean, tangent = state.tangent(piece)
            unit = steps.add(steps.scale(mean, factors[0]), steps.scale(tangent, factors[1]))
            yield piece.start, self._group.add_base(piece, steps.scale(unit, factors[2]))

    def _rounded_weights(self) -> list[float]:
        steps = self._steps
        weights = [steps.number(weight) for weight in self._weights]
        total = steps.number(steps.number_sum(weights))
        if not self._normalize:
            return weights
        if total == 0.0:
            raise LeaveToCoreError
        return [steps.number(weight / total) for weight in weights]

    def _squares(self, piece: Piece) -> Iterator[Tensor]:
        return map(sums.squares, self._group.deltas(piece))

    def _factors(
        self, norms: Sequence[float], weights: Sequence[float], tangent_norm: float
    ) -> tuple[float, float, float]:
        """On mean and tangent, and on their sum."""
        number = self._steps.number
        angle = number(tangent_norm + self._eps)
        if not math.isfinite(angle):
            raise LeaveToCoreError
        products = [number(norm * weight) for norm, weight in zip(norms, weights, strict=True)]
        return (
            number(math.cos(angle)),
            number(number(math.sin(angle)) / angle) if angle else 1.0,
            number(self._steps.number_sum(products)),
        )


class _State:
    """What the sweeps have found so far.

    Attributes:
        lengths: Norms of the inputs, with `eps` added.
        mean_norm: Of the mean of the unit vectors.
        dots: Products of unit vectors and normalised mean.
    """

    def __init__(self, group: GroupInputs, weights: list[float]) -> None:
        self._group, self._steps = group, group.steps
        self.weights = weights
        self.lengths: list[float] = []
        self.mean_norm = 1.0
        self.dots: list[float] = []

    def mix(self, tensors: Iterable[Tensor], like: Tensor) -> Tensor:
        """Σ wᵢxᵢ, rounded once."""
        steps = self._steps
        terms = map(steps.scale, tensors, self.weights)
        return steps.cast(steps.sum(terms, like))

    def units(self, piece: Piece) -> list[Tensor]:
        # In float16 `eps` can be nothing, and then a zero vector would be 0/0.
        return [
            self._steps.divide(delta, length or 1.0)
            for delta, length in zip(self._group.deltas(piece), self.lengths, strict=True)
        ]

    def mean(self, units: list[Tensor]) -> Tensor:
        return self._steps.divide(self.mix(units, units[0]), self.mean_norm)

    def mean_square(self, piece: Piece) -> Iterator[Tensor]:
        units = self.units(piece)
        yield sums.squares(self.mix(units, units[0]))

    def products(self, piece: Piece) -> Iterator[Tensor]:
        units = self.units(piece)
        mean = self.mean(units)
        for unit in units:
            yield sums.rounded_products(unit, mean)

    def tangent(self, piece: Piece) -> tuple[Tensor, Tensor]:
        """Mean and tangent vector."""
        steps, units = self._steps, self.units(piece)
        mean = self.mean(units)
        tangents = (
            steps.subtract(unit, steps.scale(mean, dot))
            for unit, dot in zip(units, self.dots, strict=True)
        )
        return mean, self.mix(tangents, mean)

    def tangent_square(self, piece: Piece) -> Iterator[Tensor]:
        yield sums.squares(self.tangent(piece)[1])
