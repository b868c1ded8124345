"""What a smaller size told of a larger one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Transfer:
    """What a smaller size tells of this one.

    Attributes:
        n_params: Of the smaller size.
        share: That carries over, 0 to 1; see `subset_law.transfer`.
        factor: By how much a difference at the smaller size is one here.
        error: Root mean square of the errors of merges of this size that are left out one by one,
            with it; `error_alone` without.
        used: Whether the law leans on it.
    """

    n_params: float
    share: float
    factor: float
    error: float
    error_alone: float
    used: bool
