"""`arcee_fusion`: take the elements of outstanding importance from the input, the rest from the
base.

```text
importance = |input − base| · KL(softmax(input) ‖ softmax(base))    softmax along the last dimension
threshold  = median + 1.5 · (upper quartile − lower quartile)      of all importances
out        = base + (input − base where importance ≥ threshold, else 0)
```
See `rust/core/src/execute/group/arcee_fusion.rs`.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from mergeplan.merging.torch.arithmetic import float32
from mergeplan.merging.torch.group import order
from mergeplan.merging.torch.group.inputs import GroupInputs
from mergeplan.merging.torch.sweeps import InputSweep, Piece

# As in mergekit: keeps shares away from zero.
_EPSILON = 1e-8


class ArceeFusion:
    """base + (input − base where that matters)."""

    def __init__(self, group: GroupInputs) -> None:
        self.inputs, self.working = group.numbers, group.working
        self._group, self._steps = group, group.steps
        self.align = group.shape[-1] if group.shape else 1
        self.sweeps = 1 + order.sweeps(self.working)
        rows = group.length // self.align
        # Both inputs, delta, importance and shares, their steps in float64; or counting.
        self.element_bytes = 8 * group.size + max(3 * 8 + 2 * 4, order.BYTES)
        # A row's largest element, sum and divergence.
        self.element_bytes += -(-4 * 8 // self.align)
        self.fixed_bytes = 4 * rows + order.counter_bytes(3)

    def run(self, sweep: InputSweep) -> Iterator[tuple[int, Tensor]]:
        divergences = _Divergences(self._group, self.align, sweep.device)

        def importance(piece: Piece) -> Tensor:
            return self._importance(piece, divergences)

        threshold = self._threshold(sweep, importance)
        for piece in sweep:
            base = piece[0]
            rest = importance(piece) < threshold
            delta = self._steps.subtract(piece[1], base).masked_fill_(rest, 0.0)
            # mergekit's mask is float32: the sum is not rounded to 16 bits.
            yield piece.start, base.float() + delta

    def _importance(self, piece: Piece, divergences: "_Divergences") -> Tensor:
        delta = self._steps.subtract(piece[1], piece[0]).abs_()
        rows = divergences.of(piece)
        return self._steps.multiply(delta.view(-1, self.align), rows[:, None]).view(-1)

    def _threshold(self, sweep: InputSweep, importance: order.Quantity) -> float:
        number = self._steps.number
        last = self._group.length - 1
        # mergekit multiplies in float32.
        ranks = [min(int(float32(share * float32(last))), last) for share in (0.25, 0.5, 0.75)]
        found = order.order_statistics(sweep, importance, self.working, lambda _: ranks)
        lower, median, upper = (one.value(self.working) for one in found)
        return number(median + number(1.5 * number(upper - lower)))


class _Divergences:
    """KL(softmax(input) ‖ softmax(base)) of every row, computed when a piece comes first."""

    def __init__(self, group: GroupInputs, columns: int, device: torch.device) -> None:
        self._steps, self._columns = group.steps, columns
        # Shape (rows,). The first `_known` of them are there.
        self._rows = torch.empty(group.length // columns, dtype=group.working, device=device)
        self._known = 0

    def of(self, piece: Piece) -> Tensor:
        """The rows of a piece."""
        base, tensor = (piece[i].view(-1, self._columns) for i in range(2))
        first = piece.start // self._columns
        rows = self._rows[first : first + len(base)]
        if first >= self._known:
            rows.copy_(self._divergence(self._shares(tensor), self._shares(base)))
            self._known = first + len(base)
        return rows

    def _shares(self, values: Tensor) -> Tensor:
        """The softmax of every row, in float64, rounded; no share is zero."""
        wide = values.double()
        wide.sub_(wide.amax(1, keepdim=True)).exp_()
        wide.div_(wide.sum(1, keepdim=True))
        return self._steps.cast(
            self._steps.cast(wide.float()).float() + self._steps.number(_EPSILON)
        )

    def _divergence(self, p: Tensor, q: Tensor) -> Tensor:
        logs = self._steps.divide(p, q).double().log_()
        terms = p * self._steps.cast(logs.float())
        return self._steps.cast(terms.sum(1, dtype=torch.float64).float())
