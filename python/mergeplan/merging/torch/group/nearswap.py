"""`nearswap`: interpolate from the base to the input, fully where they are within `t`."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mergeplan.merging.torch.arithmetic import float32
from mergeplan.merging.torch.group.inputs import GroupInputs
from mergeplan.merging.torch.sweeps import InputSweep

_SMALLEST = 1e-6


class Nearswap:
    """w · input + (1 − w) · base, w = clamp(t / max(|base − input|, 1e-6), 0, 1)."""

    align = 1
    sweeps = 1
    fixed_bytes = 0

    def __init__(self, group: GroupInputs, t: float) -> None:
        self.inputs, self.working = group.numbers, group.working
        self._steps = group.steps
        self._t = float32(t)
        # Both inputs, weights and products, and what a step takes in float32.
        self.element_bytes = 6 * group.size + 3 * 4 + 1

    def run(self, sweep: InputSweep) -> Iterator[tuple[int, Tensor]]:
        steps = self._steps
        one = torch.ones((), dtype=torch.float32, device=sweep.device)
        smallest = steps.number(_SMALLEST)
        for piece in sweep:
            base, tensor = piece[0], piece[1]
            distance = steps.subtract(base, tensor).abs_().clamp_(min=smallest)
            weight = steps.scale(steps.divide(one, distance), self._t).clamp(0.0, 1.0)
            # The reciprocal of a small float16 is infinite, and zero times that should be zero.
            weight = weight.masked_fill_(weight.isnan(), 0.0)
            near = steps.multiply(weight, tensor)
            yield piece.start, steps.add(near, steps.multiply(steps.subtract(one, weight), base))
