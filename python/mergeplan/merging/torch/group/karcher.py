"""`karcher`: the Fréchet mean of the inputs' directions on the sphere, times their mean norm.

```text
uᵢ = xᵢ/|xᵢ|,  m = Σ αᵢuᵢ, normalised
repeat: v = Σ αᵢ · θᵢ/sin θᵢ · (uᵢ − ⟨m, uᵢ⟩m),  θᵢ = acos⟨m, uᵢ⟩;  stop where |v| is small
        m = cos|v| · m + sin|v| · v/|v|, normalised
out = mean of |xᵢ| · m
```
The mean is never stored: a piece's is a recursion on the scalars that earlier sweeps found, and
each sweep runs it from the start. See `rust/core/src/execute/group/karcher.rs`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mergeplan.merging.torch.arithmetic import Steps, float32
from mergeplan.merging.torch.group import sums
from mergeplan.merging.torch.group.inputs import GroupInputs
from mergeplan.merging.torch.sweeps import InputSweep, Piece


@dataclass(frozen=True)
class _Term:
    """⟨m, u⟩, and the factor on u − ⟨m, u⟩m."""

    dot: float
    factor: float


@dataclass
class _Step:
    """The scalars of one iteration.

    Attributes:
        terms: Of each input; none where its angle is too small.
        mean_norm: What makes the next mean a unit vector; 1 where there is none.
    """

    terms: list[_Term | None]
    tangent_norm: float
    mean_norm: float = 1.0


class Karcher:
    """The mean direction, moved along the inputs' mean tangent until that is short."""

    align = 1
    fixed_bytes = 0

    def __init__(self, group: GroupInputs, max_iter: int, tol: float) -> None:
        self.inputs, self.working = group.numbers, group.working
        self._group, self._steps = group, group.steps
        self._max_iter, self._tol = max_iter, tol
        # Norms, the mean, one iteration that does not move it, and the result.
        self.sweeps = 3 + (2 if max_iter else 0)
        # Unit vectors and an input, mean and tangent with two steps of each; float32 or wider.
        self.element_bytes = (group.count + 6) * group.size + max(3 * 4, sums.BYTES)

    def run(self, sweep: InputSweep) -> Iterator[tuple[int, Tensor]]:
        steps, count = self._steps, self._group.count
        squares = sums.totals(sweep, lambda piece: map(sums.squares, self._group.tensors(piece)))
        norms = [_norm(square) for square in squares]
        share = float32(1.0 / count)
        scale = steps.number(steps.number_sum([float32(share * norm) for norm in norms]))
        valid = {number: norm for number, norm in enumerate(norms) if norm > self._tol}
        if not valid:
            for start, n in sweep.ranges():
                yield start, torch.zeros(n, dtype=self.working, device=sweep.device)
            return
        mean = self._settle(sweep, _Mean(steps, valid, count))
        for piece in sweep:
            yield piece.start, steps.scale(mean.of(mean.units(piece)), scale)

    def _settle(self, sweep: InputSweep, mean: "_Mean") -> "_Mean":
        norm = self._mean_norm(sweep, mean)
        if norm < self._tol:
            mean.is_first = True
        else:
            mean.norm = norm
        for _ in range(self._max_iter):
            if not self._move(sweep, mean):
                break
        return mean

    def _move(self, sweep: InputSweep, mean: "_Mean") -> bool:
        """One iteration: whether it moved the mean."""
        dots = sums.totals(sweep, mean.products)
        terms = [self._term(self._steps.number(dot), mean.share) for dot in dots]

        def tangent_square(piece: Piece) -> Iterator[Tensor]:
            units = mean.units(piece)
            yield sums.squares(mean.tangent(terms, units, mean.of(units)))

        (square,) = sums.totals(sweep, tangent_square)
        tangent_norm = _norm(square)
        if tangent_norm == 0.0 or tangent_norm < self._tol:
            return False
        step = _Step(terms, tangent_norm)
        mean.steps_taken.append(step)
        norm = self._mean_norm(sweep, mean)
        if norm > self._tol:
            step.mean_norm = norm
        return True

    def _mean_norm(self, sweep: InputSweep, mean: "_Mean") -> float:
        def square(piece: Piece) -> Iterator[Tensor]:
            yield sums.squares(mean.of(mean.units(piece)))

        return _norm(*sums.totals(sweep, square))

    def _term(self, dot: float, share: float) -> _Term | None:
        number = self._steps.number
        dot = min(max(dot, -1.0), 1.0)
        angle = number(math.acos(dot))
        if angle == 0.0 or angle < self._tol:
            return None
        return _Term(dot, number(number(angle / number(math.sin(angle))) * share))


class _Mean:
    """The mean as far as it is known.

    Args:
        valid: Norms of the inputs that are no zero vectors, by number.
        count: Of all inputs.

    Attributes:
        share: Of each input.
        norm: Of Σ αᵢuᵢ.
        is_first: Whether it begins as the first unit vector instead.
    """

    def __init__(self, steps: Steps, valid: dict[int, float], count: int) -> None:
        self._steps, self._valid = steps, valid
        total = 0.0
        for _ in valid:
            total += 1.0 / count
        self.share = float32(1.0 / count / total)
        self.norm = 1.0
        self.is_first = False
        self.steps_taken: list[_Step] = []

    def units(self, piece: Piece) -> list[Tensor]:
        return [self._steps.divide(piece[i], norm) for i, norm in self._valid.items()]

    def of(self, units: list[Tensor]) -> Tensor:
        """A piece's mean, after all steps."""
        steps = self._steps
        if self.is_first:
            mean = units[0]
        else:
            mean = torch.zeros_like(units[0])
            for unit in units:
                mean = steps.add(mean, steps.scale(unit, self.share))
            mean = steps.divide(mean, self.norm)
        for step in self.steps_taken:
            direction = steps.divide(self.tangent(step.terms, units, mean), step.tangent_norm)
            cosine, sine = math.cos(step.tangent_norm), math.sin(step.tangent_norm)
            mean = steps.scale(mean, steps.number(cosine))
            mean = steps.add(mean, steps.scale(direction, steps.number(sine)))
            mean = steps.divide(mean, step.mean_norm)
        return mean

    def tangent(self, terms: list[_Term | None], units: list[Tensor], mean: Tensor) -> Tensor:
        steps = self._steps
        total = torch.zeros_like(mean)
        for unit, term in zip(units, terms, strict=True):
            if term is not None:
                away = steps.subtract(unit, steps.scale(mean, term.dot))
                total = steps.add(total, steps.scale(away, term.factor))
        return total

    def products(self, piece: Piece) -> Iterator[Tensor]:
        units = self.units(piece)
        mean = self.of(units)
        for unit in units:
            yield sums.exact_products(mean, unit)


def _norm(square: float) -> float:
    """In float32, whatever the dtype."""
    return float32(math.sqrt(square))
