"""`sce`: select elements by their variance over the inputs, calculate weights from the energies of
what is left, erase what goes against the majority's sign.

```text
dᵢ  = input − base, zero but for the int(density · n₊) elements of largest variance
wᵢ  = mean of dᵢ², divided by the sum of all
out = base + Σ wᵢdᵢ / Σ wᵢ                       over the inputs whose sign is that of Σ dᵢ
```
n₊ counts the elements of non-zero variance. Equal variances at the threshold: the first by index.
See `rust/core/src/execute/group/sce.rs`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from mergeplan.merging.torch.arithmetic import float32, magnitudes
from mergeplan.merging.torch.group import order, sums
from mergeplan.merging.torch.group.inputs import GroupInputs
from mergeplan.merging.torch.largest import Largest, Threshold
from mergeplan.merging.torch.sweeps import InputSweep, Piece

# Sums of weights below this count as none.
_SMALLEST = float32(1e-6)


class Sce:
    """Select, calculate, erase."""

    align = 1

    def __init__(self, group: GroupInputs, density: float) -> None:
        self.inputs, self.working = group.numbers, group.working
        self._group, self._steps = group, group.steps
        self._density = density
        self.sweeps = 2 + (order.sweeps(self.working) if self._selects else 0)
        # Base, input and all deltas, before and after selection; vote, sum, divisor and a step in
        # float32 with masks; or Welford's mean and squares with two steps, and counting.
        deltas = (2 * group.count + 2) * group.size + 8
        variance = group.size + max(4 * 8, order.BYTES)
        self.element_bytes = deltas + max(5 * 4 + 4, variance, sums.BYTES)
        self.fixed_bytes = order.counter_bytes(1) if self._selects else 0

    @property
    def _selects(self) -> bool:
        return 0.0 < self._density < 1.0

    def run(self, sweep: InputSweep) -> Iterator[tuple[int, Tensor]]:
        make = self._selection(sweep)
        weights = self._weights(sweep, make())
        largest = make()
        for piece in sweep:
            deltas = self._select(piece, largest)
            yield piece.start, self._steps.add(piece[0], self._elected(deltas, weights))

    def _selection(self, sweep: InputSweep) -> Callable[[], Largest | None]:
        """Makes what says which variances are the largest, anew for each sweep; `None`: all are."""
        if self._density >= 1.0:
            return lambda: None
        threshold = self._threshold(sweep) if self._selects else None
        return partial(Largest, [threshold], sweep.device)

    def _threshold(self, sweep: InputSweep) -> Threshold | None:
        """Of the largest variances; `None` where there are none."""
        length, n_kept = self._group.length, 0

        def pick(nonzero: int) -> list[int]:
            nonlocal n_kept
            # mergekit multiplies in float32.
            n_kept = min(int(float32(float32(nonzero) * float32(self._density))), nonzero)
            return [length - n_kept] if n_kept else []

        def variance(piece: Piece) -> Tensor:
            return self._variance(list(self._group.deltas(piece)))

        found = order.order_statistics(sweep, variance, self.working, pick)
        if not found:
            return None
        # No variance is negative: its bits are its magnitude's.
        (least,) = found
        above = length - least.below - least.equal
        return Threshold(least.bits, n_kept - above)

    def _variance(self, deltas: Sequence[Tensor]) -> Tensor:
        """At every element, by Welford's recurrence in float64. Rounded."""
        mean = torch.zeros_like(deltas[0], dtype=torch.float64)
        square = torch.zeros_like(mean)
        # A GPU multiplies by the reciprocal of a number that lies on the host.
        count = torch.zeros((), dtype=torch.float64, device=mean.device)
        for delta in deltas:
            count += 1.0
            before = delta - mean
            mean += before / count
            square += before.mul_(delta - mean)
        return self._steps.cast(square.div_(count).float())

    def _select(self, piece: Piece, largest: Largest | None) -> list[Tensor]:
        """Every input's delta, zero where it is not selected."""
        deltas = list(self._group.deltas(piece))
        if largest is None:
            return deltas
        dropped = largest.of(magnitudes(self._variance(deltas))[None])[0].logical_not_()
        return [delta.masked_fill(dropped, 0.0) for delta in deltas]

    def _weights(self, sweep: InputSweep, largest: Largest | None) -> list[float]:
        def energies(piece: Piece) -> Iterator[Tensor]:
            for delta in self._select(piece, largest):
                yield sums.rounded_products(delta, delta)

        number, count = self._steps.number, self._group.count
        length = float32(self._group.length)
        means = [number(float32(energy) / length) for energy in sums.totals(sweep, energies)]
        total = 0.0
        for mean in means:
            total += mean
        divisor = number(total)
        if abs(divisor) < _SMALLEST:
            return [number(1.0 / count)] * count
        return [number(mean / divisor) for mean in means]

    def _elected(self, deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """Of the deltas whose sign is that of the sum; a sum of zero votes for plus."""
        steps = self._steps
        plus = steps.cast(steps.sum(deltas, deltas[0])) >= 0
        mixed = torch.zeros_like(deltas[0], dtype=torch.float32)
        divisor = torch.zeros_like(mixed)
        for delta, weight in zip(deltas, weights, strict=True):
            # A delta of zero agrees with nobody.
            agrees = torch.where(plus, delta > 0, delta < 0)
            divisor += agrees.float().mul_(weight)
            mixed += steps.scale(delta, weight).masked_fill(agrees.logical_not_(), 0.0)
        smallest = steps.number(_SMALLEST)
        return steps.divide(steps.cast(mixed), steps.cast(divisor).clamp_(min=smallest))
