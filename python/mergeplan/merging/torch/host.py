"""Memory of the host that a device copies from and to: pinned where that can be had."""

from collections.abc import Callable

import torch
from torch import Tensor

from mergeplan.merging.torch.errors import is_short

# Takes a sentence for whoever asked for the merge.
Note = Callable[[str], None]


class HostMemory:
    """A worker's buffers.

    Args:
        device: That copies; a CPU needs nothing pinned.
        note: Told where the system pins no more: copies from pageable memory are right, and wait.
    """

    def __init__(self, device: torch.device, note: Note) -> None:
        self.device = device
        self._note = note

    def empty(self, n: int, dtype: torch.dtype = torch.uint8) -> Tensor:
        """A buffer. Shape (n,)."""
        if self.device.type == "cpu":
            return torch.empty(n, dtype=dtype)
        try:
            return torch.empty(n, dtype=dtype, pin_memory=True)
        except RuntimeError as error:
            if not is_short(error):
                raise
        self._note(
            f"device `{self.device}`: the system pins no more memory, so that copies take longer"
            " (`ulimit -l`, a container's limit, or `--memory-limit` may be the reason)"
        )
        return torch.empty(n, dtype=dtype)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """A few numbers of the host, on a device, without waiting for what it is told to do already."""
    if device.type == "cpu":
        return values
    try:
        return values.pin_memory().to(device, non_blocking=True)
    except RuntimeError as error:
        if not is_short(error):
            raise
    return values.to(device)
