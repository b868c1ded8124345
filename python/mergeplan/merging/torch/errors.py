"""What an error of torch says of a device."""

import torch


def is_short(error: BaseException) -> bool:
    """Whether memory was refused: a device's, or what the system pins for one."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "out of memory" in str(error)
    )


def is_lost(error: BaseException) -> bool:
    """Whether a device no longer works."""
    if is_short(error):
        return False
    lost = getattr(torch, "AcceleratorError", ())
    return isinstance(error, lost) or (
        isinstance(error, RuntimeError)
        and any(words in str(error) for words in ("CUDA error", "CUDA driver error"))
    )
