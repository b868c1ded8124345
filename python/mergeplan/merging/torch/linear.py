"""Weighted sums of whole tensors; see `rust/core/src/execute/linear.rs`."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mergeplan.merging.torch.arithmetic import Steps, float32, fused_multiply_add
from mergeplan.merging.torch.loading import DTYPES
from mergeplan.merging.torch.sweeps import InputSweep
from mergeplan.planning import document


class Linear:
    """mergekit's `linear`: fused float32 sums in the order of the config, one rounding."""

    align = 1
    sweeps = 1
    fixed_bytes = 0

    def __init__(self, merge: document.Linear) -> None:
        self.working = DTYPES[merge.dtype]
        weights = [float32(one.weight) for one in merge.inputs]
        # A weight of zero adds nothing: such an input is not read.
        self.inputs = [number for number, weight in enumerate(weights) if weight != 0.0]
        self._weights = [weights[number] for number in self.inputs]
        self._steps = Steps(self.working)
        self._divisor = self._steps.number_sum(weights) if merge.normalize else 1.0
        # The sums, and the float64 values, sums and masks of a multiply-add that is not built in.
        self.element_bytes = 3 * 4 + self.working.itemsize + 8 * 8

    def run(self, sweep: InputSweep) -> Iterator[tuple[int, Tensor]]:
        if not self.inputs:
            for start, count in sweep.ranges():
                yield start, torch.zeros(count, dtype=self.working, device=sweep.device)
            return
        for piece in sweep:
            sums = torch.zeros_like(piece[0], dtype=torch.float32)
            for number, weight in enumerate(self._weights):
                sums = fused_multiply_add(sums, piece[number].float(), weight)
            yield piece.start, self._steps.divide(sums, self._divisor)
