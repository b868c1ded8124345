"""`slerp`: from the base to the input on the great circle through both.

In float32 whatever the dtype, rounded once; see `rust/core/src/execute/group/slerp.rs`.
"""

import math
from collections.abc import Iterator

from torch import Tensor

from mergeplan.merging.torch.arithmetic import float32
from mergeplan.merging.torch.group import sums
from mergeplan.merging.torch.group.inputs import GroupInputs
from mergeplan.merging.torch.sweeps import InputSweep, Piece

_LINEAR_ABOVE = float32(0.9995)
# Norms up to this are replaced by one.
_SMALLEST_NORM = float32(1e-8)


class Slerp:
    """sin((1 − t)θ)/sin θ · base + sin(tθ)/sin θ · input; linear where |cos θ| > 0.9995."""

    align = 1
    sweeps = 2
    fixed_bytes = 0

    def __init__(self, group: GroupInputs, t: float) -> None:
        self.inputs, self.working = group.numbers, group.working
        self._steps = group.steps
        self._t = float32(t)
        # Both inputs, in float32 and times their factors; the sum has the place of one of these.
        self.element_bytes = 3 * group.size + max(4 * 4, sums.BYTES)

    def run(self, sweep: InputSweep) -> Iterator[tuple[int, Tensor]]:
        first, second = self._factors(*sums.totals(sweep, _gram))
        for piece in sweep:
            total = piece[0].float() * first
            total += piece[1].float() * second
            yield piece.start, self._steps.cast(total)

    def _factors(self, aa: float, bb: float, ab: float) -> tuple[float, float]:
        """On base and input, from both squared norms and the product."""
        cosine = float32(ab / _norm(aa) / _norm(bb))
        cosine = min(max(cosine, -1.0), 1.0)
        rest = float32(1.0 - self._t)
        if abs(cosine) > _LINEAR_ABOVE:
            return rest, self._t
        angle = float32(math.acos(cosine))
        sine = _sine(angle)
        return (
            float32(_sine(float32(rest * angle)) / sine),
            float32(_sine(float32(self._t * angle)) / sine),
        )


def _gram(piece: Piece) -> Iterator[Tensor]:
    a, b = piece[0], piece[1]
    yield sums.squares(a)
    yield sums.squares(b)
    yield sums.exact_products(a, b)


def _norm(square: float) -> float:
    norm = float32(math.sqrt(square))
    return norm if norm > _SMALLEST_NORM else 1.0


def _sine(angle: float) -> float:
    return float32(math.sin(angle))
