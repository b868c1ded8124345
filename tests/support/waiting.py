"""Finds operations that would wait for a GPU, on torch's CPU device.

Not `tolist` and `cpu`, which no CPU's tensor sends to the dispatcher: they stand where the host
reads numbers on purpose.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Their results' shapes, or the host's next step, depend on what a tensor holds.
_WAITING = {
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "repeat_interleave",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
}


class Waiting(TorchDispatchMode):
    """Within it, `found` is what waited: operations by name, and indices that are masks."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.calls = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls += 1
        name = func.overloadpacket.__name__
        if name in _WAITING or (name.startswith("index") and _has_mask(args)):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def _has_mask(args: Any) -> bool:
    lists = [one for one in args if isinstance(one, list | tuple)]
    tensors = [one for some in lists for one in some if isinstance(one, torch.Tensor)]
    return any(one.dtype in (torch.bool, torch.uint8) for one in tensors)
