"""`ram` and `ramplus_tl`: average the changes that several inputs make to an element, keep whole
those that one makes alone.

See `rust/core/src/execute/group/ram.rs`.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mergeplan.merging.torch.arithmetic import float32
from mergeplan.merging.torch.group import sums
from mergeplan.merging.torch.group.inputs import GroupInputs
from mergeplan.merging.torch.sweeps import InputSweep, Piece


class Ram:
    """base + (one changes the element: its change · λᵢ; n > 1 do: the sum of their changes / n).

    Args:
        epsilon: Changes up to this magnitude count as none.
        r, alpha: For `ramplus_tl`: λᵢ = 1 + r · min(shared changes of i / own changes of i, alpha).
            For `ram` λᵢ = 1.
    """

    align = 1
    fixed_bytes = 0

    def __init__(
        self, group: GroupInputs, epsilon: float, r: float | None = None, alpha: float | None = None
    ) -> None:
        self.inputs, self.working = group.numbers, group.working
        self._group, self._steps = group, group.steps
        self._epsilon = float32(epsilon)
        self._plus = None if r is None or alpha is None else (float32(r), float32(alpha))
        self.sweeps = 1 if self._plus is None else 2
        # All changes, an input and its base, counts and their sum, four steps, and masks.
        self.element_bytes = (group.count + 5) * group.size + 6 * 4 + 3

    def run(self, sweep: InputSweep) -> Iterator[tuple[int, Tensor]]:
        lambdas = self._lambdas(sweep)
        for piece in sweep:
            changes, counts = self._changes(piece)
            total = torch.zeros_like(counts)
            for change, factor in zip(changes, lambdas, strict=True):
                total += self._share(change, counts, factor)
            if self._plus:
                # In mergekit λ is a float32 tensor: nothing is rounded to 16 bits from there on.
                yield piece.start, total.add_(piece[0])
            else:
                yield piece.start, self._steps.add(piece[0], self._steps.cast(total))

    def _changes(self, piece: Piece) -> tuple[list[Tensor], Tensor]:
        """Every input's, and how many change an element, in float32."""
        epsilon = self._steps.number(self._epsilon)
        changes = []
        counts = torch.zeros_like(piece[0], dtype=torch.float32)
        for delta in self._group.deltas(piece):
            has_changed = delta.abs() > epsilon
            changes.append(delta.masked_fill(~has_changed, 0.0))
            counts += has_changed
        return changes, counts

    def _share(self, change: Tensor, counts: Tensor, factor: float) -> Tensor:
        """What an input adds. float32."""
        shared = self._steps.divide(change, counts.clamp(min=1.0)).float()
        return torch.where(counts > 1.0, shared, change.float() * factor)

    def _lambdas(self, sweep: InputSweep) -> Sequence[float]:
        if self._plus is None:
            return [1.0] * self._group.count
        totals = sums.totals(sweep, self._kinds)
        return [
            self._lambda(*self._plus, shared, own)
            for shared, own in zip(totals[::2], totals[1::2], strict=True)
        ]

    def _lambda(self, r: float, alpha: float, shared: float, own: float) -> float:
        divisor = max(float32(own), self._epsilon)
        # Without own changes and epsilon there is nothing to scale.
        ratio = float32(float32(shared) / divisor) if divisor else 0.0
        return float32(1.0 + float32(min(ratio, alpha) * r))

    def _kinds(self, piece: Piece) -> Iterator[Tensor]:
        """How many changes of every input are shared, and how many its own."""
        changes, counts = self._changes(piece)
        shared, own = counts > 1.0, counts == 1.0
        for change in changes:
            has_changed = change != 0
            yield (has_changed & shared).sum()
            yield (has_changed & own).sum()
