"""`passthrough`: the tensor, times a factor."""

from collections.abc import Iterator

from torch import Tensor

from mergeplan.merging.torch.arithmetic import float32
from mergeplan.merging.torch.group.inputs import GroupInputs
from mergeplan.merging.torch.sweeps import InputSweep


class Passthrough:
    """scale · input."""

    align = 1
    sweeps = 1
    fixed_bytes = 0

    def __init__(self, group: GroupInputs, scale: float | None = None) -> None:
        self.inputs, self.working = group.numbers, group.working
        self._steps = group.steps
        self._scale = 1.0 if scale is None else float32(scale)
        # The input, its product in float32, the result.
        self.element_bytes = 2 * group.size + 2 * 4

    def run(self, sweep: InputSweep) -> Iterator[tuple[int, Tensor]]:
        for piece in sweep:
            yield piece.start, self._steps.scale(piece[0], self._scale)
